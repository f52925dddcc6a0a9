"""A sweep's folder: what is known of each run, in files that appear whole.

    DIR/NAME/recipes/RUN.yaml     the recipe of a run: its bases and what the sweep sets
    DIR/NAME/runs/RUN/            the trainer's run folder
    DIR/NAME/measured/RUN/        answers, figures, the log of each step; row.json when all is done
    DIR/NAME/failures/ID.json     why a run ended, until it is tried again
    DIR/NAME/claims/ID.json       who is at work on it

RUN is LABEL-sSEED-ID. The ID alone says which run it is, so a sweep may be given other labels. Owns: these
places, claims, states. Does not own: the work (work.py), the table (table.py). Thread rule: a claim belongs
to the thread that took it; everything else may be called from several.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plural_text.common.errors import CannotCreate
from plural_text.common.run_state import RunFolder
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.identity import Run

_BEAT_SECONDS = 20.0
# A claim of another machine that nobody has renewed for so long has been left behind.
_STALE_SECONDS = 180.0


class SweepFolder:
    def __init__(self, root: Path):
        self.root = root
        self._threads = threading.Lock()  # a lock of lockf holds between processes alone
        try:
            for part in ("recipes", "runs", "measured", "failures", "claims"):
                (root / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CannotCreate(f"{root}: the sweep's folder cannot be made: {error.strerror}") from None

    def name_of(self, run: Run) -> str:
        """The folder's name of a run: that which it has already, also under an earlier label."""
        for part in ("runs", "measured"):
            for found in (self.root / part).glob(f"*-{run.id}"):
                return found.name
        return f"{run.label}-{run.id}"

    def run_folder(self, run: Run) -> Path:
        return self.root / "runs" / self.name_of(run)

    def measured(self, run: Run) -> Path:
        return self.root / "measured" / self.name_of(run)

    def row(self, run: Run) -> dict[str, Any] | None:
        """The figures of a run that is trained and measured as the sweep says now."""
        row = read_json(self.measured(run) / "row.json")
        return row if row and row.get("measured_id") == run.measured_id else None

    def keep_row(self, run: Run, row: dict[str, Any]) -> None:
        write_whole(self.measured(run) / "row.json", json.dumps(row, indent=1) + "\n")
        self.forget_failure(run)

    def is_trained(self, run: Run) -> bool:
        """Whether there is something to measure."""
        return run.untrained or RunFolder(self.run_folder(run)).is_finished()

    def failure(self, run: Run) -> dict[str, Any] | None:
        return read_json(self._failure_file(run))

    def keep_failure(self, run: Run, step: str, exit_code: int, message: str) -> None:
        before = self.failure(run) or {}
        failure = {
            "step": step,
            "exit_code": exit_code,
            "message": message,
            "attempts": before.get("attempts", 0) + 1,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_whole(self._failure_file(run), json.dumps(failure, indent=1) + "\n")

    def forget_failure(self, run: Run) -> None:
        self._failure_file(run).unlink(missing_ok=True)

    def _failure_file(self, run: Run) -> Path:
        return self.root / "failures" / f"{run.id}.json"

    def state(self, run: Run) -> str:
        """finished, failed, running, or waiting (never begun, or stopped on the way)."""
        if self.row(run):
            return "finished"
        return "running" if self.claimed_by(run) else self.state_unclaimed(run)

    def state_unclaimed(self, run: Run) -> str:
        """The same for whoever has the claim."""
        if self.row(run):
            return "finished"
        return "failed" if self.failure(run) else "waiting"

    def claimed_by(self, run: Run) -> dict[str, Any] | None:
        """Who is at work on a run; None where nobody is, or has left it behind."""
        path = self.root / "claims" / f"{run.id}.json"
        claim = read_json(path)
        return claim if claim and not _left_behind(path, claim) else None

    @contextlib.contextmanager
    def claim(self, run: Run, job: str = "") -> Iterator[bool]:
        """Takes a run for this process, and the Slurm job that a sweep has submitted; gives False where
        another has it."""
        path = self.root / "claims" / f"{run.id}.json"
        with self._lock():
            free = self.claimed_by(run) is None
            if free:
                claim = _me(job)
                write_whole(path, json.dumps(claim) + "\n")
        if not free:
            yield False
            return
        ended = threading.Event()
        beat = threading.Thread(target=_keep_alive, args=(path, claim, ended), daemon=True)
        beat.start()
        try:
            yield True
        finally:
            ended.set()
            beat.join()
            with self._lock():
                # One that was held up for long may have lost it to another machine.
                if read_json(path) == claim:
                    path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Claims are taken one at a time, over all processes and machines that share the folder."""
        with self._threads, open(self.root / "claims" / "lock", "a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield


def _me(job: str) -> dict[str, Any]:
    return {
        "machine": socket.gethostname(),
        "process": os.getpid(),
        "since": _start_of(os.getpid()),
        "job": job,
    }


def _start_of(process: int) -> str:
    """The kernel's start time of a process, so that another one of the same number is not taken for it."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _left_behind(path: Path, claim: dict[str, Any]) -> bool:
    if claim.get("machine") == socket.gethostname():
        process = claim.get("process")
        return not isinstance(process, int) or not claim.get("since") or _start_of(process) != claim["since"]
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except OSError:
        return True


def _keep_alive(path: Path, claim: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(_BEAT_SECONDS):
        with contextlib.suppress(OSError):
            if read_json(path) == claim:
                os.utime(path)

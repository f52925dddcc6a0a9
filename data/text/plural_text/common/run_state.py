"""The folder of a run: where its files lie, and whether the run is alive.

Owns: names, the look at the run's lock, when a run is finished. Does not own: the lock, which the trainer
holds (run_lock.h): it is never taken here, since a training that starts in this instant would be refused.
Thread rule: free of state.
"""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import MissingInput

_HOLDER = re.compile(r"process (\d+) on (\S+)")


@dataclass(frozen=True)
class RunFolder:
    root: Path

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def recipe(self) -> Path:
        return self.root / "recipe.yaml"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    def is_run(self) -> bool:
        return self.recipe.is_file() or self.metrics.is_file()

    def is_finished(self) -> bool:
        """The result, which appears last and whole, is there, and no process of this machine is at work on
        the run: one that is may be writing a damaged result again."""
        return any((self.root / name).is_dir() for name in ("adapter", "model")) and not self.is_held()

    def host(self) -> str | None:
        """The other machine that trains the run, or trained it last; None: this one, or none."""
        holder = self._holder(self.root / "run.lock.held") or self._holder(self.root / "run.lock")
        return holder[1] if holder and holder[1] != socket.gethostname() else None

    def is_held(self) -> bool:
        """Whether a process of this machine trains the run. Of another machine's there is no telling."""
        if holder := self._holder(self.root / "run.lock.held"):
            return holder[1] == socket.gethostname() and _lives(holder[0])
        lock = self.root / "run.lock"
        holder = self._holder(lock)
        if not holder or holder[1] != socket.gethostname():
            return False
        return _holds(holder[0], lock)

    @staticmethod
    def _holder(file: Path) -> tuple[int, str] | None:
        try:
            found = _HOLDER.match(file.read_text(errors="replace"))
        except OSError:
            return None
        return (int(found[1]), found[2]) if found else None


def require_run(path: Path) -> RunFolder:
    """Errors: MissingInput where there is no run."""
    run = RunFolder(path)
    if not run.is_run():
        what = "has neither recipe.yaml nor metrics.jsonl" if path.is_dir() else "is no folder"
        raise MissingInput(f"{path}: {what}; give the folder of a run, such as runs/mine")
    return run


def _holds(process: int, lock: Path) -> bool:
    """Whether the process has the file locked, by the kernel's list of locks."""
    try:
        inode = lock.stat().st_ino
        entries = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return _lives(process)
    # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1835 0 EOF
    fields = [entry.split() for entry in entries]
    return any(
        len(entry) > 5
        and entry[1] in ("FLOCK", "POSIX")
        and entry[4] == str(process)
        and entry[5].rpartition(":")[2] == str(inode)
        for entry in fields
    )


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True

"""All runs of a sweep on one machine, or within one allocation.

Owns: which run is next, how many at a time, the lines of progress. Does not own: what a run does (work.py).
Thread rule: run_all belongs to the main thread, which alone hears signals.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

from plural_text.common.errors import CommandError
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run
from plural_text.sweep.places import Place
from plural_text.sweep.processes import Processes
from plural_text.sweep.sweep_values import SweepFile
from plural_text.sweep.work import Worker

_POLL_SECONDS = 2.0


class LocalRuns:
    """Those of `runs` that are neither finished nor failed, each at one of `places`."""

    def __init__(
        self,
        sweep: SweepFile,
        folder: SweepFolder,
        runs: Sequence[Run],
        places: list[Place],
        *,
        measure: bool = True,
        watched: Sequence[Run] = (),
        job: str = "",
    ):
        """measure: False trains alone. watched: runs of others whose failure stops these, too, where the
        sweep says so. job: the Slurm job that does this, for whoever cancels it."""
        self._sweep = sweep
        self._watched = [*runs, *watched]
        self._job = job
        self._measure = measure
        self._folder = folder
        self._runs = runs
        self._places = places
        self._processes = Processes()
        self._worker = Worker(sweep, folder, self._processes)
        self._lock = threading.Lock()
        self._mine: set[str] = set()  # tried by this process; what it failed in is not tried again
        self._ended = 0
        self._started = time.monotonic()
        self._error: Exception | None = None

    def run_all(self) -> None:
        """Returns when nothing is left to do, also by others. Errors: WriteFailed and whatever else ended one
        of its threads, after all have ended; KeyboardInterrupt when it was stopped."""
        threads = [threading.Thread(target=self._work_at, args=(place,)) for place in self._places]
        for thread in threads:
            thread.start()
        stopped = False
        while any(thread.is_alive() for thread in threads):
            try:
                for thread in threads:
                    thread.join(timeout=_POLL_SECONDS)
            except KeyboardInterrupt:
                if not stopped:
                    print("plural sweep: stopping; the runs at work save their state", flush=True)
                stopped = True
                self._processes.stop()
        if self._error:
            raise self._error
        if stopped:
            done = sum(self._folder.state(run) == "finished" for run in self._runs)
            stop = KeyboardInterrupt()  # what a stop is told with (__main__)
            stop.add_note(f"{done} of {len(self._runs)} runs are finished, the others are kept")
            raise stop

    def _work_at(self, place: Place) -> None:
        try:
            while (run := self._next()) is not None:
                with self._folder.claim(run, self._job) as mine:
                    if not mine:  # another was first, and may leave it behind
                        with self._lock:
                            self._mine.discard(run.id)
                    elif self._folder.state_unclaimed(run) == "waiting":
                        began = time.monotonic()
                        outcome = self._worker.do(run, place, measure=self._measure)
                        self._say(run, outcome, time.monotonic() - began)
        except Exception as error:  # of a thread, hence told by the main thread
            self._error = self._error or error
            self._processes.stop()

    def _next(self) -> Run | None:
        """A run that waits and that nobody is at work on; while others work, waits for them, since they may
        leave one behind."""
        while not self._processes.stopping:
            others = False
            if self._sweep.stop_on_failure and any(
                self._folder.state(run) == "failed" for run in self._watched
            ):
                return None
            for run in self._runs:
                with self._lock:
                    if run.id in self._mine:
                        continue
                state = self._folder.state(run)
                if state == "waiting":
                    with self._lock:
                        if run.id not in self._mine:
                            self._mine.add(run.id)
                            return run
                others |= state == "running"
            if not others:
                return None
            time.sleep(_POLL_SECONDS)
        return None

    def _say(self, run: Run, outcome: str, seconds: float) -> None:
        with self._lock:
            states = [self._folder.state(one) for one in self._runs]
            over = sum(state in ("finished", "failed") for state in states)
            self._ended += outcome != "stopped"
            left = len(states) - over
            rest = (time.monotonic() - self._started) / max(1, self._ended) * left
            line = f"[{over}/{len(states)}] {run.label}: {outcome}, {seconds:.0f} s"
            if outcome == "failed":
                failure = self._folder.failure(run) or {}
                line += f": {failure.get('step')}: {failure.get('message')}"
            elif left:
                line += f"; {left} left, about {duration(rest)}"
            print(line, flush=True)


def duration(seconds: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def outcome_code(
    folder: SweepFolder, runs: Sequence[Run], say: Callable[[str], None], *, measured: bool = True
) -> int:
    """0 where all runs are finished, else the exit code of the first failure, with a line about each; 70
    where runs are unfinished without one. measured: False takes a trained run for finished."""
    open_runs = [run for run in runs if not folder.row(run) and (measured or not folder.is_trained(run))]
    failures = [(run, found) for run in open_runs if (found := folder.failure(run))]
    if not open_runs:
        return 0
    if unfinished := len(open_runs) - len(failures):
        say(f"plural sweep: {unfinished} of {len(runs)} runs are unfinished (plural sweep status)")
    if not failures:
        return CommandError.exit_code
    say(f"plural sweep: {len(failures)} of {len(runs)} runs failed; plural sweep retry tries them again")
    for run, failure in failures:
        say(f"  {run.label}: {failure['step']}: {failure['message']}")
    sys.stdout.flush()
    code = failures[0][1]["exit_code"]
    return code if code > 0 else CommandError.exit_code

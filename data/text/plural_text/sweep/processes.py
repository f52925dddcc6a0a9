"""The processes that a sweep has started: one stop reaches all of them.

Owns: starting, waiting, passing a stop on; a process is asked to stop, too, when this one dies. Does not own:
what is started (work.py). Thread rule: every method may be called from several threads.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path


class Processes:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        return self._stopping

    def stop(self) -> None:
        """Asks every process to save and end (TERM). Those that are not started yet will not be."""
        with self._lock:
            self._stopping = True
            for process in self._running:
                process.terminate()

    def run(
        self, words: list[str], environment: Mapping[str, str], log: Path, folder: Path | None = None
    ) -> int:
        """To its end, in `folder` or here; what it prints is appended to `log`. Returns its exit code, of a
        signal the negative number, or 75 where the sweep is stopping."""
        # Of its own session: Ctrl-C in the terminal reaches this process alone, which passes it on once.
        with open(log, "ab") as sink:
            with self._lock:
                if self._stopping:
                    return 75
                process = subprocess.Popen(
                    [*_until_death(), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=sink,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=folder,
                    start_new_session=True,
                )
                self._running.add(process)
            try:
                return process.wait()
            finally:
                with self._lock:
                    self._running.discard(process)


def _until_death() -> list[str]:
    """A killed planner leaves nothing running: its processes get TERM, save and end."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []

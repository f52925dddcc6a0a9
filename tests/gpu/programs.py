"""Programs that the checklist starts.

Owns: a process group of its own for each, a limit of time, what it says on standard error.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading


class Program:
    """A started program, as a context: it ends with the block, or when its time is up.

    `input` and `output` are its standard ones, as text.
    """

    def __init__(self, command, seconds, environment=None):
        self.name, self.seconds, self.late = os.path.basename(command[0]), seconds, False
        self.errors = tempfile.TemporaryFile("w+", errors="replace")
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            errors="replace",
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        self.input, self.output = self.process.stdin, self.process.stdout
        self.limit = threading.Timer(seconds, self._time_is_up)

    def __enter__(self):
        self.limit.start()
        return self

    def __exit__(self, *_):
        self.limit.cancel()
        self._end()
        for file in (self.output, self.errors):
            file.close()
        with contextlib.suppress(BrokenPipeError):
            self.input.close()

    def ended(self):
        """Its exit code, and the end of what it said on standard error, with whether its time was up."""
        code = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().strip()[-500:]
        return code, f"stopped after {self.seconds:g} s; {said}" if self.late else said

    def _time_is_up(self):
        self.late = True
        self._end()

    def _end(self):
        # mpirun ends its ranks, which are groups of their own, when it is asked; a hung program needs force.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(self.process.pid, number)
                self.process.wait(5)


def run(command, seconds, environment=None, code=0):
    """What a program prints. RuntimeError: where it ends with another exit code than `code`."""
    with Program(command, seconds, environment) as program:
        printed = program.output.read()
        found, said = program.ended()
    if found != code:
        raise RuntimeError(f"{program.name} ended with {found}, not {code}: {said}")
    return printed


class GpuMemory(threading.Thread):
    """The most memory that the driver reports in use while this runs; None without its program."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_mib, self.stopping = None, threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join()

    def run(self):
        query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
        while shutil.which(query[0]) and not self.stopping.wait(0.2):
            try:
                used = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.split()
            except (OSError, subprocess.TimeoutExpired):
                return
            if used and used[0].isdigit():
                self.peak_mib = max(self.peak_mib or 0, int(used[0]))

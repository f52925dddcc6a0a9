"""Commands of plural within a program that measures a run.

Owns: starting them; what they print goes to the program's own output, and with it to the sweep's log. Does
not own: which ones. A program that is stopped takes its command with it. Thread rule: one thread.
"""

from __future__ import annotations

import sys
from pathlib import Path

from plural_text.sweep.processes import Processes
from plural_text.sweep.step_options import command_line, environment


class Commands:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "commands.log"
        self._processes = Processes()

    def plural(self, command: str, *words: str, output: Path) -> None:
        """Ends the program where the command fails."""
        whole = [*_start(command), *words, "-o", str(output), "--force"]
        self._log.unlink(missing_ok=True)
        code = self._processes.run(whole, environment(), self._log)
        if code:
            sys.stderr.write(self._log.read_text(encoding="utf-8", errors="replace"))
            sys.exit(code if code > 0 else 128 - code)


def _start(command: str) -> list[str]:
    if command == "prepare":
        return [sys.executable, "-P", "-m", "plural_text", command]
    return command_line(command)

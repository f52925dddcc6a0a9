"""What programs that measure a run by commands of plural share.

Owns: their words, the recipe of the run, starting commands; what those print goes to the program's own
output, and with it to the sweep's log. Does not own: which ones. A program that is stopped takes its command
with it. Thread rule: one thread.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

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


def measuring(description: str | None) -> argparse.ArgumentParser:
    """The words {result} {run} {output} of a sweep's program, and the model that runs start from."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("result", "run", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--base", type=Path, required=True)
    return parser


def model_words(options: argparse.Namespace) -> list[str]:
    """The options that name what the run made."""
    adapter = (options.result / "adapter_config.json").is_file()
    return ["--model", str(options.base), *(["--adapter", str(options.result)] if adapter else [])]


def numbers_of(run: Path) -> int:
    """How many possibility numbers the run trained with; 0 of another method and of the model as it is."""
    recipe = recipe_of(run)
    return recipe["group"]["possibilities"] if recipe["method"] == "poexft" else 0


def recipe_of(run: Path) -> dict[str, Any]:
    """That of a run; of the model as it is, which no run trained, method "" alone."""
    file = run / "recipe.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {"method": ""}


def _start(command: str) -> list[str]:
    if command == "prepare":
        return [sys.executable, "-P", "-m", "plural_text", command]
    return command_line(command)

"""Runs commands of plural, and prepares corpora.

Owns: how a command and its options are written, which program does it, what becomes of a failure. Does not
own: what commands do. Thread rule: free of state.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from plural_text.__main__ import COMMANDS
from plural_text.common.errors import NotInstalled
from plural_text.common.options import option_words
from plural_text.common.program import program

PathLike = str | os.PathLike[str]
_BEGIN = "plural: error: "


class PluralError(RuntimeError):
    """A command that failed: `code` is its exit code (docs/running.md), the text its error line."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


def prepare(
    inputs: PathLike | Iterable[PathLike], output: PathLike, *, format: str, tokenizer: PathLike, **options
) -> Path:
    """Makes the corpus `output` of files or folders, and returns its path.

    `options`: those of `plural prepare`, with _ for -: `possibilities=9`, `prompts_only=True`. Errors:
    PluralError.
    """
    files = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    words = [*map(str, files), *option_words({"format": format, "tokenizer": tokenizer, **options})]
    run_command("prepare", *words, "-o", str(output))
    return Path(output)


def run_command(command: str, *words: str, ranks: int = 1, quiet: bool = True) -> str:
    """Runs `plural COMMAND WORDS` to its end and returns what it printed.

    With `quiet` false its lines appear here as they come; warnings are not returned. Errors: PluralError.
    """
    environment = dict(os.environ)
    line = [*_start(command, ranks, environment), command, *words]
    printed: list[str] = []
    errors: list[str] = []
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for text in process.stdout or ():
                if not quiet:
                    sys.stdout.write(text)
                # A recipe's further problems follow as indented lines.
                if text.startswith(_BEGIN) or (errors and text.startswith("  ")):
                    errors.append(text.removeprefix(_BEGIN).rstrip())
                else:
                    printed.append(text)
        except BaseException:  # Ctrl-C in a notebook: the command saves its state and ends
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            raise
    if process.returncode == 0:
        return "".join(line for line in printed if not line.startswith("plural: "))
    message = "\n".join(errors) or "".join(printed[-5:]).strip() or f"plural {command} failed"
    raise PluralError(process.returncode, message)


def _start(command: str, ranks: int, environment: dict[str, str]) -> list[str]:
    if command in COMMANDS:
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        return [sys.executable, "-m", "plural_text"]
    found = program_of(environment)
    if ranks == 1:
        return [found]
    # Beside build/ of the project that the program was built in.
    launcher = Path(found).resolve().parents[1] / "launch" / "ranks"
    if not launcher.is_file():
        raise PluralError(69, f"{launcher}: not there; name a build/plural of the project with PLURAL_BINARY")
    environment["PLURAL_BINARY"] = found
    return [str(launcher), "-np", str(ranks)]


def program_of(environment: Mapping[str, str]) -> str:
    """The compiled program. Errors: PluralError (69) where there is none."""
    try:
        return program(environment)
    except NotInstalled as error:
        raise PluralError(error.exit_code, str(error)) from None

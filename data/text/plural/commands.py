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
from plural_text.common.places import PROJECT

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


def option_words(options: dict) -> list[str]:
    """The options as the command line has them. None and False are left out, True is a flag, lists repeat."""
    words: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:
                words += [option, str(one)]
    return words


def run_command(command: str, *words: str, ranks: int = 1, quiet: bool = True) -> str:
    """Runs `plural COMMAND WORDS` to its end and returns what it printed.

    With `quiet` false its lines appear here as they come; warnings are not returned. Errors: PluralError.
    """
    environment = dict(os.environ)
    line = [*_launcher(ranks, environment), *_program(command, environment), command, *words]
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


def _launcher(ranks: int, environment: dict[str, str]) -> list[str]:
    if ranks == 1:
        return []
    if os.geteuid() == 0:  # Open MPI asks for this, as in every container
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
        environment.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    environment.setdefault("OMPI_MCA_btl_vader_single_copy_mechanism", "none")
    return ["mpirun", "-np", str(ranks), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]


def _program(command: str, environment: dict[str, str]) -> list[str]:
    if command in COMMANDS:
        environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        return [sys.executable, "-m", "plural_text"]
    return [program_of(environment)]


def program_of(environment: Mapping[str, str]) -> str:
    """The compiled program. Errors: PluralError (69) where there is none."""
    found = environment.get("PLURAL_BINARY") or (str(PROJECT / "build/plural") if PROJECT else "")
    if not found or not os.access(found, os.X_OK):
        raise PluralError(
            69,
            f"no program at '{found or 'build/plural'}'; build it with launch/setup in the project's folder, "
            "and name it with the variable PLURAL_BINARY where this package is installed elsewhere",
        )
    return found

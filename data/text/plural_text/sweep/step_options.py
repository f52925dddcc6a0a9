"""Options of the commands that measure a run, as a sweep file has them.

Owns: whether a command has such an option, which is asked before anything is trained; their words on a
command line. Does not own: what options mean. Thread rule: free of state.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plural_text
from plural_text.common.errors import BadRecipe
from plural_text.common.options import option_words
from plural_text.common.program import program
from plural_text.sweep.expand import Setting
from plural_text.sweep.sweep_values import SweepFile

TEXT_COMMANDS = ("metrics", "persona")
# These may be given several times; a list of any other option is one text with commas.
_REPEATED = ("eos", "judge", "judge-model")


def command_line(step: str) -> list[str]:
    """What starts a command of one rank."""
    return [sys.executable, "-P", "-m", "plural_text", step] if step in TEXT_COMMANDS else [program(), step]


def environment() -> dict[str, str]:
    """Of every command of plural that a sweep starts: the same interpreter with the same plural_text, and no
    other folder of this process's search path."""
    before = os.environ.get("PYTHONPATH")
    path = str(Path(plural_text.__file__).resolve().parents[1]) + (os.pathsep + before if before else "")
    return {**os.environ, "PYTHONPATH": path, "PLURAL_BINARY": program()}


def words_of(options: Mapping[str, Any]) -> list[str]:
    return option_words(
        {
            name: ",".join(map(str, value))
            if isinstance(value, list) and name.replace("_", "-") not in _REPEATED
            else value
            for name, value in options.items()
        }
    )


def check_options(sweep: SweepFile, settings: Iterable[Setting]) -> None:
    """Errors: BadRecipe for an option that its command does not have."""
    for setting in settings:
        for one in setting.evaluations:
            for step, options in one.steps.items():
                if step != "program":
                    _check(sweep, f"{one.name + '.' if one.name else ''}{step}", step, options)


def _check(sweep: SweepFile, where: str, step: str, options: Mapping[str, Any]) -> None:
    known = _known(step)
    for option, value in options.items():
        name = option.replace("_", "-")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"plural {step} --help lists them"
            raise BadRecipe(f"{sweep.file}: evaluate.{where}: plural {step} has no option {option}; {hint}")
        if isinstance(value, Mapping):
            raise BadRecipe(
                f"{sweep.file}: evaluate.{where}.{option} is a mapping; an option takes one value"
            )


@functools.cache
def _known(step: str) -> frozenset[str]:
    done = subprocess.run(
        [*command_line(step), "--help"], capture_output=True, text=True, check=True, env=environment()
    )
    return frozenset(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]*)", done.stdout))

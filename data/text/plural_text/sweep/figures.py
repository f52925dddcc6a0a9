"""The figures that measuring commands write.

Owns: reading them from their files, which of them are numbers. Does not own: how the files are made
(work.py), what is computed from figures (statistics.py). Thread rule: free of state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadData, MissingInput
from plural_text.sweep.files import read_json

# Where a command was, not what it found.
_NOT_FIGURES = ("event", "step", "epoch", "seconds", "groups_per_second", "groups")


@dataclass
class Figures:
    """`defined`: name -> a finite number. `undefined`: name -> why there is none."""

    defined: dict[str, float] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)

    def add(self, other: Figures, before: str = "") -> None:
        self.defined |= {before + name: value for name, value in other.defined.items()}
        self.undefined |= {before + name: reason for name, reason in other.undefined.items()}


def measured(file: Path) -> Figures:
    """Those of plural metrics; behind "TASK." or "PROMPT." those of each by itself, where --by asked for
    them. Errors: BadData, MissingInput."""
    whole = _object(file)
    found = _figures_of(whole, file)
    for kind in ("prompt", "task"):
        for group in whole.get(f"by_{kind}") or []:
            found.add(_figures_of(_mapping(group, file, f"by_{kind}"), file), f"{group[kind]}.")
    return found


def _figures_of(values: Mapping[str, Any], file: Path) -> Figures:
    found = Figures()
    for name, figure in _mapping(values.get("figures"), file, "figures").items():
        value = _mapping(figure, file, f"figures.{name}").get("value")
        if is_finite(value):
            found.defined[name] = value
        else:
            found.undefined[name] = str(figure.get("reason") or _reason(value))
    return found


def evaluated(file: Path) -> Figures:
    """Those of plural evaluate. Errors: BadData, MissingInput."""
    return numbers("", _mapping(_object(file).get("summary"), file, "summary"))


def own_figures(file: Path) -> Figures:
    """Those of the user's program: its numbers, also in objects. Errors: BadData where it has none,
    MissingInput."""
    found = numbers("", _object(file))
    if not found.defined and not found.undefined:
        raise BadData(f"{file}: holds no number; a program writes a JSON object of numbers")
    return found


def numbers(before: str, values: Mapping[str, Any]) -> Figures:
    """The numbers of a mapping and of those within it; null and numbers that are not finite are undefined."""
    found = Figures()
    for key, value in values.items():
        if isinstance(value, Mapping):
            found.add(numbers(f"{before}{key}.", value))
        elif key in _NOT_FIGURES:
            continue
        elif is_finite(value):
            found.defined[f"{before}{key}"] = value
        elif value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            found.undefined[f"{before}{key}"] = _reason(value)
    return found


def _object(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise MissingInput(f"{file}: the command has ended well and not written it")
    found = read_json(file)
    if found is None:
        raise BadData(f"{file}: holds no JSON object")
    return found


def _mapping(value: Any, file: Path, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadData(f"{file}: key '{key}' holds no object of figures")
    return value


def _reason(value: Any) -> str:
    return "undefined" if value is None else f"not finite: {value}"


def is_finite(value: Any) -> bool:
    """Whether it is a number that means can be made of."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False

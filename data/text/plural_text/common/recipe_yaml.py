"""YAML of recipes and sweeps, with scalars as the trainer reads them.

Owns: which words are numbers. PyYAML reads YAML 1.1, to which 1e-05 is a text, 12:30 a number, 010 eight,
2026-01-01 a date and `yes` true; the trainer reads decimal numbers, true and false (trainer/recipe/scalar.h).
Does not own: which keys there are. Thread rule: free of state.
"""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import yaml

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
_NUMBER = re.compile(r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?$")
_PREFIX = "tag:yaml.org,2002:"
_FIRST = {
    "null": (re.compile(r"(~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"(true|false)$"), ["t", "f"]),
    "int": (_INTEGER, list("-+0123456789")),
    "float": (_NUMBER, list("-+.0123456789")),
    "merge": (re.compile(r"<<$"), ["<"]),
}


class Loader(yaml.SafeLoader):
    """Errors, of every use: yaml.YAMLError, ValueError for a number of thousands of digits, RecursionError
    for thousands of levels."""

    yaml_implicit_resolvers: ClassVar[dict] = {}  # instead of those of YAML 1.1


for _tag, (_pattern, _letters) in _FIRST.items():
    Loader.add_implicit_resolver(_PREFIX + _tag, _pattern, _letters)


def _number(_loader: Loader, node: yaml.ScalarNode) -> float | str:
    value = float(node.value)
    return value if math.isfinite(value) else node.value  # 1e999 is no number to the trainer either


Loader.add_constructor(_PREFIX + "float", _number)


def load(text: str) -> Any:
    """The value that a document holds; None of an empty one. Errors: those of Loader."""
    return yaml.load(text, Loader)

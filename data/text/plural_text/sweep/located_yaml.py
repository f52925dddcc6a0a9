"""YAML with the line of every value, for error lines that say where.

Owns: reading a file into plain values and their lines; duplicate keys and what YAML has beyond plain values
are refused. Does not own: which keys there are (schema.py). Thread rule: values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plural_text.common import recipe_yaml
from plural_text.common.errors import BadRecipe, MissingInput

_NOTHING = object()
# A few aliases within aliases come to more values than a machine holds.
_MOST_VALUES = 100_000


@dataclass
class Located:
    """`values`: what the file says. `lines`: path of a value, such as ("grid", "seed", 0) -> its line."""

    file: Path
    values: dict[str, Any]
    lines: dict[tuple[Hashable, ...], int] = field(default_factory=dict)

    def where(self, *path: Hashable) -> str:
        """ "FILE:LINE" of a value, or of the nearest around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return f"{self.file}:{self.lines[path[:end]]}"
        return str(self.file)


class _Loader(recipe_yaml.Loader):
    """Dates are told apart, to be refused: a text to the trainer, they are something else to most readers."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:timestamp", re.compile(r"\d{4}-\d\d?-\d\d?$"), list("0123456789")
)


def plain_value(text: str) -> Any:
    """One value as a file would have it: "0.5" is a number, "[a, b]" a list."""
    return recipe_yaml.load(text)


def read_located(file: Path) -> Located:
    """Errors: MissingInput, BadRecipe with the line."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingInput(f"{file}: {error.strerror}; name a sweep file") from None
    except UnicodeDecodeError as error:
        raise BadRecipe(f"{file}: not UTF-8 at byte {error.start}; a sweep is a YAML file") from None
    found = Located(file, {})
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise BadRecipe(f"{file}: is empty; docs/sweeps.md says what a sweep file holds")
        if not isinstance(node, yaml.MappingNode):
            raise BadRecipe(f"{file}:{node.start_mark.line + 1}: not a mapping of keys to values")
        found.values = _value(loader, node, (), found)
    except RecursionError:
        raise BadRecipe(f"{file}: values lie too deep within each other, or hold themselves") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadRecipe(f"{file}:{line}: {error.problem or error.context}; this is not valid YAML") from None
    except yaml.YAMLError as error:  # such as a control character, told in two lines
        raise BadRecipe(f"{file}: {' '.join(str(error).split())}; this is not valid YAML") from None
    return found


def _value(loader: _Loader, node: yaml.Node, path: tuple, found: Located) -> Any:
    line = node.start_mark.line + 1
    if len(found.lines) > _MOST_VALUES:
        raise BadRecipe(f"{found.file}:{line}: more than {_MOST_VALUES:,} values, aliases counted; use fewer")
    found.lines[path] = line
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == "tag:yaml.org,2002:merge":
                raise BadRecipe(f"{found.file}:{line}: a key is one word, without anchors or merges")
            key = key_node.value
            if key in values:
                raise BadRecipe(f"{found.file}:{line}: '{key}' stands there twice; leave one")
            values[key] = _value(loader, value_node, (*path, key), found)
            found.lines[(*path, key)] = line
        return values
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, i), found) for i, item in enumerate(node.value)]
    try:
        value = loader.construct_object(node)
    except ValueError:  # such as a day that no month has
        value = _NOTHING
    if value is not None and not isinstance(value, (str, bool, int, float)):
        raise BadRecipe(
            f"{found.file}:{line}: '{str(node.value)[:40]}' is no text, number or true/false; "
            "write it in quotes if it is a text"
        )
    return value

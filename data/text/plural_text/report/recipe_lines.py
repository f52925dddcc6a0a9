"""The resolved recipe of a run, as `train` writes it: each line is a key, its value and where it comes from.

Owns: reading these lines. Does not own: what keys mean (docs/recipes.md). Thread rule: values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from plural_text.common import recipe_yaml
from plural_text.common.errors import BadData, MissingInput

_LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>\S.*?))?(?: {2,}# (?P<origin>.*))?\s*")


@dataclass(frozen=True)
class RecipeLine:
    """`key` is the whole path, such as optimizer.lr; `value` as it is written; `origin` FILE:LINE or
    "default"."""

    key: str
    value: str
    origin: str


def read_recipe(path: Path) -> list[RecipeLine]:
    """[] where there is no such file. Errors: MissingInput, BadData naming the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise MissingInput(f"{path}: cannot be read: {error}") from None
    found, sections = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise BadData(f"{path}:{number}: '{line.strip()[:60]}' is no line of a resolved recipe")
        del sections[len(match["indent"]) // 2 :]
        sections.append(match["key"])
        if match["value"] is not None:
            found.append(RecipeLine(".".join(sections), match["value"], match["origin"] or ""))
    return found


def value_of(lines: list[RecipeLine], key: str):
    """The value of a key as the trainer reads it; None where the recipe has none."""
    for line in lines:
        if line.key == key:
            try:
                return recipe_yaml.load(line.value)
            except (yaml.YAMLError, ValueError, RecursionError):
                return line.value
    return None

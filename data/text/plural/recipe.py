"""Recipes as Python values.

Owns: how values become a recipe file. Does not own: which keys there are (`plural validate` knows). Thread
rule: values.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from plural.commands import PathLike, run_command
from plural_text.common import recipe_yaml


def resolve(file: Path, *overrides: str) -> dict[str, Any]:
    """Every key of a recipe's file with its value. Errors: PluralError that lists all problems."""
    return recipe_yaml.load(run_command("validate", str(file), *overrides))


class Recipe:
    """What a run does: `Recipe(base="recipes/starter.yaml", name="mine", optimizer={"lr": 1e-4})`.

    `base`: a recipe file, or several, to inherit from. Everything else is a key of docs/recipes.md, a
    section as a dictionary. Paths may be pathlib's.
    """

    def __init__(self, base: PathLike | list[PathLike] | None = None, **values: Any):
        bases = [] if base is None else [base] if isinstance(base, (str, os.PathLike)) else list(base)
        self.bases = [Path(file) for file in bases]
        self.values = values

    def __repr__(self) -> str:
        parts = [f"base={[str(file) for file in self.bases]}"] if self.bases else []
        return f"Recipe({', '.join(parts + [f'{key}={value!r}' for key, value in self.values.items()])})"

    def yaml(self) -> str:
        """The text of the recipe's file."""
        values = _plain(self.values)
        if self.bases:
            values = {"base": [str(file.resolve()) for file in self.bases], **values}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def write(self, path: PathLike) -> Path:
        Path(path).write_text(self.yaml(), encoding="utf-8")
        return Path(path)

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults too. Errors: PluralError that lists all problems."""
        with self.file() as file:
            return resolve(file)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The recipe as a file for the time of a command, under the name of its run."""
        with tempfile.TemporaryDirectory(prefix="plural-recipe-") as folder:
            yield self.write(Path(folder) / f"{self.values.get('name', 'recipe')}.yaml")


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

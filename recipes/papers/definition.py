"""A table of a paper as a file defines it: corpora, a sweep, rows with what is published, checks.

Owns: reading and checking such a file, the values of its placeholders. Does not own: the sweep in it, which
`plural sweep` checks; what is done with any of it. Thread rule: values.

    title, source   what the table is, and where it stands
    families        family of models -> its placeholders, such as {template}; one is that of the user's model
    corpora         name -> {input: file or list, within --data; format, template: of plural prepare;
                    prompts-only: true}
    sweep           a sweep file (docs/sweeps.md) with {model}, {data}, {corpora}, {recipes} and the family's
    columns         {figure, title, digits}, and `of` where a figure is divided by that of another row
    rows            {title, setting, at, published: {family: {figure: value}}}; without `setting` the row is
                    the paper's alone. `at` stands before the figures' names.
    checks          {says, figure, rising: [titles]}, or {says, figure, row: title, at_least, at_most}
    picture         {x, y}: two figures
    foot            lines below the table: what differs from the paper
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadRecipe
from plural_text.sweep.located_yaml import Located, read_located

_KEYS = ("title", "source", "families", "corpora", "sweep", "columns", "rows", "checks", "picture", "foot")
_CORPUS = ("input", "format", "template", "prompts-only")
_COLUMN = ("figure", "title", "digits", "of")
_ROW = ("title", "setting", "at", "published")
_CHECK = ("says", "figure", "rising", "row", "at_least", "at_most")


@dataclass(frozen=True)
class Corpus:
    name: str
    inputs: tuple[str, ...]  # within the user's data
    format: str
    template: str
    prompts_only: bool


@dataclass(frozen=True)
class Column:
    figure: str
    title: str
    digits: int
    of: str  # title of the row that all are divided by, or ""


@dataclass(frozen=True)
class Row:
    title: str
    setting: Mapping[str, Any] | None  # None: published only
    at: str
    published: Mapping[str, float]


@dataclass(frozen=True)
class Check:
    says: str
    figure: str
    rows: tuple[str, ...]  # their means rise in this order; one alone lies within the bounds
    at_least: float | None
    at_most: float | None


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    source: str
    family: str
    corpora: tuple[Corpus, ...]
    sweep: Mapping[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    picture: tuple[str, str] | None
    foot: tuple[str, ...]


def read_table(file: Path, family: str, places: Mapping[str, str]) -> Table:
    """The table for a family of models, every placeholder of `places` and of the family filled in. Errors:
    BadRecipe with file and line."""
    reader = _Reader(read_located(file))
    values = reader.source.values
    reader.known((), values, _KEYS)
    families = values["families"]
    if family not in families:
        reader.refuse(("families",), f"has no '{family}'; its models are of {', '.join(families)}")
    places = {**places, **{name: str(value) for name, value in families[family].items()}}
    filled = _filled(values, places)
    return Table(
        file.stem,
        filled["title"],
        filled["source"],
        family,
        tuple(reader.corpus(name, one) for name, one in filled["corpora"].items()),
        filled["sweep"],
        tuple(reader.column(i, one) for i, one in enumerate(filled["columns"])),
        tuple(reader.row(i, one, family) for i, one in enumerate(filled["rows"])),
        tuple(reader.check(i, one) for i, one in enumerate(filled.get("checks", ()))),
        (filled["picture"]["x"], filled["picture"]["y"]) if "picture" in filled else None,
        tuple(filled.get("foot", ())),
    )


def families_of(file: Path) -> Sequence[str]:
    """The families of models that the table is about. Errors: BadRecipe."""
    return list(read_located(file).values.get("families", ()))


class _Reader:
    def __init__(self, source: Located):
        self.source = source

    def refuse(self, path: tuple, message: str) -> None:
        raise BadRecipe(f"{self.source.where(*path)}: {'.'.join(map(str, path))} {message}")

    def known(self, path: tuple, values: Any, keys: Sequence[str]) -> None:
        if not isinstance(values, dict):
            self.refuse(path, f"is a mapping of {', '.join(keys)}")
        for key in values:
            if key not in keys:
                self.refuse((*path, key), f"is no key; known are {', '.join(keys)}")

    def corpus(self, name: str, values: Any) -> Corpus:
        self.known(("corpora", name), values, _CORPUS)
        inputs = values["input"]
        return Corpus(
            name,
            tuple(inputs) if isinstance(inputs, list) else (inputs,),
            values["format"],
            values["template"],
            bool(values.get("prompts-only", False)),
        )

    def column(self, i: int, values: Any) -> Column:
        self.known(("columns", i), values, _COLUMN)
        return Column(values["figure"], values["title"], values.get("digits", 3), values.get("of", ""))

    def row(self, i: int, values: Any, family: str) -> Row:
        self.known(("rows", i), values, _ROW)
        return Row(
            values["title"],
            values.get("setting"),
            values.get("at", ""),
            values.get("published", {}).get(family, {}),
        )

    def check(self, i: int, values: Any) -> Check:
        path = ("checks", i)
        self.known(path, values, _CHECK)
        if ("rising" in values) == ("row" in values):
            self.refuse(path, "has either rising, a list of rows, or row with at_least or at_most")
        rows = tuple(values["rising"]) if "rising" in values else (values["row"],)
        titles = [row["title"] for row in self.source.values["rows"]]
        for row in rows:
            if row not in titles:
                self.refuse(path, f"names '{row}', which is the title of no row")
        return Check(values["says"], values["figure"], rows, values.get("at_least"), values.get("at_most"))


def _filled(value: Any, places: Mapping[str, str]) -> Any:
    """Every text with the places' values in it; {seed} and what else a sweep knows stay."""
    if isinstance(value, str):
        for name, text in places.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {_filled(key, places): _filled(item, places) for key, item in value.items()}
    return [_filled(item, places) for item in value] if isinstance(value, list) else value

"""A study of a paper as a file defines it: material, corpora, sweeps, tables with what is published, checks.

Owns: the values of such a file. Does not own: reading it (definition_file.py), the sweeps in it, which
`plural sweep` checks; what is done with any of it. Thread rule: values.

    title, source   what the study is, and where the published figures stand
    families        family of models -> its placeholders, such as {template}; one is that of the user's model
    sizes           full and small (--small) -> their placeholders
    material        {program: words, reads: files}: writes texts, a tokenizer, recipes to {material}; once, or
                    with {seed} in its words once per seed
    corpora         name -> {input: file or list, within --data or {material}; format, template, tokenizer: of
                    plural prepare (default: that of --model); prompts-only: true; options: mapping of further
                    ones}. One with {seed} or {material} in it is made per seed.
    sweep           a sweep file (docs/sweeps.md) with placeholders
    stages          or a list of them, done in this order: {name, sweep; models: {NAME: a setting}, which
                    later stages find at {models}/NAME-seed-{seed}; seeds_plus: added to every seed; once:
                    true for the first seed alone, whose models are {models}/NAME; tokenizer: folder whose
                    tokenizer is laid beside the weights of models from nothing, which bring none}
    tables          list of {title, columns, rows}; or columns and rows alone, for one of the study's title
    columns         {figure, title, digits}, and `of` where a figure is divided by that of another row
    rows            {title, setting, at, stage, published: figure -> value, of families by family}; without
                    `setting` the row is the paper's alone. `at` stands before the figures' names, or in the
                    place of {at} in them, and is left out of /FIGURE; `stage` is the last one unless it is
                    named; `name` tells rows with one title apart.
    checks          {says, figure, rising: [rows]}, each above the one before, `by` so much, or so many
                    `times` it;
                    {says, figure, row, at_least, at_most};
                    {says, figure, way: [rows], more_than: figure}: the share of the way from the first to the
                    last row that the second has gone. `figure` may be a list: it holds for each.
    extracts        what FOLDER/table.md has of the answers themselves (extracts.py)
    pictures        list of pictures (pictures.py)
    foot            lines below the tables: what differs from the paper
    parts           whatever other keys take by YAML's anchors

{model} and {data} are what the user names, {material}, {corpora} and {models} lie in the study's folder,
{recipes}, {toys} and {python} are the project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Material:
    words: tuple[str, ...]
    reads: tuple[str, ...]

    @property
    def by_seed(self) -> bool:
        return any("{seed}" in word for word in self.words)


@dataclass(frozen=True)
class Corpus:
    name: str
    inputs: tuple[str, ...]  # within the user's data, or absolute
    format: str
    template: str = ""
    tokenizer: str = ""
    prompts_only: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_seed(self) -> bool:
        options = tuple(str(value) for value in self.options.values())
        return any("{seed}" in text for text in (*self.inputs, self.template, self.tokenizer, *options))


@dataclass(frozen=True)
class Stage:
    name: str  # "" for a single one
    sweep: Mapping[str, Any]
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds_plus: int = 0
    once: bool = False
    tokenizer: str = ""

    def seeds(self, asked: Sequence[int]) -> list[int]:
        """Those of its runs, where these are asked for."""
        return [seed + self.seeds_plus for seed in (asked[:1] if self.once else asked)]

    def link(self, model: str) -> str:
        """Within {models}, with {seed} where there is one per seed."""
        return model if self.once else f"{model}-seed-{{seed}}"


@dataclass(frozen=True)
class Row:
    title: str
    setting: Mapping[str, Any] | None  # None: published only
    at: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    stage: str = ""
    name: str = ""

    @property
    def key(self) -> str:
        return self.name or self.title

    def figure(self, name: str) -> str:
        """The name in the sweep of a figure of a column or check."""
        if name.startswith("/"):
            return name[1:]
        if "{at}" in name:
            return name.replace("{at}", self.at)
        return f"{self.at}.{name}" if self.at else name


@dataclass(frozen=True)
class Column:
    figure: str
    title: str
    digits: int = 3
    of: Row | None = None  # what all are divided by


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Check:
    """Of each figure: the rows' means rise in their order; or that of a single row lies within the bounds;
    or, with more_than, a share of the way."""

    says: str
    figures: tuple[str, ...]
    rows: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    by: float = 0.0
    times: float = 1.0
    more_than: str = ""


@dataclass(frozen=True)
class Definition:
    name: str
    title: str
    source: str
    family: str
    material: Material | None
    corpora: tuple[Corpus, ...]
    stages: tuple[Stage, ...]
    tables: tuple[Table, ...]
    checks: tuple[Check, ...]
    extracts: tuple[Mapping[str, Any], ...]
    pictures: tuple[Mapping[str, Any], ...]
    foot: tuple[str, ...]

    @property
    def rows(self) -> dict[str, Row]:
        return {row.key: row for table in self.tables for row in table.rows}

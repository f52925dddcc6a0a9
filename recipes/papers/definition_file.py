"""The file of a definition, read and checked, every placeholder filled in.

Owns: which keys there are, error lines. Does not own: what they mean (definition.py). Thread rule: values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from definition import Check, Column, Corpus, Definition, Material, Row, Stage, Table
from plural_text.common.errors import BadRecipe
from plural_text.sweep.located_yaml import Located, read_located

_KEYS = (
    "title",
    "source",
    "families",
    "sizes",
    "material",
    "corpora",
    "sweep",
    "stages",
    "tables",
    "columns",
    "rows",
    "checks",
    "extracts",
    "pictures",
    "foot",
    "parts",
)
_MATERIAL = ("program", "reads")
_CORPUS = ("input", "format", "template", "tokenizer", "prompts-only", "options")
_STAGE = ("name", "sweep", "models", "seeds_plus", "once", "tokenizer")
_TABLE = ("title", "columns", "rows")
_COLUMN = ("figure", "title", "digits", "of")
_ROW = ("title", "name", "setting", "at", "stage", "published")
_CHECK = ("says", "figure", "rising", "by", "times", "row", "at_least", "at_most", "way", "more_than")
FULL, SMALL = "full", "small"
# Kind -> its keys; those that may be left out have a question mark.
EXTRACTS = {
    "values": ("title", "rows", "prompts", "top"),
    "attributes": ("title", "rows", "top"),
    "examples": ("title", "rows", "prompts", "responses"),
    "talks": ("title", "rows", "talks"),
}
PICTURES = {
    "scatter": ("x", "y"),
    "ranked": ("title", "rows", "prompt"),
    "shares": ("title", "rows", "top"),
    "lines": ("title", "rows", "x", "y", "points", "limit?"),
    "map": ("title", "rows"),
}


def read_definition(file: Path, family: str, size: str, places: Mapping[str, str]) -> Definition:
    """The definition for a family of models (or "") and a size, every placeholder of `places`, family and
    size filled in. Errors: BadRecipe with file and line."""
    reader = _Reader(read_located(file), family)
    values = reader.source.values
    reader.known((), values, _KEYS)
    names: dict[str, Any] = dict(places)
    if "{seed}" in str(values.get("material")):
        names["material"] = f"{names['material']}/seed-{{seed}}"
    if "families" in values:
        if family not in values["families"]:
            reader.refuse(
                ("families",), f"has no '{family}'; its models are of {', '.join(values['families'])}"
            )
        names |= _filled(values["families"][family], names)
    if "sizes" in values or size != FULL:
        if size not in values.get("sizes", {}):
            reader.refuse(("sizes",), f"has no '{size}'; this study has no other size")
        names |= _filled(values["sizes"][size], names)
    return reader.definition(_filled({key: one for key, one in values.items() if key != "parts"}, names))


def families_of(file: Path) -> Sequence[str]:
    """The families of models that the study is about; none where it makes its own. Errors: BadRecipe."""
    return list(read_located(file).values.get("families", ()))


class _Reader:
    def __init__(self, source: Located, family: str):
        self.source = source
        self.family = family

    def refuse(self, path: tuple, message: str) -> None:
        raise BadRecipe(f"{self.source.where(*path)}: {'.'.join(map(str, path))} {message}")

    def known(self, path: tuple, values: Any, keys: Sequence[str], needed: Sequence[str] = ()) -> None:
        if not isinstance(values, dict):
            self.refuse(path, f"is a mapping of {', '.join(keys)}")
        for key in values:
            if key not in keys:
                self.refuse((*path, key), f"is no key; known are {', '.join(keys)}")
        for key in needed:
            if key not in values:
                self.refuse(path, f"has no {key}")

    def definition(self, filled: Mapping[str, Any]) -> Definition:
        for pair in (("sweep", "stages"), ("rows", "tables")):
            if (pair[0] in filled) == (pair[1] in filled):
                self.refuse((), f"has either {pair[0]} or {pair[1]}")
        stages = self.stages(filled)
        tables = (
            tuple(self.table(("tables", i), one, stages[-1]) for i, one in enumerate(filled["tables"]))
            if "tables" in filled
            else (self.table((), filled, stages[-1]),)
        )
        self.check_rows(tables, stages)
        rows = {row.key for table in tables for row in table.rows}
        return Definition(
            self.source.file.stem,
            filled["title"],
            filled["source"],
            self.family,
            self.material(filled["material"]) if "material" in filled else None,
            tuple(self.corpus(name, one) for name, one in filled.get("corpora", {}).items()),
            stages,
            tables,
            tuple(self.check(i, one, rows) for i, one in enumerate(filled.get("checks", ()))),
            self.shown("extracts", filled, EXTRACTS, rows),
            self.shown("pictures", filled, PICTURES, rows),
            tuple(filled.get("foot", ())),
        )

    def material(self, values: Any) -> Material:
        self.known(("material",), values, _MATERIAL, ("program",))
        return Material(tuple(map(str, values["program"])), tuple(values.get("reads", ())))

    def corpus(self, name: str, values: Any) -> Corpus:
        self.known(("corpora", name), values, _CORPUS, ("input", "format"))
        inputs = values["input"]
        return Corpus(
            name,
            tuple(inputs) if isinstance(inputs, list) else (inputs,),
            values["format"],
            values.get("template", ""),
            values.get("tokenizer", ""),
            bool(values.get("prompts-only", False)),
            values.get("options", {}),
        )

    def stages(self, filled: Mapping[str, Any]) -> tuple[Stage, ...]:
        if "sweep" in filled:
            return (Stage("", filled["sweep"]),)
        found: list[Stage] = []
        for i, one in enumerate(filled["stages"]):
            path = ("stages", i)
            self.known(path, one, _STAGE, ("name", "sweep"))
            if any(one["name"] == other.name for other in found):
                self.refuse(path, f"has the name '{one['name']}', as an earlier stage")
            found.append(
                Stage(
                    one["name"],
                    one["sweep"],
                    one.get("models", {}),
                    int(one.get("seeds_plus", 0)),
                    bool(one.get("once", False)),
                    one.get("tokenizer", ""),
                )
            )
        if not found:
            self.refuse(("stages",), "is empty")
        return tuple(found)

    def table(self, path: tuple, values: Any, last: Stage) -> Table:
        if path:
            self.known(path, values, _TABLE, _TABLE)
        columns = tuple(
            self.column((*path, "columns", i), one, last) for i, one in enumerate(values["columns"])
        )
        rows = tuple(self.row((*path, "rows", i), one, last) for i, one in enumerate(values["rows"]))
        by_key = {row.key: row for row in rows}
        named = []
        for i, column in enumerate(columns):
            of = values["columns"][i].get("of")
            if isinstance(of, str):
                if of not in by_key:
                    self.refuse((*path, "columns", i, "of"), f"names '{of}', which is no row of this table")
                column = replace(column, of=by_key[of])
            named.append(column)
        return Table(values["title"], tuple(named), rows)

    def column(self, path: tuple, values: Any, last: Stage) -> Column:
        self.known(path, values, _COLUMN, ("figure", "title"))
        of = values.get("of")
        other = self.row((*path, "of"), {"title": "", **of}, last) if isinstance(of, dict) else None
        return Column(values["figure"], values["title"], values.get("digits", 3), other)

    def row(self, path: tuple, values: Any, last: Stage) -> Row:
        self.known(path, values, _ROW, ("title",))
        published = values.get("published", {})
        if "families" in self.source.values:
            published = published.get(self.family, {})
        return Row(
            values["title"],
            values.get("setting"),
            values.get("at", ""),
            published,
            values.get("stage", last.name),
            values.get("name", ""),
        )

    def check_rows(self, tables: Sequence[Table], stages: Sequence[Stage]) -> None:
        """Rows with one name are one row."""
        seen: dict[str, Row] = {}
        for table in tables:
            for row in table.rows:
                if row.stage not in [stage.name for stage in stages]:
                    self.refuse(("stages",), f"has no '{row.stage}', which row '{row.title}' names")
                first = seen.setdefault(row.key, row)
                if (first.stage, first.setting, first.at) != (row.stage, row.setting, row.at):
                    self.refuse((), f"has two rows '{row.key}'; give one of them a name")

    def shown(
        self, part: str, filled: Mapping[str, Any], kinds: Mapping[str, Sequence[str]], known: set[str]
    ) -> tuple[Mapping[str, Any], ...]:
        for i, one in enumerate(filled.get(part, ())):
            path = (part, i)
            kind = one.get("kind") if isinstance(one, dict) else None
            if kind not in kinds:
                self.refuse(path, f"has kind {kind!r}; kinds are {', '.join(kinds)}")
            needed = [key for key in kinds[kind] if not key.endswith("?")]
            self.known(path, one, ["kind", *(key.rstrip("?") for key in kinds[kind])], needed)
            for row in one.get("rows", ()):
                if row not in known:
                    self.refuse(path, f"names '{row}', which is the title of no row")
        return tuple(filled.get(part, ()))

    def check(self, i: int, values: Any, known: set[str]) -> Check:
        path = ("checks", i)
        self.known(path, values, _CHECK, ("says", "figure"))
        kinds = [kind for kind in ("rising", "row", "way") if kind in values]
        if len(kinds) != 1:
            self.refuse(path, "has one of rising, a list of rows; row with at_least or at_most; or way")
        rows = (values["row"],) if kinds == ["row"] else tuple(values[kinds[0]])
        if len(rows) < 2 and kinds == ["rising"]:
            self.refuse(path, "rising takes two rows or more")
        if kinds == ["way"] and (len(rows) != 3 or "more_than" not in values):
            self.refuse(path, "way takes three rows, and more_than a figure")
        for row in rows:
            if row not in known:
                self.refuse(path, f"names '{row}', which is the title of no row")
        figure = values["figure"]
        return Check(
            values["says"],
            tuple(figure) if isinstance(figure, list) else (figure,),
            rows,
            values.get("at_least"),
            values.get("at_most"),
            values.get("by", 0.0),
            values.get("times", 1.0),
            values.get("more_than", ""),
        )


def _filled(value: Any, places: Mapping[str, Any]) -> Any:
    """Every text with the places' values in it; {seed} and what else a sweep knows stay. A text that is a
    place alone becomes its value, which may be a number."""
    if isinstance(value, str):
        for name, given in places.items():
            if value == f"{{{name}}}":
                return given
            value = value.replace(f"{{{name}}}", str(given))
        return value
    if isinstance(value, dict):
        return {_filled(key, places): _filled(item, places) for key, item in value.items()}
    return [_filled(item, places) for item in value] if isinstance(value, list) else value

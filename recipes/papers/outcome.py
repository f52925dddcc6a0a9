"""What came out of a study's sweeps, beside what the paper prints.

Owns: which figure of which run stands in which row, the checks. Does not own: figures and their
statistics (plural_text.sweep), how a table is drawn (report.py). Thread rule: values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import report
from definition import Check, Column, Definition, Row
from plural_text.common.errors import BadData
from plural_text.sweep.files import write_whole
from stages import meant


def fill(
    definition: Definition,
    swept: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    only: str | None = None,
) -> report.Report:
    """The report of these seeds. swept: stage -> its table.json. only: what the user's --only left out is no
    error. Errors: BadData where a row means no run."""
    found = report.Report(definition.name)
    values = _Values(definition, swept)
    rows = definition.rows
    asked: dict[tuple[str, str], Column] = {}  # of a row's key and a figure
    by_figure: dict[str, Column] = {}
    for table in definition.tables:
        for column in table.columns:
            by_figure.setdefault(column.figure, column)
            asked |= {(row.key, column.figure): column for row in table.rows}
    for check in definition.checks:
        for figure in (*check.figures, *([check.more_than] if check.more_than else [])):
            by_figure.setdefault(figure, Column(figure, figure))
            for key in check.rows:
                asked.setdefault((key, figure), by_figure[figure])
    for (key, figure), column in asked.items():
        if rows[key].setting is not None:
            for seed in seeds:
                found.add(key, seed, {figure: values.of(rows[key], column, seed)})
    if only is not None:
        found.run_in_part("--only")
    for table in definition.tables:
        shown = [
            report.Row(row.key, row.title, dict(row.published), row.setting is None) for row in table.rows
        ]
        found.table(table.title, shown, [_column(column) for column in table.columns])
    for check in definition.checks:
        _check(found, check, by_figure)
    for line in ([f"Published: {definition.source}."] if definition.source else []) + list(definition.foot):
        found.note(line)
    return found


def _check(found: report.Report, check: Check, by_figure: Mapping[str, Column]) -> None:
    figures = [_column(by_figure[figure]) for figure in check.figures]
    rows = list(check.rows)
    if check.more_than:
        found.check_way(check.says, figures[0], _column(by_figure[check.more_than]), rows)
    elif len(rows) > 1:
        found.check_increasing(check.says, figures, rows, check.by, check.times)
    else:
        low = -math.inf if check.at_least is None else check.at_least
        high = math.inf if check.at_most is None else check.at_most
        for figure in figures:
            found.check_bound(check.says, figure, rows[0], low, high)


class _Values:
    def __init__(self, definition: Definition, swept: Mapping[str, Mapping[str, Any]]):
        self._name = definition.name
        self._swept = swept
        self._plus = {stage.name: stage.seeds_plus for stage in definition.stages}
        self._runs: dict[tuple[str, str], Mapping[int, Mapping[str, float]]] = {}

    def of(self, row: Row, column: Column, seed: int) -> float | None:
        """None where it is undefined or not measured, or what it is a multiple of is 0."""
        value = self._figure(row, column.figure, seed)
        if column.of is None or value is None:
            return value
        below = self._figure(column.of, column.figure, seed)
        return value / below if below else None

    def _figure(self, row: Row, figure: str, seed: int) -> float | None:
        if row.stage not in self._swept:  # left out
            return None
        key = (row.stage, str(row.setting))
        if key not in self._runs:
            self._runs[key] = self._figures_of(row)
        return self._runs[key].get(seed + self._plus[row.stage], {}).get(row.figure(figure))

    def _figures_of(self, row: Row) -> Mapping[int, Mapping[str, float]]:
        assert row.setting is not None
        table = self._swept[row.stage]
        arms = meant(row.setting, [arm["settings"] for arm in table["arms"]])
        if len(arms) != 1:
            raise BadData(
                f"{self._name}: row '{row.title}' means {len(arms)} settings of the sweep, and takes one"
            )
        arm = table["arms"][arms[0]]["arm"]
        return {run["seed"]: run["figures"] for run in table["rows"] if run["arm"] == arm}


def keep(found: report.Report, sections: Sequence[str], folder: Path, about: Mapping[str, Any]) -> Path:
    """The tables with further sections, and results.json in the folder; the first. Errors: WriteFailed."""
    file = folder / "table.md"
    write_whole(file, "\n\n".join([found.text().rstrip("\n"), *sections]) + "\n")
    found.write(folder / "results.json", **about)
    return file


def _column(column: Column) -> report.Figure:
    return report.Figure(column.figure, column.title, f"{{:.{column.digits}f}}")

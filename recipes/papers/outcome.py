"""What came out of a table's sweep, beside what the paper prints.

Owns: which figure of which run stands in which row, the checks, the picture. Does not own: figures and their
statistics (plural_text.sweep), how a table is drawn (recipes/reproduction/report.py). Thread rule: values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import report
from definition import Column, Row, Table
from plural_text.common.errors import BadData
from plural_text.report.figure import COLOURS, SYMBOLS, Figure
from plural_text.sweep.expand import matches
from plural_text.sweep.files import write_whole


def fill(table: Table, swept: Mapping[str, Any]) -> report.Report:
    """The report of the rows of table.json. Errors: BadData where a row means no run."""
    found = report.Report(table.name)
    for row in table.rows:
        if row.setting is None:
            continue
        for run in _runs(table, row, swept):
            figures = {
                column.figure: _value(table, column, row, run["seed"], swept) for column in table.columns
            }
            found.add(row.title, run["seed"], figures)
    columns = [_column(column) for column in table.columns]
    rows = [report.Row(row.title, row.title, dict(row.published), row.setting is None) for row in table.rows]
    found.table(table.title, rows, columns)
    by_name = {column.key: column for column in columns}
    for check in table.checks:
        figure = by_name[check.figure]
        if len(check.rows) > 1:
            found.check_increasing(check.says, figure, list(check.rows))
        else:
            low = -math.inf if check.at_least is None else check.at_least
            high = math.inf if check.at_most is None else check.at_most
            found.check_bound(check.says, figure, check.rows[0], low, high)
    for line in (f"Published: {table.source}.", *table.foot):
        found.note(line)
    return found


def picture(table: Table, found: report.Report) -> Figure | None:
    """Two figures of each row against each other, ours filled and with intervals, the paper's open."""
    if table.picture is None:
        return None
    x, y = table.picture
    traces: list[dict[str, Any]] = []
    rows = [row for row in table.rows if row.setting is not None]
    for place, row in enumerate(rows):
        look = {"color": COLOURS[place % len(COLOURS)], "size": 11}
        symbol = SYMBOLS[place % len(SYMBOLS)]
        ours = [found.values(row.title, name) for name in (x, y)]
        if all(ours):
            values = [report.summarize(list(one.values())) for one in ours]
            errors = [
                {"type": "data", "array": [one.half_width or 0.0], "color": look["color"]} for one in values
            ]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": row.title,
                    "x": [values[0].mean],
                    "y": [values[1].mean],
                    "error_x": errors[0],
                    "error_y": errors[1],
                    "marker": {**look, "symbol": symbol},
                }
            )
        if x in row.published and y in row.published:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{row.title} (published)",
                    "x": [row.published[x]],
                    "y": [row.published[y]],
                    "marker": {**look, "symbol": f"{symbol}-open"},
                }
            )
    titles = {column.figure: column.title for column in table.columns}
    layout = {"xaxis": {"title": {"text": titles[x]}}, "yaxis": {"title": {"text": titles[y]}}}
    return Figure(table.name, "papers", table.title, traces, layout)


def keep(found: report.Report, folder: Path, about: Mapping[str, Any]) -> Path:
    """The table and results.json in the folder; the first. Errors: WriteFailed."""
    file = folder / "table.md"
    write_whole(file, found.text())
    found.write(folder / "results.json", **about)
    return file


def _runs(table: Table, row: Row, swept: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    assert row.setting is not None
    arms = [arm["arm"] for arm in swept["arms"] if matches(row.setting, arm["settings"])]
    if len(arms) != 1:
        raise BadData(
            f"{table.name}: row '{row.title}' means {len(arms)} settings of the sweep, and takes one"
        )
    return [run for run in swept["rows"] if run["arm"] == arms[0]]


def _value(table: Table, column: Column, row: Row, seed: int, swept: Mapping[str, Any]) -> float | None:
    """A figure of one row and seed; None where it is undefined, or what it is a multiple of is 0."""
    value = _figure(table, column, row, seed, swept)
    if not column.of or value is None:
        return value
    other = next(one for one in table.rows if one.title == column.of)
    below = _figure(table, column, other, seed, swept)
    return value / below if below else None


def _figure(table: Table, column: Column, row: Row, seed: int, swept: Mapping[str, Any]) -> float | None:
    (run,) = [run for run in _runs(table, row, swept) if run["seed"] == seed]
    return run["figures"].get(f"{row.at}.{column.figure}")


def _column(column: Column) -> report.Figure:
    return report.Figure(column.figure, column.title, f"{{:.{column.digits}f}}")

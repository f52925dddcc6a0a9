"""Figures for people and for programs: a table, a JSON file.

Owns: the form of both. Does not own: figures.
"""

from __future__ import annotations

import json
from pathlib import Path

from plural_text.common.errors import UsageError
from plural_text.common.new_output import require_new, write_whole
from plural_text.metrics import bootstrap
from plural_text.metrics.figure import Figure


def table(figures: list[Figure]) -> list[str]:
    """Lines for people."""
    rows = [("figure", "value", "95 % interval", "of")] + [_row(figure) for figure in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    ]


def _row(figure: Figure) -> tuple[str, str, str, str]:
    of = f"{figure.count:,} {figure.of}" + (f"; {figure.note}" if figure.note else "")
    if figure.value is None:
        return figure.name, "undefined", "", figure.reason
    spread = f"{_number(figure.interval.low)} .. {_number(figure.interval.high)}" if figure.interval else "-"
    return figure.name, _number(figure.value), spread, of


def _number(value: float) -> str:
    """Four decimals as the papers print them; small values keep four significant digits."""
    if value == int(value) and abs(value) > 1:
        return f"{value:,.0f}"
    return f"{value:,.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.3e}"


def check_output(output: Path | None, source: Path, force: bool) -> None:
    """Before the work: whether the report can be written; `force`: over an older one. Errors: CannotCreate,
    UsageError."""
    if output is None:
        return
    if output.exists() and source.exists() and output.samefile(source):
        raise UsageError(f"{output}: is the input; name another output")
    require_new(output, force)


def write_report(path: Path, head: dict, figures: list[Figure]) -> None:
    """Writes `head` (what was measured) and the figures by name; the file appears whole. Errors:
    WriteFailed."""
    report = head | {
        "bootstrap": {
            "seed": bootstrap.SEED,
            "resamples": bootstrap.RESAMPLES,
            "confidence": bootstrap.CONFIDENCE,
        },
        "figures": {figure.name: figure.json() for figure in figures},
    }
    write_whole(path, json.dumps(report, ensure_ascii=False, indent=1) + "\n")

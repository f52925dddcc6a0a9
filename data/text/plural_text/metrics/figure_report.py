"""Figures for people and for programs: a table, a JSON file.

Owns: the form of both. Does not own: figures.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def table_of_files(names: list[str], found: list[list[Figure]]) -> list[str]:
    """Lines for people: a column per file, and below it why a figure is undefined in one."""
    by_name = [{figure.name: figure for figure in figures} for figures in found]
    rows = [("figure", *names)]
    without: dict[tuple[str, str], list[str]] = {}  # (figure, reason) -> files
    for name in dict.fromkeys(figure.name for figures in found for figure in figures):
        own = [figures.get(name) for figures in by_name]
        rows.append((name, *(_cell(figure) for figure in own)))
        for file, figure in zip(names, own, strict=True):
            if figure is not None and figure.value is None:
                without.setdefault((name, figure.reason), []).append(file)
    reasons = [
        f"{name}{'' if len(files) == len(names) else ' of ' + ', '.join(files)}: {reason}"
        for (name, reason), files in without.items()
    ]
    return aligned(rows) + ([""] if reasons else []) + reasons


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns, but for the first, end at the same place."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{cell:>{w}}" for cell, w in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _cell(figure: Figure | None) -> str:
    """ "0.7123 (0.6991 .. 0.7254)"; "-" where the file has no such figure."""
    if figure is None:
        return "-"
    if figure.value is None:
        return "undefined"
    spread = figure.interval
    return number(figure.value) + (f" ({number(spread.low)} .. {number(spread.high)})" if spread else "")


def _row(figure: Figure) -> tuple[str, str, str, str]:
    of = f"{figure.count:,} {figure.of}" + (f"; {figure.note}" if figure.note else "")
    if figure.value is None:
        return figure.name, "undefined", "", figure.reason
    spread = f"{number(figure.interval.low)} .. {number(figure.interval.high)}" if figure.interval else "-"
    return figure.name, number(figure.value), spread, of


def number(value: float) -> str:
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


def report(head: dict, figures: list[Figure]) -> dict:
    """`head` (what was measured) and the figures by name."""
    return head | {
        "bootstrap": {
            "seed": bootstrap.SEED,
            "resamples": bootstrap.RESAMPLES,
            "confidence": bootstrap.CONFIDENCE,
        },
        "figures": {figure.name: figure.json() for figure in figures},
    }


def write_report(path: Path, content: dict) -> None:
    """The file appears whole. Errors: WriteFailed."""
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")

"""Figures of a study over seeds: means with intervals, our table beside the published one, checks of
direction.

Owns: what is collected, printed and written to results.json. Does not own: how a figure is measured.
An interval is Student's, 95 %, over the seeds: mean +- t(0.975, n - 1) * s / sqrt(n). With one seed there is
none. A check is about means; beside it stands in how many seeds it holds. A check of rows that an option
left out is not run: it says which and why, and counts neither as held nor as failed.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# t(0.975, df), df = 1, 2, ...; beyond the table the normal value is within 2 % of it.
_STUDENT = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
    2.120,
    2.110,
    2.101,
    2.093,
    2.086,
    2.080,
    2.074,
    2.069,
    2.064,
    2.060,
    2.056,
    2.052,
    2.048,
)
_NORMAL = 1.960
_VERDICTS = {True: "yes", False: "NO", None: "not run "}


@dataclass(frozen=True)
class Figure:
    """One measured quantity. `key` carries its unit where it has one (entropy_bits, latency_multiple)."""

    key: str
    title: str
    form: str = "{:.3f}"


@dataclass(frozen=True)
class Row:
    """One method under one setting, and what the paper prints for it ({} where it has no such row)."""

    key: str
    title: str
    published: dict[str, float] = field(default_factory=dict)  # figure key -> published value
    paper_alone: bool = False  # nothing is measured for it


@dataclass(frozen=True)
class Summary:
    mean: float
    half_width: float | None  # of the 95 % interval over seeds; None with one seed
    seeds: int


def summarize(values: list[float]) -> Summary:
    """Mean and Student interval of one figure over seeds. Errors: ValueError without values."""
    if not values:
        raise ValueError("no values to summarize")
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Summary(mean, None, len(values))
    freedom = len(values) - 1
    t = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else _NORMAL
    return Summary(mean, t * statistics.stdev(values) / math.sqrt(len(values)), len(values))


class Report:
    """The figures of a study: rows x figures x seeds, tables and checks. Thread rule: one thread at a
    time."""

    def __init__(self, study: str):
        self._study = study
        self._values: dict[tuple[str, str], dict[int, float]] = {}
        self._tables: list[tuple[str, list[Row], list[Figure]]] = []
        self._checks: list[dict] = []
        self._notes: list[str] = []
        self._part = ""

    # Collecting.

    def run_in_part(self, options: str) -> None:
        """Says that options, such as "--methods", left rows out: checks of absent rows are not run.

        Without it a row that no figure was added to is an error of the study, and its checks fail.
        """
        self._part = options

    def add(self, row: str, seed: int, figures: dict[str, float | None]) -> None:
        """Figures of one row and seed; a figure of None is undefined for it and left out."""
        for key, value in figures.items():
            if value is not None:
                self._values.setdefault((row, key), {})[seed] = value

    def values(self, row: str, figure: str) -> dict[int, float]:
        """By seed; empty where the row was not measured."""
        return self._values.get((row, figure), {})

    def mean(self, row: str, figure: str) -> float:
        """NaN where the row was not measured; check() sees to it that no figure is made of that."""
        values = self.values(row, figure)
        return statistics.fmean(values.values()) if values else math.nan

    # Tables and checks.

    def table(self, title: str, rows: list[Row], figures: list[Figure]) -> None:
        """Shows the rows that were measured, each figure beside the published one where there is one, and the
        paper's own."""
        measured = [row for row in rows if any(self.values(row.key, figure.key) for figure in figures)]
        shown = [row for row in rows if row in measured or row.paper_alone]
        if measured:
            self._tables.append((title, shown, figures))

    def note(self, line: str) -> None:
        """A line of text that is printed below the tables."""
        self._notes.append(line)

    def check(self, name: str, holds: bool, detail: str, figure_rows: list[tuple[str, str]]) -> bool:
        """One expected direction or threshold, decided by the caller, of these (row, figure key)."""
        absent = list(dict.fromkeys(row for row, key in figure_rows if not self.values(row, key)))
        result = {"name": name, "holds": bool(holds) and not absent, "detail": detail}
        if absent:
            result["detail"] = f"no figures of {', '.join(absent)}"
            if self._part:
                result |= {"holds": None, "detail": f"{result['detail']}, which {self._part} left out"}
        self._checks.append(result)
        return bool(result["holds"])

    def check_increasing(
        self,
        name: str,
        figure: Figure | Sequence[Figure],
        rows: list[str],
        by: float = 0.0,
        times: float = 1.0,
    ) -> bool:
        """Checks that the means of `rows` rise strictly in this order, of every figure; each by more than
        `by`, and to more than `times` the one before."""
        figures = [figure] if isinstance(figure, Figure) else list(figure)
        holds, details = True, []
        for one in figures:
            means = [self.mean(row, one.key) for row in rows]
            seeds = set.intersection(*(set(self.values(row, one.key)) for row in rows))
            in_order = sum(
                _rises([self.values(row, one.key)[seed] for row in rows], by, times) for seed in seeds
            )
            holds = holds and _rises(means, by, times)
            told = " < ".join(one.form.format(mean) for mean in means)
            details.append(f"{told}; in {in_order} of {len(seeds)} seeds")
        return self.check(
            name, holds, ", and ".join(details), [(row, one.key) for one in figures for row in rows]
        )

    def check_way(self, name: str, figure: Figure, than: Figure, rows: list[str]) -> bool:
        """Checks that the second of three rows has gone a larger share of the way from the first to the
        third in `figure` than in `than`."""
        shares = []
        for one in (figure, than):
            first, here, last = (self.mean(row, one.key) for row in rows)
            shares.append((here - first) / (last - first) if last != first else 0.0)
        return self.check(
            name,
            shares[0] > shares[1],
            f"{shares[0]:.2f} of the way in {figure.title}, {shares[1]:.2f} in {than.title}",
            [(row, one.key) for row in rows for one in (figure, than)],
        )

    def check_bound(
        self, name: str, figure: Figure, row: str, low: float = -math.inf, high: float = math.inf
    ) -> bool:
        """Checks that the mean lies in [low, high]; with several seeds, says in how many it does."""
        mean, values = self.mean(row, figure.key), self.values(row, figure.key).values()
        bounds = [
            f"{word} {figure.form.format(bound)}"
            for word, bound in (("at least", low), ("at most", high))
            if math.isfinite(bound)
        ]
        detail = f"{figure.form.format(mean)}, wanted {' and '.join(bounds)}"
        if len(values) > 1:
            within = sum(low <= value <= high for value in values)
            detail += f"; in {within} of {len(values)} seeds"
        return self.check(name, low <= mean <= high, detail, [(row, figure.key)])

    @property
    def all_hold(self) -> bool:
        """Whether every check that was run holds."""
        return all(check["holds"] is not False for check in self._checks)

    # Output.

    def text(self) -> str:
        """Tables in Markdown, then notes and checks: what is printed and what documents take over."""
        parts = [_markdown(title, rows, figures, self._cell) for title, rows, figures in self._tables]
        if self._notes:
            parts.append("\n".join(self._notes))
        if self._checks:
            parts.append(
                "\n".join(
                    f"  {_VERDICTS[check['holds']]:<4} {check['name']}"
                    + (f"  ({check['detail']})" if check["detail"] else "")
                    for check in self._checks
                )
            )
        return "\n\n".join(parts) + "\n"

    def write(self, path: Path, **about) -> None:
        """results.json: every value by seed, means, intervals, published values, checks, and `about`.

        A check's `holds` is null where it was not run.
        """
        rows: dict[str, dict] = {}
        published = {row.key: row.published for _, table, _ in self._tables for row in table}
        for (row, figure), by_seed in sorted(self._values.items()):
            summary = summarize(list(by_seed.values()))
            half = summary.half_width
            rows.setdefault(row, {})[figure] = {
                "mean": summary.mean,
                "interval": None if half is None else [summary.mean - half, summary.mean + half],
                "seeds": {str(seed): value for seed, value in sorted(by_seed.items())},
                "published": published.get(row, {}).get(figure),
            }
        result = {"study": self._study, **about, "rows": rows, "checks": self._checks, "notes": self._notes}
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _cell(self, row: Row, figure: Figure) -> tuple[str, str]:
        """(ours, published)"""
        values = self.values(row.key, figure.key)
        ours = "-"
        if values:
            summary = summarize(list(values.values()))
            ours = figure.form.format(summary.mean)
            if summary.half_width is not None:
                ours += f" ± {figure.form.format(summary.half_width)}"
        published = row.published.get(figure.key)
        return ours, "-" if published is None else figure.form.format(published)


def _rises(values: list[float], by: float, times: float) -> bool:
    return all(b - a > by and b > times * a for a, b in itertools.pairwise(values))


def _markdown(title: str, rows: list[Row], figures: list[Figure], cell) -> str:
    with_published = [any(figure.key in row.published for row in rows) for figure in figures]
    head = ["method"]
    for figure, has in zip(figures, with_published):
        head += [figure.title] + (["published"] if has else [])
    body = []
    for row in rows:
        line = [row.title]
        for figure, has in zip(figures, with_published):
            ours, published = cell(row, figure)
            line += [ours] + ([published] if has else [])
        body.append(line)
    widths = [max(map(len, column)) for column in zip(head, *body)]
    lines = [head, ["-" * width for width in widths], *body]
    table = "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in lines
    )
    return f"**{title}**\n\n{table}"

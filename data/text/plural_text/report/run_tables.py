"""Tables of runs: what they are, their faults, their recipes.

Owns: which fields are shown. Does not own: reading runs (runs.py). Thread rule: free of state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from plural_text.common.json_lines import finite
from plural_text.report.comparable import validated_on, words
from plural_text.report.html_parts import folded, paragraph, table
from plural_text.report.runs import MAX_LOG_LINES, Run

# Of one run, those that are the slowest most often.
_MOST_SLOW_RANKS = 4


def summary(runs: Sequence[Run]) -> str:
    head = (
        "run",
        "method",
        "model",
        "state",
        "steps",
        "of",
        "loss (nats)",
        "perplexity (validation)",
        "validated on",
        "seconds",
        "ranks",
        "restarts",
    )
    return table("Runs, each with its last figures", head, map(_summary_row, runs))


def _summary_row(run: Run) -> tuple:
    begin = (run.events.get("resume") or run.events.get("start") or [{}])[-1]
    end = run.events.get("end", [{}])[-1]
    last = run.steps[-1] if run.steps else {}
    validation = run.events.get("validation", [{}])[-1]
    return (
        run.name,
        run.setting("method"),
        str(run.setting("model.path") or run.setting("model.config") or "").rstrip("/").rpartition("/")[2],
        run.state,
        last.get("step"),
        begin.get("last_step"),
        _number(last.get("loss")),
        _number(validation.get("perplexity")),
        words(key) if (key := validated_on(run)) else None,
        _number(end.get("seconds")),
        begin.get("ranks"),
        begin.get("restarts"),
    )


def _number(value):
    """The number, or the word that stands for one that is not finite."""
    return value if finite(value) is not None or value in ("nan", "inf", "-inf") else None


def faults(runs: Sequence[Run]) -> str:
    """Starts and restarts, values that are not finite, warnings and errors of the logs."""
    rows = [
        (run.name, *_start_row(event, line))
        for run in runs
        for event in ("start", "resume")
        for line in run.events.get(event, [])
    ]
    head = (
        "run",
        "what",
        "after step",
        "restarts so far",
        "ranks",
        "threads per rank",
        "version",
        "time (UTC)",
    )
    found = table("Starts and restarts", head, rows)
    bad = [(run.name, *row) for run in runs for row in _not_finite(run)]
    if bad:
        found += table("Values that are not finite", ("run", "figure", "first step", "steps"), bad)
    for run in runs:
        if run.half_line:
            found += paragraph(
                f"{run.name}: the last line of metrics.jsonl is not whole; the run is being written or was "
                "ended at once.",
                "warning",
            )
        elif not run.events:
            found += paragraph(f"{run.name}: metrics.jsonl holds no line yet.", "warning")
        elif not run.finished:
            found += paragraph(f"{run.name}: {run.state}.", "warning")
    lines = [(run.name, *line) for run in runs for line in run.log[-MAX_LOG_LINES:]]
    for run in runs:
        if len(run.log) > MAX_LOG_LINES:
            found += paragraph(
                f"{run.name}: the last {MAX_LOG_LINES} of {len(run.log):,} warnings and errors are shown."
            )
    if lines:
        return found + table(
            "Warnings and errors of the logs", ("run", "rank", "time", "kind", "message"), lines
        )
    return found + paragraph("The logs hold no warnings or errors.")


def _start_row(event: str, line: dict) -> tuple:
    seconds = line.get("time_unix_seconds")
    time = None
    if type(seconds) is int and 0 <= seconds < 1 << 36:
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    keys = ("step", "restarts", "ranks", "threads_per_rank", "version")
    return (event, *(line.get(key) for key in keys), time)


def _not_finite(run: Run) -> list[tuple]:
    found: dict[str, list] = {}
    for line in run.steps:
        for key, value in line.items():
            if value in ("nan", "inf", "-inf"):
                found.setdefault(key, []).append(line["step"])
    return [(key, steps[0], len(steps)) for key, steps in found.items()]


def slowest_ranks(runs: Sequence[Run]) -> str:
    """Of runs on several ranks: which ones the others waited for."""
    rows = []
    for run in runs:
        ranks = Counter(rank for line in run.steps if type(rank := line.get("slowest_rank")) is int)
        for rank, count in ranks.most_common(_MOST_SLOW_RANKS):
            rows.append((run.name, rank, count, ranks.total()))
    head = ("run", "rank", "steps in which it was the slowest", "of")
    return table("Slowest ranks", head, rows) if rows else ""


def recipes(runs: Sequence[Run]) -> str:
    """What differs between the runs, then each recipe with the origin of each value."""
    found = ""
    if len(runs) > 1:
        values = {run.name: {line.key: line.value for line in run.recipe} for run in runs}
        keys = list(dict.fromkeys(key for own in values.values() for key in own))
        rows = [
            (key, *(values[run.name].get(key) for run in runs))
            for key in keys
            if len({values[run.name].get(key) for run in runs}) > 1
        ]
        found += table("Keys whose values differ", ("key", *(run.name for run in runs)), rows)
    for run in runs:
        if run.recipe:
            rows = [(line.key, line.value, line.origin) for line in run.recipe]
            inside = table(f"Recipe of {run.name}", ("key", "value", "origin"), rows)
            found += folded(f"Recipe of {run.name}", inside)
        else:
            found += paragraph(f"{run.name}: no recipe.yaml in its folder.", "warning")
    return found

"""Figures over steps: training, validation, epochs, seconds.

Owns: which curves there are, from the fields that the lines of metrics.jsonl have. Does not own: what a field
means (docs/running.md). Thread rule: free of state.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from plural_text.common.json_lines import finite
from plural_text.report.comparable import alike, told_apart, validated_on
from plural_text.report.decimate import kept_places
from plural_text.report.figure import Figure, axes, axis_title, colour, dash
from plural_text.report.runs import Run

# Fields of a line that are no curve.
_PLACES = {
    "event",
    "step",
    "epoch",
    "time_unix_seconds",
    "temperature",
    "responses",
    "stopped_early",
    "slowest_rank",
}
_COUNTS = {"groups", "unpenalised_groups", "recomputed_passes"}
_TIMES = (
    "seconds",
    "data_wait_seconds",
    "groups_per_second",
    "slowest_rank_seconds",
    "mean_rank_seconds",
)
_FIRST = ("loss", "likelihood", "unlikelihood", "bow", "grad_norm", "lr")
_KINDS = (("step", "", "training"), ("validation", "validation.", "validation"), ("pass", "epoch.", "epochs"))
LATENTS = ("used_latents", "information_nats", "latent_nll_spread_nats")
# Above so many points a line shows them better than marks.
_MARKED_POINTS = 60


def curves(runs: Sequence[Run], only: str | None = None) -> list[Figure]:
    """A figure for each field of the lines of steps, validations and epochs that is a number in a run and not
    zero throughout; one curve per run. Validations that were not measured alike have figures of their own:
    NAME, NAME-2 and so on. `only`: the figures of this name, and none that needs other work."""
    found = []
    for event, prefix, section in _KINDS:
        if only is not None and _prefix(only) != prefix:
            continue
        series = {run.name: _series(run.events.get(event, [])) for run in runs}
        for key in _ordered(key for own in series.values() for key in own):
            if only is not None and not _is_of(only, prefix + key):
                continue
            curves_of = [(place, run.name, series[run.name].get(key)) for place, run in enumerate(runs)]
            drawn = [(place, name, points) for place, name, points in curves_of if points]
            if key == "unlikelihood":  # methods that have none write zeros
                drawn = [curve for curve in drawn if any(y for _, y in curve[2])]
            if any(y for _, _, points in drawn for _, y in points):
                make = _figures_alike if event == "validation" else _one_figure
                found += make(prefix, key, section, drawn, runs)
    return found


def _prefix(name: str) -> str:
    return next((prefix for _, prefix, _ in _KINDS if prefix and name.startswith(prefix)), "")


def _is_of(wanted: str, name: str) -> bool:
    return wanted == name or re.fullmatch(re.escape(name) + r"-\d+", wanted) is not None


def _one_figure(prefix: str, key: str, section: str, drawn: list, runs: Sequence[Run]) -> list[Figure]:
    return [_figure(prefix, key, section, drawn, runs)]


def _figures_alike(prefix: str, key: str, section: str, drawn: list, runs: Sequence[Run]) -> list[Figure]:
    """One figure for each set of runs that were validated alike."""
    keys = {name: validated_on(runs[place], key) for place, name, _ in drawn}
    groups = alike(drawn, lambda curve: keys[curve[1]])
    if len(groups) == 1:
        return [_figure(prefix, key, section, drawn, runs)]
    tell = told_apart(keys.values())
    found = []
    for number, group in enumerate(groups, 1):
        figure = _figure(prefix, key, section, group, runs)
        on = tell(keys[group[0][1]])
        others = ", ".join(name for _, name, _ in drawn if name not in {name for _, name, _ in group})
        note = f"Measured on {on}; not comparable with that of {others}. {figure.note}".strip()
        name = figure.name if number == 1 else f"{figure.name}-{number}"
        found.append(replace(figure, name=name, title=f"{figure.title} ({on})", note=note))
    return found


def _series(lines: Iterable[dict]) -> dict[str, list[tuple[int, float | None]]]:
    """Field -> (step, value) of the lines that have it; None for values that are not finite. Of lines about
    the same step the last one counts."""
    found: dict[str, dict[int, float | None]] = {}
    for line in lines:
        groups, seconds = finite(line.get("groups")), finite(line.get("seconds"))
        values = {key: value for key, value in line.items() if key not in _PLACES | _COUNTS}
        if line["event"] == "validation":
            values.pop("seconds", None)  # of the validation itself
        if line["event"] == "step" and groups is not None and seconds:
            values["groups_per_second"] = groups / seconds
        for key, value in values.items():
            if type(value) in (int, float) or value in ("nan", "inf", "-inf"):
                found.setdefault(key, {})[line["step"]] = finite(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def _ordered(keys: Iterable[str]) -> list[str]:
    """Each once: the parts of the loss first, then as the lines have them."""
    present = list(dict.fromkeys(keys))
    return [key for key in _FIRST if key in present] + [key for key in present if key not in _FIRST]


def _figure(prefix: str, key: str, section: str, drawn: list, runs: Sequence[Run]) -> Figure:
    if key in LATENTS:
        section = "latents"
    elif key in _TIMES or key in ("rows", "sequence_tokens"):
        section = "time"
    traces, left_out = [], 0
    for place, name, points in drawn:
        kept = kept_places([y for _, y in points])
        left_out += len(points) - len(kept)
        shown = [points[i] for i in kept]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if len(shown) <= _MARKED_POINTS else "lines",
                "name": name,
                "x": [x for x, _ in shown],
                "y": [y for _, y in shown],
                "line": {"color": colour(place), "dash": dash(place), "width": 1.5},
                "marker": {"size": 5},
                "hovertemplate": "step %{x}: %{y}",
            }
        )
        if key == "slowest_rank_seconds":
            ranks = {line["step"]: line.get("slowest_rank") for line in runs[place].steps}
            own = [ranks.get(x) for x, _ in shown]
            traces[-1] |= {"customdata": own, "meta": {"columns": {"slowest_rank": own}}}
            traces[-1]["hovertemplate"] = "step %{x}: %{y}, rank %{customdata}"
    note = (
        f"{left_out:,} points are left out; the smallest and the largest of each stretch stay."
        if left_out
        else ""
    )
    title = {"": "", "validation.": "validation: ", "epoch.": "epochs: "}[prefix] + axis_title(key)
    per_step = " per step" if section == "time" and key.endswith("seconds") else ""
    layout = axes("step", axis_title(key) + per_step)
    present = {y for _, _, points in drawn for _, y in points if y is not None}
    if len(present) == 1 and (value := present.pop()) > 0:
        layout["yaxis"]["range"] = [
            0,
            finite(1.5 * value) or value,
        ]  # plotly would show from value - 1 to value + 1
    return Figure(prefix + key, section, title, traces, {**layout, "showlegend": len(runs) > 1}, note)

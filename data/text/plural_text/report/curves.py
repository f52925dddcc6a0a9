"""Figures over steps: training, validation, epochs, seconds.

Owns: which curves there are, from the fields that the lines of metrics.jsonl have. Does not own: what a field
means (docs/running.md). Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from plural_text.common.json_lines import finite
from plural_text.report.decimate import kept_places
from plural_text.report.figure import Figure, axes, axis_title, colour, dash
from plural_text.report.runs import Run

# Fields of a line that are no curve.
_PLACES = {"event", "step", "epoch", "time_unix_seconds", "temperature", "responses", "stopped_early"}
_COUNTS = {"groups", "unpenalised_groups", "recomputed_passes"}
_TIMES = ("seconds", "data_wait_seconds", "groups_per_second")
_FIRST = ("loss", "likelihood", "unlikelihood", "bow", "grad_norm", "lr")
_KINDS = (("step", "", "training"), ("validation", "validation.", "validation"), ("pass", "epoch.", "epochs"))
LATENTS = ("used_latents", "information_nats", "latent_nll_spread_nats")
# Above so many points a line shows them better than marks.
_MARKED_POINTS = 60


def curves(runs: Sequence[Run]) -> list[Figure]:
    """A figure for each field of the lines of steps, validations and epochs that is a number in a run and not
    zero throughout; one curve per run."""
    found = []
    for event, prefix, section in _KINDS:
        series = {run.name: _series(run.events.get(event, [])) for run in runs}
        for key in _ordered(key for own in series.values() for key in own):
            curves_of = [(place, run.name, series[run.name].get(key)) for place, run in enumerate(runs)]
            drawn = [(place, name, points) for place, name, points in curves_of if points]
            if key == "unlikelihood":  # methods that have none write zeros
                drawn = [curve for curve in drawn if any(y for _, y in curve[2])]
            if any(y for _, _, points in drawn for _, y in points):
                found.append(_figure(prefix, key, section, drawn, len(runs)))
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
            if isinstance(value, (int, float)) or value in ("nan", "inf", "-inf"):
                found.setdefault(key, {})[line["step"]] = finite(value)
    return {key: sorted(points.items()) for key, points in found.items()}


def _ordered(keys: Iterable[str]) -> list[str]:
    """Each once: the parts of the loss first, then as the lines have them."""
    present = list(dict.fromkeys(keys))
    return [key for key in _FIRST if key in present] + [key for key in present if key not in _FIRST]


def _figure(prefix: str, key: str, section: str, drawn: list, runs: int) -> Figure:
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
    note = (
        f"{left_out:,} points are left out; the smallest and the largest of each stretch stay."
        if left_out
        else ""
    )
    title = {"": "", "validation.": "validation: ", "epoch.": "epochs: "}[prefix] + axis_title(key)
    layout = axes("step", axis_title(key) + (" per step" if key in ("seconds", "data_wait_seconds") else ""))
    present = {y for _, _, points in drawn for _, y in points if y is not None}
    if len(present) == 1 and (value := present.pop()) > 0:
        layout["yaxis"]["range"] = [0, 1.5 * value]  # plotly would show from value - 1 to value + 1
    return Figure(prefix + key, section, title, traces, {**layout, "showlegend": runs > 1}, note)

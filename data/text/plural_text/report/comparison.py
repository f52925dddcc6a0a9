"""Figures that compare: diversity against its cost with the Pareto front, arms of a sweep with intervals.

Owns: which pairs are drawn, which direction is better. Does not own: the front (pareto.py), how figures are
measured (docs/metrics.md). Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plural_text.common import pareto
from plural_text.common.json_lines import finite
from plural_text.report.comparable import alike, told_apart
from plural_text.report.figure import SYMBOLS, Figure, axes, axis_title, colour
from plural_text.report.figure_files import Measured
from plural_text.report.sweep import Sweep

# The first of each that two or more have is drawn; higher is better of diversity, lower of cost.
DIVERSITY = (
    "semantic_diversity",
    "coverage_valid_mean",
    "coverage_mean",
    "coverage",
    "distinct_2",
    "distinct_1",
    "different_responses",
    "token_distinct_2",
)
COSTS = ("incoherence", "incoherence_rate", "perplexity")


def trade_offs(figures: Mapping[str, Mapping[str, Measured]]) -> tuple[list[Figure], list[str]]:
    """`figures`: label -> name -> value. One figure for each cost that two labels have together with a
    diversity, both measured on the same, and why others are not drawn."""
    found, notes = [], []
    for cost in COSTS:
        for diversity in DIVERSITY:
            points = [
                (label, own[cost], own[diversity])
                for label, own in figures.items()
                if cost in own and diversity in own
            ]
            if len(points) < 2:
                continue
            same, *others = alike(points, lambda point: (point[1].on, point[2].on))
            if others:
                notes.append(_told_apart(f"{diversity}-{cost}", same, others))
            if len(same) >= 2:
                found.append(_trade_off(f"{diversity}-{cost}", cost, diversity, "lower", "higher", same))
                break
    return found, notes


def _told_apart(name: str, same: list, others: list[list]) -> str:
    """Which labels a figure leaves out, and what was measured on what."""
    tell = told_apart(value.on for group in (same, *others) for _, *values in group for value in values)

    def told(group: list) -> str:
        _, x, y = group[0]
        labels = ", ".join(label for label, _, _ in group)
        return f"{labels} on {' and '.join(dict.fromkeys((tell(x.on), tell(y.on))))}"

    return f"{name}: figures that were not measured on the same are not compared: " + "; ".join(
        told(group) for group in (same, *others)
    )


def _trade_off(name: str, x: str, y: str, x_better: str, y_better: str, points: list) -> Figure:
    places = pareto.front([(a.value, b.value) for _, a, b in points], x_better, y_better)
    front = [points[place] for place in places]
    return _scatter(
        name,
        f"{axis_title(y)} against {axis_title(x)}",
        axes(axis_title(x), axis_title(y)),
        points,
        [label for label, _, _ in front],
        _direction(x_better, y_better),
    )


def _direction(x_better: str, y_better: str) -> str:
    right = "right" if x_better == "higher" else "left"
    return f"Better lies to the {right} and {'up' if y_better == 'higher' else 'down'}."


def _scatter(
    name: str,
    title: str,
    layout: dict,
    points: list,
    front: list[str],
    note: str,
    section: str = "comparison",
) -> Figure:
    """`points`: (label, x, y), values with intervals. The front is a line through its points by rising x."""
    line = sorted((p for p in points if p[0] in front), key=lambda p: (p[1].value, p[2].value))
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [x.value for _, x, _ in line],
            "y": [y.value for _, _, y in line],
            "line": {"color": "#888888", "dash": "dash", "width": 1.5},
            "hoverinfo": "skip",
        }
    ]
    for place, (label, x, y) in enumerate(points):
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label,
                "x": [x.value],
                "y": [y.value],
                "error_x": _bars([x]),
                "error_y": _bars([y]),
                "meta": {"columns": _ends("x", [x]) | _ends("y", [y])},
                "marker": {
                    "color": colour(place),
                    "symbol": SYMBOLS[place % len(SYMBOLS)],
                    "size": 11 if label in front else 8,
                    "opacity": 1 if label in front else 0.6,
                },
                "hovertemplate": "%{x}, %{y}",
            }
        )
    note += f" On the Pareto front: {', '.join(label for label, _, _ in line) or 'none'}."
    return Figure(name, section, title, traces, {**layout, "showlegend": True}, note)


def _bars(values: Sequence[Measured]) -> dict:
    """Error bars; of length zero where a value has no interval."""
    if not any(value.interval for value in values):
        return {"visible": False}
    ends = [value.interval or (value.value, value.value) for value in values]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, finite(high - value.value) or 0.0) for value, (_, high) in zip(values, ends)],
        "arrayminus": [max(0.0, finite(value.value - low) or 0.0) for value, (low, _) in zip(values, ends)],
        "thickness": 1,
        "width": 3,
    }


def _ends(axis: str, values: Sequence[Measured]) -> dict[str, list[float | None]]:
    """The intervals as columns: error bars hold differences, which are rounded."""
    if not any(value.interval for value in values):
        return {}
    ends = [value.interval or (None, None) for value in values]
    return {f"{axis}_low": [low for low, _ in ends], f"{axis}_high": [high for _, high in ends]}


def sweep_figures(sweep: Sweep) -> list[Figure]:
    """The sweep's own Pareto front, and the arms with their intervals for each figure."""
    found = []
    if sweep.pareto is not None and (points := _points(sweep)):
        p = sweep.pareto
        x, y = axis_title(_last(p.x)), axis_title(_last(p.y))
        note = _direction(p.x_better, p.y_better)
        found.append(_scatter("sweep.pareto", f"{y} against {x}", axes(x, y), points, p.front, note, "sweep"))
    for name in sweep.figures:
        arms = [(arm.arm, value) for arm in sweep.arms if (value := _measured(arm.figures.get(name, {})))]
        if arms:
            trace = {
                "type": "scatter",
                "mode": "markers",
                "x": [value.value for _, value in arms],
                "y": [label for label, _ in arms],
                "marker": {"color": colour(0), "size": 9},
                "error_x": _bars([value for _, value in arms]),
                "meta": {"columns": _ends("x", [value for _, value in arms])},
                "hovertemplate": "%{y}: %{x}",
            }
            layout = axes(axis_title(_last(name)), "arm", showlegend=False)
            layout["yaxis"].update(autorange="reversed", type="category")
            note = (
                "Mean over seeds with its interval." if trace["error_x"].get("array") else "Mean over seeds."
            )
            found.append(Figure(f"sweep.{name}", "sweep", f"{name} of each arm", [trace], layout, note))
    return found


def _points(sweep: Sweep) -> list[tuple[str, Measured, Measured]]:
    """Arms where the front names arms, else runs."""
    p = sweep.pareto
    assert p is not None
    arms = [
        (arm.arm, x, y)
        for arm in sweep.arms
        if (x := _measured(arm.figures.get(p.x, {}))) and (y := _measured(arm.figures.get(p.y, {})))
    ]
    rows = [
        (row.label, Measured(x, None), Measured(y, None))
        for row in sweep.rows
        if (x := row.figures.get(p.x)) is not None and (y := row.figures.get(p.y)) is not None
    ]
    named = set(p.front)
    return arms if named <= {label for label, _, _ in arms} and arms else rows


def _measured(numbers: Mapping[str, float | None]) -> Measured | None:
    mean, low, high = (numbers.get(key) for key in ("mean", "ci_low", "ci_high"))
    if mean is None:
        return None
    return Measured(mean, None if low is None or high is None else (low, high))


def _last(name: str) -> str:
    return name.rpartition(".")[2]

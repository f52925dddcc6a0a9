"""Where the time of a step went, as a profiled run wrote it.

Owns: the figure. Does not own: measuring, parts (docs/running.md). Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_text.report.figure import Figure, axes, colour
from plural_text.report.runs import Run

# Of the picture without its bars, in pixels; the legend has up to a dozen parts.
_HEIGHT = 380


def time_figure(runs: Sequence[Run]) -> list[Figure]:
    """One bar per rank of the runs that have a profile, in milliseconds per step; [] where none has."""
    bars = [(_name(run, rank), dict(parts)) for run in runs for rank, parts in run.profiles.items() if parts]
    if not bars:
        return []
    parts = list(dict.fromkeys(part for _, own in bars for part in own))
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "y": [name for name, _ in bars],
            "x": [own.get(part, 0.0) for _, own in bars],
            "marker": {
                "color": colour(place),
                # More parts than colours: the second round is hatched.
                "pattern": {"shape": "/" if place >= 6 else ""},
                "line": {"width": 0.5, "color": "#888888"},
            },
            "hovertemplate": "%{fullData.name}: %{x} ms",
        }
        for place, part in enumerate(parts)
    ]
    layout = axes(
        "milliseconds per step", "", barmode="stack", showlegend=True, height=_HEIGHT + 40 * len(bars)
    )
    layout["yaxis"].update(type="category", autorange="reversed")
    return [Figure("profile", "time", "Where the time of a step went", traces, layout)]


def _name(run: Run, rank: str) -> str:
    return f"{run.name}, {rank}" if len(run.profiles) > 1 else run.name

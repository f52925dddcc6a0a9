"""What trackers get of a line of metrics.jsonl.

Owns: which lines have figures, their names. Does not own: the keys of lines (docs/running.md, "The run
folder"). Thread rule: pure functions.
"""

from __future__ import annotations

# Lines that say what happened and measure nothing.
_WITHOUT_FIGURES = {"start", "resume", "checkpoint"}
_NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def figures_of(line: dict) -> dict[str, float]:
    """Name -> value: "train/loss" of a step, "validation/perplexity" of a validation. Empty where nothing
    was measured."""
    event = line["event"]
    if event in _WITHOUT_FIGURES:
        return {}
    before = "train" if event == "step" else event
    figures = {}
    for key, value in line.items():
        value = _NOT_FINITE.get(value, value) if isinstance(value, str) else value
        if key != "step" and type(value) in (int, float):
            figures[f"{before}/{key}"] = value
    return figures

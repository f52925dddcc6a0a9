"""Figures of answers and of models: what `plural metrics -o` and `plural evaluate -o` write.

Owns: reading both. Does not own: how figures are measured (docs/metrics.md). Thread rule: values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import finite, read_object
from plural_text.report.comparable import Key


@dataclass(frozen=True)
class Measured:
    """`interval`: of 95 %, None where there is none. `on`: what it was measured on, as far as the file says;
    only figures of the same are compared."""

    value: float
    interval: tuple[float, float] | None
    on: Key = ()


@dataclass(frozen=True)
class FigureFile:
    """`responses_file`: what `plural metrics` measured, "" of evaluate. `prompts`: evaluate's figures of each
    prompt by name, with its "id"."""

    path: Path
    responses_file: str
    figures: dict[str, Measured]
    prompts: list[dict] = field(default_factory=list)


def read_figure_file(path: Path) -> FigureFile:
    """Errors: MissingInput, BadData."""
    content = read_object(path)
    if isinstance(content.get("figures"), dict):
        return _of_metrics(path, content)
    if isinstance(content.get("summary"), dict) and isinstance(content.get("groups"), list):
        return _of_evaluate(path, content)
    raise BadData(
        f"{path}: neither has 'figures', as plural metrics -o writes, nor 'summary' and 'groups', as plural "
        "evaluate -o writes; give such a file"
    )


def _of_metrics(path: Path, content: dict) -> FigureFile:
    found = {}
    prompts, responses = finite(content.get("prompts")), finite(content.get("responses"))
    on: Key = ()
    if prompts and responses is not None:  # a method may give a few responses less than it was asked for
        on = (("prompts", prompts), ("responses per prompt", round(responses / prompts)))
    for name, fields in content["figures"].items():
        if not isinstance(fields, dict) or "value" not in fields:
            raise BadData(f"{path}: key 'figures.{name}' must hold an object with 'value'")
        if (value := finite(fields["value"])) is not None:
            found[name] = Measured(value, _interval(fields.get("interval_95")), on)
    return FigureFile(path, str(content.get("responses_file", "")), found)


def _of_evaluate(path: Path, content: dict) -> FigureFile:
    summary = content["summary"]
    intervals = summary.get("intervals_95")
    intervals = intervals if isinstance(intervals, dict) else {}
    on = (("groups", len(content["groups"])),)
    found = {
        name: Measured(value, _interval(intervals.get(name)), on)
        for name, field_ in summary.items()
        if name != "groups" and (value := finite(field_)) is not None
    }
    for place, group in enumerate(content["groups"]):
        if not isinstance(group, dict) or not isinstance(group.get("id"), str):
            raise BadData(f"{path}: groups[{place}] must hold an object with a text under 'id'")
    return FigureFile(path, "", found, content["groups"])


def _interval(value) -> tuple[float, float] | None:
    if isinstance(value, list) and len(value) == 2:
        low, high = map(finite, value)
        if low is not None and high is not None:
            return low, high
    return None

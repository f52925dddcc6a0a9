"""Figures of the prompts one by one, or task by task.

A task is what stands before the first "/" or ":" of a prompt's id: the folder or the file that `plural
prepare` made the id of. Owns: which answers belong together, their figures, the form of both outputs. Does
not own: any figure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plural_text.metrics.figure import Figure
from plural_text.metrics.figure_report import aligned, number
from plural_text.metrics.responses import Answers

KINDS = ("prompt", "task")
_WIDEST_NAME = 40  # columns; the JSON file has all of it


@dataclass(frozen=True)
class Group:
    """The figures of some prompts."""

    name: str
    prompts: int
    responses: int
    figures: list[Figure]

    def json(self, kind: str) -> dict:
        return {
            kind: self.name,
            "prompts": self.prompts,
            "responses": self.responses,
            "figures": {figure.name: figure.json() for figure in self.figures},
        }


def task_of(prompt_id: str) -> str:
    """ "day-date/day-0:3" -> "day-date"; an id without either sign is a task of its own."""
    return re.split("[/:]", prompt_id, maxsplit=1)[0] or prompt_id


def groups_of(answers: Sequence[Answers], kind: str, metrics: Sequence[Callable]) -> list[Group]:
    """In the order of their first prompts. metrics: from a list of Answers to a list of Figure."""
    members: dict[str, list[Answers]] = {}
    for prompt in answers:
        members.setdefault(prompt.id if kind == "prompt" else task_of(prompt.id), []).append(prompt)
    return [
        Group(
            name,
            len(own),
            sum(len(prompt.responses) for prompt in own),
            [figure for metric in metrics for figure in metric(own)],
        )
        for name, own in members.items()
        if any(prompt.responses for prompt in own)
    ]


def group_lines(groups: Sequence[Group], kind: str) -> list[str]:
    """For people: a row per group, a column per figure that one of them has, without intervals."""
    names = dict.fromkeys(
        figure.name for group in groups for figure in group.figures if figure.value is not None
    )
    rows = [(kind, "prompts", "responses", *names)]
    for group in groups:
        values = {figure.name: figure.value for figure in group.figures}
        cells = ["-" if values.get(name) is None else number(values[name]) for name in names]
        rows.append((_shortened(group.name), f"{group.prompts:,}", f"{group.responses:,}", *cells))
    return aligned(rows)


def _shortened(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= _WIDEST_NAME else line[: _WIDEST_NAME - 3] + "..."

"""The values of the answers to each prompt: which there are, how often, with which share.

A value is the key of an answer (coverage.py). Where a prompt has targets, their shares stand beside those of
the answers, and targets that were never given are values of count 0. Owns: the counts, their lines. Does not
own: figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plural_text.metrics.coverage import answer_key
from plural_text.metrics.responses import Answers
from plural_text.metrics.targets import Target, match_targets, read_targets

_WIDEST_VALUE = 60  # columns; the JSON file has all of it


@dataclass(frozen=True)
class PromptValues:
    """Values with their counts, most frequent first, equals by their share of the targets, then in the order
    of the alphabet."""

    id: str
    prompt: str
    responses: int
    values: list[tuple[str, int]]
    target_shares: dict[str, float] | None  # of the values that are targets; None: the prompt has none

    @property
    def different(self) -> int:
        return sum(count > 0 for _, count in self.values)

    def share(self, count: int) -> float:
        return count / self.responses

    def json(self) -> dict:
        values = [
            {"value": value, "count": count, "share": self.share(count)}
            | ({"target_share": self.target_shares.get(value, 0.0)} if self.target_shares else {})
            for value, count in self.values
        ]
        return {"id": self.id, "prompt": self.prompt, "responses": self.responses, "values": values}


def values_of(answers: Sequence[Answers], targets_file: Path | None) -> list[PromptValues]:
    """Of prompts with a response, in the file's order. Errors: those of read_targets and match_targets."""
    answers = [prompt for prompt in answers if prompt.responses]
    sets: dict[str, list[Target]] = {}
    if targets_file:
        sets = match_targets(read_targets(targets_file), [prompt.id for prompt in answers], targets_file)
    found = []
    for prompt in answers:
        counts = Counter(answer_key(text) for text in prompt.texts)
        shares = _shares(sets[prompt.id]) if prompt.id in sets else None
        different = {*counts, *(shares or {})}
        in_order = sorted(
            ((value, counts[value]) for value in different),
            key=lambda item, shares=shares or {}: (-item[1], -shares.get(item[0], 0.0), item[0]),
        )
        found.append(PromptValues(prompt.id, prompt.prompt, len(prompt.responses), in_order, shares))
    return found


def _shares(targets: Sequence[Target]) -> dict[str, float]:
    """Of the weights, by key; targets with the same key count together."""
    total = math.fsum(target.weight for target in targets)
    shares: dict[str, float] = {}
    for target in targets:
        key = answer_key(target.text)
        shares[key] = shares.get(key, 0.0) + target.weight / total
    return shares


def value_lines(prompts: Sequence[PromptValues], top: int) -> list[str]:
    """For people: the `top` most frequent of each prompt."""
    lines = []
    for prompt in prompts:
        aimed = f", {len(prompt.target_shares):,} targets" if prompt.target_shares else ""
        lines.append(f"{prompt.id}: {prompt.different:,} values of {prompt.responses:,} responses{aimed}")
        shown = [(_one_line(value), count, value) for value, count in prompt.values[:top]]
        width = max(len(line) for line, _, _ in shown)
        for line, count, value in shown:
            row = f"  {line:<{width}}  {count:>8,}  {prompt.share(count):>7.1%}"
            if prompt.target_shares:
                row += f"  {prompt.target_shares.get(value, 0.0):>7.1%} of the targets"
            lines.append(row)
        if len(prompt.values) > top:
            lines.append(f"  and {len(prompt.values) - top:,} more")
    return lines


def _one_line(value: str) -> str:
    line = " ".join(value.split()) or "(empty)"
    return line if len(line) <= _WIDEST_VALUE else line[: _WIDEST_VALUE - 3] + "..."

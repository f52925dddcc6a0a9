"""The values of the answers to each prompt: which there are, how often, with which share.

A value is the key of an answer (coverage.py). Owns: the counts, their lines. Does not own: figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from plural_text.metrics.coverage import answer_key
from plural_text.metrics.responses import Answers

_WIDEST_VALUE = 60  # columns; the JSON file has all of it


@dataclass(frozen=True)
class PromptValues:
    """Values with their counts, most frequent first, equals in the order of the alphabet."""

    id: str
    prompt: str
    responses: int
    values: list[tuple[str, int]]

    def json(self) -> dict:
        values = [
            {"value": value, "count": count, "share": count / self.responses} for value, count in self.values
        ]
        return {"id": self.id, "prompt": self.prompt, "responses": self.responses, "values": values}


def values_of(answers: Sequence[Answers]) -> list[PromptValues]:
    """Of prompts with a response, in the file's order."""
    found = []
    for prompt in answers:
        counts = Counter(answer_key(text) for text in prompt.texts)
        if counts:
            in_order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            found.append(PromptValues(prompt.id, prompt.prompt, len(prompt.responses), in_order))
    return found


def value_lines(prompts: Sequence[PromptValues], top: int) -> list[str]:
    """For people: the `top` most frequent of each prompt."""
    lines = []
    for prompt in prompts:
        lines.append(f"{prompt.id}: {len(prompt.values):,} values of {prompt.responses:,} responses")
        shown = [(_one_line(value), count) for value, count in prompt.values[:top]]
        width = max(len(value) for value, _ in shown)
        lines += [
            f"  {value:<{width}}  {count:>8,}  {count / prompt.responses:>7.1%}" for value, count in shown
        ]
        if len(prompt.values) > top:
            lines.append(f"  and {len(prompt.values) - top:,} more")
    return lines


def _one_line(value: str) -> str:
    line = " ".join(value.split()) or "(empty)"
    return line if len(line) <= _WIDEST_VALUE else line[: _WIDEST_VALUE - 3] + "..."

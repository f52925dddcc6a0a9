"""Distinct-n: the share of different n-grams among all n-grams of all responses.

An n-gram is kept if none of its n tokens is punctuation, so none bridges punctuation. A response of exactly
one token contributes nothing, as in the published code. The figure falls as texts get more or longer: compare
only files with the same numbers of prompts and responses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from plural_text.metrics.bootstrap import Interval, influence_interval
from plural_text.metrics.figure import Figure
from plural_text.metrics.responses import Answers
from plural_text.metrics.words import PUNCTUATION, words

SIZES = (1, 2)


@dataclass(frozen=True)
class Distinct:
    """value = unique / total; 0 where there are no n-grams at all."""

    unique: int
    total: int
    interval: Interval | None

    @property
    def value(self) -> float:
        return self.unique / self.total if self.total else 0.0


def kept_ngrams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """The n-grams of one response that count; tokens as words.words gives them."""
    if len(tokens) < 2:
        return []
    grams = zip(*(tokens[i:] for i in range(n)))
    return [gram for gram in grams if PUNCTUATION.isdisjoint(gram)]


def distinct_n(texts_by_prompt: Sequence[Sequence[str]], n: int) -> Distinct:
    """Distinct-n over all texts of all prompts, with its interval over prompts."""
    return _distinct([[words(text) for text in texts] for texts in texts_by_prompt], n)


def figures(answers: list[Answers], _arguments) -> list[Figure]:
    tokens_by_prompt = [[words(text) for text in prompt.texts] for prompt in answers]
    found = []
    for n in SIZES:
        distinct = _distinct(tokens_by_prompt, n)
        note = (
            "" if distinct.total else f"no {n}-grams: every response is empty, one token or all punctuation"
        )
        found.append(
            Figure(
                f"distinct_{n}", distinct.value, distinct.total, f"{n}-grams", distinct.interval, note=note
            )
        )
    return found


def _distinct(tokens_by_prompt: Sequence[Sequence[Sequence[str]]], n: int) -> Distinct:
    per_prompt = [
        Counter(gram for tokens in responses for gram in kept_ngrams(tokens, n))
        for responses in tokens_by_prompt
    ]
    prompts_with = Counter(gram for counts in per_prompt for gram in counts)
    unique, total = len(prompts_with), sum(counts.total() for counts in per_prompt)
    if not total:
        return Distinct(0, 0, None)
    # Without a prompt, the n-grams that only it has are gone.
    without = []
    for counts in per_prompt:
        others = total - counts.total()
        if not others:  # one prompt has all n-grams: the figure without it does not exist
            return Distinct(unique, total, None)
        without.append((unique - sum(prompts_with[gram] == 1 for gram in counts)) / others)
    return Distinct(unique, total, influence_interval(unique / total, without, range_of_values=(0.0, 1.0)))

"""Normalised unigram diversity: different words over all words of all texts (the corpus type/token ratio).

Words are those of Distinct-1, but texts of a single word count, too. The ratio falls as texts get longer, so
it is also given at a fixed budget: over the first so many words.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from plural_text.common.options import whole_number
from plural_text.metrics.bootstrap import influence_interval
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers
from plural_text.metrics.words import PUNCTUATION, words

DEFAULT_BUDGET_WORDS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unigram-budget",
        type=whole_number(1),
        default=DEFAULT_BUDGET_WORDS,
        metavar="WORDS",
        help="unigram: also over the first so many words (default: %(default)s)",
    )


def counted_words(text: str) -> list[str]:
    return [word for word in words(text) if word not in PUNCTUATION]


def diversity(words_of_texts: Sequence[Sequence[str]]) -> float | None:
    """unique / total over all texts; None without a word."""
    total = sum(map(len, words_of_texts))
    return len(set().union(*words_of_texts)) / total if total else None


def at_budget(words_of_texts: Sequence[Sequence[str]], budget: int) -> float | None:
    """The same over the first `budget` words in the order of the texts; None where there are fewer."""
    first = [word for found in words_of_texts for word in found][:budget]
    return len(set(first)) / budget if len(first) == budget else None


def figures(answers: list[Answers], arguments) -> list[Figure]:
    return text_figures("unigram_diversity", [prompt.texts for prompt in answers], arguments.unigram_budget)


def text_figures(name: str, texts_by_prompt: Sequence[Sequence[str]], budget: int) -> list[Figure]:
    """The figure over all texts and at the budget, under `name` (biography.py names fields).

    The interval is over prompts, or over the texts of a single prompt.
    """
    groups = [[word for text in texts for word in counted_words(text)] for texts in texts_by_prompt]
    units = "prompts"
    if len(groups) == 1:
        groups, units = [counted_words(text) for text in texts_by_prompt[0]], "responses"
    total = sum(map(len, groups))
    value = diversity(groups)
    if value is None:
        whole = undefined(name, 0, "words", "no words")
    else:
        whole = Figure(name, value, total, "words", _interval(groups, units))
    limited_name = f"{name}_first_{budget}_words"
    limited = at_budget(groups, budget)
    if limited is None:
        return [
            whole,
            undefined(limited_name, total, "words", f"only {total:,} words; give a smaller --unigram-budget"),
        ]
    return [whole, Figure(limited_name, limited, budget, "words")]


def _interval(groups: Sequence[Sequence[str]], units: str):
    sets = [set(group) for group in groups]
    owners: dict[str, int] = {}
    for words_ in sets:
        for word in words_:
            owners[word] = owners.get(word, 0) + 1
    total = sum(map(len, groups))
    if any(len(group) == total for group in groups):
        return None
    without = [
        (len(owners) - sum(owners[word] == 1 for word in own)) / (total - len(group))
        for group, own in zip(groups, sets)
    ]
    return influence_interval(len(owners) / total, without, units=units, range_of_values=(0.0, 1.0))

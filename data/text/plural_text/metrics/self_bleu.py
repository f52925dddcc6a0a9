"""Self-BLEU: how much of each response stands in the others to the same prompt; 1 when all are equal.

nltk's sentence_bleu of a response against all others of its prompt: n-grams up to 4, equal weights, smoothing
method 1 (0.1 in place of no match, Chen & Cherry 2014), weights spread over the n-grams there are for
responses of fewer than four tokens; mean over responses. Lower is more diverse. It counts words, not
meanings, and rises with the number of responses: compare equal numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plural_text.metrics.bootstrap import Interval, interval
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers
from plural_text.metrics.words import words

# The work grows with the square of the responses; further ones are left out, and the figure's note counts
# them.
MAX_RESPONSES = 100


@dataclass(frozen=True)
class SelfBleu:
    value: float | None  # None: no prompt has two responses with words
    responses: int
    interval: Interval | None = None


def self_bleu(texts_by_prompt: Sequence[Sequence[str]]) -> SelfBleu:
    """Mean over all responses that have a word and another such response to compare with."""
    sums, counts = [], []
    for texts in texts_by_prompt:
        tokens = [found for text in texts[:MAX_RESPONSES] if (found := words(text))]
        if len(tokens) > 1:
            sums.append(sum(_bleu(tokens[:i] + tokens[i + 1 :], tokens[i]) for i in range(len(tokens))))
            counts.append(len(tokens))
    if not counts:
        return SelfBleu(None, 0)
    return SelfBleu(sum(sums) / sum(counts), sum(counts), interval(sums, counts))


def figures(answers: list[Answers], _arguments) -> list[Figure]:
    found = self_bleu([prompt.texts for prompt in answers])
    if found.value is None:
        return [undefined("self_bleu", 0, "responses", "no prompt has two responses with words")]
    longest = max(len(prompt.responses) for prompt in answers)
    note = f"the first {MAX_RESPONSES} responses of a prompt" if longest > MAX_RESPONSES else ""
    return [Figure("self_bleu", found.value, found.responses, "responses", found.interval, note=note)]


def _bleu(references: list[list[str]], hypothesis: list[str]) -> float:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    return float(
        sentence_bleu(
            references, hypothesis, smoothing_function=SmoothingFunction().method1, auto_reweigh=True
        )
    )

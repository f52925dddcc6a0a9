"""Semantic diversity: 1 - mean cosine similarity of two responses to the same prompt.

Owns: the formula over pairs. Does not own: the vectors (encoder.py). A prompt with one response has no pair
and does not count; the published code gives it a diversity of 0. Equal responses count, with similarity 1.
The value can exceed 1.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plural_text.metrics.bootstrap import Interval, interval
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers

_NO_PAIRS = "one response per prompt: there is no pair to compare"


@dataclass(frozen=True)
class Diversity:
    """micro pools the pairs of all prompts (as published), macro is the mean over prompts with a pair.

    Both None without a pair.
    """

    micro: float | None
    macro: float | None
    pairs: int
    prompts: int  # with at least one pair
    micro_interval: Interval | None = None
    macro_interval: Interval | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--encoder",
        type=Path,
        metavar="DIR",
        help="semantic: a local sentence-transformers model (default: the packaged all-MiniLM-L6-v2)",
    )


def diversity(vectors_by_prompt: Sequence) -> Diversity:
    """vectors_by_prompt: per prompt an array [responses, dimensions] of any length. Errors: ValueError for a
    vector of length 0, which has no direction."""
    distances, pairs = [], []
    for vectors in vectors_by_prompt:
        count = len(vectors)
        if count > 1:
            pairs.append(count * (count - 1) // 2)
            distances.append(pairs[-1] - _similarity_sum(vectors))
    if not pairs:
        return Diversity(None, None, 0, 0)
    means = [distance / count for distance, count in zip(distances, pairs)]
    return Diversity(
        sum(distances) / sum(pairs),
        sum(means) / len(means),
        sum(pairs),
        len(pairs),
        interval(distances, pairs),
        interval(means),
    )


def figures(answers: list[Answers], arguments) -> list[Figure]:
    if all(len(prompt.responses) < 2 for prompt in answers):  # do not load an encoder for nothing
        return [
            undefined("semantic_diversity", 0, "pairs", _NO_PAIRS),
            undefined("semantic_diversity_macro", 0, "prompts", _NO_PAIRS),
        ]
    encoder = _opened(arguments.encoder)
    found = diversity(vectors_of([prompt.texts for prompt in answers], encoder))
    alone = sum(len(prompt.responses) < 2 for prompt in answers)
    note = f"encoder {encoder.name} {encoder.sha256[:12]}"
    if alone:
        note += f"; {alone:,} prompts with fewer than two responses left out"
    return [
        Figure("semantic_diversity", found.micro, found.pairs, "pairs", found.micro_interval, note=note),
        Figure(
            "semantic_diversity_macro", found.macro, found.prompts, "prompts", found.macro_interval, note=note
        ),
    ]


@functools.cache
def _opened(folder: Path | None):
    """One encoder for all files and groups of prompts that are measured."""
    from plural_text.common.encoder import SentenceEncoder

    return SentenceEncoder(folder)


def vectors_of(texts_by_prompt: Sequence[Sequence[str]], encoder) -> list:
    """Per prompt the encoder's vectors [responses, dimensions]; equal texts are encoded once."""
    different = sorted({text for texts in texts_by_prompt for text in texts})
    place = {text: i for i, text in enumerate(different)}
    vectors = encoder.encode(different)
    return [vectors[[place[text] for text in texts]] for texts in texts_by_prompt]


def _similarity_sum(vectors) -> float:
    """Sum of the cosines of all pairs i < j: of unit vectors u, (|sum u|^2 - n) / 2."""
    import numpy

    vectors_RD = numpy.asarray(vectors, dtype=numpy.float64)
    length_R = numpy.linalg.norm(vectors_RD, axis=1, keepdims=True)
    if not (length_R > 0).all():
        raise ValueError("a vector of length 0 has no direction")
    sum_D = (vectors_RD / length_R).sum(axis=0)
    return float((sum_D @ sum_D - len(vectors_RD)) / 2)

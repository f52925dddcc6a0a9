"""Which replies to one prompt are different enough to stand beside each other.

Owns: when two replies are equal or nearly equal, the counts of what is left out. Does not own: where replies
come from. Thread rule: one thread at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from plural_text.postprocess import steps

_WORD = re.compile(r"\w+")
_STEPS = ("speaker_label", "ends", "spaces")


@dataclass
class LeftOut:
    equal: int = 0
    near: int = 0


def tidy(item: str, speakers: tuple[str, ...]) -> str:
    """An item of a list as a reply: without a speaker's label and quotation marks around it."""
    for name, step in steps(speakers or ("Person A", "Person B")):
        item = step(item) if name in _STEPS else item
    return item


def overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard's index of two sets of words: common ones over all; 0 of two empty sets."""
    union = len(one | other)
    return len(one & other) / union if union else 0.0


def different(replies: Iterable[str], count: int, max_overlap: float, left_out: LeftOut) -> list[str]:
    """The first `count` replies none of which is equal to an earlier one but for case, punctuation and
    spaces, or has an overlap of words with it of more than `max_overlap`."""
    kept: list[str] = []
    words: list[tuple[tuple[str, ...], frozenset[str]]] = []
    for reply in replies:
        if len(kept) == count:
            break
        in_order = tuple(_WORD.findall(reply.casefold())) or (reply,)
        own = frozenset(in_order)
        if any(in_order == other for other, _ in words):
            left_out.equal += 1
        elif any(overlap(own, other) > max_overlap for _, other in words):
            left_out.near += 1
        else:
            kept.append(reply)
            words.append((in_order, own))
    return kept

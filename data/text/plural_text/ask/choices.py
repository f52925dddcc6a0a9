"""Which possibility number or latent each answer is asked with.

Owns: the words of --possibilities, the draws. Does not own: prompts. Thread rule: free of state.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from plural_text.common.errors import UsageError

_WORDS = ("none", "first", "sample")


@dataclass(frozen=True)
class Choice:
    """policy: none, first (1, 2, ...), sample (all different until all have been drawn) or given."""

    policy: str = "none"
    given: tuple[int, ...] = ()

    def numbers(self, count: int, largest: int, key: str) -> list[int]:
        """The number of each of `count` answers; 0: none. `key` decides the draws."""
        if self.policy == "none":
            return [0] * count
        if self.policy == "given":
            return [self.given[i % len(self.given)] for i in range(count)]
        order = list(range(1, largest + 1))
        if self.policy == "first":
            return [order[i % largest] for i in range(count)]
        draws, found = random.Random(key), []
        while len(found) < count:
            found += draws.sample(order, min(largest, count - len(found)))
        return found


def parse_choice(option: str, text: str) -> Choice:
    """Errors: UsageError."""
    if text in _WORDS:
        return Choice(text)
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 1 <= len(part) <= 6 and int(part) for part in parts):
        raise UsageError(
            f"{option} '{text}': allowed are {', '.join(_WORDS)}, or numbers from 1 separated by commas, "
            "such as 1,4"
        )
    return Choice("given", tuple(map(int, parts)))

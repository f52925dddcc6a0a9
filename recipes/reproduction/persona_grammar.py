"""The persona grammar (persona.json): conversations, and what a reply reveals.

Owns: openings, questions, answers with a known skew, parsing. Does not own: files, commands.
Every draw comes from the Random that is passed in. Thread rule: immutable.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

_HERE = Path(__file__).resolve().parent


class PersonaGrammar:
    def __init__(self):
        spec = json.loads((_HERE / "persona.json").read_text(encoding="utf-8"))
        topics = json.loads((_HERE.parent / "quickstart" / "questions.json").read_text(encoding="utf-8"))
        named = {entry["name"]: entry["topics"] for entry in topics["categories"]}
        self._words = (
            named["instruments"] + named["animals"] + named["things"]
        )  # what one can see and dream of
        self._openings, self._small_talk = spec["openings"], spec["small_talk"]
        self._slots = {slot["name"]: slot for slot in spec["slots"]}
        self._value = {
            slot["answer"].format(value): (name, value)
            for name, slot in self._slots.items()
            for value in slot["values"]
        }

    @property
    def slots(self) -> list[str]:
        """In the order in which they are asked."""
        return list(self._slots)

    def openings(self, held_out: bool) -> list[list[str]]:
        """[A's first turn, B's answer] of every word, wording and answer; every fifth word is held out."""
        words = [word for place, word in enumerate(self._words) if (place % 5 == 4) == held_out]
        return [
            [opening.format(word), answer]
            for word in words
            for opening in self._openings
            for answer in self._small_talk
        ]

    def question(self, slot: str) -> str:
        return self._slots[slot]["question"]

    def answer(self, slot: str, value: str) -> str:
        return self._slots[slot]["answer"].format(value)

    def shares(self, slot: str) -> dict[str, float]:
        """The share of each value in the answers of the model to start from."""
        spec = self._slots[slot]
        left, shares = 1.0, {}
        share = spec["favourite_share"]
        for value in spec["values"]:
            shares[value] = left * share
            left -= shares[value]
            share = spec["next_share"]
        shares[spec["values"][-1]] += left
        return shares

    def usual_answer(self, slot: str, draw: random.Random) -> str:
        shares = self.shares(slot)
        return self.answer(slot, draw.choices(list(shares), list(shares.values()))[0])

    def candidates(self, slot: str, count: int, draw: random.Random) -> list[str]:
        """Different answers by another author: less skewed (square roots of the shares), likely ones
        first."""
        left = {value: share**0.5 for value, share in self.shares(slot).items()}
        chosen = []
        for _ in range(min(count, len(left))):
            value = draw.choices(list(left), list(left.values()))[0]
            del left[value]
            chosen.append(self.answer(slot, value))
        return chosen

    def history(self, slots: list[str], opening: list[str], draw: random.Random) -> list[str]:
        """Turns up to and with the last slot's question; the earlier ones are answered as usual."""
        turns = list(opening)
        for slot in slots[:-1]:
            turns += [self.question(slot), self.usual_answer(slot, draw)]
        return [*turns, self.question(slots[-1])]

    def documents(self, count: int, prompts: dict, draw: random.Random) -> list[str]:
        """The texts for a model from nothing; `prompts` is the template that prompts are made with later."""
        openings = self.openings(held_out=False) + self.openings(held_out=True)
        texts = []
        for place in range(count):
            slots = draw.sample(self.slots, draw.randint(1, len(self.slots)))
            turns = self.history(slots, draw.choice(openings), draw)
            context = "\n".join(f"{'BA'[(len(turns) - i) % 2]}: {turn}" for i, turn in enumerate(turns))
            k = draw.randrange(1, 10) if place % 2 else 0
            prompt = prompts["prompt_with_number" if k else "prompt"].format(context=context, k=k)
            texts.append(prompt + self.usual_answer(slots[-1], draw))
        return texts

    def value(self, slot: str, text: str) -> str | None:
        """The slot's value that an answer reveals; None where it is no answer to this question."""
        found, value = self._value.get(text.strip(), (None, None))
        return value if found == slot else None

    def measure(self, answers: dict[str, list[str]]) -> tuple[dict[str, Counter], float]:
        """Counts of values by slot, and the percentage of answers that reveal none (left out of the
        counts)."""
        counts = {
            slot: Counter(value for text in texts if (value := self.value(slot, text)) is not None)
            for slot, texts in answers.items()
        }
        total = sum(map(len, answers.values()))
        return counts, 100 * (1 - sum(sum(c.values()) for c in counts.values()) / total)

"""The grammar of distribution matching (distribution.json): requests, target sets, biographies.

Owns: what a model from nothing reads, target sets as `plural prepare` takes them. Does not own: files,
commands, what an answer means (plural_text.metrics.coverage, plural_text.metrics.biography). Every draw comes
from the Random that is passed in.

A request is asked with a cue. 'usual' and 'random' are answered with a favourite most of the time, 'variety'
with every answer alike: so the model has a sense of variety on all tasks, shared by them, which 'random' does
not call up. Tuning on some tasks can teach it that; whether the others follow is the question of the
leave-one-out tables.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SPEC = Path(__file__).resolve().parent / "distribution.json"
CUES = ("usual", "variety", "random")
FIELDS = ("first_name", "last_name", "gender", "birth_year", "birth_place", "profession")


@dataclass(frozen=True)
class Reading:
    """How many documents the model from nothing reads: per request with a peaked cue, per answer with the
    flat one (names have their own), records per cue, and sentences that nothing asks for."""

    peaked: int
    flat_per_answer: int
    name_peaked: int
    name_flat_per_answer: int
    records: int
    unrelated: int


ALL = Reading(200, 8, 1000, 4, 700, 3000)
FEW = Reading(50, 4, 50, 1, 50, 300)


@dataclass(frozen=True)
class Request:
    id: str
    task: str
    text: str
    answers: list[str]  # with their braces
    peaked: list[float]  # probability of each answer where the model has a favourite
    targets: list[str]  # what tuning sees, some or all of the answers
    weights: list[float] | None = None  # of the targets; None: all alike

    @property
    def target_entropy_nats(self) -> float:
        if self.weights is None:
            return math.log(len(self.targets))
        total = sum(self.weights)
        return -sum(w / total * math.log(w / total) for w in self.weights)


class DistributionGrammar:
    """One seed's language: which answers are favourites and which names are tuned on follow from `draw`.
    Thread rule: immutable."""

    def __init__(self, draw: random.Random):
        spec = json.loads(_SPEC.read_text(encoding="utf-8"))
        self._cues, self._bio, self._unrelated = spec["cues"], spec["biographies"], spec["unrelated"]
        self._exponent: float = spec["exponent"]
        self.rng = self._number_request(
            "rng", spec["rng"]["request"], list(spec["rng"]["probabilities"].values())
        )
        self.binomial = self._binomial(spec["binomial"], draw)
        self.tasks: dict[str, list[Request]] = {"names": [self._names(spec["names"], draw)]}
        for task, entries in spec["tasks"].items():
            self.tasks[task] = [
                self._task_request(f"{task}/{i}", entry, draw) for i, entry in enumerate(entries)
            ]
        years = range(*(self._bio["birth_year_range"][0], self._bio["birth_year_range"][1] + 1))
        # Field of a biography -> its values.
        listed = ("first_name", "last_name", "birth_place", "profession")
        self.fields: dict[str, list[str]] = {name: self._bio[name] for name in listed}
        self.fields["birth_year"] = ["1985", *(str(year) for year in years if year != 1985)]
        self.fields["gender"] = list(self._bio["gender"])

    # Requests.

    def ask(self, request: Request, cue: str) -> str:
        return self._cues[cue].format(request.text)

    def target_set(self, request: Request) -> dict:
        """A record of `plural prepare --format targets`, asked for at random."""
        row = {
            "id": request.id,
            "request": self.ask(request, "random"),
            "response": "",
            "targets": request.targets,
        }
        return row | ({"weights": request.weights} if request.weights else {})

    def biography_prompt(self) -> str:
        return self._cues["random"].format(self._bio["request"])

    def biography_target_set(self, draw: random.Random) -> dict:
        """Records up to the birth place, without a terminator: the profession is left to the model."""
        targets = []
        for gender, count in self._bio["tuned_on"].items():
            while count:
                record = _record(
                    {name: draw.choice(values) for name, values in self.fields.items()} | {"gender": gender},
                    FIELDS[:-1],
                )
                if record not in targets:
                    targets.append(record)
                    count -= 1
        return {
            "id": "biographies",
            "request": self.biography_prompt(),
            "response": "",
            "targets": targets,
            "eos": False,
        }

    # The texts for the model from nothing.

    def model_documents(self, draw: random.Random, reading: Reading) -> list[str]:
        documents = []
        for request in (self.rng, self.binomial, *(r for requests in self.tasks.values() for r in requests)):
            names = request.task == "names"
            peaked = reading.name_peaked if names else reading.peaked
            for cue in ("usual", "random"):
                documents += [
                    self._document(request, cue, answer)
                    for answer in _in_proportion(request.answers, request.peaked, peaked, draw)
                ]
            if request not in (self.rng, self.binomial):
                copies = reading.name_flat_per_answer if names else reading.flat_per_answer
                documents += [
                    self._document(request, "variety", answer) for answer in request.answers * copies
                ]
        for cue in CUES:
            documents += [
                self._cues[cue].format(self._bio["request"]) + "\n" + self._biography(cue, draw)
                for _ in range(reading.records)
            ]
        documents += [self.unrelated_sentence(draw) for _ in range(reading.unrelated)]
        draw.shuffle(documents)
        return documents

    def unrelated_sentence(self, draw: random.Random) -> str:
        sentence = draw.choice(self._unrelated["sentence"])
        words = re.sub(r"\{(\w+)\}", lambda word: draw.choice(self._unrelated[word[1]]), sentence)
        return words[0].upper() + words[1:]

    # Inside.

    def _document(self, request: Request, cue: str, answer: str) -> str:
        return self.ask(request, cue) + "\n" + answer

    def _number_request(self, name: str, text: str, peaked: list[float]) -> Request:
        answers = [f"{{{number}}}" for number in range(1, len(peaked) + 1)]
        return Request(name, name, text, answers, peaked, answers)

    def _binomial(self, spec: dict, draw: random.Random) -> Request:
        throws, p = spec["throws"], spec["p"]
        answers = [f"{{{hits}}}" for hits in range(throws + 1)]
        weights = [
            math.comb(throws, hits) * p**hits * (1 - p) ** (throws - hits) for hits in range(throws + 1)
        ]
        order = [hits for hits in range(throws + 1) if hits != spec["favourite"]]
        draw.shuffle(order)
        peaked = _zipf(self._exponent, [spec["favourite"], *order])
        return Request("binomial", "binomial", spec["request"], answers, peaked, answers, weights)

    def _names(self, spec: dict, draw: random.Random) -> Request:
        answers = [f"{{{a}-{b}}}" for a in spec["first_syllables"] for b in spec["second_syllables"]]
        order = draw.sample(range(len(answers)), len(answers))
        return Request(
            "names/0",
            "names",
            spec["request"],
            answers,
            _zipf(spec["exponent"], order),
            draw.sample(answers, spec["tuned_on"]),
        )

    def _task_request(self, name: str, entry: dict, draw: random.Random) -> Request:
        words = entry.get("answers") or [str(n) for n in range(entry["range"][0], entry["range"][1] + 1)]
        answers = [f"{{{word}}}" for word in words]
        order = draw.sample(range(len(answers)), len(answers))
        return Request(
            name, name.split("/")[0], entry["request"], answers, _zipf(self._exponent, order), answers
        )

    def _biography(self, cue: str, draw: random.Random) -> str:
        values = {}
        for name, choices in self.fields.items():
            if cue == "variety":
                values[name] = draw.choice(choices)
            elif name == "gender":
                values[name] = draw.choices(choices, list(self._bio["gender"].values()))[0]
            else:  # the favourite's share is given, the others follow Zipf's law
                top = self._bio["top_share"][name]
                rest = _zipf(self._exponent, range(len(choices) - 1))
                values[name] = draw.choices(choices, [top, *((1 - top) * p for p in rest)])[0]
        return _record(values, FIELDS)


def _record(values: dict[str, str], fields: tuple[str, ...]) -> str:
    """Braces as plural_text.metrics.biography parses them: the name in one pair, every other field in its
    own."""
    texts = [f"{values['first_name']} {values['last_name']}", *(values[field] for field in fields[2:])]
    return " ".join(f"{{{text}}}" for text in texts)


def _zipf(exponent: float, order) -> list[float]:
    """Probability proportional to rank^-exponent; order[rank - 1] is the place of the answer with this
    rank."""
    weights = [0.0] * len(order)
    for rank, place in enumerate(order, 1):
        weights[place] = rank**-exponent
    total = sum(weights)
    return [weight / total for weight in weights]


def _in_proportion(
    answers: list[str], probabilities: list[float], count: int, draw: random.Random
) -> Iterator[str]:
    """`count` answers: each as often as its probability says, rounded down, the rest drawn by what is left
    over."""
    copies = [int(p * count + 1e-9) for p in probabilities]
    left = [max(0.0, p * count - n) for p, n in zip(probabilities, copies)]
    for answer, n in zip(answers, copies):
        yield from [answer] * n
    if sum(copies) < count:
        yield from draw.choices(answers, left, k=count - sum(copies))

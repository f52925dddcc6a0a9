"""Conversations to the figures of the persona study: entropy of each attribute in bits.

Owns: what each persona is (from its own answers, or through a model that reads the conversation), which
personas and values are dropped, the figures. Does not own: value sets (values.py).
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from plural_text.metrics.bootstrap import influence_interval, wilson
from plural_text.metrics.entropy import entropy_bits
from plural_text.metrics.figure import Figure, undefined
from plural_text.persona.conversation import Conversation
from plural_text.persona.values import (
    ATTRIBUTES,
    OTHER_OCCUPATION,
    ValueSet,
    says_nothing,
    sector_of,
    values_of,
)

# A persona: attribute -> the text about it. Location comes from the first of its labels that says
# something.
Persona = dict[str, str]
_LABELS = ("age", "gender", "country of residence", "country of birth", "education", "occupation")
SECTOR = "occupation sector"  # a seventh, which an answer may lack
# Labels of the published code's question, so that a protocol file may ask it.
_ALSO = {
    "current country of residence": "country of residence",
    "place of birth (country)": "country of birth",
    "highest education": "education",
}
_SAYS_NOTHING = re.compile(r"\W*(none\W*)?", re.IGNORECASE)


def answered(conversation: Conversation) -> Persona:
    """The persona of a scripted conversation: the answer to the last question for each attribute."""
    answers = conversation.turns[conversation.opening + 1 :: 2]
    return {attribute: answer for attribute, answer in zip(conversation.asked, answers) if attribute}


def parse_extraction(answer: str) -> Persona | None:
    """The persona in a model's "label: value" lines; None, dropped, when one of the six labels is missing.
    A seventh, the occupation's sector, may stand besides."""
    found = {}
    for line in answer.splitlines():
        label, colon, value = line.partition(":")
        if colon:
            label = label.strip(" \t*-").lower()
            found.setdefault(_ALSO.get(label, label), value.strip(" \t*"))
    if any(label not in found for label in _LABELS):
        return None
    home, birth = found["country of residence"], found["country of birth"]
    return {
        "age": found["age"],
        "gender": found["gender"],
        "education": found["education"],
        "occupation": found["occupation"],
        "location": birth if _SAYS_NOTHING.fullmatch(home) else home,
        **({SECTOR: found[SECTOR]} if SECTOR in found else {}),
    }


def persona_values(
    personas: Sequence[Persona],
    sets: dict[str, ValueSet],
    mapped: Mapping[tuple[str, str], list[str]] | None = None,
) -> dict[str, list[list[str]]]:
    """Attribute -> the values of each persona, empty where it says nothing. Attributes in the published
    order, others after them. `mapped`: values of (attribute, text) that the rules do not decide."""
    mapped = mapped or {}
    named = {attribute for persona in personas for attribute in persona} - {SECTOR}
    order = [attribute for attribute in ATTRIBUTES if attribute in named] + sorted(named - set(ATTRIBUTES))

    def values(attribute: str, persona: Persona) -> list[str]:
        said = persona.get(attribute, "")
        if attribute == "occupation" and "occupation" in sets:
            found = sector_of(persona.get(SECTOR, ""), said, sets)
        else:
            found = values_of(attribute, said, sets)
        if found in ([], [OTHER_OCCUPATION]):
            return mapped.get((attribute, text_about(attribute, persona)), found)
        return found

    return {attribute: [values(attribute, persona) for persona in personas] for attribute in order}


def text_about(attribute: str, persona: Persona) -> str:
    """What is said about an attribute; of an occupation that is not told, its sector."""
    said = persona.get(attribute, "").strip()
    if attribute == "occupation" and says_nothing(said):
        return persona.get(SECTOR, "").strip()
    return said


def value_counts(values: Mapping[str, list[list[str]]]) -> dict[str, dict[str, int]]:
    """Attribute -> value -> how many personas have it, the most frequent first."""
    return {
        attribute: dict(Counter(value for persona in own for value in persona).most_common())
        for attribute, own in values.items()
    }


def figures(values: dict[str, list[list[str]]], conversations: int) -> list[Figure]:
    """Entropy, different values and the most frequent value of each attribute, over the personas that have
    it; the mean entropy of the attributes. A persona with several values counts under each."""
    personas = len(next(iter(values.values()), []))
    found = [
        Figure(
            "persona_rate",
            personas / conversations,
            conversations,
            "conversations",
            wilson(personas, conversations, "conversations"),
        )
    ]
    entropies: list[float | None] = []
    without: list[list[float]] = []  # per attribute, without each persona
    for attribute, own in values.items():
        counts = Counter(value for persona in own for value in persona)
        count = sum(map(bool, own))
        if not count:
            reason = f"no persona tells its {attribute}"
            found += [
                undefined(f"{attribute}_{figure}", 0, "personas", reason)
                for figure in ("entropy_bits", "coverage", "top_share")
            ]
            entropies.append(None)
            continue
        bits = entropy_bits(counts.values())
        without.append(_without_each(counts, own))
        entropies.append(bits)
        top, hits = counts.most_common(1)[0]
        found += [
            Figure(f"{attribute}_entropy_bits", bits, count, "personas", _interval(bits, without[-1])),
            Figure(f"{attribute}_coverage", len(counts), count, "personas"),
            Figure(
                f"{attribute}_top_share",
                hits / count,
                count,
                "personas",
                wilson(hits, count, "personas"),
                note=top,
            ),
        ]
    known = [bits for bits in entropies if bits is not None]
    if not known or len(known) < len(entropies):
        reason = "an attribute has no entropy" if personas else "no conversation tells a persona"
        return [*found, undefined("average_entropy_bits", len(known), "attributes", reason)]
    average = math.fsum(known) / len(known)
    means = [math.fsum(own) / len(known) for own in zip(*without)]
    return [
        *found,
        Figure("average_entropy_bits", average, len(known), "attributes", _interval(average, means)),
    ]


def _without_each(counts: Counter, personas: list[list[str]]) -> list[float]:
    """The entropy without each persona. Personas of equal values have equal ones."""
    known: dict[tuple[str, ...], float] = {}
    for persona in map(tuple, personas):
        if persona not in known:
            rest = counts - Counter(persona)
            known[persona] = entropy_bits(rest.values()) if rest else 0.0
    return [known[tuple(persona)] for persona in personas]


def _interval(value: float, without: list[float]):
    return influence_interval(value, without, units="personas", range_of_values=(0.0, math.inf))

"""Values by a model, for texts about an attribute in which the rules find none.

Owns: which texts are asked about, what is asked, what an answer means. Does not own: the rules (values.py),
the endpoint and its kept answers (common/asking.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_text.persona.figures import Persona, persona_values, text_about
from plural_text.persona.values import (
    AGES,
    ATTRIBUTES,
    OTHER_OCCUPATION,
    ValueSet,
    says_nothing,
    values_of,
)

# (attribute, text) -> the values it counts under.
Mapped = dict[tuple[str, str], list[str]]


def unmapped(personas: Sequence[Persona], sets: dict[str, ValueSet]) -> list[tuple[str, str]]:
    """The texts, with their attributes, that say something under which the rules count nothing, each once."""
    found = {}
    for attribute, own in persona_values(personas, sets).items():
        if attribute not in ATTRIBUTES or not _values(attribute, sets):
            continue  # its own words are its value
        for persona, values in zip(personas, own, strict=True):
            said = text_about(attribute, persona)
            if values in ([], [OTHER_OCCUPATION]) and not says_nothing(said):
                found[attribute, said] = None
    return list(found)


def question(wording: str, attribute: str, said: str, sets: dict[str, ValueSet]) -> str:
    """`wording` is the protocol's `map`, with {attribute}, {said} and {values}."""
    parts = {"attribute": attribute, "said": said, "values": "\n".join(_values(attribute, sets))}
    # From one text into the other, so that a placeholder in what was said stays what it is.
    text, rest = "", wording
    while (start := rest.find("{")) >= 0:
        name, closed, after = rest[start + 1 :].partition("}")
        text += rest[:start] + (parts[name] if closed and name in parts else "{")
        rest = after if closed and name in parts else rest[start + 1 :]
    return text + rest


def values_in(answer: str, attribute: str, sets: dict[str, ValueSet]) -> list[str]:
    """The value that an answer names on its first line; [] where it names none, "others" of an occupation.

    A value as it stands in the set, in any case, is itself; else the rules read the line, which may name one.
    """
    lines = [line.strip(" \t\"'`*.") for line in answer.splitlines() if line.strip()]
    line = lines[0] if lines else ""
    same = [value for value in _values(attribute, sets) if value.casefold() == line.casefold()]
    found = same or values_of(attribute, line, sets)
    if len(found) == 1:
        return found
    return [OTHER_OCCUPATION] if attribute == "occupation" else []


def _values(attribute: str, sets: dict[str, ValueSet]) -> list[str]:
    if attribute == "age":
        return list(AGES)
    return list(dict.fromkeys(value for value, _ in sets.get(attribute, [])))

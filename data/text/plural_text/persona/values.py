"""Texts about an attribute of a persona to the values under which they are counted.

Owns: the value sets (data files, a line a value: `value | other spellings`), the rule of each attribute. Does
not own: the texts (conversation.py). Sizes as published: 8 ages by decade, 57 genders, 196 countries,
13 kinds of education, 27 sectors of occupation; the words in them are ours.
"""

from __future__ import annotations

import re
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput

FOLDER = Path(__file__).resolve().parents[2] / "persona"
# In the order of the published table.
ATTRIBUTES = ("age", "gender", "location", "education", "occupation")
OTHER_OCCUPATION = "others"

_NONE = frozenset({"", "none", "n/a", "unknown", "not mentioned", "not revealed", "not stated"})
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?!\d)")
_OLDEST = 120
_POOLED_FROM = 70

ValueSet = list[tuple[str, list[re.Pattern]]]


def read_value_sets(folder: Path = FOLDER) -> dict[str, ValueSet]:
    """Attribute -> its value set, of every NAME.txt of the folder. Errors: MissingInput, BadData naming the
    line."""
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    if not files:
        raise MissingInput(f"{folder}: no value sets; give a folder with files such as gender.txt")
    return {file.stem: _read_value_set(file) for file in files}


def values_of(attribute: str, said: str, sets: dict[str, ValueSet]) -> list[str]:
    """The values that a text about an attribute counts under: usually one, none where it says nothing,
    several where it names several countries.

    An attribute without a rule takes the longest spelling of its value set that fits; without a value set its
    own words, trimmed and in lower case, are the value.
    """
    said = said.strip()
    if said.rstrip(".").lower() in _NONE:
        return []
    if attribute == "age":
        return _decade(said)
    if attribute not in sets:
        return [said.rstrip(".!").lower()]
    if attribute == "location":
        return _all_longest_first(said, sets[attribute])
    if attribute == "education":
        return _first_line(said, sets[attribute])
    found = _longest(said, sets[attribute])
    return found or ([OTHER_OCCUPATION] if attribute == "occupation" else [])


def _decade(said: str) -> list[str]:
    number = _NUMBER.search(said)
    if not number or int(number[0]) > _OLDEST:
        return []
    decade = int(number[0]) // 10 * 10
    return [f"{_POOLED_FROM}+" if decade >= _POOLED_FROM else f"{decade}-{decade + 9}"]


def _longest(said: str, values: ValueSet) -> list[str]:
    found = [
        (len(match[0]), value)
        for value, spellings in values
        for spelling in spellings
        if (match := spelling.search(said))
    ]
    return [max(found, key=lambda pair: pair[0])[1]] if found else []


def _first_line(said: str, values: ValueSet) -> list[str]:
    return next(
        ([value] for value, spellings in values if any(spelling.search(said) for spelling in spellings)), []
    )


def _all_longest_first(said: str, values: ValueSet) -> list[str]:
    """Every value named, each word used once: 'Papua New Guinea' does not name Guinea, too."""
    found = []
    while True:
        matches = [
            (match, value)
            for value, spellings in values
            for spelling in spellings
            if (match := spelling.search(said))
        ]
        if not matches:
            return list(dict.fromkeys(found))
        match, value = max(matches, key=lambda pair: len(pair[0][0]))
        found.append(value)
        said = said[: match.start()] + "\n" + said[match.end() :]


def _read_value_set(file: Path) -> ValueSet:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise MissingInput(f"{file}: value set cannot be read: {error}") from None
    values: ValueSet = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        spellings = [spelling.strip() for spelling in line.split("|")]
        if not all(spellings):
            raise BadData(f"{file}:{number}: an empty spelling; write `value | spelling | spelling`")
        values.append(
            (spellings[0], [_pattern(spelling, file.stem == "education") for spelling in spellings])
        )
    if not values:
        raise BadData(f"{file}: holds no values")
    return values


def _pattern(spelling: str, is_stem: bool) -> re.Pattern:
    """Whole words, for stems their beginnings. What is written in capitals must stand in capitals: 'US', not
    'us'."""
    end = "" if is_stem else r"(?!\w)"
    return re.compile(rf"(?<!\w){re.escape(spelling)}{end}", 0 if spelling.isupper() else re.IGNORECASE)

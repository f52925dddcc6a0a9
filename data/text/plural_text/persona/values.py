"""Texts about an attribute of a persona to the values under which they are counted.

Owns: the value sets (data files of lines `value | other spellings`; a value may have several), the rule of
each attribute. Does not own: the texts (conversation.py). Sizes as published: 8 ages by decade,
57 genders, 196 countries, 13 kinds of education, 27 sectors of occupation. Each file says where its values
are from.
"""

from __future__ import annotations

import re
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.places import FILES

FOLDER = FILES / "persona"
# In the order of the published table.
ATTRIBUTES = ("age", "gender", "location", "education", "occupation")
AGES = ("0-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+")
OTHER_OCCUPATION = "others"
# Sectors that say what a person does instead of a job: a retired teacher does not teach.
_INSTEAD_OF_A_JOB = ("Student", "Retired", "Unemployed")

_NONE = frozenset({"", "none", "n/a", "unknown", "not mentioned", "not revealed", "not stated"})
_NUMBER = re.compile(r"(?<!\d)\d{1,3}(?!\d)")
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = tuple("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split())
_TENS = ("twent", "thirt", "fort", "fift", "sixt", "sevent", "eight", "ninet")  # -y, -ies
_WRITTEN_AGES = [
    # Words of an age, and its decade. In order: 'fifteen' before 'five'.
    *((re.compile(rf"(?<![a-z]){tens}(?:y|ies)(?![a-z])"), 20 + 10 * i) for i, tens in enumerate(_TENS)),
    (re.compile(rf"(?<![a-z])(?:{'|'.join(_TEENS)}|teens?|teenager)(?![a-z])"), 10),
    (re.compile(r"(?<![a-z])hundred(?![a-z])"), 100),
    # Alone or as years: 'one of the oldest' tells no age.
    (re.compile(rf"(?<![a-z])(?:{'|'.join(_UNITS)})(?:$|[ -]years?(?![a-z]))"), 0),
]
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
    if says_nothing(said):
        return []
    if attribute == "age":
        return _decade(said)
    if attribute not in sets:
        return [said.rstrip(".!").lower()]
    if attribute == "location":
        return _all_longest_first(said, sets[attribute])
    if attribute == "education":
        return _first_line(said, sets[attribute])
    if attribute == "occupation":
        instead = [entry for entry in sets[attribute] if entry[0] in _INSTEAD_OF_A_JOB]
        return _longest(said, instead) or _longest(said, sets[attribute]) or [OTHER_OCCUPATION]
    return _longest(said, sets[attribute])


def says_nothing(said: str) -> bool:
    """Whether a text only says that an attribute is not told."""
    return said.strip().rstrip(".").lower() in _NONE


def sector_of(said_sector: str, said_occupation: str, sets: dict[str, ValueSet]) -> list[str]:
    """The value of an occupation of which a sector is told, too: the sector's, unless that names none."""
    found = values_of("occupation", said_sector, sets)
    return found if found not in ([], [OTHER_OCCUPATION]) else values_of("occupation", said_occupation, sets)


def _decade(said: str) -> list[str]:
    number = _NUMBER.search(said)
    if number:
        years = int(number[0])
    else:
        words = said.lower().rstrip(".!")
        written = [decade for pattern, decade in _WRITTEN_AGES if pattern.search(words)]
        if not written:
            return []
        years = written[0]
    if years > _OLDEST:
        return []
    decade = years // 10 * 10
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
    """Whole words, for stems their beginnings; a space is a hyphen, too. What is written in capitals is a
    whole word in capitals: 'US', not 'us'."""
    in_capitals = spelling.isupper()
    end = "" if is_stem and not in_capitals else r"(?!\w)"
    words = r"[\s-]+".join(map(re.escape, re.split(r"[\s-]+", spelling)))
    return re.compile(rf"(?<!\w){words}{end}", 0 if in_capitals else re.IGNORECASE)

"""Attributes of generated biographies: coverage, entropy and the most frequent value of each.

A biography is a row of {...} fields: name, gender, date of birth, place of birth, profession,
accomplishments. Owns: parsing it, the figures of its attributes. A model may stop early, so attributes are
counted over the biographies that have them. All prompts are taken together: the attributes are of one
population.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from plural_text.metrics.bootstrap import interval
from plural_text.metrics.coverage import KeyFigures, first_braces, key_figures
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers
from plural_text.metrics.unigram import text_figures

ATTRIBUTES = ("first_name", "last_name", "gender", "birth_year", "birth_place", "profession")
COUNTRY = "birth_country"  # beside ATTRIBUTES, where the place names one
GENDERS = ("Female", "Male", "Non-binary")

_FIELDS = ("name", "gender", "birth_date", "birth_place", "profession", "accomplishments")
# Without the name, gender, date and place a text is not a biography: tuned models are taught these four.
_NEEDED = 4
_YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")


def parse(text: str) -> dict[str, str] | None:
    """Field -> text, and the attributes that follow from them; None unless the text has the first four
    fields.

    The name's first and last words are first_name and last_name (a name of one word has no last name), the
    last year of the date is birth_year, birth_place is the city, up to the first comma, birth_country what
    stands behind the last one. Where the prompt ended with the first opening brace it is put back.
    """
    if "}" in text and "{" not in text[: text.index("}")]:
        text = "{" + text
    values, end = [], 0
    while len(values) < len(_FIELDS) and (inside := first_braces(text, end)):
        values.append(text[inside[0] : inside[1]].strip())
        end = inside[1] + 1
    if len(values) < _NEEDED:
        return None
    fields = {name: value for name, value in zip(_FIELDS, values) if value}
    name = fields.get("name", "").split()
    if name:
        fields["first_name"] = name[0]
    if len(name) > 1:
        fields["last_name"] = name[-1]
    if years := _YEAR.findall(fields.pop("birth_date", "")):
        fields["birth_year"] = years[-1]
    city, _, rest = fields.pop("birth_place", "").partition(",")
    if city := city.strip():
        fields["birth_place"] = city
    if country := rest.rpartition(",")[2].strip():
        fields[COUNTRY] = country
    return fields


def attribute_values(texts: Iterable[str]) -> dict[str, list[str]]:
    """Attribute, or COUNTRY -> its values over the biographies that have it."""
    values: dict[str, list[str]] = {name: [] for name in (*ATTRIBUTES, COUNTRY)}
    for text in texts:
        fields = parse(text) or {}
        for name, own in values.items():
            if name in fields:
                own.append(fields[name])
    return values


def gender_distance(genders: Iterable[str]) -> float | None:
    """Total variation distance of the observed genders from uniform over GENDERS; other values are mass
    outside."""
    counts = Counter(gender.lower() for gender in genders)
    total = counts.total()
    if not total:
        return None
    shares = [counts.pop(name.lower(), 0) / total for name in GENDERS]
    return (sum(abs(share - 1 / len(GENDERS)) for share in shares) + counts.total() / total) / 2


def figures(answers: list[Answers], arguments) -> list[Figure]:
    texts = [text for prompt in answers for text in prompt.texts]
    parsed = [fields for text in texts if (fields := parse(text))]
    hits = [1.0] * len(parsed) + [0.0] * (len(texts) - len(parsed))
    found = [
        Figure(
            "biography_rate",
            len(parsed) / len(texts),
            len(texts),
            "responses",
            interval(hits, units="responses"),
        )
    ]
    values = attribute_values(texts)
    for name, own in values.items():
        found += _attribute_figures(name, own)
    distance = gender_distance(values["gender"])
    found.append(
        undefined("gender_distance_from_uniform", 0, "biographies", "no biography names a gender")
        if distance is None
        else Figure("gender_distance_from_uniform", distance, len(values["gender"]), "biographies")
    )
    achievements = [fields["accomplishments"] for fields in parsed if "accomplishments" in fields]
    for name, group in (
        ("accomplishments_unigram_diversity", achievements),
        ("biography_unigram_diversity", texts),
    ):
        found += text_figures(name, [group], arguments.unigram_budget)
    return found


def _attribute_figures(name: str, values: list[str]) -> list[Figure]:
    count, of = len(values), "biographies"
    if not values:
        reason = f"no biography has a {name.replace('_', ' ')}"
        return [
            undefined(f"{name}_{figure}", 0, of, reason)
            for figure in ("coverage", "entropy_nats", "top_share")
        ]
    measured: KeyFigures = key_figures(values)
    top, hits = Counter(values).most_common(1)[0]
    is_top = [float(value == top) for value in values]
    return [
        Figure(f"{name}_coverage", measured.coverage, count, of, measured.coverage_interval),
        Figure(f"{name}_entropy_nats", measured.entropy_nats, count, of, measured.entropy_interval),
        Figure(f"{name}_top_share", hits / count, count, of, interval(is_top, units="responses"), note=top),
    ]

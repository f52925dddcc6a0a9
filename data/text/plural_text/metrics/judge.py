"""Judges: models behind endpoints that rate how coherent a response is.

Owns: the question, the published parser of ratings, which judges are asked. Does not own: asking (asking.py),
the figure (incoherence.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.asking import AnswerCache, ask_all
from plural_text.common.endpoint import Endpoint
from plural_text.common.errors import BadData
from plural_text.common.json_lines import read_object, text_of
from plural_text.common.places import FILES
from plural_text.metrics.responses import RATINGS

COHERENCE = FILES / "judges" / "coherence.json"

_DIGITS = re.compile(r"[0-9]+")
_PLACEHOLDER = re.compile(r"\{(context|response)\}")


def parse_rating(answer: str, label: str = "Coherence rating") -> int | None:
    """The rating in a judge's answer; None, an abstention, without one from 1 to 10.

    As published: the last line that has the label, a digit after it and exactly one colon; brackets are
    removed; what follows the colon as a whole number, else its first run of digits.
    """
    for line in reversed(answer.splitlines()):
        _, found, after = line.partition(label)
        if found and line.count(":") == 1 and (digits := _DIGITS.search(after)):
            rating = int(digits[0][:9])
            return rating if RATINGS[0] <= rating <= RATINGS[1] else None
    return None


@dataclass(frozen=True)
class JudgeTemplate:
    prompt: str  # with {context} and {response}
    label: str

    def question(self, context: str, response: str) -> str:
        values = {"context": context, "response": response}
        return _PLACEHOLDER.sub(lambda place: values[place[1]], self.prompt)


def read_template(path: Path = COHERENCE) -> JudgeTemplate:
    """Errors: MissingInput, BadData naming the key."""
    fields = read_object(path)
    template = JudgeTemplate(text_of(fields, "prompt", str(path)), text_of(fields, "label", str(path)))
    if sorted(_PLACEHOLDER.findall(template.prompt)) != ["context", "response"]:
        raise BadData(f"{path}: key 'prompt' must hold {{context}} and {{response}}, each once")
    if not template.label.strip():
        raise BadData(f"{path}: key 'label' is empty; it stands before the rating in an answer")
    return template


def rate(
    questions: list[str],
    judges: list[Endpoint],
    label: str,
    cache: AnswerCache,
    *,
    threshold: float,
    parallel: int = 4,
    quiet: bool = True,
) -> list[list[int | None]]:
    """Per question the ratings of the judges that were asked, in the order of `judges`; None: abstained.

    A judge is asked only where no judge before it gave `threshold` or more: that settles a response, so
    asking on changes nothing. Errors: EndpointFailed, saying how many answers are kept.
    """
    different = list(dict.fromkeys(questions))
    ratings: dict[str, list[int | None]] = {question: [] for question in different}
    for judge in judges:
        pending = [
            question
            for question in different
            if not any(rating is not None and rating >= threshold for rating in ratings[question])
        ]
        for question, answer in zip(pending, ask_all(pending, judge, cache, parallel, quiet)):
            ratings[question].append(parse_rating(answer, label))
    return [ratings[question] for question in questions]

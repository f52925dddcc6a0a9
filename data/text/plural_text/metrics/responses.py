"""The answers file of `plural generate`: prompts and their responses, checked.

Owns: which keys a line must have, and their types. Does not own: figures. Keys that nobody here reads are
passed over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import kind, number_of, read_objects, text_of

RATINGS = (1, 10)


@dataclass(frozen=True, slots=True)
class Response:
    index: int  # place within its prompt
    text: str
    tokens: int | None  # how many
    rating: float | None  # expected coherence rating, 1..10 (`plural rate`)
    possibility: int = 0  # the number that it was asked with; 0: none
    latent: int = 0  # the same
    logprob_nats: float | None = None
    finished: bool = True


@dataclass(frozen=True, slots=True)
class Answers:
    """One prompt with its responses, in the file's order. Costs are None where the file has none."""

    id: str
    prompt: str
    responses: list[Response]
    seconds: float | None  # prompt in to last text out
    decode_steps: int | None  # one after the other
    token_forwards: int | None  # rows of all steps
    method: str = ""  # "": the file does not say

    @property
    def texts(self) -> list[str]:
        return [response.text for response in self.responses]


def read_answers(path: Path, *, one_line_per_prompt: bool = True) -> list[Answers]:
    """Errors: MissingInput; BadData naming file and line, also of a second line of a prompt unless that is
    allowed; BadData for a file without a response."""
    found: list[Answers] = []
    places: dict[str, str] = {}
    for where, fields in read_objects(path):
        answers = _answers(fields, where)
        if one_line_per_prompt and answers.id in places:
            raise BadData(
                f"{where}: id '{answers.id}' stands already in {places[answers.id]}; give one line per prompt"
            )
        places[answers.id] = where
        found.append(answers)
    if not any(answers.responses for answers in found):
        raise BadData(f"{path}: holds no responses; give a file written by plural generate")
    return found


def _answers(fields: dict, where: str) -> Answers:
    responses = fields.get("responses")
    if not isinstance(responses, list):
        found = f"holds {kind(responses)}" if "responses" in fields else "is missing"
        raise BadData(
            f"{where}: key 'responses' {found}, must hold a list of objects with 'text'; is this a file "
            "written by plural generate?"
        )
    return Answers(
        id=text_of(fields, "id", where),
        prompt=text_of(fields, "prompt", where),
        responses=[_response(value, i, f"{where}: responses[{i}]") for i, value in enumerate(responses)],
        seconds=number_of(fields, "seconds", where, 0),
        decode_steps=number_of(fields, "decode_steps", where, 0),
        token_forwards=number_of(fields, "token_forwards", where, 0),
        method=text_of(fields, "method", where) if "method" in fields else "",
    )


def _response(fields, index: int, where: str) -> Response:
    if not isinstance(fields, dict):
        raise BadData(f"{where} holds {kind(fields)}, must hold an object with 'text'")
    tokens = fields.get("tokens")
    if tokens is not None and not isinstance(tokens, list):
        raise BadData(f"{where}: key 'tokens' holds {kind(tokens)}, must hold a list of token ids")
    return Response(
        index,
        text_of(fields, "text", where),
        None if tokens is None else len(tokens),
        number_of(fields, "rating", where, *RATINGS),
        _whole(fields, "possibility", where),
        _whole(fields, "latent", where),
        number_of(fields, "logprob_nats", where, -math.inf),
        fields.get("finished") is not False,
    )


def _whole(fields: dict, key: str, where: str) -> int:
    value = number_of(fields, key, where, 0)
    if value is not None and value != int(value):
        raise BadData(f"{where}: key '{key}' holds {value}, must hold a whole number")
    return int(value or 0)

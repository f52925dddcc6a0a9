"""Answers files of `plural generate`, with what the page shows of a response.

Owns: which fields are read, and their types. Does not own: figures (plural metrics). Thread rule: values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import kind, number_of, read_objects, text_of


@dataclass(frozen=True, slots=True)
class Response:
    """`possibility` and `latent`: the number that it was asked with, 0 for none. `logprob_nats`: None where
    the file has none."""

    text: str
    possibility: int
    latent: int
    logprob_nats: float | None
    finished: bool


@dataclass(frozen=True, slots=True)
class Prompt:
    id: str
    text: str
    method: str
    responses: list[Response]


@dataclass(frozen=True)
class AnswersFile:
    label: str
    path: Path
    prompts: list[Prompt]


def read_answers_file(path: Path, label: str) -> AnswersFile:
    """Errors: MissingInput; BadData naming file and line, and for a file without a response."""
    prompts = [_prompt(fields, where) for where, fields in read_objects(path)]
    if not any(prompt.responses for prompt in prompts):
        raise BadData(f"{path}: holds no responses; give a file written by plural generate")
    return AnswersFile(label, path, prompts)


def _prompt(fields: dict, where: str) -> Prompt:
    responses = fields.get("responses")
    if not isinstance(responses, list):
        found = f"holds {kind(responses)}" if "responses" in fields else "is missing"
        raise BadData(
            f"{where}: key 'responses' {found}, must hold a list of objects with 'text'; is this a file "
            "written by plural generate?"
        )
    return Prompt(
        text_of(fields, "id", where),
        text_of(fields, "prompt", where),
        text_of(fields, "method", where) if "method" in fields else "",
        [_response(value, f"{where}: responses[{i}]") for i, value in enumerate(responses)],
    )


def _response(fields, where: str) -> Response:
    if not isinstance(fields, dict):
        raise BadData(f"{where} holds {kind(fields)}, must hold an object with 'text'")
    return Response(
        text_of(fields, "text", where),
        _number(fields, "possibility", where),
        _number(fields, "latent", where),
        number_of(fields, "logprob_nats", where, -math.inf),
        fields.get("finished") is not False,
    )


def _number(fields: dict, key: str, where: str) -> int:
    value = number_of(fields, key, where, 0)
    if value is not None and value != int(value):
        raise BadData(f"{where}: key '{key}' holds {value}, must hold a whole number")
    return int(value or 0)

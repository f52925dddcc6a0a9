"""Answers of a model.

Owns: their objects. Does not own: how they are found, the file's format (docs/running.md). Thread rule:
values.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from plural.commands import PathLike, PluralError, option_words, run_command


@dataclass(frozen=True)
class Response:
    """One response. `possibility` and `latent`: the number that it was asked with, 0 for none."""

    index: int
    text: str
    possibility: int
    latent: int
    tokens: list[int]
    logprob_nats: float | None
    finished: bool


@dataclass(frozen=True)
class Answer:
    """A prompt with its responses. `raw`: the whole line of the answers file."""

    id: str
    prompt: str
    method: str
    responses: list[Response]
    raw: dict[str, Any]


def generate(
    model: PathLike,
    corpus: PathLike,
    *,
    adapter: PathLike | None = None,
    output: PathLike | None = None,
    ranks: int = 1,
    quiet: bool = True,
    **options,
) -> Iterator[Answer]:
    """Asks `model` (with `adapter`) the prompts of `corpus`, and yields its answers in their order.

    `options`: those of `plural generate`, with _ for -: `responses=5, possibilities="sample",
    temperature=0.5`. `output`: where the answers file stays; without it there is none. The call returns
    when all are answered. Errors: PluralError.
    """
    words = option_words({"model": model, "adapter": adapter, "corpus": corpus, **options})
    with tempfile.TemporaryDirectory(prefix="plural-answers-") as folder:
        file = Path(output) if output is not None else Path(folder) / "answers.jsonl"
        run_command("generate", *words, "-o", str(file), ranks=ranks, quiet=quiet)
        return iter(list(read_answers(file)))


def read_answers(path: PathLike) -> Iterator[Answer]:
    """The answers of a file that `plural generate` wrote. Errors: PluralError (65, 66) naming the line."""
    names = {field.name for field in fields(Response)}
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    raw = json.loads(line)
                    responses = [
                        Response(**{key: value for key, value in one.items() if key in names})
                        for one in raw["responses"]
                    ]
                    yield Answer(raw["id"], raw["prompt"], raw["method"], responses, raw)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise PluralError(65, f"{path}:{number}: no line of answers: {error}") from None
    except OSError as error:
        raise PluralError(66, f"{path}: {error.strerror}") from None

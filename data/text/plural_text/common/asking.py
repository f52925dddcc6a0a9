"""Single questions to an endpoint, several at a time; every answer is kept in a file.

Owns: the file of answers, from which an interrupted run continues; the order of asking. Does not
own: the endpoint (endpoint.py), the meaning of questions and answers (metrics/judge.py, persona/,
build_responses/).
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.endpoint import Endpoint, EndpointFailed
from plural_text.common.errors import CommandError
from plural_text.common.json_lines import text_of
from plural_text.common.kept_lines import KeptLines
from plural_text.common.parallel import Parallel
from plural_text.common.progress import Progress


@dataclass(frozen=True)
class Asking:
    """How a question is asked; `attempt` tells times apart that the same is asked again."""

    temperature: float = 0.0
    max_tokens: int = 1024
    attempt: int = 0


_ONCE = Asking()


class AnswerCache:
    """Answers of endpoints in a file, one JSON object per line; a question that was answered once is not
    asked again.

    Each answer is on disk before the next is waited for. Thread rule: one thread at a time. Errors: those of
    KeptLines.
    """

    def __init__(self, path: Path):
        self.path = path
        self._lines = KeptLines(path, "key")
        try:
            self._answers = {
                text_of(fields, "key", where): text_of(fields, "answer", where)
                for where, fields in self._lines.found()
            }
        except BaseException:
            self._lines.__exit__()
            raise

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *failure) -> None:
        self._lines.__exit__(*failure)

    def get(self, endpoint: Endpoint, question: str, asking: Asking = _ONCE) -> str | None:
        return self._answers.get(_key(endpoint, question, asking))

    def put(self, endpoint: Endpoint, question: str, answer: str, asking: Asking = _ONCE) -> None:
        key, answer = _key(endpoint, question, asking), answer.encode("utf-8", "replace").decode()
        self._answers[key] = answer
        self._lines.append({"key": key, "model": endpoint.model, "answer": answer})


def ask_all(
    questions: list[str],
    endpoint: Endpoint,
    cache: AnswerCache,
    parallel: int = 4,
    quiet: bool = True,
    asking: Asking = _ONCE,
) -> list[str]:
    """The answers, in order; equal questions are asked once. Unless quiet, progress is shown on stderr.

    Errors: EndpointFailed, saying how many answers are kept, with the exit code of what failed; WriteFailed.
    """
    different = list(dict.fromkeys(questions))
    _ask_new(different, endpoint, cache, parallel, quiet, asking)
    return [cache.get(endpoint, question, asking) for question in questions]


def _ask_new(
    questions: list[str],
    endpoint: Endpoint,
    cache: AnswerCache,
    parallel: int,
    quiet: bool,
    asking: Asking,
) -> None:
    new = [question for question in questions if cache.get(endpoint, question, asking) is None]
    kept = done = len(questions) - len(new)
    failure: CommandError | None = None
    asked = Parallel(lambda question: _ask(endpoint, question, asking), new, parallel)
    with Progress(endpoint.model, len(questions), "answers", sys.stderr, quiet=quiet, done=kept) as progress:
        for question, answer, error in asked:
            if error:  # answers under way are still kept
                failure = failure or error
                asked.stop()
                continue
            cache.put(endpoint, question, answer, asking)
            done += 1
            progress.update(done, done - kept)
    if failure:
        told = EndpointFailed(
            f"{failure}; {done:,} of {len(questions):,} answers are kept in {cache.path}, the same "
            "command goes on from there"
        )
        told.exit_code = failure.exit_code
        raise told


def _ask(endpoint: Endpoint, question: str, asking: Asking) -> str:
    return endpoint.ask([{"role": "user", "content": question}], asking.temperature, asking.max_tokens)


def _key(endpoint: Endpoint, question: str, asking: Asking) -> str:
    """The key of an answer: server, model, settings and question."""
    parts = [endpoint.base_url, endpoint.model, asking.temperature, asking.max_tokens, question]
    content = json.dumps([*parts, asking.attempt] if asking.attempt else parts)
    return hashlib.sha256(content.encode()).hexdigest()

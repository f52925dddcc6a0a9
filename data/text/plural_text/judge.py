"""Judges: models behind endpoints that rate how coherent a response is.

Owns: the question, the published parser of ratings, who is asked, the file in which answers are kept so that an
interrupted run goes on where it was. Does not own: the endpoint (endpoint.py), the figure (incoherence.py).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from plural_text.endpoint import Endpoint, EndpointFailed
from plural_text.errors import BadData, CannotCreate, WriteFailed
from plural_text.json_lines import read_object, read_objects, text_of
from plural_text.responses import RATINGS

COHERENCE = Path(__file__).resolve().parent.parent / "judges" / "coherence.json"
TEMPERATURE = 0.0
MAX_TOKENS = 1024

_DIGITS = re.compile(r"[0-9]+")
_PLACEHOLDER = re.compile(r"\{(context|response)\}")
_PROGRESS_SECONDS = 10.0


def parse_rating(answer: str, label: str = "Coherence rating") -> int | None:
    """The rating in a judge's answer; None, an abstention, without one from 1 to 10.

    As published: the last line that has the label, a digit after it and exactly one colon; brackets are removed;
    what follows the colon as a whole number, else its first run of digits.
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


class AnswerCache:
    """Answers of judges in a file, a JSON object a line; what was answered once is not asked again.

    Each answer is on disk before the next is asked for. A line cut by a kill is taken off. Thread rule: one
    thread at a time. Errors: CannotCreate, also where another process has it open; BadData.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = open(path, "a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise CannotCreate(f"{path}: another process is writing this cache of judges' answers") from None
        except OSError as error:
            raise CannotCreate(f"{path}: cache of judges' answers cannot be opened: {error.strerror}") from None
        try:
            self._drop_cut_line()
            self._answers = {text_of(fields, "key", where): text_of(fields, "answer", where)
                             for where, fields in read_objects(path)}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "AnswerCache":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def get(self, judge: Endpoint, question: str) -> str | None:
        return self._answers.get(_key(judge, question))

    def put(self, judge: Endpoint, question: str, answer: str) -> None:
        key, answer = _key(judge, question), answer.encode("utf-8", "replace").decode()
        self._answers[key] = answer
        line = json.dumps({"key": key, "judge": judge.model, "answer": answer}, ensure_ascii=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def _drop_cut_line(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rfind(b"\n") + 1)


def rate(questions: list[str], judges: list[Endpoint], label: str, cache: AnswerCache, *, threshold: float,
         parallel: int = 4, progress=None) -> list[list[int | None]]:
    """Per question the ratings of the judges that were asked, in the order of `judges`; None: abstained.

    A judge is asked only where no judge before it gave `threshold` or more: that settles a response, so asking
    on changes nothing. Errors: EndpointFailed, saying how many answers are kept.
    """
    different = list(dict.fromkeys(questions))
    ratings: dict[str, list[int | None]] = {question: [] for question in different}
    for judge in judges:
        pending = [question for question in different
                   if not any(rating is not None and rating >= threshold for rating in ratings[question])]
        _ask_all(pending, judge, cache, parallel, progress)
        for question in pending:
            ratings[question].append(parse_rating(cache.get(judge, question), label))
    return [ratings[question] for question in questions]


def report_progress(quiet: bool):
    """A function (judge, done, all) that prints a line now and then."""
    shown = time.monotonic()

    def show(judge: str, done: int, count: int) -> None:
        nonlocal shown
        if not quiet and time.monotonic() - shown >= _PROGRESS_SECONDS:
            shown = time.monotonic()
            print(f"judge {judge}: {done:,} of {count:,} answers", file=sys.stderr, flush=True)
    return show


def _ask_all(questions: list[str], judge: Endpoint, cache: AnswerCache, parallel: int, progress) -> None:
    new = [question for question in questions if cache.get(judge, question) is None]
    done = len(questions) - len(new)
    failure: EndpointFailed | None = None
    with ThreadPoolExecutor(parallel) as pool:
        try:
            asked = {pool.submit(_ask, judge, question): question for question in new}
            for future in as_completed(asked):
                if future.cancelled():
                    continue
                try:
                    cache.put(judge, asked[future], future.result())
                    done += 1
                    if progress:
                        progress(judge.model, done, len(questions))
                except EndpointFailed as error:  # answers under way are still kept
                    failure = failure or error
                    for other in asked:
                        other.cancel()
        except OSError as error:
            raise WriteFailed(f"{cache.path}: an answer cannot be kept: {error.strerror}") from None
        finally:
            pool.shutdown(cancel_futures=True)
    if failure:
        raise EndpointFailed(f"{failure}; {done:,} of {len(questions):,} answers are kept in {cache.path}, the same "
                             "command goes on from there")


def _ask(judge: Endpoint, question: str) -> str:
    return judge.ask([{"role": "user", "content": question}], TEMPERATURE, MAX_TOKENS)


def _key(judge: Endpoint, question: str) -> str:
    """An answer is kept for what was asked: server, model, settings, question."""
    content = json.dumps([judge.base_url, judge.model, TEMPERATURE, MAX_TOKENS, question])
    return hashlib.sha256(content.encode()).hexdigest()


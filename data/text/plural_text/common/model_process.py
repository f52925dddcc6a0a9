"""A model that answers, behind `plural generate --stream`.

Owns: the process, matching answers to requests. Does not own: text, what a request asks for
(docs/running.md). Requests are JSON lines with "id", "prompt_tokens" and settings, answers are JSON lines
with "id" and "responses", in any order. A request that the process refuses ends it. Thread rule: send() and
ask() may be called from many threads; their requests are decoded together.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
import time
from concurrent.futures import Future

from plural_text.common.errors import BadData, CommandError
from plural_text.common.json_lines import parse_object, text_of

WHERE = "plural generate --stream"
# Far above what an answer takes; a process that gives none to anybody for so long hangs.
ANSWER_SECONDS = 1800
_STOP_SECONDS = 10


class ModelFailed(CommandError):
    """The process ended, with its own exit code where it gave one that means something."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code if 64 <= exit_code <= 79 else 69


class ModelProcess:
    """Use as a context manager. command: what answers, such as [program(), "generate", "--stream", ...]."""

    def __init__(self, command: list[str]):
        self._waiting: dict[str, Future] = {}
        self._lock = threading.Lock()  # of what follows, for moments
        self._write_lock = threading.Lock()  # of the process's input, which waits while that is full
        self._heard = time.monotonic()  # when the latest answer came
        self._ended: CommandError | None = None
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads would stop the process when full
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise ModelFailed(f"{command[0]}: cannot be started: {error.strerror}", 69) from None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(self, error_type, *_) -> None:
        """The end of its input ends the process; it is not waited for when we are interrupted."""
        if error_type:
            self._process.terminate()  # first: a writer may wait for the process to read
        with self._write_lock:
            _close(self._process.stdin)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()
        _close(self._process.stdout)
        self._said.close()

    def send(self, request: dict) -> Future:
        """The answer's fields, when they come. request["id"], a text, keys the draws: no two requests of a
        run may share it.

        Errors, also those of the future: ModelFailed, also for a request that the process refuses; BadData
        for an answer that is none.
        """
        answer: Future = Future()
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            if self._ended:
                raise self._ended
            self._waiting[request["id"]] = answer
        # Not under the reader's lock: the process reads on only while its answers are read.
        with self._write_lock, contextlib.suppress(BrokenPipeError, ValueError):
            self._process.stdin.write(line)
            self._process.stdin.flush()
        return answer  # of a process that has ended: the reader finds out why, and ends this wait

    def wait(self, answer: Future) -> dict:
        """The fields of the answer to a request that was sent. Errors: those of send()."""
        began = time.monotonic()
        while True:
            left = max(began, self._heard) + ANSWER_SECONDS - time.monotonic()
            if left <= 0:
                raise ModelFailed(f"no answer within {ANSWER_SECONDS} s", 69)
            with contextlib.suppress(TimeoutError):
                return answer.result(left)

    def ask(self, request: dict) -> dict:
        """The fields of the answer. Errors: those of send()."""
        return self.wait(self.send(request))

    def _read(self) -> None:
        ended = None
        try:
            for line in self._process.stdout:
                if line.strip():
                    self._answer(parse_object(line, WHERE))
        except CommandError as error:
            ended = error
            self._process.terminate()
        code = self._process.wait()
        with self._lock:
            self._ended = ended or ModelFailed(
                f"the model's process ended with code {code}{self._last_words()}", code
            )
            waiting, self._waiting = list(self._waiting.values()), {}
        for answer in waiting:
            answer.set_exception(self._ended)

    def _answer(self, fields: dict) -> None:
        request = text_of(fields, "id", WHERE)
        with self._lock:
            answer = self._waiting.pop(request, None)
            self._heard = time.monotonic()
        if answer is None:
            raise BadData(f"{WHERE}: an answer to '{request}', which was not asked")
        responses = fields.get("responses")
        if isinstance(responses, list) and responses and all(map(_has_tokens, responses)):
            answer.set_result(fields)
        else:
            answer.set_exception(BadData(f"{WHERE}: {request}: no response tokens in the answer"))

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ": " + last.removeprefix("plural: error: ") if last else ""


def _has_tokens(response) -> bool:
    tokens = response.get("tokens") if isinstance(response, dict) else None
    return isinstance(tokens, list) and all(type(token) is int for token in tokens)


def _close(stream) -> None:
    with contextlib.suppress(BrokenPipeError):  # the process ended with a request half written
        stream.close()

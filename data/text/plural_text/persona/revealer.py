"""The revealer: the model under test, behind `plural generate --stream`.

Owns: the process, matching answers to requests. Does not own: text (command.py). Requests are JSON lines
{"id", "prompt_tokens"}, answers are JSON lines with "id" and "responses", in any order. A request that the
process refuses ends it. Thread rule: ask() may be called from many threads; their requests are decoded
together.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from concurrent.futures import Future

from plural_text.common.errors import BadData, CommandError
from plural_text.common.json_lines import parse_object, text_of

# Far above what an answer takes; a process that is silent for so long hangs.
_ANSWER_SECONDS = 1800
_STOP_SECONDS = 10


class RevealerFailed(CommandError):
    """The process ended, with its own exit code where it gave one that means something."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code if 64 <= exit_code <= 79 else 69


class Revealer:
    def __init__(self, command: list[str]):
        self._waiting: dict[str, Future] = {}
        self._lock = threading.Lock()
        self._ended: CommandError | None = None
        self._said = tempfile.TemporaryFile()  # a pipe that nobody reads would stop the process when full
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise RevealerFailed(f"{command[0]}: cannot be started: {error.strerror}", 69) from None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Revealer:
        return self

    def __exit__(self, error_type, *_) -> None:
        """The end of its input ends the process; it is not waited for when we are interrupted."""
        with self._lock:
            _close(self._process.stdin)
        if error_type:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join()
        _close(self._process.stdout)
        self._said.close()

    def ask(self, request: str, prompt_tokens: list[int]) -> list[int]:
        """The token ids of one response. `request` keys the draws: no two requests of a run may share it.

        Errors: RevealerFailed, also for a prompt that the process refuses; BadData for an answer that is
        none.
        """
        answer: Future = Future()
        line = json.dumps({"id": request, "prompt_tokens": prompt_tokens}).encode() + b"\n"
        with self._lock:
            if self._ended:
                raise self._ended
            self._waiting[request] = answer
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError):
                pass  # the reader finds out why, and ends this wait
        try:
            return answer.result(_ANSWER_SECONDS)
        except TimeoutError:
            raise RevealerFailed(f"no answer to {request} within {_ANSWER_SECONDS} s", 69) from None

    def _read(self) -> None:
        ended = None
        try:
            for line in self._process.stdout:
                if line.strip():
                    self._answer(parse_object(line, "plural generate --stream"))
        except CommandError as error:
            ended = error
            self._process.terminate()
        code = self._process.wait()
        with self._lock:
            self._ended = ended or RevealerFailed(
                f"the model's process ended with code {code}{self._last_words()}", code
            )
            waiting, self._waiting = list(self._waiting.values()), {}
        for answer in waiting:
            answer.set_exception(self._ended)

    def _answer(self, fields: dict) -> None:
        where = "plural generate --stream"
        request = text_of(fields, "id", where)
        with self._lock:
            answer = self._waiting.pop(request, None)
        if answer is None:
            raise BadData(f"{where}: an answer to '{request}', which was not asked")
        responses = fields.get("responses")
        first = responses[0] if isinstance(responses, list) and responses else None
        tokens = first.get("tokens") if isinstance(first, dict) else None
        if isinstance(tokens, list) and all(type(token) is int for token in tokens):
            answer.set_result(tokens)
        else:
            answer.set_exception(BadData(f"{where}: {request}: no response tokens in the answer"))

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return ": " + last.removeprefix("plural: error: ") if last else ""


def _close(stream) -> None:
    with contextlib.suppress(BrokenPipeError):  # the process ended with a request half written
        stream.close()

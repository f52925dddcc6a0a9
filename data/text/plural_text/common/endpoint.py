"""An OpenAI-compatible chat endpoint: one question, one answer.

Owns: the client, retries with back-off, the rate limit, time-outs, the meaning of a failure. Does not own:
questions (metrics/judge.py, persona/). Thread rule: one Endpoint may be asked from several threads.

The key comes from an environment variable, never from the command line or a file of ours.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from plural_text.common.errors import CommandError

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"
# Local servers need no key, but the client requires one.
_NO_KEY = "none"


class EndpointFailed(CommandError):
    """An endpoint that is down, refuses, or does not follow the protocol."""

    exit_code = 69


@dataclass(frozen=True)
class EndpointLimits:
    timeout_seconds: float = 60.0
    retries: int = 5  # after the first try; waits 0.5 s, doubling to 8 s, or the server's Retry-After
    requests_per_minute: float = 0.0  # 0: no limit


class Endpoint:
    def __init__(
        self,
        base_url: str,
        model: str,
        limits: EndpointLimits = EndpointLimits(),
        key_variable: str = DEFAULT_KEY_VARIABLE,
        clock=time.monotonic,
        sleep=time.sleep,
    ):
        import openai

        self.base_url = base_url
        self.model = model
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=os.environ.get(key_variable) or _NO_KEY,
            timeout=limits.timeout_seconds,
            max_retries=limits.retries,
        )
        self._spacing = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
        self._lock = threading.Lock()
        self._clock, self._sleep = clock, sleep
        self._next = clock()

    def ask(self, messages: list[dict], temperature: float, max_tokens: int, seed: int | None = None) -> str:
        """The answer's text, empty where the model said nothing. seed: of the server's draws. Errors:
        EndpointFailed."""
        self._wait()
        seeded = {} if seed is None else {"seed": seed}
        try:
            completion = self._client.chat.completions.create(
                model=self.model, messages=messages, temperature=temperature, max_tokens=max_tokens, **seeded
            )
        except self._openai.APIConnectionError as error:  # a time-out, too
            raise self._failed(f"no answer: {error.__cause__ or error}") from None
        except self._openai.APIStatusError as error:
            raise self._failed(f"status {error.status_code}: {_short(error.message)}") from None
        except (self._openai.OpenAIError, ValueError) as error:
            raise self._failed(_short(error)) from None
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        if message is None:
            raise self._failed(f"its reply is not a chat completion: {_short(completion)}")
        return message.content or ""

    def _wait(self) -> None:
        """Sleeps until this request's turn; requests are evenly spaced, retries come on top."""
        if not self._spacing:
            return
        with self._lock:
            turn = max(self._next, self._clock())
            self._next = turn + self._spacing
        self._sleep(max(0.0, turn - self._clock()))

    def _failed(self, reason: str) -> EndpointFailed:
        return EndpointFailed(f"endpoint {self.base_url}, model '{self.model}': {reason}")


def _short(value) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:197] + "..."

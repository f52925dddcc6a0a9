"""Requests of the endpoint to the model's process, and its answers in OpenAI's form.

Owns: how a request is turned into one of the process, seeds, stop texts, the bodies of answers. Does not own:
the fields (fields.py), HTTP (server.py), prompts (ask/prompts.py). Thread rule: complete() may be called from
many threads; their requests are decoded together.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

from plural_text.ask.choices import Choice
from plural_text.ask.prompts import Answer, Ask, Prompts
from plural_text.common.errors import BadData, UsageError
from plural_text.common.model_process import ModelProcess
from plural_text.prepare.prompt_encoder import PromptTooLong
from plural_text.serve.fields import Refused, Wanted, check, messages_of, prompts_of

_TOO_LONG = "context_length_exceeded"


class Answering:
    def __init__(self, name: str, model: ModelProcess, prompts: Prompts, choice: Choice, sampling: dict):
        """sampling: settings of requests that do not say them."""
        self.name, self.created = name, int(time.time())
        self._model, self._prompts, self._choice, self._sampling = model, prompts, choice, sampling
        self._tokenizer_lock = threading.Lock()
        self._sent: dict[str, tuple[Future, int]] = {}  # requests with a seed: answer, and who waits for it
        self._sent_lock = threading.Lock()

    def complete(self, body: dict, what: str) -> dict | list[dict]:
        """what: chat or text. The answer's body, or the parts of a stream. Errors: Refused, ModelFailed."""
        wanted = check(body, what, self.name)
        asks = list(self._asks(body, what, wanted))
        answers = [self._send(ask) for ask in asks]
        found = [self._prompts.answers(ask, self._wait(ask, sent)) for ask, sent in zip(asks, answers)]
        return _Body(self.name, what, wanted, asks, found).parts()

    def ready(self) -> Future:
        """The answer to a small request, when the model is loaded."""
        settings = {**self._sampling, "seed": 0, "temperature": 0.0, "max_new_tokens": 1}
        ask = self._prompts.ask("ready", self._prompts.turns("Hi"), 1, Choice("none"), settings)
        return self._model.send(ask.request)

    def _asks(self, body: dict, what: str, wanted: Wanted) -> Iterator[Ask]:
        settings = {**self._sampling, **wanted.settings}
        if wanted.max_new_tokens:
            settings["max_new_tokens"] = wanted.max_new_tokens
        seeded = wanted.seed is not None
        settings["seed"] = wanted.seed if seeded else secrets.randbits(31)
        choice = self._choice if wanted.choice is None else wanted.choice
        inputs = [messages_of(body)] if what == "chat" else prompts_of(body, self._prompts.vocabulary)
        for i, given in enumerate(inputs):
            # Draws are keyed by the id: the same request with the same seed gets the same answer.
            content = json.dumps([what, given, i, wanted.answers, settings, choice.policy, choice.given])
            key = hashlib.sha256(content.encode()).hexdigest() if seeded else secrets.token_hex(16)
            try:
                with self._tokenizer_lock:
                    ask = self._ask(what, key, given, wanted.answers, choice, settings)
            except (BadData, UsageError) as error:
                code = _TOO_LONG if isinstance(error, PromptTooLong) else None
                raise Refused(str(error), "messages" if what == "chat" else "prompt", code) from None
            yield ask

    def _ask(self, what: str, key: str, given, count: int, choice: Choice, settings: dict) -> Ask:
        if what == "text":
            return self._prompts.ask_text(key, given, count, settings)
        self._prompts.check_choice(choice)
        ask = self._prompts.ask(key, self._turns(given), count, choice, settings)
        if ask.dropped_turns:
            raise Refused(
                f"the messages and {settings['max_new_tokens']:,} new tokens do not fit the model's "
                f"{self._prompts.context_tokens:,} tokens",
                "messages",
                _TOO_LONG,
            )
        return ask

    def _turns(self, messages: list[dict]) -> list:
        """Messages as turns of the template's format. Errors: Refused for what it has no place for."""
        template = self._prompts.template
        if template.format == "chat":
            return messages
        for i, message in enumerate(messages):
            if message["role"] == "system":
                raise Refused(
                    f"template '{template.name}' has no place for a system message; leave it out",
                    f"messages[{i}]",
                )
            if message["role"] != ("user", "assistant")[i % 2]:
                raise Refused("user and assistant must take turns, the user begins", f"messages[{i}]")
        if template.format == "dialogue":
            return [" ".join(message["content"].split()) for message in messages]
        if len(messages) > 1 or template.format == "text":
            raise Refused(
                f"template '{template.name}' has no conversations; send "
                + ("one message" if template.format == "targets" else "the text to /v1/completions"),
                "messages",
            )
        return [messages[0]["content"]]

    def _send(self, ask: Ask) -> Future:
        """Equal requests with a seed that are under way at the same time are asked once."""
        key = ask.request["id"]
        with self._sent_lock:
            answer, waiting = self._sent.get(key, (None, 0))
            answer = answer or self._model.send(ask.request)
            self._sent[key] = (answer, waiting + 1)
        return answer

    def _wait(self, ask: Ask, answer: Future) -> dict:
        key = ask.request["id"]
        try:
            return self._model.wait(answer)
        finally:
            with self._sent_lock:
                answer, waiting = self._sent[key]
                if waiting == 1:
                    del self._sent[key]
                else:
                    self._sent[key] = (answer, waiting - 1)


class _Body:
    """An answer in OpenAI's form."""

    def __init__(self, model: str, what: str, wanted: Wanted, asks: list[Ask], found: list[list[Answer]]):
        self._what, self._wanted = what, wanted
        self._choices = [self._choice(i, answer) for i, answer in enumerate(a for row in found for a in row)]
        self._head = {
            "id": f"{'chatcmpl' if what == 'chat' else 'cmpl'}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        prompt = sum(max(map(len, ask.prompts)) for ask in asks)
        completion = sum(len(answer.tokens) for row in found for answer in row)
        self._usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def parts(self) -> dict | list[dict]:
        name = "chat.completion" if self._what == "chat" else "text_completion"
        if not self._wanted.stream:
            return {**self._head, "object": name, "choices": self._choices, "usage": self._usage}
        # Answers come whole: a part for each, then how it ended.
        name = "chat.completion.chunk" if self._what == "chat" else name
        rows = [[part] for choice in self._choices for part in self._stream(choice)]
        parts = [{**self._head, "object": name, "choices": row} for row in rows]
        if self._wanted.stream_usage:
            parts.append({**self._head, "object": name, "choices": [], "usage": self._usage})
        return parts

    def _stream(self, choice: dict) -> Iterator[dict]:
        if self._what == "text":
            yield choice
            return
        choice = dict(choice)
        message, reason = choice.pop("message"), choice.pop("finish_reason")
        yield {**choice, "delta": message, "finish_reason": None}
        yield {**choice, "delta": {}, "finish_reason": reason}

    def _choice(self, index: int, answer: Answer) -> dict:
        # Tokenizers that mark word starts put a space before an answer.
        text = answer.text.removeprefix(" ") if self._what == "chat" else answer.text
        places = [place for stop in self._wanted.stops if (place := text.find(stop)) >= 0]
        text = text[: min(places)] if places else text
        choice = {"index": index, "finish_reason": "stop" if places or answer.finished else "length"}
        choice |= {"logprobs": None}
        if self._what == "chat":
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        choice |= {"possibility": answer.possibility} if answer.possibility else {}
        return choice | ({"latent": answer.latent} if answer.latent else {})

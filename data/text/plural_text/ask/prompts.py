"""A question, or a conversation, to what the model reads.

Owns: which template a model is asked with, what a question is in each format, possibility numbers and latents
of a request. Does not own: rendering and tokens (prepare/), the process (common/model_process.py). Thread
rule: one thread at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from plural_text.ask.choices import Choice
from plural_text.ask.training import Training
from plural_text.common.errors import BadData, UsageError
from plural_text.prepare.prompt_encoder import PromptEncoder, PromptTooLong
from plural_text.prepare.templates import Template, format_of, open_template, stored_template
from plural_text.prepare.tokenizer import Tokenizer, read_json_beside
from plural_text.prepare.tokenizer_files import open_tokenizer

_DEFAULT_NUMBERS = 9


@dataclass(frozen=True)
class Answer:
    index: int
    possibility: int  # 0: none
    latent: int  # 0: none
    text: str
    tokens: list[int]
    prompt: str  # what the model read
    finished: bool  # False: cut at the largest number of tokens
    logprob_nats: float


@dataclass(frozen=True)
class Ask:
    """A request to the model's process, and the prompt of each of its answers."""

    request: dict
    prompts: list[list[int]]
    numbers: list[int]
    dropped_turns: int = 0  # oldest ones, that had no room


class Prompts:
    def __init__(
        self,
        model: Path,
        training: Training | None,
        template: str | None,
        tokenizer: Path,
        warn: Callable[[str], None],
    ):
        self.training = training
        self.tokenizer = open_tokenizer(tokenizer, warn=warn)
        if training and training.tokenizer_sha256 not in ("", self.tokenizer.sha256):
            warn(f"{self.tokenizer.path}: is not the tokenizer that {training.where} was trained with")
        self.template = _template(training, template, self.tokenizer)
        self.context_tokens = _size(model, "max_position_embeddings", 0)
        self.vocabulary = _size(model, "vocab_size", len(self.tokenizer.token_bytes))
        self._encoder = PromptEncoder(
            self.tokenizer, self.template, limit="beside its new tokens the model has room for"
        )

    @property
    def largest_number(self) -> int:
        if not self.template.has_numbers():
            return 0
        return self.training.possibilities if self.training else _DEFAULT_NUMBERS

    def default_choice(self) -> Choice:
        """Numbers where the model was trained with them."""
        asks = self.training is not None and self.training.possibilities > 0 and self.template.has_numbers()
        return Choice("sample" if asks else "none")

    def check_choice(self, choice: Choice) -> None:
        """Errors: UsageError for numbers that cannot be asked for."""
        if choice.policy == "none":
            return
        if self.training and self.training.latents:
            raise UsageError(
                "--possibilities: the model was trained with method cvf, which has latents instead of "
                "possibility numbers; leave it out"
            )
        if not self.template.has_numbers():
            raise UsageError(
                f"template '{self.template.name}' has no place for a possibility number; give "
                "--possibilities none or another --template"
            )
        largest = self.largest_number
        if self.training and not largest:
            raise UsageError(
                f"--possibilities: {self.training.where} says that method {self.training.method} trained "
                "prompts without a number; give --possibilities none"
            )
        if self.training and max(choice.given, default=0) > largest:
            raise UsageError(
                f"--possibilities {','.join(map(str, choice.given))}: the model was trained with the numbers "
                f"1 to {largest}"
            )

    def turns(self, question: str, system: str | None = None) -> list:
        """A question as turns of the template's format. Errors: UsageError, BadData."""
        if not question.strip():
            raise UsageError("the question is empty")
        if self.template.format == "chat":
            before = [{"role": "system", "content": system}] if system else []
            return [*before, {"role": "user", "content": question}]
        if system:
            raise UsageError(
                f"--system: template '{self.template.name}' has no place for it, chat templates alone do; "
                "leave it out"
            )
        if self.template.format == "dialogue":
            return [line for line in question.splitlines() if line.strip()]
        return [question]

    def answered(self, turns: list, answer: str) -> list:
        """The turns with an answer behind them."""
        if self.template.format == "chat":
            return [*turns, {"role": "assistant", "content": answer}]
        return [*turns, " ".join(answer.split())]

    def ask(self, key: str, turns: list, count: int, choice: Choice, settings: dict) -> Ask:
        """settings: of the request, with "max_new_tokens" and "seed". Oldest turns that have no room are left
        out.

        Errors: BadData for turns that the template refuses or that have no room.
        """
        latents = self.training.latents if self.training else 0
        draws = f"{settings['seed']}:{key}"
        numbers = [0] * count if latents else choice.numbers(count, self.largest_number, draws)
        room = self._room(settings["max_new_tokens"])
        if self.template.format == "text":
            return self.ask_text(key, turns[0], count, settings)
        kept, encoded = self._encoder.fit(turns, numbers, room)
        chosen = Choice("sample").numbers(count, latents, draws) if latents else []
        ask = self._request(key, encoded, numbers, chosen, settings)
        return replace(ask, dropped_turns=len(turns) - len(kept))

    def ask_text(self, key: str, text: str | list[int], count: int, settings: dict) -> Ask:
        """A text to go on with as it stands, behind the begin token; or token ids. Errors: BadData."""
        ids = text
        if isinstance(text, str):
            ids = self.tokenizer.with_begin(self.tokenizer.encode_prompts([text])[0])
        self.check_length(ids, settings["max_new_tokens"])
        latents = self.training.latents if self.training else 0
        draws = f"{settings['seed']}:{key}"
        chosen = Choice("sample").numbers(count, latents, draws) if latents else []
        return self._request(key, [ids] * count, [0] * count, chosen, settings)

    def encode(self, turns: list, k: int) -> list[int]:
        """Ids of the prompt for number k, 0: without one. Errors: BadData."""
        if self.template.format == "text":
            return self.tokenizer.with_begin(self.tokenizer.encode_prompts(turns)[0])
        return self._encoder.encode(turns, k)

    def check_length(self, ids: list[int], max_new_tokens: int) -> None:
        """Errors: BadData for a prompt that is empty, PromptTooLong for one that has no room."""
        if not ids:
            raise BadData("the prompt has no tokens")
        room = self._room(max_new_tokens)
        if room and len(ids) > room:
            raise PromptTooLong(_no_room(len(ids), max_new_tokens, self.context_tokens))

    def _room(self, max_new_tokens: int) -> int:
        """Tokens that a prompt may have; 0: the model names no limit."""
        if not self.context_tokens:
            return 0
        latent = 1 if self.training and self.training.latents else 0  # stands behind the prompt
        room = self.context_tokens - max_new_tokens - latent
        if room < 1:
            raise PromptTooLong(_no_room(1, max_new_tokens, self.context_tokens))
        return room

    def _request(
        self, key: str, prompts: list[list[int]], numbers: list[int], latents: list[int], settings: dict
    ) -> Ask:
        highest = max(map(max, prompts))
        if highest >= self.vocabulary:
            raise BadData(
                f"the prompt has token {highest}, the model has {self.vocabulary:,}; give the tokenizer of "
                "the model with --tokenizer"
            )
        request = {"id": key, **settings}
        if latents:
            request |= {"prompt_tokens": prompts[0], "latents": latents}
        elif any(numbers):
            # What all share is computed once; a tail has at least a token.
            shared = len(os.path.commonprefix([min(prompts), max(prompts)]))
            shared = min(shared, min(map(len, prompts)) - 1)
            if shared < 1:
                raise BadData("a prompt of one token has no room for a possibility number")
            request |= {"prompt_tokens": prompts[0][:shared], "tails": [ids[shared:] for ids in prompts]}
        else:
            request |= {"prompt_tokens": prompts[0], "responses": len(prompts)}
        return Ask(request, prompts, numbers)

    def answers(self, ask: Ask, fields: dict) -> list[Answer]:
        """What the process answered. Errors: BadData for an id that the tokenizer does not have."""
        found = []
        for i, response in enumerate(fields["responses"]):
            found.append(
                Answer(
                    index=i,
                    possibility=ask.numbers[i],
                    latent=response.get("latent", 0),
                    text=self._encoder.text(response["tokens"]),
                    tokens=response["tokens"],
                    prompt=self._encoder.text(ask.prompts[i]),
                    finished=bool(response.get("finished")),
                    logprob_nats=response.get("logprob_nats", 0.0),
                )
            )
        return found


def tokenizer_folder(model: Path, adapter: Path | None, option: Path | None) -> Path:
    """--tokenizer, else the model's folder, else the adapter's."""
    if option:
        return option
    names = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json")
    if adapter and not any((model / name).is_file() for name in names):
        return adapter
    return model


def _template(training: Training | None, name: str | None, tokenizer: Tokenizer) -> Template:
    """--template, else what was trained with, else the model's chat template, else turns as plain text."""
    if name:
        template = open_template(name, format_of(name), tokenizer)
    elif training:
        template = stored_template(training.template, training.where, tokenizer)
    else:
        kind = "chat" if tokenizer.chat_template else "dialogue"
        template = open_template(None, kind, tokenizer)
    if template.ratings:
        raise UsageError(
            f"template '{template.name}' asks how well an answer fits; name one that asks for it"
        )
    return template


def _size(model: Path, key: str, default: int) -> int:
    found = read_json_beside(model, "config.json").get(key)
    return found if type(found) is int and found > 0 else default


def _no_room(prompt: int, new: int, context: int) -> str:
    return (
        f"a prompt of {prompt:,} tokens and {new:,} new ones do not fit the model's {context:,} "
        "(max_position_embeddings)"
    )

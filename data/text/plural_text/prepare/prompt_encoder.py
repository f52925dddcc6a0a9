"""Turns and a possibility number to the ids of a prompt, as a corpus holds them, and ids of answers to text.

Owns: the begin token, which oldest turns go where a prompt is too long. Does not own: rendering
(templates.py), the tokenizer. Thread rule: one thread at a time.
"""

from __future__ import annotations

from plural_text.common.errors import BadData
from plural_text.prepare.templates import Template, TemplateRefused
from plural_text.prepare.tokenizer import Tokenizer


class PromptTooLong(BadData):
    """Nothing is left to drop."""


class PromptEncoder:
    def __init__(self, tokenizer: Tokenizer, template: Template, max_tokens: int = 0, limit: str = "allowed"):
        """max_tokens: of a prompt, 0: no limit; limit: what to call it, as in "allowed: 7"."""
        self.tokenizer, self.template = tokenizer, template
        self._max_tokens, self._limit = max_tokens, limit

    def encode(self, turns: list, k: int) -> list[int]:
        """Ids of the prompt for number k, 0: without one. Errors: BadData where the template refuses the
        turns."""
        try:
            ids = self.tokenizer.encode_prompts([self.template.render(turns, k)])[0]
        except TemplateRefused as error:
            raise BadData(str(error)) from None
        return self.tokenizer.with_begin(ids) if self.template.bos else ids

    def fit(self, turns: list, numbers: list[int], max_tokens: int | None = None) -> tuple[list, list]:
        """The turns without the oldest that have no room, and the prompt's ids for each number.

        max_tokens: in place of the encoder's own limit. Errors: PromptTooLong when nothing is left to drop.
        """
        limit = self._max_tokens if max_tokens is None else max_tokens
        while True:
            encoded = {k: self.encode(turns, k) for k in dict.fromkeys(numbers)}
            longest = max(map(len, encoded.values()))
            if not limit or longest <= limit:
                return turns, [encoded[k] for k in numbers]
            shorter = self.template.without_oldest(turns)
            if shorter is None:
                raise PromptTooLong(f"a last turn of {longest:,} prompt tokens, {self._limit} {limit:,}")
            turns = shorter

    def text(self, ids: list[int]) -> str:
        """The text of an answer. A model may have more rows than its tokenizer has ids: those are no text."""
        known = len(self.tokenizer.token_bytes)
        return self.tokenizer.decode([i for i in ids if i < known]).decode("utf-8", "replace")

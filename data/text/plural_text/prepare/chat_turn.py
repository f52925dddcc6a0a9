"""How a chat template writes an assistant's turn, found by rendering one.

Owns: what stands before a response, what it is tokenised behind, the token that ends it. Does not own:
rendering (templates.py), what is done with the end token (end_tokens.py). Thread rule: one thread at a time.

A response is tokenised as the template would write it into the conversation: behind the text that ends a
prompt, since a tokenizer may put a word start before a text of its own that it does not put there.
"""

from __future__ import annotations

from plural_text.prepare.templates import ChatTemplate, TemplateRefused
from plural_text.prepare.tokenizer import Tokenizer

_QUESTION, _ANSWER = "Name a fruit.", "Quince"
_TURNS = [{"role": "user", "content": _QUESTION}]


class ChatTurn:
    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        # The token that the template writes behind a response; None: it writes none there.
        self.end_id: int | None = None
        self._before: str | None = None
        try:
            prompt = template.render(_TURNS, 0)
            whole = template.render_whole(_TURNS, _ANSWER)
        except TemplateRefused:
            return  # records will show whether it takes theirs
        if _ANSWER in whole:
            self._read(prompt, *whole.rsplit(_ANSWER, 1))

    def _read(self, prompt: str, before: str, after: str) -> None:
        ids = self._tokenizer.encode_prompts([after.lstrip()])[0] if after.strip() else []
        self.end_id = ids[0] if ids and ids[0] in self._tokenizer.special_ids else None
        # Anything but a space is no part of a response, such as an empty thinking block.
        if before in (prompt, prompt + " "):
            self._before = self._context(prompt)
            self._gap = before[len(prompt) :]
            self._before_ids = self._tokenizer.encode_prompts([self._before])[0]

    def _context(self, prompt: str) -> str:
        """The end of a prompt from its last special token on, or from the question where that is later."""
        special = [
            prompt.rfind(self._tokenizer.token_text(token))
            for token in set(self._tokenizer.encode_prompts([prompt])[0]) & self._tokenizer.special_ids
            if self._tokenizer.token_text(token).strip()
        ]
        return prompt[max([0, prompt.rfind(_QUESTION), *special]) :]

    def encode_responses(self, texts: list[str]) -> list[list[int]]:
        """Ids of responses without their end token. The text of a special token inside stays plain text."""
        alone = self._tokenizer.encode_text(texts)
        if self._before is None:
            return alone
        behind = self._tokenizer.encode_prompts([self._before + self._gap + text for text in texts])
        count = len(self._before_ids)
        return [
            ids[count:] if ids[:count] == self._before_ids and self._is_text(ids[count:]) else other
            for ids, other in zip(behind, alone)
        ]

    def _is_text(self, ids: list[int]) -> bool:
        return not self._tokenizer.special_ids.intersection(ids)

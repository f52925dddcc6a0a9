"""Compares a sample of a corpus with what the tokenizer's library and the chat template say of it.

Owns: the sample, the two comparisons. Does not own: what a corpus is (groups.py). Thread rule: one thread at
a time.

Neither difference is refused: a library may spell text otherwise on purpose, and so does a chat template that
writes an empty thinking block into a conversation. But both should be known before training.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from plural_text.prepare.formats import Record
from plural_text.prepare.groups import Group
from plural_text.prepare.templates import ChatTemplate, Template, TemplateRefused
from plural_text.prepare.tokenizer import Tokenizer

_GROUPS = 32
# What a library writes for bytes that are no text.
_UNREADABLE = "\ufffd"


class CorpusCheck:
    def __init__(self, tokenizer: Tokenizer, template: Template):
        self._tokenizer = tokenizer
        self._template = template
        self._sample: list[tuple[Record | None, Group]] = []
        self._seen, self._step = 0, 1

    def add(self, record: Record | None, group: Group) -> None:
        """Keeps every n-th group, n doubled whenever the sample is full, so it is spread over the corpus."""
        if self._seen % self._step == 0:
            if len(self._sample) == _GROUPS:
                self._sample = self._sample[::2]
                self._step *= 2
            if self._seen % self._step == 0:
                self._sample.append((record, group))
        self._seen += 1

    def report(self, warn: Callable[[str], None]) -> None:
        """At most one line for each of the comparisons."""
        self._first(self._other_text, warn)
        if isinstance(self._template, ChatTemplate):
            self._first(self._other_conversation, warn)

    def _first(self, compare: Callable, warn: Callable[[str], None]) -> None:
        line = next(filter(None, (compare(record, group) for record, group in self._sample)), None)
        if line:
            warn(line)

    def _other_text(self, record: Record | None, group: Group) -> str | None:
        ids = _sequence(group)
        text = self._tokenizer.library_text(ids)
        if text is None:
            return None
        ours = self._tokenizer.decode(ids).decode("utf-8", "replace")
        ours, theirs = (_comparable(t) for t in (ours, text))
        if ours == theirs:
            return None
        place = len(os.path.commonprefix([ours, theirs]))
        return (
            f"group {group.id}: the bytes of its tokens spell {ours[place : place + 20]!r} where the "
            f"tokenizer's library decodes {theirs[place : place + 20]!r}; texts of answers and word masks "
            "may be wrong there"
        )

    def _other_conversation(self, record: Record, group: Group) -> str | None:
        if not record.responses or not group.responses:
            return None
        try:
            if self._encode(self._template.render(record.turns, 0)) != group.prompt + group.tails[0]:
                return None  # trimmed
            whole = self._template.render_whole(record.turns, record.responses[0])
        except TemplateRefused as error:
            return f"{record.where}: the conversation with its response: {error}"
        ours, theirs = _sequence(group), self._encode(whole)
        place = len(os.path.commonprefix([ours, theirs]))
        if place == len(ours) or self._is_space_before_end(place, ours, theirs):
            return None
        shown = lambda ids: repr(self._tokenizer.token_text(ids[place])) if place < len(ids) else "nothing"
        return (
            f"{record.where}: the chat template writes this conversation with its response otherwise "
            f"than it is trained, from token {place} on: {shown(ours)} is trained, the template has "
            f"{shown(theirs)}"
        )

    def _is_space_before_end(self, place: int, ours: list[int], theirs: list[int]) -> bool:
        """Llama 2's template has a space before the end token, which a model has no need to learn."""
        return (
            place == len(ours) - 1
            and theirs[place + 1 : place + 2] == ours[-1:]
            and not self._tokenizer.token_bytes[theirs[place]].strip()
        )

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode_prompts([text])[0]


def _sequence(group: Group) -> list[int]:
    return group.prompt + group.tails[0] + (group.responses[0] if group.responses else [])


def _comparable(text: str) -> str:
    return text.replace(_UNREADABLE, "").removeprefix(" ")

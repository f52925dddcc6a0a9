"""Records to groups of token ids.

Owns: what a group's sequences are (prompt, tails, responses), trimming, truncation, the check that
target sets are prefix-free. Does not own: the text of prompts (templates.py), masks (masks.py), the file
(corpus_writer.py). Works in batches, since tokenizers are fastest that way. Thread rule: one thread at a
time.

Each full prompt is tokenised whole, exactly as it is at generation time, and each response on its own (a
chat's behind the end of a prompt, chat_turn.py); what the prompts of a group share is then found from the
ids. Joining tokenised parts of a prompt would give other ids than the model sees later.
"""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field

from plural_text.common.errors import BadData
from plural_text.prepare.chat_turn import ChatTurn
from plural_text.prepare.formats import Record
from plural_text.prepare.masks import MaskBuilder
from plural_text.prepare.templates import ChatTemplate, Template, TemplateRefused
from plural_text.prepare.tokenizer import Tokenizer

_WORD = re.compile(r"\S+")
# The reader of the corpus takes no larger group (docs/corpus-format.md).
_MAX_GROUP_TOKENS = 1 << 24


@dataclass(slots=True)
class Group:
    """A full sequence is prompt + tails[k] + responses[i]; tails[0] closes the prompt without a number."""

    id: str
    prompt: list[int]
    tails: list[list[int]]
    responses: list[list[int]] = field(default_factory=list)
    masks: list[bytes] = field(default_factory=list)  # one byte per response token (masks.py)
    weights: list[float] = field(default_factory=list)  # relative, one per response; 1 unless given


@dataclass(frozen=True)
class Limits:
    possibilities: int  # M
    max_prompt_tokens: int = 0  # 0: no limit
    max_response_words: int = 0  # 0: no limit
    max_length_tokens: int = 1024  # of a piece of plain text


@dataclass
class Changes:
    """Counts of the texts that were not taken over as written, for the summary."""

    trimmed_prompts: int = 0
    truncated_responses: int = 0
    respelled_responses: int = 0  # the tokenizer's normalisation changed the text
    first_respelled: str = ""
    prompt_tokens_lost: int = 0  # by a number that stands early, over all groups


class GroupBuilder:
    def __init__(self, tokenizer: Tokenizer, template: Template, masks: MaskBuilder, limits: Limits):
        self._tokenizer = tokenizer
        self._template = template
        self._masks = masks
        self._limits = limits
        self._encode_responses = tokenizer.encode_text
        if isinstance(template, ChatTemplate):
            self._encode_responses = ChatTurn(template, tokenizer).encode_responses
        early = limits.possibilities > 0 and template.number_is_early()
        self._number_last = template.with_number_last() if early else None
        self.changes = Changes()

    @property
    def number_is_early(self) -> bool:
        """True when possibility numbers stand before content, so that groups share less than they could."""
        return self._number_last is not None

    def build(self, records: list[Record]) -> list[Group]:
        """The groups of the records, in order. Errors: BadData naming the record's file and line."""
        if self._template.format == "text":
            return [group for record in records for group in self._text_pieces(record)]
        groups = self._prompts(records)
        self._add_responses(records, groups)
        for record, group in zip(records, groups):
            _check_size(record, group)
        return groups

    # Prompts.

    def _prompts(self, records: list[Record]) -> list[Group]:
        turns = [record.turns for record in records]
        prompts: list[list[list[int]]] = [[]] * len(records)
        pending = list(range(len(records)))
        while pending:
            encoded = self._encode_prompts(self._template, [(records[i], turns[i]) for i in pending])
            too_long = []
            for i, full in zip(pending, encoded):
                if self._fits(records[i], full):
                    prompts[i] = full
                    continue
                turns[i] = self._trim(records[i], turns[i], full)
                too_long.append(i)
            pending = too_long
        self.changes.trimmed_prompts += sum(len(t) < len(r.turns) for t, r in zip(turns, records))
        if self._number_last:
            moved = self._encode_prompts(self._number_last, list(zip(records, turns)))
            self.changes.prompt_tokens_lost += sum(
                _distinct_tokens(full[1:]) - _distinct_tokens(last[1:]) for full, last in zip(prompts, moved)
            )
        return [_split(record.id, full) for record, full in zip(records, prompts)]

    def _encode_prompts(self, template: Template, rows: list[tuple[Record, list]]) -> list[list[list[int]]]:
        """For each record the ids of its full prompts, k = 0..M."""
        numbers = range(self._limits.possibilities + 1)
        texts = []
        for record, turns in rows:
            try:
                texts += [template.continued(template.render(turns, k), record.prefix) for k in numbers]
            except TemplateRefused as error:
                raise BadData(f"{record.where}: {error}") from None
        ids = self._tokenizer.encode_prompts(texts)
        if template.bos:
            ids = [self._tokenizer.with_begin(row) for row in ids]
        m = len(numbers)
        return [ids[i * m : (i + 1) * m] for i in range(len(rows))]

    def _fits(self, record: Record, full: list[list[int]]) -> bool:
        if not all(full):
            raise BadData(f"{record.where}: the prompt has no tokens")
        limit = self._limits.max_prompt_tokens
        return not limit or max(map(len, full)) <= limit

    def _trim(self, record: Record, turns: list, full: list[list[int]]) -> list:
        shorter = self._template.without_oldest(turns)
        if shorter is None:
            raise BadData(
                f"{record.where}: the prompt has {max(map(len, full))} tokens with nothing left to "
                f"trim, --max-prompt-tokens allows {self._limits.max_prompt_tokens}; raise it or "
                "shorten the last turn"
            )
        return shorter

    # Responses.

    def _add_responses(self, records: list[Record], groups: list[Group]) -> None:
        rows = [
            (record, group, self._truncated(text))
            for record, group in zip(records, groups)
            for text in record.responses or ()
        ]
        encoded = self._encode_responses([text for _, _, text in rows])
        masks = self._masks.build(encoded)
        for (record, group, text), ids, mask in zip(rows, encoded, masks):
            self._check_response(record, text, ids)
            if record.eos:
                ids, mask = [*ids, self._tokenizer.eos_id], mask + b"\0"
            group.responses.append(ids)
            group.masks.append(mask)
        for record, group in zip(records, groups):
            group.weights = record.weights or [1.0] * len(group.responses)
            if self._template.format == "targets":
                _check_prefix_free(record, group)

    def _truncated(self, text: str) -> str:
        limit = self._limits.max_response_words
        if limit:
            for count, word in enumerate(_WORD.finditer(text), 1):
                if count == limit and text[word.end() :].strip():
                    self.changes.truncated_responses += 1
                    return text[: word.end()]
        return text

    def _check_response(self, record: Record, text: str, ids: list[int]) -> None:
        if not ids:
            raise BadData(f"{record.where}: response {_shown(text)} has no tokens")
        if self._tokenizer.eos_id in ids:
            raise BadData(
                f"{record.where}: response {_shown(text)} holds the end token "
                f"'{self._tokenizer.token_text(self._tokenizer.eos_id)}'; take it out, it is added by itself"
            )
        spelled, written = self._tokenizer.decode(ids), text.encode()
        if spelled != written and spelled != b" " + written:
            self.changes.respelled_responses += 1
            self.changes.first_respelled = self.changes.first_respelled or record.where

    # Plain text.

    def _text_pieces(self, record: Record) -> list[Group]:
        """The begin token as prompt, then pieces of nearly equal length; the last has the end token.

        Equal lengths leave no stump of a few tokens at the end of a document. Where the tokenizer has no
        begin token the end token of the document before stands for it, since a prompt cannot be empty.
        Masks are 0: plain text has no negatives.
        """
        tokenizer = self._tokenizer
        begin = (tokenizer.begin_ids if self._template.bos else []) or [tokenizer.eos_id]
        ids = [*tokenizer.encode_text(record.turns)[0], tokenizer.eos_id]
        room = max(1, self._limits.max_length_tokens - len(begin))
        count = -(-len(ids) // room)
        cuts = [i * len(ids) // count for i in range(count + 1)]
        return [
            Group(f"{record.id}:{n}", begin, [[]], [ids[a:b]], [bytes(b - a)], [1.0])
            for n, (a, b) in enumerate(itertools.pairwise(cuts), 1)
        ]


def _split(group_id: str, full: list[list[int]]) -> Group:
    """The shared prompt is the longest common prefix of all full prompts, found from their ids."""
    # In lexicographic order everything between two lists shares what the outermost two share.
    shared = os.path.commonprefix([min(full), max(full)])
    return Group(group_id, shared, [ids[len(shared) :] for ids in full])


def _distinct_tokens(full: list[list[int]]) -> int:
    """Tokens of the prompts of a group when what all share is counted once."""
    shared = len(os.path.commonprefix([min(full), max(full)]))
    return shared + sum(len(ids) - shared for ids in full)


def _check_size(record: Record, group: Group) -> None:
    tokens = len(group.prompt) + sum(map(len, group.tails)) + sum(map(len, group.responses))
    if tokens > _MAX_GROUP_TOKENS:
        raise BadData(
            f"{record.where}: the group has {tokens:,} tokens with its prompts for all possibility "
            f"numbers, at most {_MAX_GROUP_TOKENS:,} are allowed; shorten it"
        )


def _check_prefix_free(record: Record, group: Group) -> None:
    """No target may be the beginning of another one, or its probability would contain the other's."""
    # In lexicographic order a list stands directly before those that begin with it.
    order = sorted(range(len(group.responses)), key=group.responses.__getitem__)
    for a, b in itertools.pairwise(order):
        first, second = group.responses[a], group.responses[b]
        if second[: len(first)] == first:
            names = (
                f"targets[{a}] {_shown(record.responses[a])} and targets[{b}] {_shown(record.responses[b])}"
            )
            if first == second:
                raise BadData(
                    f"{record.where}: {names} have the same tokens; keep one and add up the weights"
                )
            raise BadData(
                f"{record.where}: of {names} the first is the beginning of the second in tokens; "
                "set 'eos' to true or close every target with the same sign"
            )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")

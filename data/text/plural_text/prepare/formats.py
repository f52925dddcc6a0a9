"""Input files to records: what a user may write, checked, with the place of every mistake.

Owns: the four source formats, their keys and types. Does not own: files (input_files.py), JSON
(json_records.py), other programs' shapes (foreign_shapes.py), templates, tokens.
Streams: one record in memory at a time. Thread rule: a generator, one thread.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from plural_text.common.errors import BadData
from plural_text.prepare.foreign_shapes import own_shape, refuse_foreign_shape, require_shape
from plural_text.prepare.input_files import Files, Item
from plural_text.prepare.json_records import Mistake, kind_of, parse
from plural_text.prepare.stories import CONTEXT_SENTENCES, STORY, story_fields

FORMATS = ("dialogue", "targets", "chat", "text")
MAX_ID_BYTES = 4096
_MAX_KIND_CHARACTERS = 200

KNOWN_KEYS = {
    "dialogue": {"id", "context", "candidates", "kinds"},
    "targets": {"id", "request", "response", "targets", "weights", "eos"},
    "chat": {"id", "messages", "responses", "kinds"},
    "text": {"id", "text"},
}
_CONTENT = {"dialogue": "context", "targets": "request"}
_ROLES = ("system", "user", "assistant")


@dataclass(slots=True)
class Record:
    """One group as its author wrote it."""

    id: str
    where: str  # "file:line", for messages
    turns: list  # dialogue: texts; chat: {"role", "content"}; targets: [request]; text: [document]
    responses: list[str] | None = None  # None: a prompt to generate for
    weights: list[float] | None = None  # targets only, as written
    prefix: str = ""  # targets only: what the response starts with, part of the prompt
    eos: bool = True  # whether responses end with the end token
    kinds: list[str] | None = None  # dialogue and chat, when they are read: the kind of each response
    blank_turns: int = 0  # dialogue: turns of white space alone, which are left out


class InputFiles:
    """The records of a list of files and folders, in order.

    note(line) is called once for each kind of key that is passed over. `bytes_read` of `total_bytes`
    is the position in the stream. With `reads_kinds` every record with responses must have their kinds.
    `shapes` counts the records that another program's shape was read from. With `may_lack_responses` records
    with and without responses may be mixed. shape: of chat, the key that every record must have, "" for any;
    of dialogue, STORY for stories, whose first `story_sentences` sentences are the context. columns: a key of
    the input -> the key of the format that it stands for.
    """

    def __init__(
        self,
        inputs: list[str],
        source_format: str,
        note: Callable[[str], None],
        prompts_only: bool = False,
        shape: str = "",
        columns: dict[str, str] | None = None,
    ):
        self._format = source_format
        self._note = note
        self._noted: set[str] = set()
        self._prompts_only = prompts_only
        self._shape = shape
        self._columns = columns or {}
        self._unseen = set(self._columns)
        self.reads_kinds = False
        self.may_lack_responses = False
        self.story_sentences = CONTEXT_SENTENCES
        self.shapes: Counter[str] = Counter()
        self._with_responses: tuple[bool, str] | None = None  # what the first record said, and where
        self._files = Files(inputs, source_format, any_form=True if shape == STORY else None)
        self.files = self._files.files
        self.total_bytes = self._files.total_bytes

    @property
    def bytes_read(self) -> int:
        return self._files.bytes_read

    def __iter__(self) -> Iterator[Record]:
        for item in self._files:
            if item.is_document:
                yield _text_document(item)
            else:
                yield self._record(item.content, item.where, item.default_id)
        if self._unseen:
            name = min(self._unseen)
            raise BadData(f"{self.files[0]}: no record has the key '{name}' that --columns names")

    def _record(self, content: bytes | dict, where: str, default_id: str) -> Record:
        try:
            fields = self._renamed(content if isinstance(content, dict) else parse(content))
            if self._format == "chat":
                if self._shape:
                    require_shape(fields, self._shape)
                fields, shape = own_shape(fields, self._prompts_only)
                self.shapes.update([shape] if shape else ())
            elif self._shape == STORY:
                fields = story_fields(fields, self.story_sentences)
            elif self._format in _CONTENT:
                refuse_foreign_shape(fields, self._format, _CONTENT[self._format])
            self._pass_over(fields, where)
            record = _READERS[self._format](fields)
            record.id = _id(fields) if "id" in fields else default_id
            if self.reads_kinds and record.responses:
                record.kinds = _kinds(fields, len(record.responses))
        except Mistake as mistake:
            raise BadData(f"{where}: {mistake}") from None
        record.where = where
        if self._prompts_only:
            record.responses = record.weights = None
        self._check_same_kind(record)
        return record

    def _renamed(self, fields: dict) -> dict:
        """The fields under the format's keys."""
        if not self._columns:
            return fields
        self._unseen -= fields.keys()
        renamed = {self._columns.get(key, key): value for key, value in fields.items()}
        if len(renamed) < len(fields):
            new = next(new for old, new in self._columns.items() if old in fields and new in fields)
            raise Mistake(f"key '{new}' is there already; --columns must not name another one for it")
        return renamed

    def _check_same_kind(self, record: Record) -> None:
        if self._format == "text" or self.may_lack_responses:
            return
        has = record.responses is not None
        first, where = self._with_responses = self._with_responses or (has, record.where)
        if has != first:
            raise BadData(
                f"{record.where}: {'has' if has else 'has no'} responses, {where} "
                f"{'has' if first else 'has none'}; a corpus is all for training or all prompts "
                "(--prompts-only leaves responses out, --min-responses 1 the prompts without any)"
            )

    def _pass_over(self, fields: dict, where: str) -> None:
        known = KNOWN_KEYS[self._format]
        for key in fields:
            if key in self._noted or (key in known and (key != "kinds" or self.reads_kinds)):
                continue
            self._noted.add(key)
            if key in known:
                self._note(
                    f"{where}: key 'kinds' is not used: possibility numbers are assigned in training "
                    "(--align kinds uses it)"
                )
            else:
                near = difflib.get_close_matches(key, known, 1, cutoff=0.8)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                self._note(
                    f"{where}: unknown key '{key}' is passed over, here and below; --format "
                    f"{self._format} knows {', '.join(sorted(known))}{meant}"
                )


def _text_document(item: Item) -> Record:
    try:
        text = item.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{item.where}: not UTF-8 at byte {error.start}") from None
    if not text.strip():
        raise BadData(f"{item.where}: holds no text")
    return Record(id=item.default_id, where=item.where, turns=[text])


def _read_dialogue(fields: dict) -> Record:
    # A blank line is nobody's turn: counted as one it would make the speakers change places.
    lines = [line.rstrip("\r") for line in _text(fields, "context").split("\n")]
    turns = [line for line in lines if line.strip()]
    candidates = _responses(fields, "candidates")
    return Record("", "", turns, candidates, blank_turns=len(lines) - len(turns))


def _read_targets(fields: dict) -> Record:
    request = _text(fields, "request")
    prefix = fields.get("response", "")
    if isinstance(prefix, list):
        if len(prefix) != 1:
            raise Mistake(f"key 'response' holds {len(prefix)} prefixes, exactly one is allowed")
        prefix = prefix[0]
    _check_text(prefix, "response", may_be_empty=True)
    targets = _responses(fields, "targets")
    eos = fields.get("eos", True)
    if not isinstance(eos, bool):
        raise Mistake(f"key 'eos' holds a {kind_of(eos)}, must hold true or false")
    weights = _weights(fields, targets) if "weights" in fields else None
    return Record("", "", [request], targets, weights, prefix, eos)


def _read_chat(fields: dict) -> Record:
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Mistake('key \'messages\' must hold a list of {"role", "content"} that is not empty')
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or message.keys() != {"role", "content"}:
            raise Mistake(f"messages[{i}] must be an object with exactly 'role' and 'content'")
        if message["role"] not in _ROLES:
            raise Mistake(f"messages[{i}] has role {message['role']!r}, allowed: {', '.join(_ROLES)}")
        _check_text(message["content"], f"messages[{i}].content")
    if messages[-1]["role"] != "user":
        raise Mistake(
            f"the last message is the {messages[-1]['role']}'s, must be the user's: what follows it is learnt"
        )
    responses = _responses(fields, "responses")
    return Record("", "", messages, responses)


def _read_text(fields: dict) -> Record:
    return Record("", "", [_text(fields, "text")])


_READERS = {"dialogue": _read_dialogue, "targets": _read_targets, "chat": _read_chat, "text": _read_text}


def _weights(fields: dict, targets: list[str] | None) -> list[float]:
    weights = fields["weights"]
    if targets is None or not isinstance(weights, list) or len(weights) != len(targets):
        count = len(weights) if isinstance(weights, list) else f"a {kind_of(weights)}"
        raise Mistake(
            f"key 'weights' holds {count}, must hold one number for each of the {len(targets or [])} targets"
        )
    for i, weight in enumerate(weights):
        if type(weight) not in (int, float):
            raise Mistake(f"weights[{i}] is a {kind_of(weight)}, must be a number")
        if not 0 <= weight < math.inf:
            raise Mistake(f"weights[{i}] is {weight}, must be finite and not negative")
    if not 0 < math.fsum(weights) < math.inf:
        raise Mistake("the weights must add up to something above 0 and finite")
    return [float(weight) for weight in weights]


def _text(fields: dict, key: str) -> str:
    if key not in fields:
        raise Mistake(f"key '{key}' is missing; found {', '.join(map(repr, fields)) or 'no keys'}")
    _check_text(fields[key], key)
    return fields[key]


def _id(fields: dict) -> str:
    name = _text(fields, "id")
    if len(name.encode()) > MAX_ID_BYTES:
        raise Mistake(f"id has {len(name.encode()):,} bytes, at most {MAX_ID_BYTES:,} are allowed")
    return name


def _responses(fields: dict, key: str) -> list[str] | None:
    """The texts under a key; None, a prompt to generate for, when it is absent or an empty list."""
    values = fields.get(key, [])
    if not isinstance(values, list):
        raise Mistake(f"key '{key}' holds a {kind_of(values)}, must hold a list of texts")
    for i, value in enumerate(values):
        _check_text(value, f"{key}[{i}]")
    return values or None


def _kinds(fields: dict, responses: int) -> list[str]:
    """The kind of each response as text: 1 and "1" are the same kind."""
    if "kinds" not in fields:
        raise Mistake(
            f"key 'kinds' is missing; --align kinds needs one for each of the {responses} responses"
        )
    values = fields["kinds"]
    if not isinstance(values, list) or len(values) != responses:
        count = len(values) if isinstance(values, list) else f"a {kind_of(values)}"
        raise Mistake(
            f"key 'kinds' holds {count}, must hold one text or whole number for each of the "
            f"{responses} responses"
        )
    for i, value in enumerate(values):
        if type(value) not in (int, str):
            raise Mistake(
                f"kinds[{i}] is a {kind_of(value)}{f' ({value})' if type(value) is float else ''}, must be "
                "a text or a whole number"
            )
        text = str(value)
        if not text.strip() or not text.isprintable() or len(text) > _MAX_KIND_CHARACTERS:
            raise Mistake(
                f"kinds[{i}] is {text[:40]!r}, must be a text on one line of 1 to "
                f"{_MAX_KIND_CHARACTERS} characters"
            )
    return [str(value) for value in values]


def _check_text(value, name: str, may_be_empty: bool = False) -> None:
    if not isinstance(value, str):
        raise Mistake(f"{name} is a {kind_of(value)}, must be a text")
    if not may_be_empty and not value.strip():
        raise Mistake(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Mistake(f"{name} holds half of a surrogate pair at character {error.start}") from None

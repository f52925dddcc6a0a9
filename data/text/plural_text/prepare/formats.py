"""Input files to records: what a user may write, checked, with the place of every mistake.

Owns: the four source formats, their keys and types, default ids. Does not own: templates, tokens.
Streams: one record in memory at a time. Thread rule: a generator, one thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput

FORMATS = ("dialogue", "targets", "chat", "text")
# One line or one document. Guards memory against files without line ends.
MAX_RECORD_BYTES = 64 << 20

MAX_ID_BYTES = 4096
_MAX_KIND_CHARACTERS = 200

_LINES = (".jsonl", ".ndjson")
_KNOWN_KEYS = {
    "dialogue": {"id", "context", "candidates", "kinds"},
    "targets": {"id", "request", "response", "targets", "weights", "eos"},
    "chat": {"id", "messages", "responses", "kinds"},
    "text": {"id", "text"},
}
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


class Mistake(Exception):
    """A mistake in a record; the reader adds file and line."""


class InputFiles:
    """The records of a list of files and folders, in order.

    note(line) is called once for each kind of key that is passed over. `bytes_read` of `total_bytes`
    is the position in the stream. With `reads_kinds` every record with responses must have their kinds.
    """

    def __init__(
        self, inputs: list[str], source_format: str, note: Callable[[str], None], prompts_only: bool = False
    ):
        self._format = source_format
        self._note = note
        self._noted: set[str] = set()
        self._prompts_only = prompts_only
        self.reads_kinds = False
        self._with_responses: tuple[bool, str] | None = None  # what the first record said, and where
        self.files = [file for name in inputs for file in self._expand(Path(name))]
        self.total_bytes = sum(file.stat().st_size for file in self.files)
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Record]:
        for file in self.files:
            try:
                yield from self._read_file(file)
            except OSError as error:
                raise MissingInput(f"{file}: cannot be read: {error.strerror}") from None

    def _expand(self, path: Path) -> list[Path]:
        suffixes = (".json", *_LINES) + ((".txt",) if self._format == "text" else ())
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix in suffixes and p.is_file())
            if not files:
                raise MissingInput(f"{path}: no input in this folder; looked for {', '.join(suffixes)}")
            return files
        if not path.is_file():
            raise MissingInput(f"{path}: input not found")
        if path.suffix not in suffixes:
            raise BadData(
                f"{path}: cannot tell what this file holds; --format {self._format} reads "
                f"{', '.join(suffixes)}"
            )
        return [path]

    def _read_file(self, file: Path) -> Iterator[Record]:
        if file.suffix in _LINES:
            for number, line in self._lines(file):
                if line.strip():
                    yield self._record(line, f"{file}:{number}", f"{file.stem}:{number}")
            return
        with open(file, "rb") as stream:
            content = stream.read(MAX_RECORD_BYTES + 1)
        self._check_size(content, str(file))
        self.bytes_read += len(content)
        if file.suffix == ".txt":
            yield self._text_document(content, file)
        else:
            yield self._record(content, str(file), file.stem)

    def _lines(self, file: Path) -> Iterator[tuple[int, bytes]]:
        with open(file, "rb") as stream:
            number = 0
            while line := stream.readline(MAX_RECORD_BYTES + 1):
                number += 1
                self._check_size(line, f"{file}:{number}")
                self.bytes_read += len(line)
                yield number, line

    def _check_size(self, content: bytes, where: str) -> None:
        if len(content) > MAX_RECORD_BYTES:
            raise BadData(f"{where}: one record of more than {MAX_RECORD_BYTES >> 20} MiB; split it")

    def _text_document(self, content: bytes, file: Path) -> Record:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BadData(f"{file}: not UTF-8 at byte {error.start}") from None
        if not text.strip():
            raise BadData(f"{file}: holds no text")
        return Record(id=file.stem, where=str(file), turns=[text])

    def _record(self, content: bytes, where: str, default_id: str) -> Record:
        try:
            fields = _parse(content)
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

    def _check_same_kind(self, record: Record) -> None:
        if self._format == "text":
            return
        has = record.responses is not None
        first, where = self._with_responses = self._with_responses or (has, record.where)
        if has != first:
            raise BadData(
                f"{record.where}: {'has' if has else 'has no'} responses, {where} "
                f"{'has' if first else 'has none'}; a corpus is all for training or all prompts "
                "(--prompts-only leaves responses out)"
            )

    def _pass_over(self, fields: dict, where: str) -> None:
        known = _KNOWN_KEYS[self._format]
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
                self._note(
                    f"{where}: unknown key '{key}' is passed over, here and below; --format "
                    f"{self._format} knows {', '.join(sorted(known))}"
                )


def _parse(content: bytes) -> dict:
    def refuse_constant(name):
        raise Mistake(f"{name} is not a JSON number")

    def unique(pairs):
        fields = dict(pairs)
        if len(fields) < len(pairs):
            keys = [key for key, _ in pairs]
            raise Mistake(f"key '{next(k for k in keys if keys.count(k) > 1)}' stands twice")
        return fields

    try:
        text = content.decode("utf-8-sig").rstrip()  # columns count from the one line that is there
        fields = json.loads(text, object_pairs_hook=unique, parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise Mistake(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        place = (
            f"line {error.lineno} column {error.colno}" if "\n" in text.strip() else f"column {error.colno}"
        )
        raise Mistake(f"not valid JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise Mistake("JSON nested too deeply") from None
    except ValueError as error:  # numbers of thousands of digits
        raise Mistake(f"not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Mistake(f"holds a {_kind(fields)}, must hold an object {{...}}")
    return fields


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
        raise Mistake(f"key 'eos' holds a {_kind(eos)}, must hold true or false")
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
        count = len(weights) if isinstance(weights, list) else f"a {_kind(weights)}"
        raise Mistake(
            f"key 'weights' holds {count}, must hold one number for each of the {len(targets or [])} targets"
        )
    for i, weight in enumerate(weights):
        if type(weight) not in (int, float):
            raise Mistake(f"weights[{i}] is a {_kind(weight)}, must be a number")
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
        raise Mistake(f"key '{key}' holds a {_kind(values)}, must hold a list of texts")
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
        count = len(values) if isinstance(values, list) else f"a {_kind(values)}"
        raise Mistake(
            f"key 'kinds' holds {count}, must hold one text or whole number for each of the "
            f"{responses} responses"
        )
    for i, value in enumerate(values):
        if type(value) not in (int, str):
            raise Mistake(
                f"kinds[{i}] is a {_kind(value)}{f' ({value})' if type(value) is float else ''}, must be "
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
        raise Mistake(f"{name} is a {_kind(value)}, must be a text")
    if not may_be_empty and not value.strip():
        raise Mistake(f"{name} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Mistake(f"{name} holds half of a surrogate pair at character {error.start}") from None


def _kind(value) -> str:
    return {
        dict: "object",
        list: "list",
        str: "text",
        bool: "true/false",
        int: "number",
        float: "number",
        type(None): "null",
    }.get(type(value), type(value).__name__)

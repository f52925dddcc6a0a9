"""JSON text to the fields of a record, and the mistakes that it may have.

Owns: what is valid JSON here, the objects of a JSON array one at a time. Does not own: keys (formats.py),
files (input_files.py). Thread rule: functions; an array's text is read by one thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TextIO

# One record. Guards memory against files without line ends.
MAX_RECORD_BYTES = 64 << 20

_SPACE = re.compile(r"[ \t\r\n]*")
_CHUNK = 1 << 20
_DECODER = json.JSONDecoder()
# Nothing that may be cut at the end of a chunk is longer, texts in quotation marks apart.
_LONGEST_SIGN = 16


class Mistake(Exception):
    """A mistake in a record; the reader adds file and line."""


def parse(content: bytes) -> dict:
    """The object of a JSON text. Errors: Mistake."""

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
        raise Mistake(f"holds a {kind_of(fields)}, must hold an object {{...}}")
    return fields


def is_object(content: bytes) -> bool:
    """Whether this is one whole JSON object, right or with a mistake in its keys."""
    try:
        return isinstance(json.loads(content.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


class JsonArray:
    """The objects of a JSON array as JSON texts, in order; only one is in memory, and a chunk of the file.

    Errors: Mistake; `number` is that of the object it is in, from 1.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._text = ""
        self._place = 0
        self.number = 0

    def __iter__(self) -> Iterator[bytes]:
        self._next("[", "the array must begin with [")
        if self._peek() == "]":
            return
        while True:
            self.number += 1
            yield self._object().encode()
            if self._next(",]", "an object must be followed by , or ]") == "]":
                break
        if self._peek():
            raise Mistake("text follows the array's end; a file holds one array")

    def _peek(self) -> str:
        """The next sign that is no white space; empty at the end."""
        while True:
            self._place = _SPACE.match(self._text, self._place).end()
            if self._place < len(self._text) or not self._read_on():
                return self._text[self._place : self._place + 1]

    def _next(self, allowed: str, rule: str) -> str:
        sign = self._peek()
        if not sign:
            raise Mistake("the file ends before its array does; it is not whole")
        if sign not in allowed:
            raise Mistake(f"not valid JSON: {rule}, found {sign!r}")
        self._place += 1
        return sign

    def _object(self) -> str:
        if self._peek() not in ("{", ""):
            raise Mistake("the array must hold objects {...}")
        while True:
            begin = self._place
            try:
                _, self._place = _DECODER.raw_decode(self._text, begin)
                return self._text[begin : self._place]
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _LONGEST_SIGN
                if not cut:
                    raise Mistake(
                        f"not valid JSON at character {error.pos - begin + 1} of the object: {error.msg}"
                    ) from None
                if not self._read_on():
                    raise Mistake("the file ends before its array does; it is not whole") from None
            except RecursionError:
                raise Mistake("JSON nested too deeply") from None
            except ValueError as error:  # numbers of thousands of digits
                raise Mistake(f"not valid JSON: {error}") from None

    def _read_on(self) -> bool:
        """Twice as much each time, so that a long object is not looked at too often."""
        rest = self._text[self._place :]
        if len(rest) > MAX_RECORD_BYTES:
            raise Mistake(f"one record of more than {MAX_RECORD_BYTES >> 20} MiB; split it")
        try:
            more = self._stream.read(max(_CHUNK, len(rest)))
        except UnicodeDecodeError as error:
            raise Mistake(f"not UTF-8: {error.reason}") from None
        self._text, self._place = rest + more, 0
        return bool(more)


def kind_of(value) -> str:
    return {
        dict: "object",
        list: "list",
        str: "text",
        bool: "true/false",
        int: "number",
        float: "number",
        type(None): "null",
    }.get(type(value), type(value).__name__)

"""A run's metrics.jsonl, read while it grows.

Owns: which lines are new since the last look, whether the file was cut back: a run that goes on after a crash
removes the lines behind its checkpoint; what every line must have. Does not own: what the lines mean. Thread
rule: free of state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import finite, kind, parse_object

# What one look takes: the rest is for the next.
_MOST_BYTES = 16 << 20
# Larger whole numbers are not told apart as double precision.
_MOST_STEPS = 1 << 53


@dataclass(frozen=True)
class Place:
    """The end of the last line that was read, and what this line was."""

    end_bytes: int = 0
    line_bytes: int = 0
    line_sha256: str = ""


@dataclass(frozen=True)
class Line:
    content: bytes  # with its line end
    place: Place  # behind it


def new_lines(path: Path, place: Place) -> tuple[list[Line], bool]:
    """The whole lines behind `place`, and whether the file is another one than it was there: then all its
    lines are new. A last line without its end is left for the next look, and so is what is beyond 16 MiB. No
    file has no lines. Errors: OSError."""
    try:
        stream = open(path, "rb")
    except FileNotFoundError:
        return [], place.end_bytes > 0
    with stream:
        cut = False
        if place.end_bytes > 0:
            stream.seek(place.end_bytes - place.line_bytes)
            if _sha256(stream.read(place.line_bytes)) != place.line_sha256:
                cut = True
                stream.seek(0)
        at = stream.tell()
        content = stream.read(_MOST_BYTES)
        while b"\n" not in content and (more := stream.read(_MOST_BYTES)):
            content += more
    lines = []
    for text in content.split(b"\n")[:-1]:
        line = text + b"\n"
        at += len(line)
        lines.append(Line(line, Place(at, len(line), _sha256(line))))
    return lines, cut


def parse_line(content: bytes, where: str) -> dict:
    """A line's object: "event" is a text, "step" a whole number, and numbers are those of double precision.
    Errors: BadData."""
    fields = parse_object(content, where)
    event, step = fields.get("event"), fields.get("step")
    if not isinstance(event, str) or type(step) is not int or not 0 <= step <= _MOST_STEPS:
        raise BadData(
            f"{where}: holds {kind(event)} as 'event' and {kind(step)} as 'step', must hold a text and a "
            "whole number from 0 to 2^53; give the folder of a run of `plural train`"
        )
    for key, value in fields.items():
        if not key.isprintable():  # nor half of a surrogate pair
            raise BadData(f"{where}: holds a key with characters that cannot be shown, {key!a}")
        if type(value) in (int, float) and finite(value) is None:
            raise BadData(f"{where}: key '{key}' holds a number beyond double precision")
    return fields


def line_number(path: Path, end_bytes: int) -> int:
    """Of the line that ends there, for an error's message. Errors: OSError."""
    with open(path, "rb") as stream:
        return stream.read(end_bytes).count(b"\n")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

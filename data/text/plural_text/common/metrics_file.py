"""A run's metrics.jsonl, read while it grows.

Owns: which lines are new since the last look, and whether the file was cut back: a run that goes on after a
crash removes the lines behind its checkpoint. Does not own: what the lines mean. Thread rule: free of state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

# What one look takes: the rest is for the next.
_MOST_BYTES = 16 << 20


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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

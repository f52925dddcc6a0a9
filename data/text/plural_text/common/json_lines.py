"""Files with one JSON object per line; every line is checked.

Owns: decoding, the place of a mistake. Does not own: which keys a line must have. Files are read as a
stream, one line in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput

# Guards memory against files without line ends.
_MAX_LINE_BYTES = 256 << 20
_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}
_HDF5 = b"\x89HDF\r\n"  # how such a file begins


def read_objects(path: Path) -> Iterator[tuple[str, dict]]:
    """("file:line", object) of each line that is not blank. Errors: MissingInput, BadData naming file and
    line."""
    try:
        with open(path, "rb") as stream:
            number = 0
            while line := stream.readline(_MAX_LINE_BYTES + 1):
                number += 1
                if line.strip():
                    yield f"{path}:{number}", parse_object(line, f"{path}:{number}")
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None


def read_object(path: Path) -> dict:
    """The one JSON object that a file holds. Errors: MissingInput, BadData."""
    try:
        return parse_object(path.read_bytes(), str(path))
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None


def parse_object(content: bytes, where: str) -> dict:
    if len(content) > _MAX_LINE_BYTES:
        raise BadData(f"{where}: more than {_MAX_LINE_BYTES >> 20} MiB; one line must hold one JSON object")
    try:
        value = json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        if content.startswith(_HDF5):
            raise BadData(
                f"{where}: HDF5, as corpora are; needed are JSON lines, such as `plural generate` writes"
            ) from None
        raise BadData(f"{where}: not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise BadData(f"{where}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadData(f"{where}: holds {kind(value)}, must hold an object {{...}}")
    return value


def text_of(fields: dict, key: str, where: str) -> str:
    """The text under a key. Errors: BadData when it is missing or something else."""
    if key not in fields:
        raise BadData(f"{where}: key '{key}' is missing; found {', '.join(map(repr, fields)) or 'no keys'}")
    value = fields[key]
    if not isinstance(value, str):
        raise BadData(f"{where}: key '{key}' holds {kind(value)}, must hold a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadData(
            f"{where}: key '{key}' holds half of a surrogate pair at character {error.start}"
        ) from None
    return value


def number_of(fields: dict, key: str, where: str, low: float, high: float = math.inf) -> float | None:
    """The number under a key, None when the key is absent or null. Errors: BadData outside [low, high]."""
    value = fields.get(key)
    if value is None:
        return None
    if finite(value) is None or not low <= value <= high:
        allowed = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of {low:g} or more"
        raise BadData(f"{where}: key '{key}' holds {_shortened(value)}, must hold a number {allowed}")
    return value


def finite(value) -> float | None:
    """The value where it is a number of double precision; None for anything else, such as the text "nan"."""
    if type(value) not in (int, float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number of hundreds of digits
        return None


def _shortened(value) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def kind(value) -> str:
    return _KINDS.get(type(value), type(value).__name__)


def _refuse_constant(name: str):
    raise ValueError(f"{name} is not a JSON number")

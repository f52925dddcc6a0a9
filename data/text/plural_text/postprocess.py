"""Cleans the texts of generated responses in explicit steps, and counts the texts that each step changed.

Steps, in this order: list_label, speaker_label, newlines, typographic, parentheses, stars, hashtags, emoji,
ends, spaces. They follow the cleaning of the published dialogue experiments; what they change moves
Distinct-n, so a file is cleaned or it is not, and all files of a comparison alike. Token ids and all other
keys stay as generated.
"""

# Owns: the steps, the command. Does not own: what a response line holds beyond `responses[].text`.

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from plural_text.common.errors import BadData, CannotCreate, UsageError, WriteFailed
from plural_text.common.json_lines import kind, read_objects, text_of
from plural_text.common.new_output import add_force, require_new

_SPEAKERS = ("Person A", "Person B")
# "1.", "2)", "(3)", "4:", "#5", "Response 6:", or a bullet; not "3.50", "5:30", "-2".
_LIST_LABEL = re.compile(
    r"\s*(?:[-*+\u2022\u2013\u2014](?=\s)"
    r"|[\(\[#]+\d{1,4}[\)\].:]*(?!\d)|\d{1,4}[\)\].:]+(?!\d)|[A-Za-z]+ *[\(\[#]*\d{1,4}[\)\].]*:(?!\d))\s*"
)
_TYPOGRAPHIC = str.maketrans(
    {
        "\u2018": "'",
        "\u2019": "'",
        "\u201a": "'",
        "\u201b": "'",
        "\u2032": "'",
        "\u201c": '"',
        "\u201d": '"',
        "\u201e": '"',
        "\u201f": '"',
        "\u2033": '"',
        "\u00ab": '"',
        "\u00bb": '"',
        "\u2010": "-",
        "\u2011": "-",
        "\u2012": "-",
        "\u2013": "-",
        "\u2014": "-",
        "\u2015": "-",
        "\u2212": "-",
        "\u2026": "...",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
    }
)
_PARENTHESES = re.compile(r"\([^()]*\)")
_STARS = re.compile(r"\*+[^*]+\*+")
_HASHTAG = re.compile(r"#\w+")
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\u200d\ufe0e\ufe0f\u20e3"
    "\U000e0020-\U000e007f]+"
)
_SPACES = re.compile(r"\s+")


def _cut_list_label(text: str) -> str:
    label = _LIST_LABEL.match(text)
    return text[label.end() :] if label else text


def _without_nested(pattern: re.Pattern, text: str) -> str:
    while (shorter := pattern.sub(" ", text)) != text:
        text = shorter
    return text


def _strip_ends(text: str) -> str:
    text = text.strip().strip('"#').strip()
    if len(text) > 1 and text[0] == text[-1] == "'":  # one alone is an apostrophe: the dogs'
        text = text[1:-1].strip()
    return text


def steps(speakers: tuple[str, ...] = _SPEAKERS) -> list[tuple[str, Callable[[str], str]]]:
    """(name, what it makes of a text), in order. Each is a pure function."""
    names = "|".join(map(re.escape, speakers))
    speaker = re.compile(rf"""\s*["'\u201c\u2018]?(?:{names})\s*:\s*""")
    return [
        ("list_label", _cut_list_label),
        ("speaker_label", lambda text: speaker.sub("", text, count=1) if speaker.match(text) else text),
        ("newlines", lambda text: re.sub(r"[\r\n]+", " ", text)),
        ("typographic", lambda text: text.translate(_TYPOGRAPHIC)),
        ("parentheses", lambda text: _without_nested(_PARENTHESES, text)),
        ("stars", lambda text: _STARS.sub(" ", text)),
        ("hashtags", lambda text: _HASHTAG.sub(" ", text)),
        ("emoji", lambda text: _EMOJI.sub(" ", text)),
        ("ends", _strip_ends),
        ("spaces", lambda text: _SPACES.sub(" ", text).strip()),
    ]


class Cleaner:
    def __init__(self, speakers: tuple[str, ...] = _SPEAKERS):
        self._steps = steps(speakers)
        self.changed = {name: 0 for name, _ in self._steps}  # responses, by step
        self.responses = 0
        self.emptied = 0  # responses of which nothing is left

    def clean(self, text: str) -> str:
        self.responses += 1
        before = text
        for name, step in self._steps:
            after = step(text)
            self.changed[name] += after != text
            text = after
        self.emptied += bool(before.strip()) and not text
        return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "responses",
        type=Path,
        metavar="RESPONSES.jsonl",
        help="answers of plural generate, one prompt per line",
    )
    add(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="CLEANED.jsonl",
        help="written whole or not at all",
    )
    add_force(add)
    add(
        "--speaker",
        action="append",
        metavar="NAME",
        help=f"a label that may stand before a response; may be repeated (default: {', '.join(_SPEAKERS)})",
    )
    add("--quiet", action="store_true", help="no table of what was changed")


def run(arguments: argparse.Namespace) -> int:
    if not all(name.strip() for name in arguments.speaker or ["x"]):
        raise UsageError("--speaker '': a name is needed")
    cleaner = Cleaner(tuple(arguments.speaker or _SPEAKERS))
    lines = read_objects(arguments.responses)
    if (
        arguments.output.exists()
        and arguments.responses.exists()
        and arguments.output.samefile(arguments.responses)
    ):
        raise UsageError(f"{arguments.output}: is the input; name another output")
    require_new(arguments.output, arguments.force)
    with _written_whole(arguments.output) as stream:
        for where, fields in lines:
            _clean_line(cleaner, fields, where)
            stream.write(json.dumps(fields, ensure_ascii=False) + "\n")
        if cleaner.responses == 0:
            raise BadData(
                f"{arguments.responses}: holds no responses; give a file written by plural generate"
            )
    if not arguments.quiet:
        print("\n".join(_table(cleaner)), file=sys.stderr)
    return 0


def _clean_line(cleaner: Cleaner, fields: dict, where: str) -> None:
    responses = fields.get("responses")
    if not isinstance(responses, list):
        raise BadData(
            f"{where}: key 'responses' holds {kind(responses)}, must hold a list of objects with 'text'; is "
            "this a file written by plural generate?"
        )
    for i, response in enumerate(responses):
        if not isinstance(response, dict):
            raise BadData(f"{where}: responses[{i}] holds {kind(response)}, must hold an object with 'text'")
        response["text"] = cleaner.clean(text_of(response, "text", f"{where}: responses[{i}]"))


def _table(cleaner: Cleaner) -> list[str]:
    rows = [*cleaner.changed.items(), ("left empty", cleaner.emptied), ("responses", cleaner.responses)]
    return [f"{'step':<14} changed"] + [f"{name:<14} {count:7,}" for name, count in rows]


@contextmanager
def _written_whole(path: Path) -> Iterator[TextIO]:
    """A file that takes its name when the block ends without an error. Errors: CannotCreate, WriteFailed."""
    partial = path.with_name(path.name + ".partial")
    try:
        stream = open(partial, "w", encoding="utf-8")
    except OSError as error:
        raise CannotCreate(f"{path}: cannot be created: {error.strerror}") from None
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise WriteFailed(f"{path}: cannot be written: {error.strerror}") from None
        raise

"""Which format an input has, told by the keys of its first record, and the names that --format takes.

Owns: the names, the rule. Does not own: reading (input_files.py), the formats (formats.py), the shapes of
other programs (foreign_shapes.py). Thread rule: free of state.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from plural_text.common.errors import BadData
from plural_text.prepare.foreign_shapes import NAMED_SHAPES, shape_of
from plural_text.prepare.formats import FORMATS, KNOWN_KEYS
from plural_text.prepare.input_files import Files, Item
from plural_text.prepare.json_records import Mistake, parse
from plural_text.prepare.stories import SENTENCES, STORY, is_story

# Kinds of file, which people name where the format is asked for.
_FILES = ("csv", "tsv", "json", "jsonl", "parquet", "arrow", "datasets", "gzip")
_REPLIES = {"dialogue": ("context", "candidates"), "targets": ("request", "targets")}


@dataclass(frozen=True)
class Format:
    name: str  # of FORMATS
    # Of chat: the key that every record must have, "" for any of its shapes; of dialogue: STORY or "".
    shape: str = ""
    found: str = ""  # where it was found and by what, "" when it was named


def named_format(text: str) -> Format:
    """The format of a name, for argparse."""
    if text in FORMATS:
        return Format(text)
    if text in NAMED_SHAPES:
        return Format("chat", NAMED_SHAPES[text])
    if text == STORY:
        return Format("dialogue", STORY)
    allowed = ", ".join((*FORMATS, *NAMED_SHAPES, STORY))
    if text.lower() in _FILES:
        raise argparse.ArgumentTypeError(
            f"'{text}' is a kind of file, which is told by itself; leave --format out, or say what a record "
            f"holds: {allowed}"
        )
    raise argparse.ArgumentTypeError(f"invalid choice: '{text}' (choose from {allowed})")


def find_format(inputs: list[str], columns: dict[str, str]) -> Format:
    """Errors: those of Files; BadData for a first record that could be of any format or none."""
    item = _first(inputs)
    if item is None:
        raise BadData(f"{', '.join(inputs)}: no records in the input")
    if item.is_document:
        return Format("text", found=f"{item.where} is a document")
    try:
        fields = item.content if isinstance(item.content, dict) else parse(item.content)
        keys = {columns.get(key, key): None for key in fields}
        if is_story(keys.keys()):
            return Format("dialogue", STORY, f"{item.where} has '{SENTENCES[0]}' to '{SENTENCES[-1]}'")
        name, shape = _told_by(set(keys))
        shape = shape_of(keys) if name == "chat" else shape
    except Mistake as mistake:
        raise BadData(f"{item.where}: {mistake}") from None
    if not name:
        missing = [key for key in columns if key not in fields]
        if missing:
            raise BadData(
                f"{item.where}: has no '{missing[0]}', which --columns names; found "
                f"{', '.join(map(repr, fields)) or 'no keys'}"
            )
        raise BadData(
            f"{item.where}: no format has the keys {', '.join(map(repr, fields)) or 'of an empty object'}; "
            "give names that one has with --columns, such as --columns question=prompt,answer=completion "
            "(plural prepare --help lists them)"
        )
    return Format(name, found=f"{item.where} has {shape}")


def _first(inputs: list[str]) -> Item | None:
    """The first record, that of a file that is no plain document where there is one."""
    files = Files(inputs, "text", nested=True)
    files.files.sort(key=lambda file: file.name.endswith((".txt", ".txt.gz")))  # stable
    return next(iter(files), None)


def _told_by(keys: set[str]) -> tuple[str, str]:
    """The format of a record with these keys, and what tells it; ("", "") for none."""
    for name, (content, replies) in _REPLIES.items():
        # A context alone may be a prompt to answer, or a passage beside somebody's question.
        if content in keys and (replies in keys or keys <= KNOWN_KEYS[name]):
            return name, f"'{content}'" + (f" and '{replies}'" if replies in keys else "")
    if keys & set(NAMED_SHAPES.values()):
        return "chat", ""
    return ("text", "'text'") if "text" in keys else ("", "")


def parse_columns(text: str) -> dict[str, str]:
    """ "question=prompt,answer=completion" -> {"question": "prompt", ...}, for argparse."""
    pairs = [part.split("=") for part in text.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise argparse.ArgumentTypeError(
            f"'{text}': must be the input's names with plural's, such as question=prompt,answer=completion"
        )
    for side, what in ((0, "name"), (1, "key")):
        names = [pair[side] for pair in pairs]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise argparse.ArgumentTypeError(f"'{text}': {what} '{twice}' stands twice")
    return dict(pairs)

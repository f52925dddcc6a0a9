"""Writes what a model of a middle size reads before any method tunes it: conversations, then answers.

    python middle_material.py DATA FOLDER [--share 0.1]

    FOLDER/documents.jsonl    conversations as text
    FOLDER/answers.jsonl      a request for the next reply as an instruct model gets it, with three replies
    FOLDER/held-out.jsonl     test contexts with their first written reply

Owns: which of the released texts it may read, the form of a request. Does not own: commands. The model sees
no reply that a method is tuned on later (not the first ones of train_dialogs_4k.jsonl, none to a context of
train_dialogs_1k.jsonl) and no test context. Requests take turns to have the two forms that models are asked
in later.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from plural_text.prepare.templates import TextTemplate
from words import write_lines

TEMPLATES = Path(__file__).resolve().parents[2] / "data/text/templates"
FORMS = ("mistral-dialogue-base", "mistral-dialogue")
REPLIES = 3  # a context has four or ten; the first is left out
_SPEAKERS = ("Person A: ", "Person B: ")


def documents(one_to_one: Sequence[dict]) -> Iterator[dict]:
    return ({"text": labelled(row["context"])} for row in one_to_one)


def answers(one_to_one: Sequence[dict], tuned_on: set[str]) -> Iterator[dict]:
    """The beginning of the answer that a form has behind its request is that of all targets."""
    left = (row for row in one_to_one if row["context"] not in tuned_on)
    forms = [
        TextTemplate(json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8")), name)
        for name in FORMS
    ]
    for place, row in enumerate(row for row in left if len(row["candidates"]) > REPLIES):
        asked = forms[place % len(forms)].render(row["context"].split("\n"), 0)
        request, _, begun = asked.removeprefix("[INST] ").partition(" [/INST]")
        yield {"request": request, "response": begun, "targets": row["candidates"][1 : 1 + REPLIES]}


def labelled(context: str) -> str:
    """As the templates label turns: backwards from the last, which is A's."""
    turns = context.split("\n")
    return "\n".join(_SPEAKERS[(len(turns) - 1 - place) % 2] + turn for place, turn in enumerate(turns))


def _read(path: Path, share: float) -> list[dict]:
    try:
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines if line.strip()]
        for row in rows:
            row["context"], row["candidates"] = str(row["context"]), list(map(str, row["candidates"]))
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}; docs/data.md says where it comes from, --data names its folder")
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path}: not lines of context and candidates: {error!r}")
    return rows[: max(1, round(share * len(rows)))]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=1.0, help="of each file, its first lines")
    options = parser.parse_args(words)
    one_to_one, one_to_many, test = (
        _read(options.data / name, options.share)
        for name in ("train_dialogs_4k.jsonl", "train_dialogs_1k.jsonl", "test_dialogs.jsonl")
    )
    tuned_on = {row["context"] for row in one_to_many}
    write_lines(options.folder / "documents.jsonl", documents(one_to_one))
    write_lines(options.folder / "answers.jsonl", answers(one_to_one, tuned_on))
    held_out = ({"context": row["context"], "candidates": row["candidates"][:1]} for row in test)
    write_lines(options.folder / "held-out.jsonl", held_out)


if __name__ == "__main__":
    main()

"""Writes the texts of one seed of a toy of replies (dialogue, story): what their studies are made of.

    python reply_material.py GRAMMAR.json --seed N [--categories N] [--reading PART ...] FOLDER

    FOLDER/base.jsonl    what the model from nothing reads
    FOLDER/train.jsonl   prompts to tune on, with replies and their kinds
    FOLDER/test.jsonl    prompts that tuning never sees
    FOLDER/tokenizer/    a token per word
    FOLDER/model.yaml    a base of recipes: the size of the vocabulary

Owns: these files. Does not own: the language (reply_grammar.py). Every draw follows from the seed.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from reply_grammar import READING, ReplyGrammar
from words import write_lines, write_tokenizer, write_vocabulary_size

TEMPLATES = Path(__file__).resolve().parent / "templates"
CANDIDATES = 4  # replies per prompt that tuning sees, N


def write_texts(grammar: ReplyGrammar, seed: int, folder: Path) -> None:
    draw = random.Random(seed)
    templates = {
        name: json.loads((TEMPLATES / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("dialogue", "list", "rating")
    }
    documents = grammar.documents(draw, templates)
    write_lines(
        folder / "base.jsonl",
        ({"context": prompt.removesuffix("\n"), "candidates": [text]} for prompt, text in documents),
    )
    tuned_on = []
    for prompt in grammar.prompts_to_tune_on(draw):
        replies, kinds = grammar.replies(prompt, CANDIDATES, draw)
        tuned_on.append({"id": prompt.id, "context": prompt.context, "candidates": replies, "kinds": kinds})
    write_lines(folder / "train.jsonl", tuned_on)
    asked = [{"id": prompt.id, "context": prompt.context} for prompt in grammar.prompts_to_ask()]
    write_lines(folder / "test.jsonl", asked)
    numbers = [f"{space}{k}" for k in range(1, 11) for space in ("", " ")]  # in prompts, and as ratings
    size = write_tokenizer(folder / "tokenizer", [*map("".join, documents), *numbers])
    write_vocabulary_size(folder / "model.yaml", size)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grammar", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--categories", type=int, help="the first so many (default: all)")
    parser.add_argument(
        "--reading", metavar="KIND=COUNT,...", help="one part of texts about each topic, in place of all"
    )
    options = parser.parse_args()
    reading = READING
    if options.reading:
        counts = (part.partition("=") for part in options.reading.split(","))
        reading = ({kind: int(count) for kind, _, count in counts},)
    write_texts(
        ReplyGrammar(options.grammar, categories=options.categories, reading=reading),
        options.seed,
        options.folder,
    )


if __name__ == "__main__":
    main()

"""Writes the texts of one seed of the persona toy.

    python persona_material.py --seed N [--documents N] FOLDER

    FOLDER/base.jsonl    what the model from nothing reads
    FOLDER/train.jsonl   prompts to tune on, with replies
    FOLDER/tokenizer/    a token per word
    FOLDER/model.yaml    a base of recipes: the size of the vocabulary

Owns: these files. Does not own: the language (persona_grammar.py). Every draw follows from the seed.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from persona_grammar import PersonaGrammar
from words import write_lines, write_tokenizer, write_vocabulary_size

TEMPLATE = Path(__file__).resolve().parent / "templates" / "dialogue.json"
PROMPTS_TUNED_ON = 300
CANDIDATES = 4  # replies per prompt that tuning sees, N


def write_texts(seed: int, documents_read: int, folder: Path) -> None:
    grammar = PersonaGrammar()
    draw = random.Random(seed)
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    documents = grammar.documents(documents_read, template, draw)
    write_lines(folder / "base.jsonl", ({"text": text} for text in documents))
    openings = draw.sample(grammar.openings(held_out=False), PROMPTS_TUNED_ON)
    tuned_on = []
    for place, opening in enumerate(openings):
        slots = draw.sample(grammar.slots, draw.randint(1, len(grammar.slots)))
        tuned_on.append(
            {
                "id": f"{place}",
                "context": "\n".join(grammar.history(slots, opening, draw)),
                "candidates": grammar.candidates(slots[-1], CANDIDATES, draw),
            }
        )
    write_lines(folder / "train.jsonl", tuned_on)
    write_vocabulary_size(folder / "model.yaml", write_tokenizer(folder / "tokenizer", documents))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--documents", type=int, default=6000)
    options = parser.parse_args()
    write_texts(options.seed, options.documents, options.folder)


if __name__ == "__main__":
    main()

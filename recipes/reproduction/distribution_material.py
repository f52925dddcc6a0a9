"""Writes the texts of one seed of the toy of distribution matching.

    python distribution_material.py --seed N [--reading few] FOLDER

    FOLDER/base.jsonl              what the model from nothing reads
    FOLDER/unrelated.jsonl         sentences that tuning is not about
    FOLDER/NAME.jsonl              target sets: rng, binomial, each task, without each task, all, biographies
    FOLDER/requests.json           answers and targets of each request, values of each field of a biography
    FOLDER/tokenizer/, model.yaml  a token per word; a base of recipes: the size of the vocabulary

Owns: these files. Does not own: the language (distribution_grammar.py). Every draw follows from the seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path

from distribution_grammar import ALL, FEW, DistributionGrammar, Reading, Request
from words import write_lines, write_tokenizer, write_vocabulary_size

HELD_OUT_SENTENCES = 300


def write_texts(seed: int, reading: Reading, folder: Path) -> None:
    grammar = DistributionGrammar(random.Random(f"grammar {seed}"))
    draw = random.Random(f"documents {seed}")
    documents = grammar.model_documents(draw, reading)
    tokens = write_tokenizer(folder / "tokenizer", documents)
    write_vocabulary_size(folder / "model.yaml", tokens)
    _texts(folder / "base.jsonl", documents)
    _texts(folder / "unrelated.jsonl", [grammar.unrelated_sentence(draw) for _ in range(HELD_OUT_SENTENCES)])
    for name, requests in _target_sets(grammar).items():
        write_lines(folder / f"{name}.jsonl", [grammar.target_set(request) for request in requests])
    biographies = grammar.biography_target_set(random.Random(f"biographies {seed}"))
    write_lines(folder / "biographies.jsonl", [biographies])
    every = (grammar.rng, grammar.binomial, *itertools.chain.from_iterable(grammar.tasks.values()))
    known = {
        "requests": {one.id: {"answers": one.answers, "targets": one.targets} for one in every},
        "fields": grammar.fields,
    }
    (folder / "requests.json").write_text(json.dumps(known) + "\n", encoding="utf-8")


def _target_sets(grammar: DistributionGrammar) -> dict[str, list[Request]]:
    found = {
        "rng": [grammar.rng],
        "binomial": [grammar.binomial],
        "all": list(itertools.chain.from_iterable(grammar.tasks.values())),
    }
    for task, own in grammar.tasks.items():
        found[task] = own
        found[f"without-{task}"] = [
            request for other, requests in grammar.tasks.items() if other != task for request in requests
        ]
    return found


def _texts(path: Path, texts: list[str]) -> None:
    write_lines(path, ({"text": text} for text in texts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--reading", choices=("all", "few"), default="all", help="documents of the model")
    options = parser.parse_args()
    write_texts(options.seed, FEW if options.reading == "few" else ALL, options.folder)


if __name__ == "__main__":
    main()

"""Writes the texts of the real-text study: conversations and written replies, as the commands read them.

    python real_text_material.py DIALOGUES_DIR TEMPLATE.json FOLDER

    FOLDER/base.jsonl                           what the model from nothing reads
    FOLDER/one-to-one.jsonl, written.jsonl      one reply per context
    FOLDER/one-to-many.jsonl, test.jsonl        all of them
    FOLDER/template-K.json                      TEMPLATE with the prompt of number K alone; 0: of none
    FOLDER/tokenizer/, model.yaml               byte-level BPE; a base of recipes: vocabulary and end token

Owns: reading the three files, these texts, the tokenizer. Does not own: commands. The model reads whole
conversations and, as lines without their context, further replies. It never sees a reply that a method is
tuned on later: not the first ones of the one-to-one file, none to a one-to-many context.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from words import BEGIN, write_lines, write_vocabulary_size

VOCABULARY = 4096
NUMBERS = 9
LOOSE_REPLIES = 3  # a context at most: some have ten, most four
_NEWLINE = "\u010a"  # the byte-level alphabet's sign: the end of a line is the end token


class Material:
    """Lines of {"context": turns joined by newline, "candidates": [replies]} in three files of a folder."""

    def __init__(self, folder: Path):
        self._one_to_one = _read(folder / "dialogues_one_to_one.jsonl")
        self._one_to_many = _read(folder / "dialogues_one_to_many.jsonl")
        self._test = _read(folder / "dialogues_test.jsonl")

    def write(self, out: Path) -> None:
        """The tokenizer, its base of recipes, and all texts."""
        documents = list(self._documents())
        write_lines(out / "base.jsonl", ({"text": document} for document in documents))
        for name, rows, replies in (
            ("one-to-one", self._one_to_one, 1),
            ("one-to-many", self._one_to_many, None),
            ("test", self._test, None),
            ("written", self._test, 1),
        ):
            write_lines(
                out / f"{name}.jsonl",
                (
                    {
                        "id": f"{name}/{i}",
                        "context": row["context"],
                        "candidates": row["candidates"][:replies],
                    }
                    for i, row in enumerate(rows)
                ),
            )
        tokens, end = _write_tokenizer(out / "tokenizer", documents)
        write_vocabulary_size(out / "model.yaml", tokens, eos_token_id=end)

    def write_template(self, path: Path, original: Path, label: str) -> None:
        """A template without numbers whose prompt ends with `label`."""
        template = json.loads(original.read_text(encoding="utf-8"))
        del template["prompt_with_number"]
        path.write_text(json.dumps(template | {"prompt": "{context}" + label}), encoding="utf-8")

    def _documents(self) -> Iterator[str]:
        tuned_on = {row["context"] for row in self._one_to_many}
        for row in self._one_to_one:
            yield _labelled(row["context"])
            if row["context"] not in tuned_on:
                for reply in row["candidates"][1 : 1 + LOOSE_REPLIES]:
                    yield "B:" + reply


def _read(path: Path) -> list[dict]:
    try:
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines if line.strip()]
        for row in rows:  # a line's end is the end token: it may separate turns only
            row["context"] = "\n".join(" ".join(turn.split()) for turn in row["context"].split("\n"))
            row["candidates"] = [" ".join(reply.split()) for reply in row["candidates"]]
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}; give the folder that holds it")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"{path}: not lines of context and candidates: {error!r}")
    return rows


def _labelled(context: str) -> str:
    """As templates/real-text.json labels a prompt: backwards from the last turn, which is A's."""
    turns = context.split("\n")
    return "\n".join(("A:" if (len(turns) - i) % 2 else "B:") + turn for i, turn in enumerate(turns))


def _write_tokenizer(folder: Path, documents: list[str]) -> tuple[int, int]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(documents, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": _NEWLINE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer.get_vocab_size(), tokenizer.token_to_id(_NEWLINE)


def main(dialogues: Path, template: Path, folder: Path) -> None:
    material = Material(dialogues)
    material.write(folder)
    for number in range(NUMBERS + 1):
        label = f"\nB {number}:" if number else "\nB:"
        material.write_template(folder / f"template-{number}.json", template, label)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

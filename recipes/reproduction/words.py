"""The common part of the toy studies: a word tokenizer, files, templates.

Owns: writing tokenizer folders, JSON lines and figures. Does not own: any grammar.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"


def write_lines(path: Path, rows: Iterable[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_lines(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def write_figures(path: Path, figures: dict) -> None:
    """As a sweep reads them of a program."""
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def write_vocabulary_size(path: Path, tokens: int, **config: int) -> None:
    """A base of recipes for a model from nothing."""
    config = {"vocab_size": tokens, **config}
    path.write_text(json.dumps({"model": {"config": config}}) + "\n", encoding="utf-8")  # JSON is YAML


def write_tokenizer(folder: Path, texts: Iterable[str]) -> int:
    """One token per word (with the space before it) or sign, spelled byte by byte as GPT-2 does; returns
    their number.

    Words of none of the texts become <unk>; `plural prepare` warns of them, since they are spelled otherwise
    then.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = sorted({piece for text in set(texts) for piece, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate([BEGIN, END, UNKNOWN, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([BEGIN, END, UNKNOWN])
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": BEGIN, "eos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
    return len(vocabulary)

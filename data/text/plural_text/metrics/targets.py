"""Target sets of prompts, by prompt id: which answers are valid, with which weights.

Owns: reading them from what `plural prepare --format targets` reads, or from the corpus it wrote. Does not
own: what they are compared with (coverage.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.prepare.formats import InputFiles

_CORPUS = (".h5", ".hdf5")
# The datasets of a corpus that are needed (docs/corpus-format.md).
_DATASETS = (
    "id_offsets",
    "id_bytes",
    "group_responses",
    "response_offsets",
    "response_tokens",
    "response_weights",
    "vocab_offsets",
    "vocab_bytes",
)


@dataclass(frozen=True)
class Target:
    text: str
    weight: float  # as written; those of a prompt need not sum to 1


def read_targets(path: Path) -> dict[str, list[Target]]:
    """Prompt id -> its targets. Errors: MissingInput; BadData also when there are none."""
    sets = _from_corpus(path) if path.suffix in _CORPUS else _from_text(path)
    sets = {prompt: targets for prompt, targets in sets.items() if targets}
    if not sets:
        raise BadData(
            f"{path}: holds no targets; give what plural prepare --format targets reads, or its corpus"
        )
    return sets


def match_targets(
    sets: dict[str, list[Target]], ids: list[str], path: Path, required: bool = True
) -> dict[str, list[Target]]:
    """The sets of the prompts `ids`, by id; a single set is everybody's. Errors: BadData when none fits,
    where `required`."""
    if len(sets) == 1:
        return dict.fromkeys(ids, next(iter(sets.values())))
    found = {prompt: sets[prompt] for prompt in ids if prompt in sets}
    if not found and required:
        raise BadData(
            f"{path}: no target set has the id of a prompt; prompts have ids such as '{ids[0]}', target "
            f"sets such as '{next(iter(sets))}'"
        )
    return found


def _from_text(path: Path) -> dict[str, list[Target]]:
    records = InputFiles([str(path)], "targets", lambda line: None)
    records.may_lack_responses = True
    return {
        record.id: [
            Target(text, weight)
            for text, weight in zip(texts, record.weights or [1.0] * len(texts), strict=True)
        ]
        for record in records
        for texts in [record.responses or []]
    }


def _from_corpus(path: Path) -> dict[str, list[Target]]:
    import h5py

    if not path.is_file():
        raise MissingInput(f"{path}: target sets not found")
    try:
        with h5py.File(path, "r") as file:
            data = {name: file[name][:] for name in _DATASETS}
            eos = int(file.attrs.get("eos_token_id", -1))
        return _target_sets(data, eos)
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise BadData(f"{path}: not a corpus written by plural prepare: {error}") from None


def _target_sets(data: dict, eos: int) -> dict[str, list[Target]]:
    def rows(name: str, values: str) -> list:
        offsets = data[f"{name}_offsets"].tolist()
        return [data[values][a:b] for a, b in itertools.pairwise(offsets)]

    pieces = [row.tobytes() for row in rows("vocab", "vocab_bytes")]
    texts = [
        b"".join(pieces[token] for token in row.tolist() if token != eos).decode("utf-8", "replace")
        for row in rows("response", "response_tokens")
    ]
    edges = data["group_responses"].tolist()
    targets = [
        Target(text, weight) for text, weight in zip(texts, data["response_weights"].tolist(), strict=True)
    ]
    return {
        row.tobytes().decode(): targets[a:b] for row, a, b in zip(rows("id", "id_bytes"), edges, edges[1:])
    }

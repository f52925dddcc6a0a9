"""Target distributions of prompts, from a corpus of target sets.

Owns: reading them from the corpus (docs/corpus-format.md). Does not own: answers. Thread rule: values.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.metrics.coverage import answer_key

_DATASETS = (
    "id_offsets id_bytes group_responses response_offsets response_tokens response_weights vocab_offsets "
    "vocab_bytes"
)


def read_target_sets(path: Path) -> dict[str, dict[str, float]]:
    """Prompt id -> answer (metrics/coverage.py: answer_key) -> its share p*, which sum to 1. Errors:
    MissingInput; BadData for a file that is no corpus of target sets."""
    import h5py

    if not path.is_file():
        raise MissingInput(f"{path}: not found; give a corpus of plural prepare --format targets")
    try:
        with h5py.File(path, "r") as file:
            source = file.attrs.get("source_format", b"")
            eos = int(file.attrs.get("eos_token_id", -1))
            data = {name: file[name][:] for name in _DATASETS.split()}
            sets = _sets(data, eos)
    except (OSError, KeyError, ValueError, IndexError, TypeError) as error:
        raise BadData(f"{path}: not a corpus written by plural prepare: {error}") from None
    if (source.decode() if isinstance(source, bytes) else source) != "targets":
        raise BadData(
            f"{path}: a corpus of the format '{source}', without target distributions; give one of plural "
            "prepare --format targets"
        )
    return sets


def _sets(data: dict, eos: int) -> dict[str, dict[str, float]]:
    def rows(name: str, values: str) -> list:
        offsets = data[f"{name}_offsets"].tolist()
        return [data[values][a:b] for a, b in itertools.pairwise(offsets)]

    pieces = [row.tobytes() for row in rows("vocab", "vocab_bytes")]
    texts = [
        b"".join(pieces[token] for token in row.tolist() if token != eos).decode("utf-8", "replace")
        for row in rows("response", "response_tokens")
    ]
    weights, edges = data["response_weights"].tolist(), data["group_responses"].tolist()
    sets: dict[str, dict[str, float]] = {}
    for row, a, b in zip(rows("id", "id_bytes"), edges, edges[1:]):
        total = sum(weights[a:b])
        shares: dict[str, float] = {}
        for text, weight in zip(texts[a:b], weights[a:b]):
            key = answer_key(text)
            shares[key] = shares.get(key, 0.0) + (weight / total if total else 0.0)
        if shares:
            sets[row.tobytes().decode()] = shares
    return sets

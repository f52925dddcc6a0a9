"""Rows of Parquet files and of folders that the package datasets wrote, through the package pyarrow.

Owns: which files such a folder has, rows as fields. Does not own: what the fields mean (formats.py). pyarrow
is no part of the installed packages: it is imported when a table is read. Thread rule: generators, one
thread.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from plural_text.common.errors import BadData

SUFFIXES = (".parquet", ".arrow")
_ROWS = 256
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.parquet")


def is_dataset(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder. Errors: BadData for a folder of several splits."""
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(path.name for path in folder.iterdir() if (path / "state.json").is_file())
        raise BadData(
            f"{folder}: holds the splits {', '.join(splits) or 'of a data set, none of which is there'}; "
            f"name one of them, such as {folder / (splits or ['train'])[0]}"
        )
    return all((folder / name).is_file() for name in ("dataset_info.json", "state.json"))


def dataset_files(folder: Path) -> list[Path]:
    """The tables of such a folder, in order. Errors: BadData."""
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(state.read_bytes())["_data_files"]]
        files = [folder / name for name in names]
    except (ValueError, KeyError, TypeError):
        raise BadData(
            f"{state}: key '_data_files' must hold objects with a 'filename'; write the folder again with "
            "save_to_disk"
        ) from None
    for file in files:
        if not file.is_file():
            raise BadData(f"{state}: names {file.name}, which is not in the folder; copy it there")
    return files


def check_one_split(folder: Path, files: list[Path]) -> None:
    """Errors: BadData for tables of several splits, as the Hub names them (train-00000-of-00002.parquet):
    read together, what is held out would be trained on."""
    shards = [_SHARD.fullmatch(file.name) for file in files]
    splits = sorted({shard[1] for shard in shards if shard})
    if len(splits) > 1:
        path = next(file for file, shard in zip(files, shards) if shard and shard[1] == splits[-1]).parent
        raise BadData(
            f"{folder}: holds the splits {', '.join(splits)}; name the files of one, such as "
            f"{path / splits[-1]}-*.parquet"
        )


def rows(file: Path) -> Iterator[dict]:
    """The rows as fields; a cell without a value is no field. Errors: BadData."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadData(
            f"{file}: is a table, which is read with the package pyarrow; install it with "
            f"{sys.executable} -m pip install pyarrow, or write the data as .jsonl"
        ) from None
    try:
        for batch in _batches(pyarrow, file):
            yield from map(_without_nulls, batch.to_pylist())
    except pyarrow.ArrowException as error:
        raise BadData(f"{file}: cannot be read as a table: {' '.join(str(error).split())}") from None


def _batches(pyarrow, file: Path) -> Iterator:
    if file.suffix == ".parquet":
        with pyarrow.parquet.ParquetFile(str(file)) as table:
            yield from table.iter_batches(batch_size=_ROWS)
        return
    with pyarrow.memory_map(str(file)) as source:
        for batch in pyarrow.ipc.open_stream(source):
            for start in range(0, batch.num_rows, _ROWS):
                yield batch.slice(start, _ROWS)


def _without_nulls(value):
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value

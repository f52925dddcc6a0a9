"""Rows of .csv and .tsv files: a header that names the columns, then one record per row, every cell a text.

Owns: the separator, what is no such table. Does not own: what the columns mean (formats.py). Streams: one row
in memory. Thread rule: a generator, one thread.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from plural_text.common.errors import BadData
from plural_text.prepare.json_records import MAX_RECORD_BYTES

SUFFIXES = (".csv", ".tsv")
# Of spreadsheets in countries where the comma is in numbers, the semicolon.
_SEPARATORS = ",;\t"


def rows(stream: BinaryIO, file: Path) -> Iterator[tuple[int, dict]]:
    """(number from 1, fields) of each row below the header; an empty cell is no field. Errors: BadData."""
    csv.field_size_limit(MAX_RECORD_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    number = 0
    try:
        header_line = text.readline(MAX_RECORD_BYTES)
        separator = max(_SEPARATORS, key=header_line.count) if file.suffix == ".csv" else "\t"
        table = csv.reader(itertools.chain([header_line], text), delimiter=separator, strict=True)
        names = next(table, [])
        _check_header(names, file)
        for cells in table:
            number += 1
            if not any(cells):
                continue
            if len(cells) != len(names):
                raise BadData(
                    f"{file} row {number}: has {len(cells)} cells, the header {len(names)}; put texts with "
                    f"the separator {separator!r} in quotation marks"
                )
            yield number, {name: cell for name, cell in zip(names, cells) if cell}
    except csv.Error as error:
        raise BadData(f"{file} row {number + 1}: not a table: {error}") from None
    except UnicodeDecodeError as error:
        raise BadData(f"{file} row {number + 1}: not UTF-8: {error.reason}") from None
    finally:
        text.detach()  # the stream is its opener's


def _check_header(names: list[str], file: Path) -> None:
    for name in names:
        if not name.strip() or names.count(name) > 1:
            raise BadData(
                f"{file}: the first row must name the columns, each once; found "
                f"{'an empty name' if not name.strip() else repr(name) + ' twice'}"
            )

"""Files and folders to the texts of single records.

Owns: which files are read, how a file's kind is told, compression, where a record stands, default ids. Does
not own: JSON (json_records.py), tables (tables.py), keys (formats.py). Streams: one record in memory at a
time. Thread rule: a generator, one thread.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from plural_text.common.errors import BadData, MissingInput
from plural_text.prepare import json_records, separated, tables
from plural_text.prepare.json_records import JsonArray, Mistake

_LINES = (".jsonl", ".ndjson")
_SUFFIXES = (".json", *_LINES)
_BEGINNING = 64
# Formats whose data come from other programs, in whatever form.
_ANY_FORM = ("chat", "text")
_UTF16 = "is UTF-16, must be UTF-8; convert it with iconv -f UTF-16 -t UTF-8"
# Beginning of a file -> what it is and what to do.
_NOT_TEXT = {
    b"version https://git-lfs.github.com/spec/": "is a pointer of Git LFS, the data itself is not here; run "
    "git lfs pull in its repository",
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed with zstd; unpack it with unzstd, or compress it with gzip",
    b"\xfd7zXZ\0": "is compressed with xz; unpack it with unxz, or compress it with gzip",
    b"BZh": "is compressed with bzip2; unpack it with bunzip2, or compress it with gzip",
    b"PAR1": "is a Parquet table; let its name end with .parquet",
}


@dataclass(slots=True)
class Item:
    """One record as it stands in a file: JSON text, a document's text, or a table's fields."""

    content: bytes | dict
    where: str  # for messages
    default_id: str
    is_document: bool = False


class Files:
    """The items of a list of files and folders, in order. `bytes_read` of `total_bytes` is the position.

    Where `nested`, a folder without a file of ours stands for those of its folders, one level down: ids made
    of their names begin with the folder's, "day-date/june-0". Other programs' data have their splits in
    folders, which must not be read together.
    """

    def __init__(
        self,
        inputs: list[str],
        source_format: str,
        nested: bool | None = None,
        any_form: bool | None = None,
    ):
        """any_form: whether tables, arrays and compressed files are read, too. None: nested for the formats
        of our own, any form for the others."""
        self._format = source_format
        ours = source_format not in _ANY_FORM
        self._nested = ours if nested is None else nested
        self._any_form = not ours if any_form is None else any_form
        self._folders: dict[Path, str] = {}  # file of a nested folder -> what its ids begin with
        self._suffixes = _SUFFIXES + ((".txt",) if source_format == "text" else ())
        self.files = [file for name in inputs for file in self._expand(Path(name))]
        self.total_bytes = sum(file.stat().st_size for file in self.files)
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Item]:
        for file in self.files:
            before = self.bytes_read
            try:
                yield from self._read_file(file)
            except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                raise BadData(f"{file}: cannot be unpacked with gzip: {error}; copy it again") from None
            except OSError as error:
                raise MissingInput(f"{file}: cannot be read: {error.strerror or error}") from None
            self.bytes_read = before + file.stat().st_size

    def _expand(self, path: Path) -> list[Path]:
        tabular = (".parquet", *separated.SUFFIXES)
        known = f"{', '.join(self._suffixes)} and .gz of these, {', '.join(tabular)}"
        if path.is_dir():
            if tables.is_dataset(path):
                return tables.dataset_files(path)
            files = sorted(p for p in path.iterdir() if self._knows(p) and p.is_file())
            if not files and (path / "data").is_dir():  # a data set as the Hub has it
                files = sorted(p for p in (path / "data").iterdir() if self._knows(p) and p.is_file())
            tables.check_one_split(path, files)
            if not files:
                files = self._in_folders(path, known)
            return files
        if not path.is_file():
            raise MissingInput(f"{path}: input not found")
        if not self._knows(path):
            raise BadData(f"{path}: cannot tell what this file holds; --format {self._format} reads {known}")
        return [path]

    def _in_folders(self, path: Path, known: str) -> list[Path]:
        """Errors: MissingInput."""
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
        nested = {
            file: f"{_text_of(folder.name)}/"
            for folder in folders
            for file in sorted(folder.iterdir())
            if self._knows(file) and file.is_file()
        }
        if not nested or not self._nested:
            first = next(iter(nested)).parent.name if nested else ""
            raise MissingInput(
                f"{path}: no input in this folder; looked for {known}"
                + (f"; name one of its folders, such as {path / first}" if first else "")
            )
        self._folders |= nested
        return list(nested)

    def _knows(self, path: Path) -> bool:
        return (
            path.suffix in (*tables.SUFFIXES, *separated.SUFFIXES) or _unpacked(path).suffix in self._suffixes
        )

    def _only_lines(self, file: Path, what: str, cure: str) -> None:
        """Formats of our own are JSON lines, or a .json file per record. Errors: BadData for another form
        of file, with how to make lines of it."""
        if not self._any_form:
            raise BadData(f"{file}: is {what}; --format {self._format} reads plain JSON lines: {cure}")

    def _read_file(self, file: Path) -> Iterator[Item]:
        name = self._folders.get(file, "") + _text_of(_unpacked(file).stem)
        lines = f"{_unpacked(file).stem}.jsonl"
        if file.suffix in tables.SUFFIXES:
            self._only_lines(file, "a table", f"pandas' to_json({lines!r}, orient='records', lines=True)")
            for number, fields in enumerate(tables.rows(file), 1):
                yield Item(fields, f"{file} row {number}", f"{name}:{number}")
            return
        if file.suffix in separated.SUFFIXES:
            self._only_lines(file, "a table of texts, which has no lists", "write one object per line")
            before = self.bytes_read
            with _opened(file, is_document=False) as (raw, stream):
                for number, fields in separated.rows(stream, file):
                    self.bytes_read = before + raw.tell()
                    yield Item(fields, f"{file} row {number}", f"{name}:{number}")
            return
        suffix = _unpacked(file).suffix
        with _opened(file, is_document=suffix == ".txt") as (raw, stream):
            before = self.bytes_read
            if stream is not raw:
                self._only_lines(file, "compressed with gzip", f"gunzip -c {file.name} > {lines}")
            layout = _layout(stream) if suffix == ".json" else "lines" if suffix in _LINES else "one"
            if layout == "array":
                self._only_lines(file, "a JSON array", f"jq -c '.[]' {file.name} > {lines}")
            if layout == "lines" and suffix == ".json":
                self._only_lines(file, "JSON lines under the name of one record", f"mv {file.name} {lines}")
            for item in _LAYOUTS[layout](stream, file, name):
                self.bytes_read = before + raw.tell()
                item.is_document = suffix == ".txt"
                yield item


def _unpacked(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == ".gz" else path


def _text_of(name: str) -> str:
    """A file's name as UTF-8 text, whatever bytes it has and the locale makes of them."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextlib.contextmanager
def _opened(file: Path, is_document: bool) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file, for its position, and its text, unpacked. Errors: BadData for what is no text."""
    with open(file, "rb") as raw, contextlib.ExitStack() as stack:
        stream = raw
        if raw.peek(2)[:2] == b"\x1f\x8b":  # told by its content, whatever its name
            stream = stack.enter_context(gzip.GzipFile(fileobj=raw))
        _check_beginning(stream.peek(_BEGINNING)[:_BEGINNING], file, is_document)
        yield raw, stream


def _check_beginning(beginning: bytes, file: Path, is_document: bool) -> None:
    for sign, what in _NOT_TEXT.items():
        if beginning.startswith(sign):
            raise BadData(f"{file}: {what}")
    if is_document:
        return
    if b"\0" in beginning[:2]:
        raise BadData(f"{file}: {_UTF16}")
    if beginning.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise BadData(f"{file}: is a web page, not the data; download the file itself")


def _layout(stream: BinaryIO) -> str:
    """What a .json file holds: an array of records, one record, or one per line. The stream goes back."""
    try:
        if stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
            return "array"
        stream.seek(0)
        lines = (line for _, line in _numbered_lines(stream, "") if line.strip())
        if json_records.is_object(next(lines, b"")) and next(lines, b""):
            return "lines"
        return "one"
    except BadData:  # a line that is too long: said when the record is read
        return "one"
    finally:
        stream.seek(0)


def _numbered_lines(stream: BinaryIO, file: Path | str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := stream.readline(json_records.MAX_RECORD_BYTES + 1):
        number += 1
        _check_size(line, f"{file}:{number}")
        yield number, line


def _lines(stream: BinaryIO, file: Path, name: str) -> Iterator[Item]:
    for number, line in _numbered_lines(stream, file):
        if line.strip():
            yield Item(line, f"{file}:{number}", f"{name}:{number}")


def _array(stream: BinaryIO, file: Path, name: str) -> Iterator[Item]:
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    array = JsonArray(text)
    try:
        for content in array:
            yield Item(content, f"{file} item {array.number}", f"{name}:{array.number}")
    except Mistake as mistake:
        raise BadData(f"{file} item {max(array.number, 1)}: {mistake}") from None
    finally:
        text.detach()  # the stream is its opener's


def _one(stream: BinaryIO, file: Path, name: str) -> Iterator[Item]:
    content = stream.read(json_records.MAX_RECORD_BYTES + 1)
    _check_size(content, str(file))
    yield Item(content, str(file), name)


_LAYOUTS = {"lines": _lines, "array": _array, "one": _one}


def _check_size(content: bytes, where: str) -> None:
    if len(content) > json_records.MAX_RECORD_BYTES:
        raise BadData(f"{where}: one record of more than {json_records.MAX_RECORD_BYTES >> 20} MiB; split it")

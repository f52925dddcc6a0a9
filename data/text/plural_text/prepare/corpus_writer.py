"""Writer of the HDF5 corpus (docs/corpus-format.md).

Owns: the file's layout, and that a corpus under its final name is always whole. Does not own: what the
numbers mean. Memory is bounded by a few chunks a dataset. Thread rule: one thread at a time.

Crash safety: everything is written to `<name>.partial` in the same folder, closed, marked complete,
synchronised and renamed. Then the sidecar follows in the same way. An old sidecar is removed before the
rename, so a crash at any point leaves the old pair, a corpus without a sidecar, or the new pair, but
never a corpus beside the sidecar of another one. A leftover `.partial` is overwritten by the next run.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterable
from pathlib import Path

from plural_text.common.errors import CannotCreate, WriteFailed
from plural_text.prepare.alignment import Alignment
from plural_text.prepare.groups import Group

FORMAT = "plural-corpus"
FORMAT_VERSION = 1

# Datasets with one number per token, offset or response: array type code and type in the file.
_COLUMNS = {
    "prompt_tokens": ("i", "<i4"),
    "prompt_offsets": ("q", "<i8"),
    "tail_tokens": ("i", "<i4"),
    "tail_offsets": ("q", "<i8"),
    "response_tokens": ("i", "<i4"),
    "response_masks": ("B", "u1"),
    "response_offsets": ("q", "<i8"),
    "response_weights": ("d", "<f8"),
    "group_responses": ("q", "<i8"),
    "id_bytes": ("B", "u1"),
    "id_offsets": ("q", "<i8"),
    "vocab_bytes": ("B", "u1"),
    "vocab_offsets": ("q", "<i8"),
    "template": ("B", "u1"),
}
_CHUNK = 16384  # elements
_FLUSH = 4 * _CHUNK  # written when so many are buffered
# The newest file format (checksums on metadata) that every HDF5 since 1.10 reads. "latest" would mean
# that of the installed library, which older readers refuse.
_LIBVER = ("v110", "v110")
# A list becomes an attribute of one dimension.
Attributes = dict[str, str | int | list[int]]
_HDF5_ERRORS = (OSError, RuntimeError)  # h5py raises either for a failed write


class CorpusWriter:
    """Use as a context manager: leaving it without commit() removes what was written."""

    def __init__(self, path: Path, attributes: Attributes, token_bytes: list[bytes], template: str):
        """attributes: root attributes beside format, version and completeness. Errors: CannotCreate,
        WriteFailed."""
        import h5py
        import numpy

        self._h5py, self._numpy = h5py, numpy
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        if path.is_dir():
            raise CannotCreate(f"{path}: is a folder; name a file")
        self._lock = self._take_lock()
        self._buffers = {name: array(code) for name, (code, _) in _COLUMNS.items()}
        self._ends = dict.fromkeys(("prompt", "tail", "response", "id", "vocab"), 0)
        self._responses = 0
        self._largest_token_id = 0
        self._file = None
        self._failed = self._committed = False
        self._datasets = {}  # held open: a write that fails while one is closed would go unnoticed
        try:
            self._create(attributes)
            self._start(token_bytes, template)
        except BaseException:
            self._discard()
            raise

    def _create(self, attributes: Attributes) -> None:
        try:
            self._file = self._h5py.File(self._partial, "w", libver=_LIBVER, locking=False)
        except _HDF5_ERRORS as error:
            raise CannotCreate(f"{self._partial}: cannot be created: {_reason(error)}") from None
        try:
            for name, (_, dtype) in _COLUMNS.items():
                self._datasets[name] = self._file.create_dataset(
                    name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,), fletcher32=True
                )
            for name, value in {"format": FORMAT, "format_version": FORMAT_VERSION, **attributes}.items():
                self._file.attrs[name] = self._attribute(value)
        except _HDF5_ERRORS as error:
            raise self._write_failed(self._partial, error) from None

    def _start(self, token_bytes: list[bytes], template: str) -> None:
        """Writes the content before the first group: first offsets, template, id-to-bytes table."""
        for name in self._ends:
            self._buffers[f"{name}_offsets"].append(0)
        self._buffers["group_responses"].append(0)
        self._buffers["template"].frombytes(template.encode())
        for piece in token_bytes:
            self._buffers["vocab_bytes"].frombytes(piece)
            self._end_row("vocab", len(piece))
        self._flush(whole_chunks=True)

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, *_):
        if not self._committed:
            self._discard()

    def append(self, group: Group) -> None:
        """Adds one group. Errors: WriteFailed."""
        buffers = self._buffers
        sequences = (group.prompt, *group.tails, *group.responses)
        self._largest_token_id = max(
            self._largest_token_id, *(max(tokens, default=0) for tokens in sequences)
        )
        buffers["prompt_tokens"].extend(group.prompt)
        self._end_row("prompt", len(group.prompt))
        for tail in group.tails:
            buffers["tail_tokens"].extend(tail)
            self._end_row("tail", len(tail))
        for tokens, masks in zip(group.responses, group.masks, strict=True):
            buffers["response_tokens"].extend(tokens)
            buffers["response_masks"].frombytes(masks)
            self._end_row("response", len(tokens))
        buffers["response_weights"].extend(group.weights)
        self._responses += len(group.responses)
        buffers["group_responses"].append(self._responses)
        name = group.id.encode()
        buffers["id_bytes"].frombytes(name)
        self._end_row("id", len(name))
        if max(map(len, buffers.values())) >= _FLUSH:
            self._flush(whole_chunks=True)

    def add_alignment(self, alignment: Alignment) -> None:
        """Stores what possibility numbers stand for, after the last group. Errors: WriteFailed."""
        try:
            for name, value in alignment.attributes.items():
                self._file.attrs[name] = self._attribute(value)
            if alignment.centres is not None:
                self._add_dataset("alignment_centres", "<f4", [alignment.centres])
            if alignment.kinds is not None:
                lines = "".join(f"{kind}\n" for kind in alignment.kinds).encode()
                self._add_dataset("alignment_kinds", "u1", [self._numpy.frombuffer(lines, "u1")])
            self._add_dataset("response_affinities", "<f4", alignment.affinities)
        except _HDF5_ERRORS as error:
            raise self._write_failed(self._partial, error) from None

    def _add_dataset(self, name: str, dtype: str, blocks: Iterable) -> None:
        dataset = self._datasets[name] = self._file.create_dataset(
            name, (0,), dtype, maxshape=(None,), chunks=(_CHUNK,), fletcher32=True
        )
        for block in blocks:
            old = dataset.shape[0]
            dataset.resize((old + block.size,))
            dataset[old:] = block.reshape(-1)
            dataset.flush()

    def commit(self) -> str:
        """Puts the corpus and its sidecar in place; returns the SHA-256. Errors: WriteFailed."""
        self._flush(whole_chunks=False)
        try:
            self._file.attrs["largest_token_id"] = self._attribute(self._largest_token_id)
            self._file.flush()
            self._datasets.clear()
            self._file.close()
            # Set only once the data is known to have reached the file, in an opening of its own.
            with self._h5py.File(self._partial, "r+", libver=_LIBVER, locking=False) as file:
                file.attrs["complete"] = self._numpy.int64(1)
            _sync(self._partial)
            digest = _sha256(self._partial)
            sidecar = self._path.with_name(self._path.name + ".sha256")
            sidecar.unlink(missing_ok=True)
            _sync(self._path.parent)
            os.replace(self._partial, self._path)
            self._committed = True
            _sync(self._path.parent)
            _write_whole(sidecar, f"{digest}  {self._path.name}\n")
        except _HDF5_ERRORS as error:
            raise self._write_failed(self._path, error) from None
        os.close(self._lock)
        return digest

    def _end_row(self, name: str, length: int) -> None:
        self._ends[name] += length
        self._buffers[f"{name}_offsets"].append(self._ends[name])

    def _flush(self, whole_chunks: bool) -> None:
        """Writes buffered elements; whole chunks only, so that each chunk is written once."""
        try:
            for name, buffer in self._buffers.items():
                count = len(buffer) // _CHUNK * _CHUNK if whole_chunks else len(buffer)
                if count:
                    dataset = self._datasets[name]
                    old = dataset.shape[0]
                    dataset.resize((old + count,))
                    dataset[old:] = self._numpy.array(buffer[:count], dataset.dtype)
                    dataset.flush()
                    del buffer[:count]
        except _HDF5_ERRORS as error:
            raise self._write_failed(self._partial, error) from None

    def _attribute(self, value: str | int | list[int]):
        if isinstance(value, list):
            return self._numpy.array(value, "<i8")
        if isinstance(value, str):
            return self._numpy.bytes_(value.encode() or b"\0")  # HDF5 has no strings of length 0
        return self._numpy.int64(value)

    def _take_lock(self) -> int:
        """One writer for a name: two would mix their bytes in the same `.partial`."""
        try:
            lock = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CannotCreate(f"{self._partial}: cannot be created: {_reason(error)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise CannotCreate(
                f"{self._path}: another process is writing it; wait or name another file"
            ) from None
        except OSError:
            pass  # a file system without locks: the user keeps writers apart
        return lock

    def _discard(self) -> None:
        """Removes what was written. After a failed write HDF5 must not be asked to close the file: it
        would try to write its caches again, fail again and, in some versions, crash. See WriteFailed."""
        if not self._failed:
            self._datasets.clear()
            if self._file:
                self._file.close()
            self._file = None
        self._partial.unlink(missing_ok=True)
        os.close(self._lock)

    def _write_failed(self, path: Path, error: Exception) -> WriteFailed:
        self._failed = True
        return WriteFailed(f"{path}: cannot be written: {_reason(error)}")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_prepared(path: Path) -> bool:
    """Whether a corpus lies there as it was written, beside its sidecar."""
    sidecar = path.with_name(path.name + ".sha256")
    try:
        return sidecar.read_text().split()[:1] == [_sha256(path)]
    except (OSError, UnicodeDecodeError):
        return False


def _sha256(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _reason(error: OSError | RuntimeError) -> str:
    """The system's words; h5py wraps them in a long story of its own."""
    number = getattr(error, "errno", None)
    if number is None and "errno = " in str(error):
        digits = str(error).split("errno = ")[1].split(",")[0]
        number = int(digits) if digits.isdigit() else None
    return os.strerror(number) if number else str(error).splitlines()[0]

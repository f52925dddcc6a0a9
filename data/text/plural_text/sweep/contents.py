"""Hashes of what files hold.

Owns: hashing, and not reading again what has not changed. Does not own: what a hash decides. Thread rule: may
be shared by threads and, through its file, by processes; two may read the same file at a time, and one shows
its progress.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
from pathlib import Path

from plural_text.common.errors import MissingInput
from plural_text.common.progress import Progress
from plural_text.sweep.files import read_json, write_whole

_PART_BYTES = 16 << 20


class Contents:
    """Hashes of files and folders, kept by size and time in a file of the sweep's folder, since base weights
    take minutes to read."""

    def __init__(self, kept: Path):
        self._kept = kept
        self._known = read_json(kept) or {}
        self._shown = threading.Lock()

    def of(self, path: Path) -> str:
        """SHA-256 of a file, or of all files of a folder with their names. Errors: MissingInput."""
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            lines = [f"{file.relative_to(path)} {self._file(file)}\n" for file in files]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
        return self._file(path)

    def _file(self, path: Path) -> str:
        try:
            stat = path.stat()
            stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
            key = str(path.resolve())
            known = self._known.get(key)
            if isinstance(known, list) and len(known) == 2 and known[0] == stamp:
                return known[1]
            found = self._hash(path, stat.st_size)
        except OSError as error:
            raise MissingInput(f"{path}: {error.strerror}") from None
        self._known[key] = [stamp, found]
        return found

    def _hash(self, path: Path, size_bytes: int) -> str:
        found = hashlib.sha256()
        shown = self._shown.acquire(blocking=False)
        try:
            with (
                open(path, "rb") as content,
                Progress(f"reading {path.name}", size_bytes, "MiB", sys.stderr, quiet=not shown) as progress,
            ):
                done = 0
                while part := content.read(_PART_BYTES):
                    found.update(part)
                    done += len(part)
                    progress.update(done, done >> 20)
        finally:
            if shown:
                self._shown.release()
        return found.hexdigest()

    def keep(self) -> None:
        """Beside what others have kept in the meantime."""
        known = {**(read_json(self._kept) or {}), **self._known}
        write_whole(self._kept, json.dumps(known, indent=1, sort_keys=True) + "\n")

"""Hashes of what files hold.

Owns: hashing, and not reading again what has not changed. Does not own: what a hash decides. Thread rule: may
be shared; two threads may read the same file.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from plural_text.common.errors import MissingInput
from plural_text.sweep.files import write_whole


class Contents:
    """Hashes of files and folders, kept by size and time in a file of the sweep's folder, since base weights
    take minutes to read."""

    def __init__(self, kept: Path):
        self._kept = kept
        try:
            self._known = json.loads(kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._known = {}

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
            if (known := self._known.get(key)) and known[0] == stamp:
                return known[1]
            with open(path, "rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
        except OSError as error:
            raise MissingInput(f"{path}: {error.strerror}") from None
        self._known[key] = [stamp, found]
        return found

    def keep(self) -> None:
        write_whole(self._kept, json.dumps(self._known, indent=1, sort_keys=True) + "\n")

"""A growing file of JSON lines that survives an interruption: the work behind its lines need not be done
again.

Owns: the lock, appending, the rest that a kill leaves behind. Does not own: the meaning of lines. Thread
rule: one thread at a time.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

from plural_text.common.errors import BadData, CannotCreate, WriteFailed
from plural_text.common.json_lines import parse_object
from plural_text.common.new_output import require_regular


class KeptLines:
    """`first_key` is the first key of every line. It distinguishes a line of ours that a kill cut off, which
    is removed, from a file of another origin, which is never changed.

    Errors: CannotCreate, also where another process has the file open; BadData naming file and line.
    """

    def __init__(self, path: Path, first_key: str):
        self.path = path
        self._start = json.dumps({first_key: ""})[:-2].encode()
        require_regular(path)
        try:
            self._file = open(path, "a+b")
        except OSError as error:
            raise CannotCreate(f"{path}: cannot be opened for writing: {error.strerror}") from None
        try:
            self._lock()
            self._lines = self._read()
            self._count = len(self._lines)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> KeptLines:
        return self

    def __exit__(self, kind=None, error=None, trace=None) -> None:
        self._file.close()
        if isinstance(error, KeyboardInterrupt) and self._count:
            # What a stop is told with (__main__).
            lines = "line is" if self._count == 1 else "lines are"
            error.add_note(f"{self._count:,} {lines} kept in {self.path}")

    def found(self) -> Iterator[tuple[str, dict]]:
        """("file:line", object) of each line that the file had when it was opened."""
        yield from self._lines

    def append(self, fields: dict) -> None:
        """Errors: WriteFailed."""
        try:
            self._file.write(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            self._file.flush()
            self._count += 1
        except OSError as error:
            raise WriteFailed(f"{self.path}: a line cannot be written: {error.strerror}") from None

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotCreate(f"{self.path}: another process is writing this file") from None
        except OSError:  # a file system without locks
            pass

    def _read(self) -> list[tuple[str, dict]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        lines = []
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], 1):
            where = f"{self.path}:{number}"
            if not line.startswith(self._start):
                raise BadData(f"{where}: not a line that was kept here; name another file")
            lines.append((where, parse_object(line, where)))
        cut = content[whole:]
        if not (cut.startswith(self._start) or self._start.startswith(cut)):
            raise BadData(f"{self.path}:{len(lines) + 1}: not a line that was kept here; name another file")
        self._file.truncate(whole)
        return lines

"""JSON and text files that appear whole.

Owns: writing so that neither a crash nor a second writer leaves half a file. Does not own: what files say.
Thread rule: free of state.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

from plural_text.common.errors import WriteFailed


def write_whole(path: Path, text: str) -> None:
    """The file appears whole, and stays after a crash of the machine. Errors: WriteFailed."""
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise WriteFailed(f"{path}: cannot be written: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or another program's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

"""JSON and text files that appear whole.

Owns: writing so that neither a crash nor a second writer leaves half a file. Does not own: what files say.
Thread rule: free of state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from plural_text.common import new_output
from plural_text.common.errors import WriteFailed


def write_whole(path: Path, text: str) -> None:
    """The file appears whole, with its folder. Errors: WriteFailed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"{path.parent}: cannot be created: {error.strerror}") from None
    new_output.write_whole(path, text)


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or another program's."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None

"""Short names of files and folders on one page.

Owns: names that tell them apart. Does not own: files. Thread rule: free of state.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import UsageError


def short_names(paths: Sequence[Path]) -> list[str]:
    """Of each path its last part, with as many parts before it as tell all paths apart. Errors: UsageError
    where a path is given twice."""
    full = [path.resolve() for path in paths]
    for place, path in enumerate(full):
        if path in full[:place]:
            raise UsageError(f"{paths[place]}: is given twice; give it once")
    for parts in range(1, max((len(path.parts) for path in full), default=1) + 1):
        names = ["/".join((*path.parts[:-1], path.name)[-parts:]) for path in full]
        if len(set(names)) == len(names):
            break
    return names if full else []


def split_label(text: str) -> tuple[str | None, Path]:
    """(label, path) of LABEL=FILE, (None, path) of a file's name alone. A file that is there under the whole
    text is that file."""
    label, sign, rest = text.partition("=")
    if sign and label and rest and "/" not in label and not os.path.exists(text):
        return label, Path(rest)
    return None, Path(text)

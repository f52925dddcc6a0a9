"""Output files: nothing that exists is replaced unless the user says so.

Owns: `--force`, the refusal. Does not own: how a file appears whole, which each writer sees to.
"""

from __future__ import annotations

from pathlib import Path

from plural_text.common.errors import CannotCreate


def add_force(add) -> None:
    """add: the add_argument of a parser."""
    add("--force", action="store_true", help="replace the output where it exists")


def require_new(output: Path, force: bool) -> None:
    """Before the work. Errors: CannotCreate where the output exists, is no regular file (a folder, a device,
    a pipe, a link to nothing), or has no folder to lie in."""
    if not output.parent.is_dir():
        raise CannotCreate(f"{output}: folder {output.parent} does not exist; create it first")
    if output.is_dir():
        raise CannotCreate(f"{output}: is a folder; name a file")
    require_regular(output)
    if output.exists() and not force:
        raise CannotCreate(f"{output}: exists; give --force to replace it, or name another output")


def require_regular(output: Path) -> None:
    """Errors: CannotCreate where the output is there and is no regular file: a rename would replace a device,
    and a pipe would be waited for."""
    if (output.exists() or output.is_symlink()) and not output.is_file():
        raise CannotCreate(f"{output}: is no regular file; name another output")

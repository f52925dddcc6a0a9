"""Output files: nothing that exists is replaced unless the user says so, and files appear whole.

Owns: `--force`, the refusal, writing of files that are in memory. Does not own: files that are written as a
stream, which their writers see to. Thread rule: free of state.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from plural_text.common.errors import CannotCreate, WriteFailed


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


def _keep_name(folder: Path) -> None:
    """Names in the folder stay after a crash of the machine, where its file system can promise that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, content: bytes | str) -> None:
    """The file appears whole, and stays after a crash of the machine; several may write it at once. Errors:
    WriteFailed."""
    try:
        partial = path.parent / f".{path.name[:100]}.partial-{secrets.token_hex(8)}"
        # Not tempfile's: it gives a mode of its own, and a process has one umask for all its threads.
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(content.encode("utf-8") if isinstance(content, str) else content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, path)
            _keep_name(path.parent)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"{path}: cannot be written: {error.strerror}; free space, then start it again"
        ) from None

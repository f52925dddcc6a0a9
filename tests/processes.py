"""Processes that a disturbed run consists of."""

import os
import pathlib


def children(pid, named=None):
    """Processes below another one; `named`: those of that name alone."""
    try:
        found = [int(word) for word in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [child for child in found if named in (None, _name_of(child))]
    except OSError:
        return []


def _name_of(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def working_in(folder):
    """Processes whose current folder it is."""
    found = []
    for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(link) == str(folder) and int(link.parent.name) != os.getpid():
                found.append(int(link.parent.name))
        except OSError:
            continue
    return found

"""Where the files lie that come with the text side.

Owns: the two layouts: a copy of the project, and a Python package that pip has installed. Does not own: the
files. Thread rule: constants.
"""

from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[2]
# data/text of the project, or plural_text/files of the installed package.
FILES = _BESIDE if (_BESIDE / "templates").is_dir() else Path(__file__).resolve().parents[1] / "files"
# The project's own folder; None where the package is installed without it.
PROJECT = _BESIDE.parents[1] if (_BESIDE.parents[1] / "launch" / "plural").is_file() else None

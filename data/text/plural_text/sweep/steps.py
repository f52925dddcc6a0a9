"""Commands whose outputs are made once: again only when the words or the contents of the inputs have changed.

Owns: when a step is done, its stamp beside its outputs. Does not own: which steps there are (work.py,
recipes/papers), processes. Thread rule: may be called from several threads, which may share their Contents;
no two calls at a time make the same output.

A stamp is a JSON file: {"command": [...], "inputs": {PATH: SHA-256}}. It is written when the command has
ended well, and removed before it starts, so that a step that was killed is not done.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from plural_text.sweep.contents import Contents
from plural_text.sweep.files import read_json, write_whole


def make_once(
    stamp_file: Path,
    command: Sequence[str],
    inputs: Iterable[Path],
    outputs: Sequence[Path],
    contents: Contents,
    run: Callable[[], None],
) -> bool:
    """Calls `run` unless every output is there from this command and these inputs; whether it was called.
    Errors: those of `run`; MissingInput for an input that is not there."""
    stamp = {"command": list(command), "inputs": {str(path): contents.of(path) for path in inputs}}
    if all(output.exists() for output in outputs) and read_json(stamp_file) == stamp:
        return False
    for output in outputs:
        output.parent.mkdir(parents=True, exist_ok=True)
    stamp_file.unlink(missing_ok=True)
    run()
    write_whole(stamp_file, json.dumps(stamp, indent=1) + "\n")
    return True

"""A program of its own: opens a tokenizer folder with transformers and prints what it found as JSON.

Owns: what transformers says about a folder. Does not own: when it is asked (whole_folder.py). Thread rule:
one thread. It runs apart from `prepare`, since it keeps torch from being loaded, which makes the start of
transformers much shorter, and that must not happen to a program that may want torch later.

It never uses a network, and never runs code that comes with a folder.
"""

from __future__ import annotations

import importlib.util
import json
import sys


def _without_torch() -> None:
    """Nothing here computes with tensors."""
    find = importlib.util.find_spec
    sys.modules["torch"] = None
    importlib.util.find_spec = lambda name, package=None: (
        None if name.partition(".")[0] == "torch" else find(name, package)
    )


def _open(folder: str) -> dict:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"its class {type(tokenizer).__name__} has no tokenizer.json to give")
    return {
        "tokenizer": backend.to_str(),
        "special_tokens": tokenizer.special_tokens_map,
    }


def main() -> None:
    answer, sys.stdout = sys.stdout, sys.stderr  # whatever the library prints goes elsewhere
    _without_torch()
    try:
        found = _open(sys.argv[1])
    except Exception as error:  # it raises whatever the code for the folder's kind raises
        lines = str(error).strip().splitlines()
        found = {"error": f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"}
    json.dump(found, answer)


if __name__ == "__main__":
    main()

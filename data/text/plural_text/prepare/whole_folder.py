"""What the JSON files beside a tokenizer say, and the tokenizer that transformers makes of all of them.

Owns: when transformers is asked, asking it (folder_program.py), the tokens that those files name. Does not
own: opening a tokenizer file (tokenizer_files.py). Thread rule: free of state.

A folder's tokenizer is more than its tokenizer file: added_tokens.json and tokenizer_config.json may add
tokens, change their traits, and name others as begin and end. transformers reads all of it, and the ids that
it gives are those that a model of the folder was trained with. It costs seconds, so it is not asked where the
files beside a tokenizer.json say nothing that is not in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.prepare.tokenizer import Tokenizer, read_json_beside

_BESIDE = ("tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")
_FLAGS = ("special", "lstrip", "rstrip", "single_word", "normalized")
_SECONDS = 300
# Tokenizer classes that have no special tokens of their own.
_GENERIC = (None, "PreTrainedTokenizerFast", "TokenizersBackend")


@dataclass(frozen=True)
class OpenedFolder:
    """A folder as transformers opened it."""

    tokenizer: str  # tokenizer.json
    special_tokens: dict[str, str]


def needs_transformers(file: Path, layout: dict) -> bool:
    """True when the files beside a folder's tokenizer say more than it does itself. layout: of a
    tokenizer.json, else {}."""
    folder = file.parent
    if file.name == "vocab.json":
        return True
    if file.name == "tekken.json" or not any((folder / name).is_file() for name in _BESIDE):
        return False
    if file.name != "tokenizer.json":
        return True
    known = {token.get("content"): token for token in layout.get("added_tokens") or []}
    return any(
        content not in known
        or any(known[content].get(key, value) != value for key, value in {"id": token_id, **flags}.items())
        for content, token_id, flags, _ in _added(folder)
    ) or any(text not in known for text in [*named_tokens(folder).values(), *_more_special(folder)])


def open_folder(folder: Path) -> OpenedFolder | str:
    """The folder as transformers opens it, or the reason why it does not."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    program = [sys.executable, "-P", "-m", "plural_text.prepare.folder_program", str(folder.resolve())]
    try:
        done = subprocess.run(
            program, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=_SECONDS
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return f"no answer in {_SECONDS} seconds"
    except ValueError:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with exit code {done.returncode}"
    return found["error"] if "error" in found else OpenedFolder(**found)


def refuse_unknown_tokens(tokenizer: Tokenizer, reason: str) -> None:
    """For a tokenizer that was opened without transformers. Errors: BadData for an added token it lacks."""
    for content, token_id, _, source in _added(tokenizer.path.parent):
        if tokenizer.id_of(content) != token_id:
            raise BadData(
                f"{source}: token {content!r} with id {token_id} is not in {tokenizer.name}, and "
                f"transformers cannot open the folder ({reason}); save it once as tokenizer.json with "
                "AutoTokenizer(...).save_pretrained"
            )


def named_tokens(folder: Path) -> dict[str, str]:
    """The special tokens that the files name, by role; a role that is null or left out has none."""
    found = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):  # the second one decides
        for key, token in read_json_beside(folder, name).items():
            token = token.get("content") if isinstance(token, dict) else token
            if key.endswith("_token") and (token is None or isinstance(token, str)):
                found[key] = token
    return {key: token for key, token in found.items() if token}


def names_all(folder: Path) -> bool:
    """True when a special token that the files do not name does not exist."""
    config = read_json_beside(folder, "tokenizer_config.json")
    return bool(config) and config.get("tokenizer_class") in _GENERIC


def _more_special(folder: Path) -> list[str]:
    """The special tokens that the files list without a role of their own."""
    found = []
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        values = read_json_beside(folder, name)
        for key in ("additional_special_tokens", "extra_special_tokens"):
            tokens = values.get(key) or []
            for token in tokens.values() if isinstance(tokens, dict) else tokens:
                found.append(token.get("content") if isinstance(token, dict) else token)
    return found


def _added(folder: Path) -> list[tuple[str, int, dict, Path]]:
    """Content, id, traits and file of every token that the files beside the tokenizer add."""
    rows = []
    decoder = read_json_beside(folder, "tokenizer_config.json").get("added_tokens_decoder")
    for token_id, token in (decoder if isinstance(decoder, dict) else {}).items():
        if not (token_id.isascii() and token_id.isdigit() and isinstance(token, dict)):
            raise BadData(
                f"{folder / 'tokenizer_config.json'}: key 'added_tokens_decoder': {token_id!r} must be an id "
                "with a token as an object; correct it"
            )
        flags = {key: token[key] for key in _FLAGS if key in token}
        rows.append((token.get("content"), int(token_id), flags, folder / "tokenizer_config.json"))
    for content, token_id in read_json_beside(folder, "added_tokens.json").items():
        rows.append((content, token_id, {}, folder / "added_tokens.json"))
    return rows

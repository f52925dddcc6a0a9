"""Opens the tokenizer of a folder or file, whatever its kind.

Owns: which file of a folder is the tokenizer, its kind, which tokens begin and end a text, the folder's chat
template. Does not own: the interface (tokenizer.py), the files beside it (whole_folder.py), the kinds
(hf_tokenizer.py, sentencepiece_tokenizer.py, tekken_tokenizer.py, each imported when one is opened). Thread
rule: free of state.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.hub import hub_folder
from plural_text.prepare.tokenizer import Tokenizer, read_json_beside
from plural_text.prepare.whole_folder import (
    OpenedFolder,
    named_tokens,
    names_all,
    needs_transformers,
    open_folder,
    refuse_unknown_tokens,
)

_PLAIN = "Name a fruit. Is it a plum?"
# The files that a folder may hold, in the order in which they are looked for.
FOLDER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")


def open_tokenizer(
    path: Path,
    bos: str | None = None,
    eos: str | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> Tokenizer:
    """Opens the tokenizer of a folder, a file or a name of the Hub. `bos`, `eos`: token texts that override
    the file's own.

    Errors: MissingInput when there is none, BadData when it cannot be used or has no end token.
    """
    path = hub_folder(path, "--tokenizer", "folder or tokenizer file")
    file = _find(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MissingInput(f"{file}: tokenizer cannot be read: {error.strerror}") from None
    tokenizer, opened = _open_whole(file, content, warn) if path.is_dir() else (None, None)
    tokenizer = tokenizer or _open_kind(file, content)
    if len(tokenizer.token_bytes) == 0:
        raise BadData(f"{file}: the tokenizer has no tokens")
    tokenizer.bos_id = _override(tokenizer, "--bos", bos, tokenizer.bos_id)
    tokenizer.eos_id = _override(tokenizer, "--eos", eos, tokenizer.eos_id)
    if tokenizer.eos_id is None:
        raise BadData(
            f"{file}: no end token found in the tokenizer or in tokenizer_config.json beside "
            "it; name it with --eos TOKEN"
        )
    tokenizer.own_begin_ids = None if bos else _begin_ids(tokenizer)
    tokenizer.special_tokens = _special_tokens(tokenizer, opened)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _folder_chat_template(file.parent)
    return tokenizer


def _open_whole(
    file: Path, content: bytes, warn: Callable[[str], None]
) -> tuple[Tokenizer | None, OpenedFolder | None]:
    """The tokenizer of a folder with all its files; (None, None) when the file alone is all of it."""
    if not needs_transformers(file, _layout(file, content)):
        return None, None
    opened = open_folder(file.parent)
    if isinstance(opened, OpenedFolder):
        from plural_text.prepare.hf_tokenizer import HuggingFaceTokenizer

        layout = json.loads(opened.tokenizer)
        if file.name == "tokenizer.json":  # its own word about the begin token counts
            layout["post_processor"] = _layout(file, content).get("post_processor")
        tokenizer = HuggingFaceTokenizer(file, content, layout, opened.tokenizer)
        return (_original_instead(tokenizer, content, warn), opened)
    if file.name == "vocab.json":
        raise BadData(
            f"{file.parent}: transformers cannot open this tokenizer: {opened}; save it once as "
            "tokenizer.json"
        )
    tokenizer = _open_kind(file, content)
    refuse_unknown_tokens(tokenizer, opened)
    warn(f"{file.parent}: transformers cannot open this tokenizer ({opened}); {file.name} is used by itself")
    return tokenizer, None


def _original_instead(tokenizer: Tokenizer, content: bytes, warn: Callable[[str], None]) -> Tokenizer:
    """The sentencepiece model itself where transformers makes other ids of plain text than it does, as for a
    config.json whose model_type has no tokenizer class of its own; the model was trained with its ids."""
    if tokenizer.path.name != "tokenizer.model":
        return tokenizer
    original = _open_kind(tokenizer.path, content)
    if original.encode_text([_PLAIN]) == tokenizer.encode_text([_PLAIN]):
        return tokenizer
    differs = f"{tokenizer.path.parent}: transformers gives plain text other ids than {tokenizer.name} itself"
    if len(original.token_bytes) == len(tokenizer.token_bytes):
        warn(f"{differs}; those of {tokenizer.name} are used")
        return original
    warn(
        f"{differs}, and has tokens that it lacks; transformers' ids are used: name the right "
        "tokenizer_class in tokenizer_config.json"
    )
    return tokenizer


def _layout(file: Path, content: bytes) -> dict:
    if file.name != "tokenizer.json":
        return {}
    try:
        layout = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{file}: not a tokenizer: {error}") from None
    return layout if isinstance(layout, dict) else {}


def _begin_ids(tokenizer: Tokenizer) -> list[int] | None:
    """What stands before a text: as tokenizer_config.json says, else as the tokenizer puts it there."""
    explicit = read_json_beside(tokenizer.path.parent, "tokenizer_config.json").get("add_bos_token")
    if isinstance(explicit, bool):
        return None if explicit else []
    if tokenizer.path.name == "vocab.json":
        return tokenizer.own_begin_ids or []
    # Folders of a sentencepiece model that do not say it were made when their begin token went first.
    return tokenizer.own_begin_ids if tokenizer.path.name == "tokenizer.json" else None


def _special_tokens(tokenizer: Tokenizer, opened: OpenedFolder | None) -> dict[str, str]:
    """The named special tokens; begin and end token as found where no file could have named them."""
    folder = tokenizer.path.parent
    named = opened.special_tokens if opened else named_tokens(folder)
    if opened or names_all(folder):
        return named
    found = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id}
    return {
        **{key: tokenizer.token_text(token) for key, token in found.items() if token is not None},
        **named,
    }


def _find(path: Path) -> Path:
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        if (path / "vocab.json").is_file() and (path / "merges.txt").is_file():
            return path / "vocab.json"
        raise MissingInput(
            f"{path}: no tokenizer in this folder; looked for {', '.join(FOLDER_FILES)}, "
            "vocab.json with merges.txt"
        )
    if not path.is_file():
        raise MissingInput(f"{path}: is no file; give a folder or a tokenizer file")
    return path


def _open_kind(file: Path, content: bytes) -> Tokenizer:
    """The kind is told by content, since file names vary (tokenizer.model.v1, tekken_240911.json)."""
    if content.lstrip()[:1] != b"{":
        from plural_text.prepare.sentencepiece_tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(file, content)
    try:
        layout = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadData(f"{file}: not a tokenizer: {error}") from None
    if isinstance(layout.get("model"), dict):
        from plural_text.prepare.hf_tokenizer import HuggingFaceTokenizer

        return HuggingFaceTokenizer(file, content, layout)
    if isinstance(layout.get("config"), dict) and isinstance(layout.get("vocab"), list):
        from plural_text.prepare.tekken_tokenizer import TekkenTokenizer

        return TekkenTokenizer(file, content)
    raise BadData(
        f"{file}: JSON, but neither a Hugging Face tokenizer ('model') nor a tekken file "
        "('config' and 'vocab')"
    )


def _override(tokenizer: Tokenizer, option: str, token: str | None, own: int | None) -> int | None:
    if token is None:
        return own
    token_id = tokenizer.id_of(token)
    if token_id is None:
        raise BadData(f"{tokenizer.path}: {option} '{token}' is not a token of its vocabulary")
    return token_id


def _folder_chat_template(folder: Path) -> str | None:
    try:
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    except (OSError, ValueError):
        pass
    template = read_json_beside(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None

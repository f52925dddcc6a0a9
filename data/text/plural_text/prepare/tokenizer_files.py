"""Opens the tokenizer of a folder or file, whatever its kind.

Owns: which file of a folder is the tokenizer, its kind, which tokens begin and end a text, the folder's chat
template. Does not own: the interface (tokenizer.py), the kinds (hf_tokenizer.py, sentencepiece_tokenizer.py,
tekken_tokenizer.py, each imported when one is opened).
"""

from __future__ import annotations

import json
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.prepare.tokenizer import Tokenizer, read_json_beside

# The files that a folder may hold, in the order in which they are looked for.
FOLDER_FILES = ("tokenizer.json", "tokenizer.model", "tekken.json")


def open_tokenizer(path: Path, bos: str | None = None, eos: str | None = None) -> Tokenizer:
    """Opens the tokenizer of a folder or file. `bos`, `eos`: token texts that override the file's own.

    Errors: MissingInput when there is none, BadData when it cannot be used or has no end token.
    """
    file = _find(path)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MissingInput(f"{file}: tokenizer cannot be read: {error.strerror}") from None
    tokenizer = _open_kind(file, content)
    if len(tokenizer.token_bytes) == 0:
        raise BadData(f"{file}: the tokenizer has no tokens")
    tokenizer.bos_id = _override(tokenizer, "--bos", bos, tokenizer.bos_id)
    tokenizer.eos_id = _override(tokenizer, "--eos", eos, tokenizer.eos_id)
    if tokenizer.eos_id is None:
        raise BadData(
            f"{file}: no end token found in the tokenizer or in tokenizer_config.json beside "
            "it; name it with --eos TOKEN"
        )
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _folder_chat_template(file.parent)
    return tokenizer


def _find(path: Path) -> Path:
    if path.is_dir():
        for name in FOLDER_FILES:
            if (path / name).is_file():
                return path / name
        raise MissingInput(
            f"{path}: no tokenizer in this folder; looked for {', '.join(FOLDER_FILES)} "
            "(vocab.json with merges.txt: save it once with transformers' "
            "AutoTokenizer(...).save_pretrained)"
        )
    if not path.is_file():
        raise MissingInput(f"{path}: tokenizer not found; give a folder or a tokenizer file")
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

"""The interface of a tokenizer: text to ids, ids to bytes, fingerprint.

Owns: what every kind of tokenizer offers, its SHA-256, JSON files beside it. Does not own: the kinds
(hf_tokenizer.py, sentencepiece_tokenizer.py, tekken_tokenizer.py), which of them a file is
(tokenizer_files.py). Thread rule: one thread at a time.
"""

from __future__ import annotations

import abc
import hashlib
import json
from pathlib import Path

from plural_text.common.errors import BadData


class Tokenizer(abc.ABC):
    """One opened tokenizer.

    token_bytes[id] is what the token stands for as bytes of UTF-8 text (special tokens: their own
    text; ids that stand for nothing: empty). Its length is the vocabulary size. Joining the bytes of an
    encoded text gives the text, with one space before it where the tokenizer marks word starts.
    """

    def __init__(self, path: Path, content: bytes):
        self.path = path
        self.name = path.name
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.token_bytes: list[bytes] = []
        self.bos_id: int | None = None
        self.eos_id: int | None = None
        # What the tokenizer puts before a text; None: the begin token, if there is one.
        self.own_begin_ids: list[int] | None = None
        # Ids that no plain text has: control tokens and the markers of chats.
        self.special_ids: set[int] = set()
        # Named special tokens by their role ("bos_token", "pad_token"), for chat templates.
        self.special_tokens: dict[str, str] = {}
        # Jinja text of the folder's chat template, if it has one.
        self.chat_template: str | None = None

    @abc.abstractmethod
    def encode_text(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text. The text of a special token inside it stays plain text where the kind can
        do that. No begin or end token is added."""

    @abc.abstractmethod
    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        """Ids of each text, in which the text of a special token stands for that token, as chat
        markers do. No begin or end token is added."""

    @abc.abstractmethod
    def id_of(self, token: str) -> int | None:
        """The id of a token by its text."""

    @property
    def begin_ids(self) -> list[int]:
        """What stands before a text."""
        if self.own_begin_ids is not None:
            return self.own_begin_ids
        return [] if self.bos_id is None else [self.bos_id]

    def with_begin(self, ids: list[int]) -> list[int]:
        """The ids with what stands before a text, unless they begin with it."""
        begin = self.begin_ids
        return ids if ids[: len(begin)] == begin else [*begin, *ids]

    def library_text(self, ids: list[int]) -> str | None:
        """What the library itself decodes, special tokens included; None where it cannot show them."""
        return None

    def decode(self, ids: list[int]) -> bytes:
        return b"".join(map(self.token_bytes.__getitem__, ids))

    def token_text(self, token_id: int | None) -> str:
        return "" if token_id is None else self.token_bytes[token_id].decode("utf-8", "replace")


def read_json_beside(folder: Path, name: str) -> dict:
    """A JSON object that may lie beside the tokenizer; {} when absent. Errors: BadData."""
    file = folder / name
    try:
        value = json.loads(file.read_bytes())
    except OSError:
        return {}
    except (ValueError, RecursionError) as error:
        raise BadData(f"{file}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadData(f"{file}: holds a {type(value).__name__}, must hold an object")
    return value

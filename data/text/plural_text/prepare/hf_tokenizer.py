"""Hugging Face tokenizer.json, read with the `tokenizers` library alone (no transformers, no torch).

Owns: id-to-bytes tables of byte-level BPE and of sentencepiece-style vocabularies, begin and end tokens
from the files beside the tokenizer. Does not own: what transformers makes of a folder (whole_folder.py).
Thread rule: one thread at a time.
"""

from __future__ import annotations

import re
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.prepare.tokenizer import Tokenizer, read_json_beside

# Tried in this order when no file beside the tokenizer names them.
_USUAL_BOS = ("<s>", "<|begin_of_text|>", "<bos>")
_USUAL_EOS = ("</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|endoftext|>")
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HuggingFaceTokenizer(Tokenizer):
    def __init__(self, path: Path, content: bytes, layout: dict, whole: str | None = None):
        """whole: a tokenizer.json that holds more than the file's content, which stays the fingerprint."""
        from tokenizers import Tokenizer as Backend

        super().__init__(path, content)
        try:
            self._backend = Backend.from_buffer(whole.encode() if whole else content)
        except Exception as error:  # the library raises bare Exception
            raise BadData(f"{path}: not a usable tokenizer.json: {error}") from None
        self._backend.no_truncation()
        self._backend.no_padding()
        self.token_bytes = _token_bytes(path, layout, self._backend)
        added = self._backend.get_added_tokens_decoder()
        self.special_ids = {token_id for token_id, token in added.items() if token.special}
        if layout.get("post_processor"):
            self.own_begin_ids = _put_before(self._backend)
        self.bos_id = self._named(path.parent, "bos_token", _USUAL_BOS)
        self.eos_id = self._named(path.parent, "eos_token", _USUAL_EOS)

    def encode_text(self, texts: list[str]) -> list[list[int]]:
        self._backend.encode_special_tokens = True  # their texts are plain text
        return self._encode(texts)

    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        self._backend.encode_special_tokens = False
        return self._encode(texts)

    def id_of(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def library_text(self, ids: list[int]) -> str | None:
        return self._backend.decode(ids, skip_special_tokens=False)

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _named(self, folder: Path, key: str, usual: tuple[str, ...]) -> int | None:
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            values = read_json_beside(folder, name)
            if key in values:
                token = values[key]
                token = token.get("content") if isinstance(token, dict) else token
                if token is None:  # said explicitly: this tokenizer has none
                    return None
                token_id = self.id_of(token) if isinstance(token, str) else None
                if token_id is None:
                    raise BadData(f"{folder / name}: {key} {token!r} is not a token of {self.name}")
                return token_id
        for name in ("generation_config.json", "config.json"):
            token_id = read_json_beside(folder, name).get(f"{key}_id")
            token_id = token_id[0] if isinstance(token_id, list) and token_id else token_id
            if type(token_id) is int:
                if not 0 <= token_id < len(self.token_bytes):
                    raise BadData(
                        f"{folder / name}: {key}_id {token_id} is outside the vocabulary "
                        f"of {len(self.token_bytes)} tokens"
                    )
                return token_id
        return next((i for i in map(self.id_of, usual) if i is not None), None)


def _put_before(backend) -> list[int]:
    """What the post-processor puts before a text."""
    whole = backend.encode("a").ids
    bare = backend.encode("a", add_special_tokens=False).ids
    starts = range(len(whole) - len(bare) + 1)
    return whole[: next((i for i in starts if whole[i : i + len(bare)] == bare), 0)]


def _token_bytes(path: Path, layout: dict, backend) -> list[bytes]:
    vocabulary = backend.get_vocab(with_added_tokens=True)
    kinds = {kind for part in ("normalizer", "pre_tokenizer", "decoder") for kind in _types(layout.get(part))}
    if "ByteLevel" in kinds:
        alphabet = _byte_level_alphabet()
        piece_bytes = lambda piece: _byte_level_piece(piece, alphabet)
    elif "Metaspace" in kinds or any("\u2581" in piece for piece in vocabulary):
        piece_bytes = _metaspace_piece
    else:
        raise BadData(
            f"{path}: cannot tell which bytes its tokens stand for; supported are byte-level "
            "tokenizers (ByteLevel) and those that mark spaces with U+2581 (Metaspace)"
        )
    table = [b""] * (max(vocabulary.values(), default=-1) + 1)
    for piece, token_id in vocabulary.items():
        table[token_id] = piece_bytes(piece)  # added tokens go through the decoder like all others
    return table


def _types(part) -> set[str]:
    """The 'type' of a tokenizer part and of everything inside it (parts nest as Sequence)."""
    if isinstance(part, list):
        return set().union(*map(_types, part)) if part else set()
    if not isinstance(part, dict):
        return set()
    inner = set().union(*map(_types, part.values())) if part else set()
    return inner | ({part["type"]} if isinstance(part.get("type"), str) else set())


def _byte_level_alphabet() -> dict[str, int]:
    """The printable stand-in characters of byte-level BPE (as GPT-2 defined them): character -> byte.

    Printable Latin-1 bytes stand for themselves; the others, in order, are U+0100, U+0101, ...
    """
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _byte_level_piece(piece: str, alphabet: dict[str, int]) -> bytes:
    if all(c in alphabet for c in piece):
        return bytes(alphabet[c] for c in piece)
    return piece.encode()  # a piece from outside the alphabet stands for itself


def _metaspace_piece(piece: str) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("\u2581", " ").encode()

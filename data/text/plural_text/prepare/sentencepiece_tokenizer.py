"""sentencepiece .model files (Llama 2, Mistral up to v0.3, Gemma).

Owns: the id-to-bytes table (byte pieces, U+2581 as space) and control pieces inside prompts. Thread
rule: one thread at a time.
"""

from __future__ import annotations

import re
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.prepare.tokenizer import Tokenizer

# Stands before text that follows a control piece, so that the library adds its word-start marker to
# this character instead of to the text; its ids are then cut off. No vocabulary merges it with others.
_SENTINEL = "\x01"


class SentencePieceTokenizer(Tokenizer):
    def __init__(self, path: Path, content: bytes):
        import sentencepiece

        super().__init__(path, content)
        if not content:  # the library would take it for "no model given"
            raise BadData(f"{path}: not a sentencepiece model: the file is empty")
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=content)
        except Exception as error:  # the library raises RuntimeError and others
            raise BadData(f"{path}: not a sentencepiece model: {str(error).splitlines()[0]}") from None
        pieces = range(self._model.get_piece_size())
        self.token_bytes = [self._piece_bytes(i) for i in pieces]
        self.bos_id = self._model.bos_id() if self._model.bos_id() >= 0 else None
        self.eos_id = self._model.eos_id() if self._model.eos_id() >= 0 else None
        control = {self._model.id_to_piece(i): i for i in pieces if self._model.is_control(i)}
        self._control = control
        self.special_ids = set(control.values())
        longest_first = sorted(filter(None, control), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if control else None
        self._sentinel_ids = self._model.encode(_SENTINEL)
        self._marks_start = self.decode(self._model.encode("a")) == b" a"

    def encode_text(self, texts: list[str]) -> list[list[int]]:
        # A space that a text begins with is its word-start marker: the library would add a second one.
        # transformers' Llama tokenizers do the same.
        if self._marks_start:
            texts = [text[1:] if text.startswith(" ") else text for text in texts]
        return self._model.encode(texts)

    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        if self._split is None or not any(map(self._split.search, texts)):
            return self.encode_text(texts)
        return [self._encode_with_control(text) for text in texts]

    def id_of(self, token: str) -> int | None:
        token_id = self._model.piece_to_id(token)
        return token_id if self._model.id_to_piece(token_id) == token else None

    def _encode_with_control(self, text: str) -> list[int]:
        ids = []
        for i, part in enumerate(self._split.split(text)):
            if i % 2:
                ids.append(self._control[part])
            elif part:
                ids += self._encode_continued(part) if ids else self.encode_text([part])[0]
        return ids

    def _encode_continued(self, text: str) -> list[int]:
        """Ids of text that goes on after a control piece: no word-start marker is invented for it."""
        ids = self._model.encode(_SENTINEL + text)
        n = len(self._sentinel_ids)
        return ids[n:] if ids[:n] == self._sentinel_ids else self._model.encode(text)

    def _piece_bytes(self, token_id: int) -> bytes:
        piece = self._model.id_to_piece(token_id)
        if self._model.is_byte(token_id):
            return bytes([int(piece[3:5], 16)])
        if self._model.is_control(token_id) or self._model.is_unknown(token_id):
            return piece.encode()
        return piece.replace("\u2581", " ").encode()

"""tekken .json files of mistral-common (Mistral NeMo and later).

Owns: special tokens inside prompts, which tekken itself never reads from text. Thread rule: one thread
at a time.
"""

from __future__ import annotations

import re
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.prepare.tokenizer import Tokenizer


class TekkenTokenizer(Tokenizer):
    def __init__(self, path: Path, content: bytes):
        import warnings

        with warnings.catch_warnings():  # older files lack the list of special tokens; it is known
            warnings.simplefilter("ignore")
            from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
            from mistral_common.tokens.tokenizers.tekken import Tekkenizer

            super().__init__(path, content)
            try:
                self._model = Tekkenizer.from_file(path)
                keep = SpecialTokenPolicy.KEEP
                self.token_bytes = [
                    bytes(self._model.id_to_byte_piece(i, keep)) for i in range(self._model.n_words)
                ]
            except Exception as error:  # it raises KeyError, AssertionError, validation errors, ...
                raise BadData(
                    f"{path}: not a usable tekken file: {type(error).__name__}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no reason given'}"
                ) from None
        self.bos_id, self.eos_id = self._model.bos_id, self._model.eos_id
        self._special = {self.token_bytes[i].decode(): i for i in range(self._model.num_special_tokens)}
        self.special_ids = set(self._special.values())
        longest_first = sorted(filter(None, self._special), key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode_text(self, texts: list[str]) -> list[list[int]]:
        return [self._model.encode(text, bos=False, eos=False) for text in texts]

    def encode_prompts(self, texts: list[str]) -> list[list[int]]:
        return [self._encode_with_special(text) for text in texts]

    def id_of(self, token: str) -> int | None:
        if token in self._special:
            return self._special[token]
        ids = self._model.encode(token, bos=False, eos=False)
        return ids[0] if len(ids) == 1 else None

    def _encode_with_special(self, text: str) -> list[int]:
        ids = []
        for i, part in enumerate(self._split.split(text)):
            if i % 2:
                ids.append(self._special[part])
            elif part:
                ids += self._model.encode(part, bos=False, eos=False)
        return ids

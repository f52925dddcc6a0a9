"""Which tokens end a response: the one that is trained, and all at which generation may stop.

Owns: where they are named and which of them counts. Does not own: what a chat template writes behind a
response (chat_turn.py), the tokenizer's own end token (tokenizer_files.py). Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plural_text.prepare.tokenizer import Tokenizer, read_json_beside

_FILES = ("generation_config.json", "config.json")
TEMPLATE, TOKENIZER, OPTION = "template", "tokenizer", "--eos"


@dataclass(frozen=True)
class EndTokens:
    ids: list[int]  # the trained one first, none twice
    source: str  # where the trained one comes from

    def line(self, tokenizer: Tokenizer) -> str:
        """For the summary."""
        texts = [f"'{tokenizer.token_text(token)}' ({token})" for token in self.ids]
        also = f"; also {', '.join(texts[1:])}" if texts[1:] else ""
        return f"{texts[0]} is trained, from {self.source}{also}"


def find_end_tokens(
    tokenizer: Tokenizer, written: int | None, is_option: bool, warn: Callable[[str], None]
) -> EndTokens:
    """written: the token that a chat template writes behind a response. is_option: the tokenizer's end token
    was given with --eos, so it is the only one."""
    if is_option:
        return EndTokens([tokenizer.eos_id], OPTION)
    trained = tokenizer.eos_id if written is None else written
    named = _named_beside(tokenizer, warn)
    _check_agreement(tokenizer, named, warn)
    others = [token for ids in named.values() for token in ids]
    ids = list(dict.fromkeys([trained, tokenizer.eos_id, *others]))
    return EndTokens(ids, TOKENIZER if written is None else TEMPLATE)


def _named_beside(tokenizer: Tokenizer, warn: Callable[[str], None]) -> dict[str, list[int]]:
    """The end tokens that each file names."""
    found = {}
    for name in _FILES:
        value = read_json_beside(tokenizer.path.parent, name).get("eos_token_id")
        ids = [token for token in (value if isinstance(value, list) else [value]) if type(token) is int]
        outside = [token for token in ids if not 0 <= token < len(tokenizer.token_bytes)]
        if outside:
            warn(
                f"{tokenizer.path.parent / name}: eos_token_id {outside[0]} is outside the vocabulary of "
                f"{len(tokenizer.token_bytes)} tokens of {tokenizer.name}; it is left out of the end tokens"
            )
        if kept := [token for token in ids if token not in outside]:
            found[name] = kept
    return found


def _check_agreement(tokenizer: Tokenizer, named: dict[str, list[int]], warn: Callable[[str], None]) -> None:
    others = {token for ids in named.values() for token in ids}
    if others and tokenizer.eos_id not in others:
        folder = tokenizer.path.parent
        files = " and ".join(str(folder / name) for name in named)
        own = folder / "tokenizer_config.json"
        warn(
            f"{own if own.is_file() else tokenizer.path}: the end token is "
            f"'{tokenizer.token_text(tokenizer.eos_id)}' ({tokenizer.eos_id}), {files} has eos_token_id "
            f"{', '.join(map(str, sorted(others)))}; generation stops at any of them"
        )

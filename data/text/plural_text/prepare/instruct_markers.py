"""Spaces around [INST] and [/INST] in the templates of this project.

Owns: which spaces the version of the format has that a tokenizer belongs to. Does not own: the templates
(templates.py). Thread rule: free of state.

Mistral's first instruct models, and Llama 2, have no tokens for the markers: they are spelt as text, "[INST]
question [/INST]", and so the templates are written. Later tokenizers have a token for each. There a prompt
is made of tokens: marker, question, marker, and the answer follows, each text tokenised on its own. A
sentencepiece vocabulary puts its word start before a text, which is written as a space here; a byte-level one
(tekken) puts nothing there. No version has a space before [/INST].
"""

from __future__ import annotations

_OPEN, _CLOSE = "[INST]", "[/INST]"
_TEXTS = ("prompt", "prompt_with_number", "prompt_with_count")
_PROBE = "x"


def with_fitting_markers(spec: dict, tokenizer) -> dict:
    """The template with the spaces that the tokenizer's version of the format has."""
    gap = _gap(tokenizer)
    if gap is None:
        return spec
    return {key: _respaced(value, gap) if key in _TEXTS else value for key, value in spec.items()}


def marker_gap(spec: dict, tokenizer) -> str:
    """What an answer's given beginning needs before it, where the prompt ends with a marker."""
    return (_gap(tokenizer) or "") if spec["prompt"].endswith(_CLOSE) else ""


def _gap(tokenizer) -> str | None:
    """The text that stands for the start of a text behind a marker; None: the markers are no tokens."""
    first, last = tokenizer.id_of(_OPEN), tokenizer.id_of(_CLOSE)
    if first not in tokenizer.special_ids or last not in tokenizer.special_ids:
        return None
    wanted = [first, *tokenizer.encode_text([_PROBE])[0], last]
    fitting = [
        gap for gap in ("", " ") if tokenizer.encode_prompts([_OPEN + gap + _PROBE + _CLOSE])[0] == wanted
    ]
    return fitting[0] if fitting else ""


def _respaced(text: str, gap: str) -> str:
    text = text.replace(f" {_CLOSE}", _CLOSE)
    for marker in (_OPEN, _CLOSE):
        text = text.replace(f"{marker} ", marker + gap)
    return text

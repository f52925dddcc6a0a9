"""Texts to words, as the published Distinct-n counts them.

Owns: the sentence split, nltk's Treebank-like word tokens, lower case. Does not own: what is counted.

Only the period that ends a sentence is a token of its own, so texts are split first. nltk's own splitter
(Punkt) needs data that cannot be installed from a package; this one breaks after . ? or ! before white space,
except after an abbreviation. On 1,500 published replies such a split gives the same Distinct-1 and Distinct-2
to four decimals.
"""

from __future__ import annotations

import functools
import re
import string

from plural_text.common.places import FILES

_ABBREVIATIONS = FILES / "abbreviations" / "english.txt"
# The tokens that the published code leaves out of n-grams. nltk's quote tokens (`` and '') and -- are not in
# it: words.
PUNCTUATION = frozenset(string.punctuation) | {"\u201c", "\u201d", "...", "\u2013", "\u2026", "..", "\u2022"}

_BREAK = re.compile(r"[.?!]+[\"')\]\u00bb\u201d\u2019]*\s+")
_INITIAL = re.compile(r"[a-z]\.")
_OPENING = "\"'([{\u201c\u2018\u00ab"


def words(text: str) -> list[str]:
    """Lower-cased tokens of a text, punctuation included."""
    return [token.lower() for sentence in sentences(text) for token in _tokenizer().tokenize(sentence)]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space between them; none for a blank text."""
    found, start = [], 0
    for end in _BREAK.finditer(text):
        if end[0].rstrip() == "." and _is_abbreviation(text[start : end.start() + 1]):
            continue
        found.append(text[start : end.end()].strip())
        start = end.end()
    rest = text[start:].strip()
    return [*found, rest] if rest else found


def _is_abbreviation(text: str) -> bool:
    last = text.rsplit(maxsplit=1)[-1].lstrip(_OPENING).lower()
    return last in _abbreviations() or bool(_INITIAL.fullmatch(last) and last != "i.")


@functools.cache
def _abbreviations() -> frozenset[str]:
    lines = _ABBREVIATIONS.read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))


@functools.cache
def _tokenizer():
    from nltk.tokenize.destructive import NLTKWordTokenizer  # importing nltk takes a second

    return NLTKWordTokenizer()

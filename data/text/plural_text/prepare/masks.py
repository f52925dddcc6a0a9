"""Which tokens of a response are penalised when it stands as a negative.

Owns: the three mask modes and the stop words. Does not own: how strongly a token is penalised (the
trainer's unlikelihood weight). Thread rule: one thread at a time (it keeps a cache).

A word is a run of characters without white space (word rule `spaces`), or what Unicode's word boundaries
enclose with a letter or digit in it (`unicode`), for languages without spaces: an ideograph counts by
itself, a run of katakana is one word, punctuation and emoji are none. Every mode marks at most one token per
word, and never the end token. Bit numbers are those of MaskMode in data/group.h.

  bit 0  content_first  words that carry content: the first token that holds a character of the word,
                        leading non-word characters left out ('"Yes' -> the token of 'Y')
  bit 1  all_first      every word: its first token, which may be a bare word-start marker
  bit 2  repo_compat    as the published code of the method does it: the ids of the first tokens of all
                        content words, each tokenised alone, mark every position that holds such an id

A word carries no content when it, or its lower-cased form without ASCII punctuation, is a stop word or
a punctuation sign, or when nothing is left of it after its leading non-word characters.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
import string
from collections.abc import Callable
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.places import FILES
from plural_text.prepare.tokenizer import Tokenizer

MODES = ("content_first", "all_first", "repo_compat")  # by bit number
_CONTENT_FIRST, _ALL_FIRST, _REPO_COMPAT = 1, 2, 4

ENGLISH = FILES / "stopwords" / "english.txt"

WORD_RULES = ("spaces", "unicode")

_WORD = re.compile(r"\S+")
_LEADING_NON_WORD = re.compile(r"\W*")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
# The published code cuts "words + end token" to so many items before it collects words.
_REPO_ITEMS = 60
_CACHED_WORDS = 1 << 18


class StopWords:
    """A set of lower-case words, one per line of its file, and the file's SHA-256."""

    def __init__(self, path: Path = ENGLISH):
        try:
            content = path.read_bytes()
        except OSError as error:
            raise MissingInput(f"{path}: stop words cannot be read: {error.strerror}") from None
        try:
            self._words = frozenset(filter(None, map(str.strip, content.decode("utf-8").splitlines())))
        except UnicodeDecodeError as error:
            raise BadData(f"{path}: stop words are not UTF-8: {error.reason}") from None
        self.sha256 = hashlib.sha256(content).hexdigest()

    def carries_content(self, word: str) -> bool:
        stripped = word.lower().translate(_WITHOUT_PUNCTUATION)
        return not (word in self._words or stripped in self._words or word in string.punctuation)


class MaskBuilder:
    def __init__(self, tokenizer: Tokenizer, stop_words: StopWords, word_rule: str = "spaces"):
        """word_rule: one of WORD_RULES."""
        self._tokenizer = tokenizer
        self._stop_words = stop_words
        self._words = _words_of_unicode() if word_rule == "unicode" else _words_between_spaces
        # Inside a text such a word has no space before it: the marker that it has alone is no part of it.
        self._marker_is_no_word = word_rule == "unicode"
        # Word -> characters before its content, None for a word without content.
        self._lead: dict[str, int | None] = {}
        # Content word without its lead -> id of its first token when tokenised alone.
        self._first_id_alone: dict[str, int] = {}

    def build(self, responses: list[list[int]]) -> list[bytes]:
        """One byte per token of each response; bits as above.

        responses: token ids without the end token. Words are those of the text that the tokens spell,
        so that the marks fit the real tokenisation whatever normalisation the tokenizer applies.
        """
        if max(len(self._lead), len(self._first_id_alone)) > _CACHED_WORDS:
            self._lead.clear()
            self._first_id_alone.clear()
        table = self._tokenizer.token_bytes
        pieces = [[table[i] for i in ids] for ids in responses]
        texts = [b"".join(p).decode("utf-8", "surrogateescape") for p in pieces]
        words = [self._words(text) for text in texts]
        content = [self._content(found) for found in words]
        self._tokenise_alone({word for found in content for _, word in found})
        return [self._mark(*row) for row in zip(responses, pieces, texts, words, content)]

    def _content(self, words: list[tuple[int, str]]) -> list[tuple[int, str]]:
        """The words that carry content, without their leading non-word characters."""
        found = []
        for start, word in words:
            if word not in self._lead:
                lead = _LEADING_NON_WORD.match(word).end()
                keep = lead < len(word) and self._stop_words.carries_content(word)
                self._lead[word] = lead if keep else None
            lead = self._lead[word]
            if lead is not None:
                found.append((start + lead, word[lead:]))
        return found

    def _mark(self, ids, pieces, text, words, content) -> bytes:
        masks = bytearray(len(ids))
        starts = list(itertools.accumulate(map(len, pieces), initial=0))[:-1]
        byte_of = _byte_positions(text)
        for character, _ in words:
            byte = byte_of(character)
            token = bisect.bisect_right(starts, byte) - 1
            if token > 0 and pieces[token - 1] == b" " and starts[token] == byte:
                token -= 1  # the word-start marker is a token of its own
            masks[token] |= _ALL_FIRST
        for character, _ in content:
            masks[bisect.bisect_right(starts, byte_of(character)) - 1] |= _CONTENT_FIRST
        limit = words[_REPO_ITEMS - 1][0] if len(words) >= _REPO_ITEMS else len(text)
        collected = {self._first_id_alone[word] for character, word in content if character < limit}
        for position, token_id in enumerate(ids):
            if token_id in collected:
                masks[position] |= _REPO_COMPAT
        return bytes(masks)

    def _tokenise_alone(self, words: set[str]) -> None:
        """Fills the cache with these words."""
        new = sorted(word for word in words if word not in self._first_id_alone)
        # A word may hold undecodable bytes (a token may be half a character): they are left out.
        readable = [word.encode("utf-8", "ignore").decode("utf-8") for word in new]
        for word, ids in zip(new, self._tokenizer.encode_text(readable)):
            bare_marker = len(ids) > 1 and self._tokenizer.token_bytes[ids[0]] == b" "
            second = bare_marker and (self._marker_is_no_word or word[0].isdigit())
            first = ids[1] if second else ids[0] if ids else -1
            self._first_id_alone[word] = first


def _words_between_spaces(text: str) -> list[tuple[int, str]]:
    """Words with their places."""
    return [(m.start(), m[0]) for m in _WORD.finditer(text)]


def _words_of_unicode() -> Callable[[str], list[tuple[int, str]]]:
    import regex  # only this rule needs it

    boundary, letter = regex.compile(r"(?V1w)\b"), regex.compile(r"\w")

    def words(text: str) -> list[tuple[int, str]]:
        edges = [m.start() for m in boundary.finditer(text)]
        return [(a, text[a:b]) for a, b in itertools.pairwise(edges) if letter.search(text, a, b)]

    return words


def _byte_positions(text: str):
    """Function from a character's position to its byte's, in UTF-8."""
    if text.isascii():
        return lambda character: character
    sizes = (len(c.encode("utf-8", "surrogateescape")) for c in text)
    return list(itertools.accumulate(sizes, initial=0)).__getitem__

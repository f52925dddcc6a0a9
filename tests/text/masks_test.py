"""Which tokens are penalised: the three modes, against vectors worked out by hand."""

import hashlib
import unittest

from plural_text.prepare.masks import ENGLISH, MaskBuilder, StopWords
from text.support import MISTRAL_V1, TEKKEN, FolderTest, PieceTokenizer, open_tokenizer

SENTENCE = "I'm a doctor, and I love 3 big dogs."
#               I  '  m  a  do ,  and I love _ 3 big dogs .
CONTENT_FIRST = [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 1, 0]
ALL_FIRST = [1, 0, 0, 1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0]
REPO_COMPAT = [1, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1, 0]


def bits(mask: bytes) -> tuple[list[int], ...]:
    return tuple([byte >> bit & 1 for byte in mask] for bit in range(3))


class Vectors(unittest.TestCase):
    def mask(self, tokenizer, text):
        ids = tokenizer.encode_text([text])
        return bits(MaskBuilder(tokenizer, StopWords()).build(ids)[0])

    def test_hand_built_tokenisation(self):
        pieces = PieceTokenizer(
            [" I", "'", "m", " a", " doctor", ",", " and", " love", " ", "3", " big", " dogs", "."]
        )
        self.assertEqual(
            [pieces.token_bytes[i].decode() for i in pieces.encode_text([SENTENCE])[0]],
            [" I", "'", "m", " a", " doctor", ",", " and", " I", " love", " ", "3", " big", " dogs", "."],
        )
        self.assertEqual(self.mask(pieces, SENTENCE), (CONTENT_FIRST, ALL_FIRST, REPO_COMPAT))

    def test_the_real_tokenizer_cuts_the_sentence_the_same_way(self):
        self.assertEqual(
            self.mask(open_tokenizer(MISTRAL_V1), SENTENCE), (CONTENT_FIRST, ALL_FIRST, REPO_COMPAT)
        )

    def test_quotation_mark_before_a_word(self):
        # The word is '"Yes': by position its first character of content is Y, in a token of its own; alone
        # 'Yes' is ' Yes', which does not occur, so that matching by id misses it.
        pieces = PieceTokenizer([' "', "Yes", " Yes", " he", " said"])
        content, every, repo = self.mask(pieces, '"Yes he said')
        self.assertEqual((content, every, repo), ([0, 1, 0, 1], [1, 0, 1, 1], [0, 0, 0, 1]))

    def test_bytes_of_one_character(self):
        # A snowman of three byte tokens: no word characters, so only all_first marks it, at its first byte.
        tokenizer = open_tokenizer(TEKKEN)
        text = "caf\u00e9 \u2603 \u2603x"
        spelled = [tokenizer.token_bytes[i] for i in tokenizer.encode_text([text])[0]]
        self.assertEqual(
            spelled, [b"ca", b"f", b"\xc3\xa9", b" \xe2\x98", b"\x83", b" \xe2\x98", b"\x83", b"x"]
        )
        content, every, _ = self.mask(tokenizer, text)
        self.assertEqual(every, [1, 0, 0, 1, 0, 1, 0, 0])
        self.assertEqual(content, [1, 0, 0, 0, 0, 0, 0, 1])

    def test_stop_words_and_punctuation_carry_no_content(self):
        tokenizer = open_tokenizer(MISTRAL_V1)
        for text in ("the", "The,", "(and)", "don't", "...", "-", "?!"):
            content, every, repo = self.mask(tokenizer, text)
            self.assertEqual((sum(content), sum(every), sum(repo)), (0, 1, 0), text)

    def test_repo_compat_collects_from_the_first_59_words_only(self):
        # 60 words and the end token are 61 items; 60 stay and the last of them is not collected.
        words = [f"w{i}" for i in range(61)]
        pieces = PieceTokenizer([" " + word for word in words])
        full = bits(MaskBuilder(pieces, StopWords()).build([list(range(61))])[0])
        self.assertEqual(full[2], [1] * 59 + [0, 0])
        self.assertEqual(full[0], [1] * 61)

    def test_batches_and_repeated_words_do_not_matter(self):
        tokenizer = open_tokenizer(MISTRAL_V1)
        ids = tokenizer.encode_text([SENTENCE, "Dogs and big cats.", SENTENCE])
        builder = MaskBuilder(tokenizer, StopWords())
        together = builder.build(ids)
        self.assertEqual(together, [MaskBuilder(tokenizer, StopWords()).build([row])[0] for row in ids])
        self.assertEqual(builder.build(ids), together)


class List(FolderTest):
    def test_is_our_own_179_words_and_hashed(self):
        words = ENGLISH.read_text().split()
        self.assertEqual((len(words), len(set(words))), (179, 179))
        self.assertEqual(StopWords().sha256, hashlib.sha256(ENGLISH.read_bytes()).hexdigest())

    def test_another_list(self):
        file = self.folder / "words.txt"
        file.write_text("doctor\n\n")
        words = StopWords(file)
        self.assertFalse(words.carries_content("Doctor,"))
        self.assertTrue(words.carries_content("the"))


if __name__ == "__main__":
    unittest.main()

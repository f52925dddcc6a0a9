"""Which tokens are penalised: the three modes, against vectors worked out by hand."""

import hashlib
import unittest

from plural_text.prepare.masks import ENGLISH, MaskBuilder, StopWords
from text.support import (
    MISTRAL_V1,
    TEKKEN,
    FolderTest,
    PieceTokenizer,
    byte_level_folder,
    open_tokenizer,
    read_corpus,
    write_lines,
)

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


class UnicodeWords(unittest.TestCase):
    """The rule for languages without spaces."""

    def mask(self, pieces, text):
        builder = MaskBuilder(pieces, StopWords(), "unicode")
        return bits(builder.build(pieces.encode_text([text]))[0])

    def test_every_ideograph_is_a_word_and_katakana_is_one(self):
        text = "\u6211\u559c\u6b22\u8336\u3002\u30b3\u30fc\u30d2\u30fc!"
        pieces = PieceTokenizer(
            [
                " ",
                "\u6211",
                "\u559c\u6b22",
                "\u8336",
                "\u3002",
                "\u30b3\u30fc",
                "\u30d2\u30fc",
                "!",
                "\u559c",
                "\u6b22",
            ]
        )
        content, every, repo = self.mask(pieces, text)
        # space, I, like (two ideographs, one token), tea, full stop, coffee (two tokens), !
        self.assertEqual(content, [0, 1, 1, 1, 0, 1, 0, 0])
        # The marker stands before the first word only, and is its first token.
        self.assertEqual(every, [1, 0, 1, 1, 0, 1, 0, 0])
        # Alone every word has the marker before it: what follows it counts, and the marker is not penalised.
        # The first half of "like" alone is another token than both.
        self.assertEqual(repo, [0, 1, 0, 1, 0, 1, 0, 0])
        spaces = bits(MaskBuilder(pieces, StopWords()).build(pieces.encode_text([text]))[0])
        self.assertEqual(spaces[0], [0, 1, 0, 0, 0, 0, 0, 0])

    def test_words_between_spaces_stay_and_lose_their_punctuation(self):
        pieces = PieceTokenizer(
            [" don't", " say", ' "', "Yes", '"', ",", " the", " 3.14", " -", "\u263a", " "]
        )
        content, every, _ = self.mask(pieces, 'don\'t say "Yes", the 3.14 -\u263a')
        self.assertEqual(content, [0, 1, 0, 1, 0, 0, 0, 1, 0, 0])
        self.assertEqual(every, [1, 1, 0, 1, 0, 0, 1, 1, 0, 0])

    def test_thai_and_half_characters(self):
        tokenizer = open_tokenizer(TEKKEN)
        builder = MaskBuilder(tokenizer, StopWords(), "unicode")
        ids = tokenizer.encode_text(["\u0e09\u0e31\u0e19\u0e0a\u0e2d\u0e1a \u4f60\u597d \u2603"])[0]
        masks = builder.build([ids[:cut] for cut in range(1, len(ids) + 1)])
        self.assertEqual([len(mask) for mask in masks], list(range(1, len(ids) + 1)))
        self.assertGreaterEqual(sum(bits(masks[-1])[0]), 5)


class Share(FolderTest):
    """What `prepare` says of the marks."""

    def prepared(self, reply, *options):
        file = write_lines(self.folder / "d.jsonl", [{"context": "Hi.", "candidates": [reply, reply + "b"]}])
        model = byte_level_folder(self.folder / "model")
        done = self.prepare(file, "--tokenizer", model, "--format", "dialogue", *options)
        attributes, (group,), _ = read_corpus(self.folder / "corpus.h5")
        marked = sum(mask & 1 for row in group.masks for mask in row)
        share = 100 * marked / sum(map(len, group.responses))
        self.assertIn(f"penalised tokens      {share:.1f} % of the responses' (content_first)", done.stdout)
        return share, done.stderr, attributes.get("word_rule")

    def test_warned_of_where_it_is_small(self):
        chinese = "\u6211\u559c\u6b22\u8336" * 4
        share, said, rule = self.prepared(chinese)
        self.assertLess(share, 5)
        self.assertIn("--words unicode finds words in languages without spaces", said)
        self.assertEqual((said.count("\n"), rule), (1, None))
        share, said, rule = self.prepared(chinese, "--words", "unicode")
        self.assertGreater(share, 25)
        self.assertEqual((said, rule), ("", "unicode"))

    def test_not_for_ratings(self):
        file = write_lines(self.folder / "d.jsonl", [{"context": "Hi.", "candidates": ["a"]}])
        model = byte_level_folder(self.folder / "model")
        done = self.prepare(
            *(file, "--tokenizer", model, "--format", "dialogue", "--template", "coherence-rating")
        )
        self.assertNotIn("--words", done.stderr)


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

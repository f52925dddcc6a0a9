"""Rating corpora: what a question's parts are, in every kind of tokenizer, and which templates are
refused."""

import json
import unittest

from plural_text.common.errors import BadData
from plural_text.prepare.formats import Record
from plural_text.prepare.groups import Limits
from plural_text.prepare.masks import ENGLISH, MaskBuilder, StopWords
from plural_text.prepare.ratings import RatingBuilder
from plural_text.prepare.templates import open_template
from text.support import (
    MISTRAL_V1,
    MISTRAL_V3,
    TEKKEN,
    FolderTest,
    byte_level_folder,
    open_tokenizer,
    read_corpus,
    write_lines,
)

CONTEXT = "Hello!\nHi, how are you?\nFine. And the dog?"
SPOKEN = "Person A: Hello!\nPerson B: Hi, how are you?\nPerson A: Fine. And the dog?"
RATINGS = [f"{n}]" for n in range(1, 11)]


class Questions(FolderTest):
    def setUp(self):
        super().setUp()
        self.model = byte_level_folder(self.folder / "model")
        self.input = write_lines(
            self.folder / "in.jsonl",
            [
                {"id": "a", "context": CONTEXT, "candidates": ["Well."]},
                {"id": "b", "context": CONTEXT, "candidates": ["Ill."]},
            ],
        )

    def test_parts(self):
        """A group is prompt, what follows the response, ten ratings; no number, no end token, no response."""
        self.prepare(
            self.input,
            "--tokenizer",
            self.model,
            "--format",
            "dialogue",
            "--template",
            "coherence-rating",
            "--quiet",
        )
        attributes, groups, vocabulary = read_corpus(self.folder / "corpus.h5")
        text = lambda ids: b"".join(vocabulary[i] for i in ids).decode()
        self.assertEqual((attributes["possibilities"], [g.id for g in groups]), (0, ["a", "b"]))
        group = groups[0]
        self.assertTrue(text(group.prompt).startswith("<start>How coherent"))
        self.assertTrue(text(group.prompt).endswith(f"\n\n{SPOKEN}\nPerson B:"))
        self.assertEqual(len(group.tails), 1)
        self.assertEqual(text(group.tails[0]), "\n\nCoherence rating: [")
        self.assertEqual([text(r) for r in group.responses], RATINGS)

    def build(self, tokenizer, template, max_prompt_tokens=0):
        """One question, in this process, and its parts' texts."""
        builder = RatingBuilder(
            tokenizer,
            open_template(str(template), "dialogue", tokenizer),
            MaskBuilder(tokenizer, StopWords(ENGLISH)),
            Limits(0, max_prompt_tokens),
        )
        (group,) = builder.build([Record("a", "here", CONTEXT.split("\n"))])
        text = lambda ids: tokenizer.decode(ids).decode()
        return group, text(group.prompt), text(group.tails[0]), [text(r) for r in group.responses]

    def test_no_tokenizer_puts_a_space_where_a_part_begins(self):
        """A tokenizer that marks word starts would put one before the text after the response and before
        every rating: "[ 5]" instead of "[5]"."""
        for path, own_marker in ((MISTRAL_V1, " [/INST] "), (MISTRAL_V3, "[/INST] "), (TEKKEN, "[/INST]")):
            tokenizer = open_tokenizer(path)
            for template, marker in (("coherence-rating", "\n\n"), ("mistral-coherence-rating", own_marker)):
                group, _, after, ratings = self.build(tokenizer, template)
                self.assertEqual(ratings, RATINGS, path)
                self.assertEqual(after, marker + "Coherence rating: [", path)
                if marker != "\n\n" and tokenizer.id_of("[/INST]") is not None:
                    self.assertIn(tokenizer.id_of("[/INST]"), group.tails[0])  # one token, as in the prompt

    def test_oldest_turns_are_dropped(self):
        tokenizer = open_tokenizer(self.model)
        whole, *_ = self.build(tokenizer, "coherence-rating")
        _, text, *_ = self.build(tokenizer, "coherence-rating", len(whole.prompt) - 1)
        self.assertNotIn("Hello!", text)
        self.assertIn("Person A: Fine.", text)

    def test_templates_that_are_refused(self):
        good = {
            "name": "x",
            "format": "dialogue",
            "prompt": "{context}\n{response}\nRating: [",
            "ratings": RATINGS,
        }
        cases = [
            ({"ratings": RATINGS[:9]}, "must be 10 texts"),
            ({"ratings": [str(n) for n in range(1, 11)]}, "'1' is the beginning of '10' in tokens"),
            ({"prompt": "{response}\n{context}\nRating: ["}, "in this order"),
            ({"prompt": "{context}\n{response}"}, "in this order"),
            ({"prompt": "{context}\nRating: ["}, "needs {context} and {response}"),
            ({"prompt_with_number": "{context} {k}"}, "leave it out"),
        ]
        tokenizer, file = open_tokenizer(self.model), self.folder / "template.json"
        file.write_text(json.dumps(good))
        self.build(tokenizer, file)
        for change, words in cases:
            file.write_text(json.dumps({**good, **change}))
            with self.assertRaises(BadData) as refused:
                self.build(tokenizer, file)
            self.assertIn(words, str(refused.exception))

    def test_numbers_are_refused(self):
        done = self.prepare(
            self.input,
            "--tokenizer",
            self.model,
            "--format",
            "dialogue",
            "--template",
            "coherence-rating",
            "--possibilities",
            3,
            code=64,
        )
        self.assertIn("no place for a possibility number", done.stderr)


if __name__ == "__main__":
    unittest.main()

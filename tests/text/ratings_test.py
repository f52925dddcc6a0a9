"""Rating corpora: what a question's parts are, in every kind of tokenizer, and which templates are refused."""

import json
import unittest

from text.support import (FolderTest, MISTRAL_V1, MISTRAL_V3, TEKKEN, byte_level_folder, open_tokenizer, read_corpus,
                          write_lines)

CONTEXT = "Hello!\nHi, how are you?\nFine. And the dog?"
SPOKEN = "Person A: Hello!\nPerson B: Hi, how are you?\nPerson A: Fine. And the dog?"
RATINGS = [f"{n}]" for n in range(1, 11)]


class Questions(FolderTest):
    def setUp(self):
        super().setUp()
        self.model = byte_level_folder(self.folder / "model")
        self.input = write_lines(self.folder / "in.jsonl", [{"id": "a", "context": CONTEXT, "candidates": ["Well."]},
                                                            {"id": "b", "context": CONTEXT, "candidates": ["Ill."]}])

    def questions(self, tokenizer, template, *more):
        self.prepare(self.input, "--tokenizer", tokenizer, "--format", "dialogue", "--template", template, "--quiet", *more)
        return read_corpus(self.folder / "corpus.h5")

    def test_parts(self):
        """A group is prompt, what follows the response, ten ratings; no number, no end token, no response."""
        attributes, groups, vocabulary = self.questions(self.model, "coherence-rating")
        text = lambda ids: b"".join(vocabulary[i] for i in ids).decode()
        self.assertEqual((attributes["possibilities"], [g.id for g in groups]), (0, ["a", "b"]))
        group = groups[0]
        self.assertTrue(text(group.prompt).startswith("<start>How coherent"))
        self.assertTrue(text(group.prompt).endswith(f"\n\n{SPOKEN}\nPerson B:"))
        self.assertEqual(len(group.tails), 1)
        self.assertEqual(text(group.tails[0]), "\n\nCoherence rating: [")
        self.assertEqual([text(r) for r in group.responses], RATINGS)

    def test_no_tokenizer_puts_a_space_where_a_part_begins(self):
        """A tokenizer that marks word starts would put one before the text after the response and before every
        rating: "[ 5]" instead of "[5]"."""
        for tokenizer in (MISTRAL_V1, MISTRAL_V3, TEKKEN):
            for template in ("coherence-rating", "mistral-coherence-rating"):
                _, groups, vocabulary = self.questions(tokenizer, template)
                text = lambda ids: b"".join(vocabulary[i] for i in ids).decode()
                self.assertEqual([text(r) for r in groups[0].responses], RATINGS, tokenizer)
                marker = " [/INST] " if template.startswith("mistral") else "\n\n"
                self.assertEqual(text(groups[0].tails[0]).replace("]Co", "] Co"), marker + "Coherence rating: [", tokenizer)
                end = [i for i, piece in enumerate(vocabulary) if piece == b"[/INST]"]
                if template.startswith("mistral") and end:  # the marker is one token, as in the prompt
                    self.assertIn(end[0], groups[0].tails[0])

    def test_oldest_turns_are_dropped(self):
        _, whole, _ = self.questions(self.model, "coherence-rating")
        limit = len(whole[0].prompt) - 1
        _, trimmed, vocabulary = self.questions(self.model, "coherence-rating", "--max-prompt-tokens", limit)
        text = b"".join(vocabulary[i] for i in trimmed[0].prompt).decode()
        self.assertNotIn("Hello!", text)
        self.assertIn("Person A: Fine.", text)

    def test_templates_that_are_refused(self):
        good = {"name": "x", "format": "dialogue", "prompt": "{context}\n{response}\nRating: [", "ratings": RATINGS}
        cases = [({"ratings": RATINGS[:9]}, "must be 10 texts"),
                 ({"ratings": [str(n) for n in range(1, 11)]}, "'1' is the beginning of '10' in tokens"),
                 ({"prompt": "{response}\n{context}\nRating: ["}, "in this order"),
                 ({"prompt": "{context}\n{response}"}, "in this order"),
                 ({"prompt": "{context}\nRating: ["}, "needs {context} and {response}"),
                 ({"prompt_with_number": "{context} {k}"}, "leave it out")]
        for change, words in cases:
            file = self.folder / "template.json"
            file.write_text(json.dumps({**good, **change}))
            done = self.prepare(self.input, "--tokenizer", self.model, "--format", "dialogue", "--template", file, code=65)
            self.assertIn(words, done.stderr)

    def test_numbers_are_refused(self):
        done = self.prepare(self.input, "--tokenizer", self.model, "--format", "dialogue", "--template",
                            "coherence-rating", "--possibilities", 3, code=64)
        self.assertIn("no place for a possibility number", done.stderr)


if __name__ == "__main__":
    unittest.main()

"""What the model of a middle size reads before any method tunes it."""

import contextlib
import io
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes/reproduction"))

import middle_material
from text.support import FolderTest
from words import read_lines, write_lines


class MiddleMaterial(FolderTest):
    def setUp(self):
        super().setUp()
        row = lambda name, replies: {
            "context": f"Is it {name}?\nI think so.\nWhy {name}?",
            "candidates": [f"{name} {reply}" for reply in range(replies)],
        }
        write_lines(
            self.folder / "train_dialogs_4k.jsonl", [row("a", 4), row("b", 10), row("c", 10), row("d", 1)]
        )
        write_lines(self.folder / "train_dialogs_1k.jsonl", [row("b", 10)])
        write_lines(self.folder / "test_dialogs.jsonl", [row("t", 10)])

    def made(self, name, *words):
        middle_material.main([str(self.folder), str(self.folder / "out"), *words])
        return read_lines(self.folder / f"out/{name}.jsonl")

    def test_no_reply_that_a_method_is_tuned_on_is_read(self):
        documents = self.made("documents")
        self.assertEqual([one["text"].count("Person") for one in documents], [3] * 4)
        answers = read_lines(self.folder / "out/answers.jsonl")
        # Not the first reply, none of a context with many, none of one that has too few.
        self.assertEqual([one["targets"] for one in answers], [["a 1", "a 2", "a 3"], ["c 1", "c 2", "c 3"]])
        self.assertEqual(
            [one["candidates"] for one in read_lines(self.folder / "out/held-out.jsonl")], [["t 0"]]
        )
        self.assertEqual(len(self.made("documents", "--share=0.5")), 2)

    def test_requests_are_those_that_models_are_asked_in(self):
        said = lambda name: f"Person A: Is it {name}?\nPerson B: I think so.\nPerson A: Why {name}?"
        first, second = self.made("answers")
        self.assertTrue(first["request"].startswith(f"Here is a conversation:\n\n{said('a')}\n\nImagine"))
        self.assertIn("no more than 25 words", first["request"])
        self.assertEqual(first["response"], " Person B:")
        self.assertIn(said("c"), second["request"])
        self.assertTrue(
            second["request"].endswith("\n\nImagine that you are Person B. Write the next response.")
        )
        self.assertEqual(second["response"], "")

    def test_what_is_not_there_is_named(self):
        (self.folder / "test_dialogs.jsonl").unlink()
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaisesRegex(SystemExit, "docs/data.md"):
            self.made("documents")

"""`plural postprocess`: what each step makes of a text, and the command."""

import json
import unittest

from plural_text.postprocess import Cleaner, steps
from text.support import FolderTest, run, write_lines

STEPS = dict(steps())


class Steps(unittest.TestCase):
    def check(self, step, cases):
        for text, expected in cases.items():
            self.assertEqual(STEPS[step](text), expected, f"{step}: {text!r}")

    def test_list_label(self):
        self.check(
            "list_label",
            {
                "1. Hello.": "Hello.",
                " 2) Hello.": "Hello.",
                "(3) Hello.": "Hello.",
                "#4 Hello.": "Hello.",
                "Response 5: Hello.": "Hello.",
                "- Hello.": "Hello.",
                "\u2022 Hello.": "Hello.",
                "3.50 dollars.": "3.50 dollars.",
                "5:30 is late.": "5:30 is late.",
                "-2 degrees.": "-2 degrees.",
                "3 dogs.": "3 dogs.",
                "At 5. Not before.": "At 5. Not before.",
                "*waves* Hi": "*waves* Hi",
            },
        )

    def test_speaker_label(self):
        self.check(
            "speaker_label",
            {
                "Person B: Hello.": "Hello.",
                '"Person B: Hello."': 'Hello."',
                "Ask Person B: now?": "Ask Person B: now?",
                "Person C: Hi": "Person C: Hi",
            },
        )
        named = dict(steps(("Ann (1)",)))["speaker_label"]
        self.assertEqual([named("Ann (1): Hi"), named("Person B: Hi")], ["Hi", "Person B: Hi"])

    def test_characters(self):
        self.check("newlines", {"a\n\nb\r\nc": "a b c"})
        self.check(
            "typographic",
            {"\u201cIt\u2019s\u2026 5\u20136\u201d": '"It\'s... 5-6"', "caf\u00e9": "caf\u00e9"},
        )

    def test_noise(self):
        self.check("parentheses", {"Hi (he said (softly)) there": "Hi   there", "a ) b ( c": "a ) b ( c"})
        self.check("stars", {"*smiles* Hi **all** 2*3": "  Hi   2*3"})
        self.check("hashtags", {"So #happy, #1 #": "So  ,   #"})
        self.check(
            "emoji",
            {
                "Hi \U0001f468\u200d\U0001f52c\u2764\ufe0f!": "Hi  !",
                "\u4f60\u597d caf\u00e9": "\u4f60\u597d caf\u00e9",
            },
        )

    def test_ends(self):
        self.check(
            "ends",
            {
                '"Hello."': "Hello.",
                "# Hello": "Hello",
                "'Hello'": "Hello",
                "the dogs'": "the dogs'",
                'He said "no".': 'He said "no".',
                "'": "'",
            },
        )
        self.check("spaces", {"  a \t b  ": "a b"})


class Cleaning(unittest.TestCase):
    def test_all_steps_together(self):
        cleaner = Cleaner()
        self.assertEqual(
            cleaner.clean("1. Person B: \u201cIt\u2019s  fine\u2026\u201d *smiles* (really)\n#ok \U0001f600"),
            "It's fine...",
        )
        self.assertEqual({name: count for name, count in cleaner.changed.items() if not count}, {})
        self.assertEqual(cleaner.clean("Nothing to do here."), "Nothing to do here.")
        self.assertEqual((cleaner.responses, cleaner.emptied, set(cleaner.changed.values())), (2, 0, {1}))

    def test_what_is_left_empty_is_counted(self):
        cleaner = Cleaner()
        self.assertEqual([cleaner.clean("(laughs)"), cleaner.clean("")], ["", ""])
        self.assertEqual((cleaner.emptied, cleaner.changed["parentheses"]), (1, 1))


class Command(FolderTest):
    LINES = [
        {
            "id": "a",
            "prompt": "x",
            "responses": [
                {"index": 0, "text": "1. Hi (there).", "tokens": [5, 6], "logprob_nats": None},
                {"index": 1, "text": "Well?"},
            ],
            "method": "list",
            "short_by": 3,
        },
        {"id": "b", "prompt": "y", "responses": []},
    ]

    def setUp(self):
        super().setUp()
        self.input = write_lines(self.folder / "in.jsonl", self.LINES)
        self.output = self.folder / "out.jsonl"

    def test_texts_are_replaced_and_nothing_else(self):
        done = run("postprocess", self.input, "-o", self.output)
        self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
        cleaned = [json.loads(line) for line in self.output.read_text().splitlines()]
        expected = json.loads(json.dumps(self.LINES))
        expected[0]["responses"][0]["text"] = "Hi ."
        self.assertEqual(cleaned, expected)
        self.assertRegex(done.stderr, r"list_label +1\n")
        self.assertRegex(done.stderr, r"stars +0\n")
        self.assertRegex(done.stderr, r"responses +2\n")
        self.assertEqual(sorted(p.name for p in self.folder.iterdir()), ["in.jsonl", "out.jsonl"])

    def refused(self, code, words, *arguments):
        done = run("postprocess", *arguments)
        self.assertEqual((done.returncode, done.stderr.count("\n")), (code, 1), done.stderr)
        self.assertIn(words, done.stderr)
        self.assertEqual(list(self.folder.glob("out.jsonl*")), [])

    def test_bad_input(self):
        empty = write_lines(self.folder / "empty.jsonl", [])
        self.refused(65, "holds no responses", empty, "-o", self.output)
        for line, words in (
            ("[1]", "a list"),
            ("{", "not valid JSON"),
            ('{"responses": 3}', "must hold a list"),
            ('{"responses": [3]}', "responses[0] holds a number"),
            ('{"responses": [{"tokens": []}]}', "key 'text' is missing"),
        ):
            bad = write_lines(self.folder / "bad.jsonl", [self.LINES[0], line])
            self.refused(65, words, bad, "-o", self.output)
            self.refused(65, "bad.jsonl:2", bad, "-o", self.output)
        self.refused(66, "cannot be read", self.folder / "absent.jsonl", "-o", self.output)
        self.refused(64, "is the input", self.input, "-o", self.input)
        self.refused(64, "a name is needed", self.input, "-o", self.output, "--speaker", "")
        self.refused(73, "create it first", self.input, "-o", self.folder / "absent" / "out.jsonl")

    def test_an_output_that_exists(self):
        self.output.write_text("mine")
        done = run("postprocess", self.input, "-o", self.output)
        self.assertEqual((done.returncode, "out.jsonl: exists" in done.stderr), (73, True), done.stderr)
        self.assertEqual(self.output.read_text(), "mine")
        self.assertEqual(run("postprocess", self.input, "-o", self.output, "--force").returncode, 0)
        self.assertNotEqual(self.output.read_text(), "mine")


if __name__ == "__main__":
    unittest.main()

"""What people leave in their records without meaning it: blank turns, line ends, equal replies."""

import unittest

from plural_text.common.errors import BadData
from plural_text.prepare.formats import InputFiles, Record
from plural_text.prepare.replies import Replies
from text.support import FolderTest, byte_level_folder, read_corpus, write_lines


def record(*responses, turns=("Hello!",), where="d.jsonl:1", kinds=None) -> Record:
    return Record("", where, list(turns), list(responses) or None, kinds=kinds)


class Turns(FolderTest):
    def turns(self, context):
        file = write_lines(self.folder / "d.jsonl", [{"context": context, "candidates": ["a"]}])
        (found,) = InputFiles([str(file)], "dialogue", print)
        return found.turns, found.blank_turns

    def test_a_blank_line_is_nobodys_turn(self):
        for context, turns, blank in (
            ("One.\nTwo.", ["One.", "Two."], 0),
            ("One.\nTwo.\n", ["One.", "Two."], 1),
            ("\n\nOne.\n \t\nTwo.", ["One.", "Two."], 3),
            ("One.\r\nTwo.\r\n\r\n", ["One.", "Two."], 2),
            ("One. \n  Two.", ["One. ", "  Two."], 0),
            ("One.\u2028x\u0085y\nTwo\rx.", ["One.\u2028x\u0085y", "Two\rx."], 0),
        ):
            self.assertEqual(self.turns(context), (turns, blank), repr(context))

    def test_the_count_and_the_first_place_are_said(self):
        file = write_lines(
            self.folder / "d.jsonl",
            [{"context": c, "candidates": ["a", "b"]} for c in ("Hi.", "Hi.\n\nHo.\n", "Hi.\n")],
        )
        model = byte_level_folder(self.folder / "model")
        done = self.prepare(file, "--tokenizer", model, "--format", "dialogue", "--quiet")
        self.assertEqual(
            done.stderr,
            f"plural: warning: 3 blank turns in 2 records are left out, the first in {file}:2; speakers "
            "take turns without it\n",
        )


class Equal(unittest.TestCase):
    def tidy(self, replies, *records, source_format="dialogue"):
        found = list(replies.tidy(records, source_format))
        self.lines = []
        replies.warn(self.lines.append)
        return found

    def test_kept_with_one_warning(self):
        _, b, c = self.tidy(
            Replies(),
            record("x", "y"),
            record("x", " x", "y", "x\t", where="d.jsonl:2"),
            record("y", "y", where="d.jsonl:3"),
        )
        self.assertEqual((b.responses, c.responses), (["x", " x", "y", "x\t"], ["y", "y"]))
        (line,) = self.lines
        self.assertIn("3 replies are equal to an earlier one in 2 records, the first in d.jsonl:2;", line)
        self.assertIn("poexft raises and lowers the same tokens", line)

    def test_dropped_together_with_their_kinds(self):
        kinds = ["1", "2", "3", "4"]
        (found,) = self.tidy(Replies("drop"), record("x", "y", " x", "z", kinds=kinds))
        self.assertEqual((found.responses, found.kinds), (["x", "y", "z"], ["1", "2", "4"]))
        self.assertIn("left out", self.lines[0])

    def test_refused(self):
        with self.assertRaisesRegex(BadData, r"d.jsonl:7: reply 3 is equal to reply 2, 'y'; take one out"):
            self.tidy(Replies("refuse"), record("x", "y", "y ", "x", where="d.jsonl:7"))
        self.tidy(Replies("refuse"), record("x", "X", "x."))
        self.assertEqual(self.lines, [])

    def test_line_ends_behind_replies(self):
        (found,) = self.tidy(Replies(), record("x\n", "y\r\n\n", " z ", "v\nw"))
        self.assertEqual(found.responses, ["x", "y", " z ", "v\nw"])
        self.assertEqual(
            self.lines, ["line ends behind 2 replies in 1 record are left out, the first in d.jsonl:1"]
        )

    def test_targets_are_taken_as_they_are_written(self):
        (found,) = self.tidy(Replies("drop"), record("x\n", "x"), source_format="targets")
        self.assertEqual((found.responses, self.lines), (["x\n", "x"], []))

    def test_prompts_have_none(self):
        (found,) = self.tidy(Replies("refuse"), record())
        self.assertEqual((found.responses, self.lines), (None, []))


class Grouped(unittest.TestCase):
    def test_records_with_the_same_prompt_become_one(self):
        records = [
            record("a", kinds=["1"]),
            record("b", turns=["Bye!"], where="d.jsonl:2", kinds=["1"]),
            record("c", "a", where="d.jsonl:3", kinds=["2", "1"]),
        ]
        replies = Replies("drop", group_by_prompt=True)
        first, second = replies.tidy(records, "chat")
        self.assertEqual((first.responses, first.kinds, first.where), (["a", "c"], ["1", "2"], "d.jsonl:1"))
        self.assertEqual(second.responses, ["b"])
        self.assertEqual(replies.notes(), ["1 record joined an earlier one with the same prompt"])

    def test_not_unless_asked(self):
        replies = Replies()
        self.assertEqual(len(list(replies.tidy([record("a"), record("b")], "chat"))), 2)
        advice = "--group-by-prompt makes one group of all with the same prompt"
        self.assertEqual(replies.notes(), [f"every record has one response; {advice}"])
        replies = Replies(min_responses=2)
        self.assertEqual(list(replies.tidy([record("a"), record("b")], "chat")), [])
        self.assertIn(advice, replies.nothing_left())

    def test_no_advice_where_it_would_not_help(self):
        for records in ([record("a")], [record("a"), record("b", "c")], [record(), record()]):
            replies = Replies()
            self.assertEqual(len(list(replies.tidy(records, "chat"))), len(records))
            self.assertEqual(replies.notes(), [])


class Options(FolderTest):
    def test_on_the_command_line(self):
        model = byte_level_folder(self.folder / "model")
        lines = [
            {"context": "Hi.", "candidates": ["x", "y", "x"], "kinds": ["1", "2", "3"]},
            {"context": "Ho.", "candidates": ["x", "y"], "kinds": ["1", "2"]},
            {"context": "Hi.", "candidates": ["z"], "kinds": ["2"]},
        ]
        file = write_lines(self.folder / "d.jsonl", lines)
        usual = (file, "--tokenizer", model, "--format", "dialogue")
        self.prepare(*usual, "--duplicates", "drop", "--align", "kinds", "--group-by-prompt", "--quiet")
        attributes, groups, _ = read_corpus(self.folder / "corpus.h5")
        # The kind 3 of the reply that is dropped is no kind of the corpus.
        self.assertEqual((attributes["possibilities"], [len(g.responses) for g in groups]), (2, [3, 2]))
        file = write_lines(file, [{"context": "Hi.", "candidates": ["x", "y", "x"]}])
        done = self.prepare(*usual, "--duplicates", "refuse", output="x.h5", code=65)
        self.assertIn(f"{file}:1: reply 3", done.stderr)
        file = write_lines(self.folder / "t.jsonl", [{"request": "a", "targets": ["b"]}])
        for option in (["--duplicates", "drop"], ["--group-by-prompt"]):
            done = self.prepare(
                file, "--tokenizer", model, "--format", "targets", *option, output="x.h5", code=64
            )
            self.assertIn(f"{option[0]} has no effect on --format targets", done.stderr)


if __name__ == "__main__":
    unittest.main()

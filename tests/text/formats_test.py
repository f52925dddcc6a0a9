"""Input files: what is read, and that every mistake is named with its file, line and key."""

import unittest

from plural_text.common.errors import BadData, MissingInput
from plural_text.prepare import json_records
from plural_text.prepare.formats import InputFiles
from text.support import FolderTest, write_lines

GOOD = {"context": "Hello.\nHow are you?", "candidates": ["Fine.", "Well."]}


class Reading(FolderTest):
    def read(self, source_format, *files, **options):
        self.notes = []
        inputs = InputFiles([str(f) for f in files], source_format, self.notes.append, **options)
        records = list(inputs)
        self.assertEqual(inputs.bytes_read, inputs.total_bytes)
        return records

    def test_dialogue(self):
        file = write_lines(self.folder / "chat.jsonl", [GOOD, "", {**GOOD, "id": "mine"}])
        first, second = self.read("dialogue", file)
        self.assertEqual((first.id, first.where, second.id), ("chat:1", f"{file}:1", "mine"))
        self.assertEqual((first.turns, first.responses), (["Hello.", "How are you?"], ["Fine.", "Well."]))

    def test_prompts(self):
        file = write_lines(self.folder / "p.jsonl", [{"context": "a"}, {"context": "b", "candidates": []}])
        self.assertEqual([r.responses for r in self.read("dialogue", file)], [None, None])
        file = write_lines(self.folder / "p.jsonl", [GOOD, {"context": "b"}])
        self.assertEqual([r.responses for r in self.read("dialogue", file, prompts_only=True)], [None, None])

    def test_targets_from_a_folder_of_files(self):
        (self.folder / "b.json").write_text(
            '{"request": "Pick.", "response": "Sure: ", "targets": ["1"], "eos": false}'
        )
        (self.folder / "a.x.json").write_text(
            '\ufeff{"request": "Pick.",\n "response": [""], "targets": ["1", "2"], "weights": [1, 2.5]}',
            encoding="utf-8",
        )
        (self.folder / "readme.md").write_text("not data")
        first, second = self.read("targets", self.folder)
        self.assertEqual((first.id, first.weights, first.eos, first.prefix), ("a.x", [1.0, 2.5], True, ""))
        self.assertEqual((second.id, second.weights, second.eos, second.prefix), ("b", None, False, "Sure: "))

    def test_chat(self):
        messages = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
        file = write_lines(self.folder / "c.jsonl", [{"messages": messages, "responses": ["z"]}])
        (record,) = self.read("chat", file)
        self.assertEqual((record.turns, record.responses), (messages, ["z"]))

    def test_text(self):
        (self.folder / "a.txt").write_text("one\ntwo\n")
        write_lines(self.folder / "b.jsonl", [{"text": "three"}])
        self.assertEqual(
            [(r.id, r.turns) for r in self.read("text", self.folder)],
            [("a", ["one\ntwo\n"]), ("b:1", ["three"])],
        )

    def test_unknown_keys_are_named_once(self):
        file = write_lines(self.folder / "k.jsonl", [{**GOOD, "kinds": [1, 2], "topic": 1}] * 3)
        self.assertEqual(len(self.read("dialogue", file)), 3)
        self.assertEqual(len(self.notes), 2)
        self.assertIn("'kinds' is not used", self.notes[0])
        self.assertIn("unknown key 'topic'", self.notes[1])
        self.assertIn("candidates, context", self.notes[1])
        self.assertNotIn("did you mean", self.notes[1])
        self.notes.clear()
        file = write_lines(self.folder / "n.jsonl", [{**GOOD, "candidate": []}])
        self.read("dialogue", file)
        self.assertIn("did you mean 'candidates'?", self.notes[0])


class Refused(FolderTest):
    def refused(self, source_format, line, *words):
        """The second line is refused with file, line number and these words."""
        good = {
            "dialogue": GOOD,
            "targets": {"request": "r", "targets": ["t"]},
            "chat": {"messages": [{"role": "user", "content": "c"}], "responses": ["r"]},
            "text": {"text": "t"},
        }
        file = write_lines(self.folder / "bad.jsonl", [good[source_format], line])
        with self.assertRaises(BadData, msg=line) as caught:
            list(InputFiles([str(file)], source_format, lambda note: None))
        for word in (f"{file}:2: ", *words):
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_json(self):
        self.refused(
            "dialogue", '{"context": "a", "candidates": ["b"]', "not valid JSON at column", "delimiter"
        )
        self.refused("dialogue", "context", "not valid JSON at column 1")
        self.refused("dialogue", '["a"]', "holds a list, must hold an object")
        self.refused("dialogue", '{"context": "a", "context": "b"}', "'context' stands twice")
        self.refused("dialogue", '{"context": ' + "[" * 100000, "nested too deeply")
        self.refused("dialogue", '{"context": ' + "1" * 5000 + "}", "not valid JSON")
        self.refused(
            "targets", '{"request": "a", "targets": ["b"], "weights": [NaN]}', "NaN is not a JSON number"
        )
        self.refused("dialogue", '{"context": "a\\ud800"}', "surrogate")

    def test_not_utf8(self):
        file = self.folder / "bad.jsonl"
        file.write_bytes(b'{"context": "a"}\n{"context": "\xff"}\n')
        with self.assertRaisesRegex(BadData, r"bad.jsonl:2: not UTF-8 at byte 13"):
            list(InputFiles([str(file)], "dialogue", print))

    def test_dialogue(self):
        self.refused("dialogue", {"candidates": ["a"]}, "key 'context' is missing", "found 'candidates'")
        self.refused("dialogue", {"context": 3, "candidates": ["a"]}, "context is a number, must be a text")
        self.refused("dialogue", {"context": " ", "candidates": ["a"]}, "context is empty")
        self.refused(
            "dialogue", {"context": "a", "candidates": "b"}, "'candidates' holds a text, must hold a list"
        )
        self.refused("dialogue", {"context": "a", "candidates": ["b", None]}, "candidates[1] is a null")
        self.refused("dialogue", {"context": "a", "candidates": ["b", "\n"]}, "candidates[1] is empty")
        self.refused("dialogue", {"context": "a", "candidates": ["b"], "id": 7}, "id is a number")
        self.refused(
            "dialogue", {"context": "a", "candidates": ["b"], "id": "i" * 4097}, "id has 4,097 bytes"
        )
        self.refused("dialogue", {"context": "a"}, "has no responses", "bad.jsonl:1 has", "--prompts-only")

    def test_targets(self):
        good = {"request": "a", "targets": ["b", "c"]}
        self.refused("targets", {**good, "response": ["x", "y"]}, "'response' holds 2 prefixes, exactly one")
        self.refused("targets", {**good, "response": []}, "'response' holds 0 prefixes")
        self.refused("targets", {**good, "response": 1}, "response is a number")
        self.refused("targets", {**good, "eos": 1}, "'eos' holds a number", "true or false")
        self.refused("targets", {**good, "weights": [1]}, "'weights' holds 1", "each of the 2 targets")
        self.refused("targets", {**good, "weights": 1}, "'weights' holds a number")
        self.refused("targets", {**good, "weights": [1, True]}, "weights[1] is a true/false")
        self.refused("targets", {**good, "weights": [1, -1]}, "weights[1] is -1", "not negative")
        self.refused("targets", '{"request": "a", "targets": ["b"], "weights": [1e999]}', "weights[0] is inf")
        self.refused("targets", {**good, "weights": [0, 0]}, "above 0")

    def test_chat(self):
        user = {"role": "user", "content": "a"}
        self.refused("chat", {"messages": []}, "'messages' must hold a list")
        self.refused("chat", {"messages": [{"role": "user"}]}, "messages[0] must be an object with exactly")
        self.refused(
            "chat", {"messages": [{"role": "tool", "content": "a"}]}, "'tool'", "system, user, assistant"
        )
        self.refused(
            "chat", {"messages": [{"role": "user", "content": 1}]}, "messages[0].content is a number"
        )
        self.refused(
            "chat",
            {"messages": [user, {"role": "assistant", "content": "b"}], "responses": ["c"]},
            "must be the user's",
        )

    def test_one_record_too_large(self):
        limit, json_records.MAX_RECORD_BYTES = json_records.MAX_RECORD_BYTES, 1 << 20
        self.addCleanup(setattr, json_records, "MAX_RECORD_BYTES", limit)
        self.refused("text", {"text": "a" * (1 << 20)}, "more than 1 MiB")
        (self.folder / "a.txt").write_text("a" * ((1 << 20) + 1))
        with self.assertRaisesRegex(BadData, "a.txt: one record of more than 1 MiB"):
            list(InputFiles([str(self.folder / "a.txt")], "text", print))

    def test_files(self):
        for kind, name, words in (
            (MissingInput, "absent.jsonl", "not found"),
            (MissingInput, "", "looked for .json"),
            (BadData, "table.xlsx", "reads .json, .jsonl, .ndjson"),
        ):
            (self.folder / "table.xlsx").write_text("a,b")
            with self.assertRaisesRegex(kind, words):
                InputFiles([str(self.folder / name)], "dialogue", print)
        (self.folder / "a.json").write_text('{\n"context": "a",\n}')
        with self.assertRaisesRegex(BadData, "a.json: not valid JSON at line 3 column 1"):
            list(InputFiles([str(self.folder / "a.json")], "dialogue", print))
        (self.folder / "a.txt").write_text(" \n")
        with self.assertRaisesRegex(BadData, "holds no text"):
            list(InputFiles([str(self.folder / "a.txt")], "text", print))


if __name__ == "__main__":
    unittest.main()

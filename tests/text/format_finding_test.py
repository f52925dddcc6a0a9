"""The format of an input found by its first record, names of formats and columns, tables of texts."""

import argparse
import unittest

import pyarrow
import pyarrow.parquet

from plural_text.common.errors import BadData
from plural_text.prepare.format_finding import find_format, named_format, parse_columns
from plural_text.prepare.formats import InputFiles
from text.support import FolderTest, byte_level_folder, read_corpus, run, write_lines

USER, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}


class Finding(FolderTest):
    def found(self, record, columns=None, name="d.jsonl"):
        file = write_lines(self.folder / name, [record, record])
        form = find_format([str(file)], columns or {})
        self.assertTrue(form.found.startswith(f"{file}:1 has "), form.found)
        return form.name, form.found.partition(" has ")[2]

    def test_by_keys(self):
        for record, name, words in (
            ({"context": "a", "candidates": ["b"]}, "dialogue", "'context' and 'candidates'"),
            ({"context": "a"}, "dialogue", "'context'"),
            (
                {"id": "x", "request": "a", "response": "", "targets": ["b"]},
                "targets",
                "'request' and 'targets'",
            ),
            ({"messages": [USER], "responses": ["b"]}, "chat", "messages with responses"),
            ({"messages": [USER, REPLY]}, "chat", "conversations that end with the assistant"),
            ({"conversations": []}, "chat", "ShareGPT conversations"),
            ({"instruction": "a", "input": "", "output": "b"}, "chat", "Alpaca records"),
            ({"prompt": "a", "completion": "b"}, "chat", "prompts with a completion"),
            ({"chosen": [USER, REPLY], "rejected": []}, "chat", "conversations with a chosen answer"),
            ({"text": "a", "label": 1}, "text", "'text'"),
            # Others' own meaning of our words.
            ({"instruction": "a", "context": "b", "response": "c"}, "chat", "Alpaca records"),
            ({"prompt": "a", "completion": "b", "text": "c"}, "chat", "prompts with a completion"),
        ):
            with self.subTest(record=record):
                self.assertEqual(self.found(record)[0], name)
                self.assertIn(words, self.found(record)[1])

    def test_by_none(self):
        for record in ({"context": "a", "question": "b", "answers": {}}, {"question": "a"}, {}):
            with self.assertRaisesRegex(BadData, r"d.jsonl:1: no format has the keys .*--columns"):
                self.found(record)
        with self.assertRaisesRegex(BadData, "d.jsonl:1: has no 'quest', which --columns names"):
            self.found({"question": "a"}, {"quest": "prompt"})
        with self.assertRaisesRegex(BadData, "d.jsonl:1: not valid JSON"):
            self.found("{")

    def test_by_columns(self):
        columns = {"question": "prompt", "answer": "completion"}
        self.assertEqual(self.found({"question": "a", "answer": "b"}, columns)[0], "chat")

    def test_documents(self):
        (self.folder / "a.txt").write_text("A text.")
        self.assertEqual(find_format([str(self.folder)], {}).name, "text")
        write_lines(self.folder / "b.jsonl", [{"context": "a"}])
        self.assertEqual(find_format([str(self.folder)], {}).name, "dialogue", "a README.txt beside data")


class Names(unittest.TestCase):
    def test_formats(self):
        self.assertEqual((named_format("chat").name, named_format("chat").shape), ("chat", ""))
        self.assertEqual((named_format("alpaca").name, named_format("alpaca").shape), ("chat", "instruction"))
        for text, words in (
            ("csv", "kind of file"),
            ("Parquet", "kind of file"),
            ("chats", "invalid choice"),
        ):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, words):
                named_format(text)

    def test_columns(self):
        self.assertEqual(parse_columns("q=prompt,a=completion"), {"q": "prompt", "a": "completion"})
        for text in ("", "q", "q=", "=p", "q=p=r", "q=p,q=r", "q=p,r=p", "q=p,"):
            with self.assertRaises(argparse.ArgumentTypeError, msg=text):
                parse_columns(text)


class Tables(FolderTest):
    def read(self, text, name="d.csv", **options):
        content = text if isinstance(text, bytes) else text.encode()
        (self.folder / name).write_bytes(content)
        inputs = InputFiles([str(self.folder / name)], "chat", lambda line: None, **options)
        found = [(r.turns[-1]["content"], r.responses, r.id) for r in inputs]
        self.assertEqual(inputs.bytes_read, len(content))
        return found

    def refused(self, text, words, name="d.csv", **options):
        with self.assertRaisesRegex(BadData, words):
            self.read(text, name, **options)

    def test_cells(self):
        expected = [("a", ['b, "c"\nd'], "d:1"), ("e", ["f"], "d:3")]
        self.assertEqual(self.read('prompt,completion\na,"b, ""c""\nd"\n,\ne,f\n'), expected)
        self.assertEqual(self.read("\ufeffprompt;completion\r\na;b\r\n"), [("a", ["b"], "d:1")])
        self.assertEqual(self.read("prompt\tcompletion\na,x\tb;y\n", "d.tsv"), [("a,x", ["b;y"], "d:1")])
        # An empty cell is a key that is not there.
        self.assertEqual(self.read("instruction,input,output\na,,b\n"), [("a", ["b"], "d:1")])

    def test_no_tables(self):
        self.refused("prompt,completion\na,b,c\n", r"d.csv row 1: has 3 cells, the header 2")
        self.refused("prompt,prompt\na,b\n", "'prompt' twice")
        self.refused("prompt,\na,b\n", "an empty name")
        self.refused('prompt,completion\na,"b\n', "row 1: not a table")
        self.refused(b"prompt,completion\na,\xe9\n", "row 1: not UTF-8")
        self.refused("prompt,completion\na,\n", "row 1: key 'completion' is missing")
        self.assertEqual(self.read(""), [])

    def test_own_names(self):
        columns = {"q": "prompt", "a": "completion"}
        self.assertEqual(self.read("q,a\nx,y\n", columns=columns), [("x", ["y"], "d:1")])
        self.refused("q,a,prompt\nx,y,z\n", "key 'prompt' is there already", columns=columns)
        self.refused("prompt,completion\nx,y\n", "no record has the key 'a'", columns=columns)

    def test_a_shape_that_is_named(self):
        self.refused("prompt,completion\nx,y\n", "'instruction' is missing", shape="instruction")
        self.assertEqual(len(self.read("instruction,output\nx,y\n", shape="instruction")), 1)


class Hub(FolderTest):
    """A data set as the Hub has it: tables in a folder `data`, a file or more for each split."""

    def write(self, *names):
        (self.folder / "hub" / "data").mkdir(parents=True, exist_ok=True)
        (self.folder / "hub" / "README.md").write_text("---\n")
        for name in names:
            rows = pyarrow.Table.from_pylist([{"prompt": f"{name} a", "completion": "b"}])
            pyarrow.parquet.write_table(rows, self.folder / "hub" / "data" / name)
        inputs = InputFiles([str(self.folder / "hub")], "chat", lambda line: None)
        return [r.turns[0]["content"] for r in inputs]

    def test_splits(self):
        shards = [f"train-0000{i}-of-00002.parquet" for i in range(2)]
        self.assertEqual(self.write(*shards), [f"{name} a" for name in shards])
        with self.assertRaisesRegex(BadData, r"holds the splits test, train; .*data/train-\*.parquet"):
            self.write("test-00000-of-00001.parquet")


class Command(FolderTest):
    def setUp(self):
        super().setUp()
        self.model = byte_level_folder(self.folder / "model")

    def test_the_line(self):
        file = write_lines(self.folder / "d.jsonl", [{"context": "a", "candidates": ["b", "c"]}])
        done = self.prepare(file, "--tokenizer", self.model)
        self.assertIn(f"plural: format dialogue: {file}:1 has 'context' and 'candidates'\n", done.stderr)
        named = self.prepare(file, "--tokenizer", self.model, "--format", "dialogue", output="named.h5")
        self.assertNotIn("format dialogue", named.stderr)
        found, named = (self.folder / name for name in ("corpus.h5", "named.h5"))
        self.assertEqual(found.read_bytes(), named.read_bytes())
        quiet = self.prepare(file, "--tokenizer", self.model, "--quiet")
        self.assertEqual(quiet.stderr, "")

    def test_prompts_with_too_few_replies(self):
        replies = [["a", "b", "c"], ["a"], ["a", "b", "b"], ["a", "b", "c", "d"]]
        records = [{"id": f"p{i}", "context": "x", "candidates": r} for i, r in enumerate(replies)]
        file = write_lines(self.folder / "d.jsonl", records)
        options = ("--tokenizer", self.model, "--min-responses", "3")
        done = self.prepare(file, *options)
        self.assertIn("1 prompt with fewer than 3 responses left out: p1 (1)\n", done.stderr)
        self.assertIn("10, 3 to 4 per group", done.stdout)
        done = self.prepare(file, *options, "--duplicates", "drop")
        self.assertIn("2 prompts with fewer than 3 responses left out: p1 (1), p2 (2)\n", done.stderr)
        self.assertEqual([g.id for g in read_corpus(self.folder / "corpus.h5")[1]], ["p0", "p3"])
        (self.folder / "corpus.h5").unlink()
        (self.folder / "corpus.h5.sha256").unlink()
        done = self.prepare(file, "--tokenizer", self.model, "--min-responses", "5", "--quiet", code=65)
        self.assertIn("nothing is left: 4 prompts with fewer than 5 responses left out: p0 (3)", done.stderr)
        done = self.prepare(file, *options, "--format", "dialogue", "--prompts-only", code=64)
        self.assertIn("--min-responses has no effect with --prompts-only", done.stderr)

    def test_many_are_named_in_part(self):
        records = [{"id": f"p{i}", "request": "x", "targets": ["a"]} for i in range(12)]
        file = write_lines(self.folder / "d.jsonl", [*records, {"request": "x", "targets": ["a", "b"]}])
        done = self.prepare(file, "--tokenizer", self.model, "--min-responses", "2")
        self.assertIn("p9 (1) and 2 more\n", done.stderr)

    def test_named_in_the_help(self):
        text = run("prepare", "--help").stdout
        for name in ("dialogue", "targets", "chat", "messages", "sharegpt", "alpaca", "completion", "text"):
            self.assertRegex(text, rf"(?m)^  {name} +\S")
        self.assertLessEqual(max(map(len, text.splitlines())), 110)


if __name__ == "__main__":
    unittest.main()

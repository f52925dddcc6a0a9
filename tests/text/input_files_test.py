"""Files as people have them: JSON arrays, compression, tables, and files that are not what they seem."""

import gzip
import io
import json
import os
import unittest
from unittest import mock

import pyarrow
import pyarrow.parquet

from plural_text.common.errors import BadData, MissingInput
from plural_text.prepare import json_records
from plural_text.prepare.format_finding import find_format
from plural_text.prepare.formats import InputFiles
from plural_text.prepare.json_records import JsonArray, Mistake
from text.support import FolderTest

RECORDS = [
    {"messages": [{"role": "user", "content": f"Hi {n} \u2603 [{{"}], "responses": ["a]", 'b"}']}
    for n in range(3)
]
LINES = "".join(json.dumps(record) + "\n" for record in RECORDS).encode()


class Reading(FolderTest):
    def read(self, name, content=None, source_format="chat"):
        if content is not None:
            (self.folder / name).write_bytes(content)
        self.inputs = InputFiles([str(self.folder / name)], source_format, print)
        records = list(self.inputs)
        self.assertEqual(self.inputs.bytes_read, self.inputs.total_bytes)
        return records

    def refused(self, name, content, *words, kind=BadData):
        with self.assertRaises(kind) as caught:
            self.read(name, content)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))


class Layouts(Reading):
    def same(self, name, content):
        records = self.read(name, content)
        self.assertEqual([r.turns for r in records], [r["messages"] for r in RECORDS], name)
        self.assertEqual([r.responses for r in records], [r["responses"] for r in RECORDS], name)
        self.assertEqual([r.id for r in records], [f"d:{n}" for n in (1, 2, 3)], name)
        return records

    def test_the_same_records_in_every_layout(self):
        array = json.dumps(RECORDS, ensure_ascii=False).encode()
        self.same("d.jsonl", LINES)
        self.same("d.ndjson", LINES)
        self.same("d.json", LINES)
        self.assertEqual(self.same("d.json", array)[1].where, f"{self.folder / 'd.json'} item 2")
        self.same("d.json", b"\xef\xbb\xbf \r\n" + json.dumps(RECORDS, indent=2).encode() + b"\n\n")
        for name, content in (("d.jsonl.gz", LINES), ("d.json.gz", LINES), ("d.json.gz", array)):
            self.same(name, gzip.compress(content))
        self.same("d.jsonl", gzip.compress(LINES))  # compressed, whatever the name says
        self.same("d.jsonl.gz", LINES)  # unpacked on the way
        self.same("d.jsonl.gz", gzip.compress(LINES[:50]) + gzip.compress(LINES[50:]))

    def test_one_record_of_a_json_file_is_named_by_the_file(self):
        for content in (
            json.dumps(RECORDS[0]),
            json.dumps(RECORDS[0]) + "\n\n",
            json.dumps(RECORDS[0], indent=1),
        ):
            (record,) = self.read("d.json", content.encode())
            self.assertEqual((record.id, record.where), ("d", str(self.folder / "d.json")))

    def test_no_records(self):
        self.assertEqual(self.read("d.json", b"[ ]"), [])
        self.assertEqual(self.read("d.jsonl.gz", gzip.compress(b"")), [])

    def test_compressed_text_and_a_folder_of_all(self):
        (self.folder / "a.txt.gz").write_bytes(gzip.compress("Grüße.".encode()))
        (self.folder / "b.json").write_text('[{"text": "Two."}]')
        (self.folder / "c.md").write_text("no data")
        records = self.read("", source_format="text")
        self.assertEqual([(r.id, r.turns) for r in records], [("a", ["Grüße."]), ("b:1", ["Two."])])

    def test_folders_of_a_folder(self):
        for name, targets in (("b/two", ["x"]), ("a/one", ["y"]), ("a/c/deeper", ["z"])):
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / f"{name}.json").write_text(json.dumps({"request": "r", "targets": targets}))
        (self.folder / "b/lines.jsonl").write_text('{"request": "r", "targets": ["w"]}\n')
        (self.folder / "README.md").write_text("no data")
        records = self.read("", source_format="targets")
        self.assertEqual([r.id for r in records], ["a/one", "b/lines:1", "b/two"])
        self.assertEqual(records[0].responses, ["y"])
        self.assertEqual(find_format([str(self.folder)], {}).name, "targets")
        # A data set's folders may be its splits; and a file of the folder's own is all that it holds.
        self.refused("", None, "no input in this folder", f"such as {self.folder / 'a'}", kind=MissingInput)
        (self.folder / "mine.jsonl").write_text('{"request": "r", "targets": ["v"]}\n')
        self.assertEqual([r.id for r in self.read("", source_format="targets")], ["mine:1"])

    def test_records_without_responses_among_others(self):
        lines = b'{"request": "r", "targets": ["v"]}\n{"request": "s"}\n'
        with self.assertRaisesRegex(BadData, "d.jsonl:2: has no responses.*--min-responses 1"):
            self.read("d.jsonl", lines, "targets")
        inputs = InputFiles([str(self.folder / "d.jsonl")], "targets", print)
        inputs.may_lack_responses = True
        self.assertEqual([r.responses for r in inputs], [["v"], None])

    def test_a_name_that_is_no_text(self):
        name = os.fsdecode(b"L\xe4ufe.jsonl")
        (record, *_) = self.read(name, LINES)
        self.assertEqual(record.id, r"L\xe4ufe:1")

    def test_an_array_is_read_in_pieces(self):
        objects = [{"a": "x" * n, "b": [{"c": '"]}\\'}], "d": "\U0001f600"} for n in range(60)]
        for ascii_only in (True, False):
            text = json.dumps(objects, ensure_ascii=ascii_only, indent=1)
            for chunk in (1, 7, 64, 1 << 20):
                with mock.patch.object(json_records, "_CHUNK", chunk):
                    found = [json.loads(item) for item in JsonArray(io.StringIO(text))]
                self.assertEqual(found, objects, chunk)

    def test_memory_is_bounded(self):
        with (
            mock.patch.object(json_records, "MAX_RECORD_BYTES", 1000),
            mock.patch.object(json_records, "_CHUNK", 100),
        ):
            self.assertEqual(len(list(JsonArray(io.StringIO(json.dumps([{"a": "x" * 500}] * 20))))), 20)
            with self.assertRaisesRegex(Mistake, "more than 0 MiB; split it"):
                list(JsonArray(io.StringIO(json.dumps([{"a": "x" * 5000}]))))


class Refused(Reading):
    def test_arrays(self):
        one = json.dumps(RECORDS[0])
        self.refused(
            "d.json", f"[{one}, {one}".encode(), "d.json item 2: the file ends before its array does"
        )
        self.refused("d.json", f"[{one}, {one[:-9]}".encode(), "item 2: the file ends before its array does")
        self.refused("d.json", f"[{one} {one}]".encode(), "item 1: ", "must be followed by , or ], found '{'")
        self.refused("d.json", f"[{one}, 3]".encode(), "item 2: the array must hold objects")
        self.refused("d.json", f"[{one}] x".encode(), "text follows the array's end")
        self.refused(
            "d.json", f"[{one}, {{'a': 3, {' ' * 50}}}]".encode(), "item 2: not valid JSON at character 2"
        )
        self.refused(
            "d.json", f'[{one}, {{"messages": 3}}]'.encode(), "item 2: key 'messages' must hold a list"
        )
        self.refused("d.json", f'[{one}, {{"id": "a", "id": "b"}}]'.encode(), "item 2: key 'id' stands twice")
        self.refused("d.json", b'[{"context": "\xff"}]', "item 1: not UTF-8")
        self.refused("d.json", b"[" + b'{"a":' * 100000, "JSON nested too deeply")

    def test_files_that_are_not_what_they_seem(self):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
        self.refused("d.jsonl", pointer, "d.jsonl: is a pointer of Git LFS", "git lfs pull")
        self.refused("d.json.gz", pointer, "is a pointer of Git LFS")
        for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
            self.refused("d.jsonl", LINES.decode().encode(encoding), "is UTF-16, must be UTF-8", "iconv")
        self.refused("d.json", b"PK\x03\x04....", "is a zip archive")
        self.refused("d.jsonl", b"\x28\xb5\x2f\xfd....", "compressed with zstd")
        self.refused("d.json", b"PAR1....", "let its name end with .parquet")
        self.refused("d.jsonl", b"\n<!DOCTYPE html>\n<html>", "is a web page")

    def test_formats_of_our_own_are_plain_lines(self):
        lines = b'{"context": "Hi.", "candidates": ["a"]}\n'
        for name, content, words in (
            ("d.json", b"[" + lines + b"]", "is a JSON array; --format dialogue reads plain JSON lines: jq"),
            ("d.json", lines * 2, "mv d.json d.jsonl"),
            ("d.jsonl.gz", gzip.compress(lines), "gunzip -c d.jsonl.gz > d.jsonl"),
            ("d.parquet", b"PAR1....PAR1", "is a table; --format dialogue"),
        ):
            with self.assertRaises(BadData) as caught:
                self.read(name, content, "dialogue")
            self.assertIn(words, str(caught.exception))
        self.assertEqual(len(self.read("d.json", lines, "dialogue")), 1)

    def test_damaged_compression(self):
        whole = gzip.compress(os.urandom(9).hex().encode() + LINES)
        self.refused("d.json.gz", whole[:-12], "d.json.gz: cannot be unpacked with gzip")
        broken = bytearray(gzip.compress(LINES))
        broken[-6] ^= 1
        self.refused("d.jsonl.gz", bytes(broken), "cannot be unpacked with gzip")

    def test_names(self):
        known = "reads .json, .jsonl, .ndjson and .gz of these, .parquet, .csv, .tsv"
        self.refused("d.xlsx", b"a", known)
        self.refused("d.csv.gz", b"a", "cannot tell what this file holds")


class Tables(Reading):
    def test_without_the_package(self):
        with mock.patch.dict("sys.modules", {"pyarrow": None}):
            self.refused(
                "d.parquet", b"PAR1....PAR1", "package pyarrow; install it with", "-m pip install pyarrow"
            )

    def test_folders(self):
        (self.folder / "dataset_dict.json").write_text('{"splits": ["train"]}')
        (self.folder / "train").mkdir()
        (self.folder / "train" / "state.json").write_text("{}")
        (self.folder / "train" / "dataset_info.json").write_text("{}")
        self.refused("", None, "holds the splits train; name one of them", str(self.folder / "train"))
        self.refused("train", None, "state.json: key '_data_files' must hold objects")
        (self.folder / "train" / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
        self.refused("train", None, "names d.arrow, which is not in the folder")

    def test_rows(self):
        last = {"messages": [{"role": "user", "content": "Last."}], "responses": ["c"], "id": "mine"}
        records = [*RECORDS, last]
        table = pyarrow.Table.from_pylist(
            records,
            schema=pyarrow.schema(
                {
                    "messages": pyarrow.list_(
                        pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.string()})
                    ),
                    "responses": pyarrow.list_(pyarrow.string()),
                    "id": pyarrow.string(),
                }
            ),
        )
        pyarrow.parquet.write_table(table, self.folder / "d.parquet")
        found = self.read("d.parquet")
        self.assertEqual([r.responses for r in found], [r["responses"] for r in records])
        self.assertEqual([r.id for r in found], ["d:1", "d:2", "d:3", "mine"])
        self.assertEqual(found[1].where, f"{self.folder / 'd.parquet'} row 2")
        saved = self.folder / "saved"
        saved.mkdir()
        with (
            pyarrow.OSFile(str(saved / "d.arrow"), "wb") as sink,
            pyarrow.ipc.new_stream(sink, table.schema) as out,
        ):
            out.write_table(table)
        (saved / "dataset_info.json").write_text("{}")
        (saved / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
        self.assertEqual(
            [(r.id, r.turns, r.responses) for r in self.read("saved")],
            [(r.id, r.turns, r.responses) for r in found],
        )
        self.refused("e.parquet", b"PAR1....PAR1", "e.parquet: cannot be read as a table")

    def test_a_folder_that_is_not_there(self):
        self.refused("absent", None, "not found", kind=MissingInput)


if __name__ == "__main__":
    unittest.main()

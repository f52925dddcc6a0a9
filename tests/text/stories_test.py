"""Stories of five sentences as dialogue records: which sentences are the context, ids, what is refused."""

import unittest

from plural_text.common.errors import BadData
from plural_text.prepare.format_finding import find_format, named_format
from plural_text.prepare.formats import InputFiles
from text.support import FolderTest, byte_level_folder, read_corpus

HEADER = "storyid,storytitle,sentence1,sentence2,sentence3,sentence4,sentence5\n"
BEGINNING = 'Tom went out.,"It rained,  hard.",He ran.,He fell.'
ROWS = (
    f"a1,A walk,{BEGINNING},He laughed.\n"
    f"a2,Another,{BEGINNING},He cried at home.\n"
    "b,Ann,Ann sat.,She read.,She slept.,She woke.,She left.\n"
)


class Stories(FolderTest):
    def read(self, content, sentences=4, name="roc.csv", **options):
        (self.folder / name).write_text(content, encoding="utf-8")
        inputs = InputFiles([str(self.folder / name)], "dialogue", print, shape="story", **options)
        inputs.story_sentences = sentences
        return list(inputs)

    def test_context_and_continuation(self):
        records = self.read(HEADER + ROWS)
        self.assertEqual([record.id for record in records], ["a1", "a2", "b"])
        self.assertEqual(records[0].turns, ["Tom went out. It rained, hard. He ran. He fell."])
        self.assertEqual(
            [record.responses[0] for record in records[:2]], ["He laughed.", "He cried at home."]
        )
        first = self.read(HEADER + ROWS, sentences=1)[0]
        self.assertEqual(first.turns, ["Tom went out."])
        self.assertEqual(first.responses, ["It rained, hard. He ran. He fell. He laughed."])
        self.assertIsNone(self.read(HEADER + ROWS, prompts_only=True)[0].responses)

    def test_own_names_and_no_ids(self):
        content = HEADER.replace("storyid,storytitle,", "").replace("sentence5", "end")
        (record,) = self.read(f"{content}A.,B.,C.,D.,E.\n", columns={"end": "sentence5"})
        self.assertEqual((record.id, record.turns, record.responses), ("roc:1", ["A. B. C. D."], ["E."]))

    def test_the_format_is_told_by_the_columns(self):
        (self.folder / "roc.csv").write_text(HEADER + ROWS)
        found = find_format([str(self.folder / "roc.csv")], {})
        self.assertEqual((found.name, found.shape), ("dialogue", "story"))
        self.assertEqual(named_format("story").shape, "story")

    def test_a_story_without_an_end_is_refused(self):
        with self.assertRaisesRegex(BadData, r"roc.csv row 1: key 'sentence5' is missing"):
            self.read(HEADER + f"a1,A walk,{BEGINNING},\n")
        with self.assertRaisesRegex(BadData, r"roc.csv row 1: sentence2 is empty"):
            self.read(HEADER + "a1,A walk,One.,  ,Three.,Four.,Five.\n")

    def test_one_to_many_by_the_same_beginning(self):
        source = self.folder / "roc.csv"
        source.write_text(HEADER + ROWS)
        model = byte_level_folder(self.folder / "model")
        done = self.prepare(source, "--tokenizer", model, "--group-by-prompt")
        self.assertIn("1 record joined an earlier one", done.stderr)
        attributes, groups, _ = read_corpus(self.folder / "corpus.h5")
        self.assertEqual([(group.id, len(group.responses)) for group in groups], [("a1", 2), ("b", 1)])
        self.assertEqual(
            (attributes["source_format"], attributes["template_name"]), ("dialogue", "plain-story")
        )
        refused = self.prepare(
            source, "--tokenizer", model, "--story-sentences", "5", output="other.h5", code=64
        )
        self.assertIn("choose from 1, 2, 3, 4", refused.stderr)
        other = self.folder / "d.jsonl"
        use = ("--tokenizer", model, "--format", "dialogue", "--story-sentences", "2")
        other.write_text('{"context": "a", "candidates": ["b"]}\n')
        refused = self.prepare(other, *use, output="other.h5", code=64)
        self.assertIn("is for --format story", refused.stderr)


if __name__ == "__main__":
    unittest.main()

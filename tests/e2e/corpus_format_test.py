"""The example writer of docs/corpus-format.md writes what the program reads."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLURAL = os.environ["PLURAL_BINARY"]


class CorpusFormatTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        text = (ROOT / "docs" / "corpus-format.md").read_text()
        (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        subprocess.run([sys.executable, "-c", example], cwd=self.folder, check=True)

    def inspect(self, *arguments):
        return subprocess.run(
            [PLURAL, "inspect", *arguments], cwd=self.folder, capture_output=True, text=True
        )

    def test_example_is_read_as_written(self):
        result = self.inspect("example.h5", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        first, second = map(json.loads, result.stdout.splitlines())
        self.assertEqual(
            first,
            {
                "id": "first",
                "prompt_tokens": [1, 2],
                "tails": {"0": [3], "1": [4, 3]},
                "responses": [
                    {"tokens": [5, 6, 0], "weight": 1.0, "unlikelihood_mask": [1, 0, 0]},
                    {"tokens": [7, 0], "weight": 1.0, "unlikelihood_mask": [1, 0]},
                ],
            },
        )
        self.assertEqual(second["id"], "second")
        self.assertEqual(second["responses"][0]["tokens"], [6, 0])

    def test_range_of_groups(self):
        result = self.inspect("example.h5", "--json", "--groups", "1:2")
        self.assertEqual([json.loads(line)["id"] for line in result.stdout.splitlines()], ["second"])
        for wrong in ("0:3", "2:2", "1:0", "x", "-1:1", "1"):
            result = self.inspect("example.h5", "--json", f"--groups={wrong}")
            self.assertEqual((result.returncode, result.stdout), (64, ""), wrong)
            self.assertIn("--groups", result.stderr)

    def test_summary_decodes_and_marks(self):
        result = self.inspect("example.h5")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("<s>Hello", result.stdout)
        self.assertIn("[[ a]] b</s>", result.stdout)

    def test_damaged_corpus_is_bad_data(self):
        path = self.folder / "example.h5"
        path.write_bytes(path.read_bytes()[:-100])
        result = self.inspect("example.h5")
        self.assertEqual(result.returncode, 65)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)

    def test_missing_corpus_is_missing_input(self):
        self.assertEqual(self.inspect("nothing.h5").returncode, 66)


if __name__ == "__main__":
    unittest.main()

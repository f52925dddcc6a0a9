"""The README's "Your own data" and the page of choosing, typed as they stand.

The model is a tiny one in the Hub's cache, with the name and the shape of the one that is named there.
"""

import json
import re
import tempfile
import unittest
from pathlib import Path

import documented
from reader import MODEL, Reader


class ReadmeTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.reader = Reader(self.folder)
        self.model = self.reader.model

    def type(self, command):
        done = self.reader.type(command)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done

    def test_your_own_data(self):
        (shown,), typed = documented.blocks("README.md", "Your own data")
        self.reader.write_chats("my.jsonl", json.loads(shown))  # more of what is shown
        download, *typed = typed
        self.assertEqual(download, f".venv/bin/hf download {MODEL}")
        self.assertEqual(len(typed), 5)
        for command in typed:
            done = self.type(command)
        adapter = self.folder / "runs/starter/adapter"
        self.assertTrue((adapter / "adapter_model.safetensors").is_file())
        # The last asks in the model's own chat format, with five different numbers.
        numbers = re.findall(r"(?m)^#(\d)  ", done.stdout)
        self.assertEqual(len(set(numbers)), 5, done.stdout)
        self.assertIn("possibility numbers 1 to 9", done.stderr)
        shown = self.type(f"{typed[-1]} --show-prompt -n 1").stderr
        self.assertIn("<|im_start|>user\\nAny plans for tonight?", shown)
        ends = json.loads((adapter / "generation_config.json").read_text())["eos_token_id"]
        self.assertEqual(ends, json.loads((self.model / "config.json").read_text())["eos_token_id"])

    def test_choosing_on_your_own_data(self):
        self.reader.write_chats("train.jsonl")
        self.reader.write_chats("held-out.jsonl")
        prepare, train, (evaluate,) = documented.blocks("docs/choosing.md", "Choosing on your own data")
        self.assertEqual((len(prepare), len(train)), (2, 2))
        for command in prepare + train:
            self.type(command)
        lines = (self.folder / "runs/lr-5e-5/metrics.jsonl").read_text().splitlines()
        (validation,) = (line for line in map(json.loads, lines) if line["event"] == "validation")
        self.assertIn("different_responses", validation)
        shown = self.type(evaluate.replace("MODEL", MODEL)).stdout
        self.assertIn("possibility_information_nats", shown)


if __name__ == "__main__":
    unittest.main()

"""The README's "Your own data" and the page of choosing, typed as they stand.

The model is a tiny one in the Hub's cache, with the name and the shape of the one that is named there.
"""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import hub_models

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = 6
REPLIES = ("A film", "A walk", "Reading", "Rest")


def blocks(page, heading):
    """The code blocks of a section: lists of commands, continued lines joined, without their comments."""
    section = (ROOT / page).read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    fenced = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    indented = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    texts = (block.replace("\\\n", " ") for block in fenced or indented)
    return [[re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines()] for text in texts]


class ReadmeTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("launch", "recipes"):
            (self.folder / name).symlink_to(ROOT / name)
        self.model = hub_models.qwen2_in_cache(self.folder / "hf/hub")

    def write_data(self, name, record):
        lines = []
        for day in range(PROMPTS):
            question = {"role": "user", "content": record["messages"][0]["content"] + f" Day {day}."}
            replies = [f"{reply} {day}." for reply in REPLIES]
            lines.append({**record, "messages": [question], "responses": replies})
        (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def type(self, command):
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env={**os.environ, "HF_HOME": str(self.folder / "hf"), "HF_HUB_CACHE": ""},
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done

    def test_your_own_data(self):
        (shown,), typed = blocks("README.md", "Your own data")
        self.write_data("my.jsonl", json.loads(shown))  # more of what is shown
        download, *typed = typed
        self.assertEqual(download, ".venv/bin/hf download Qwen/Qwen2.5-0.5B-Instruct")
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
        record = {"messages": [{"content": "Any plans for tonight?"}]}
        self.write_data("train.jsonl", record)
        self.write_data("held-out.jsonl", record)
        prepare, train, (evaluate,) = blocks("docs/choosing.md", "Choosing on your own data")
        self.assertEqual((len(prepare), len(train)), (2, 2))
        for command in prepare:
            self.type(command)
        self.type(train[0])
        lines = (self.folder / "runs/lr-5e-5/metrics.jsonl").read_text().splitlines()
        (validation,) = (line for line in map(json.loads, lines) if line["event"] == "validation")
        self.assertIn("different_responses", validation)
        shown = self.type(evaluate.replace("MODEL", "Qwen/Qwen2.5-0.5B-Instruct")).stdout
        self.assertIn("possibility_information_nats", shown)


if __name__ == "__main__":
    unittest.main()

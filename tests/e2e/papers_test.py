"""A table of a paper as a user makes it, with a tiny model and a tiny release of data."""

import json
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from hub_models import make_qwen2
from text.support import MISTRAL_V1

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes/reproduction"))

from words import write_lines


class PapersTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_qwen2(cls.folder / "model")
        for task, name, targets in (("numbers", "rng-0", "1 2 3"), ("baby-names", "train", "Ann Bob")):
            file = cls.folder / "data/prompts" / task / f"{name}.json"
            file.parent.mkdir(parents=True)
            file.write_text(
                json.dumps({"request": f"One of {task}.", "response": "", "targets": targets.split()})
            )

    def reproduce(self, *words):
        model, data = ("--model", self.folder / "model"), ("--data", self.folder / "data")
        small = ("--generate", "responses=9", "--generate", "max-new-tokens=2", "--set", "train.epochs=60")
        done = subprocess.run(
            [ROOT / "launch/reproduce", "diffuse-4", "out", *model, *data, *small, "--family", "mistral",
             "--seeds", "1", "--set", "optimizer.lr=0.02", "--set", "adapter.targets=[q_proj, lm_head]",
             *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def test_one_command_from_data_to_the_table(self):
        code, said, error = self.reproduce("--plan", "--tflops", "1")
        self.assertEqual(code, 0, error)
        self.assertRegex(said, r"numbers-s1 +waiting +60 ")
        self.assertRegex(said, r"at 1 TFLOP per second: \d+\.\d\d hours on one card")
        code, said, error = self.reproduce()
        self.assertIn(code, (0, 1), error)  # 1: a check of so small a model does not hold
        rows = json.loads((self.folder / "out/results.json").read_text())["rows"]
        self.assertEqual(set(rows), {"RNG, base", "RNG, tuned", "names, base", "names, tuned"})
        # Trained on three numbers, the model answers with them; a random one does not.
        self.assertGreater(rows["RNG, tuned"]["valid_rate"]["mean"], 0.9)
        self.assertEqual(rows["RNG, base"]["valid_rate"]["mean"], 0)
        self.assertEqual(rows["RNG, tuned"]["entropy_nats"]["published"], 2.3)
        self.assertIn("| names, natural", said)
        self.assertIn("Not as in the paper: train.epochs = 60, optimizer.lr = 0.02, ", said)
        self.assertIn("names, tuned (published)", (self.folder / "out/picture.html").read_text())
        # Started again, nothing is trained, answered or measured.
        made = {file: file.stat().st_mtime_ns for file in (self.folder / "out/runs").rglob("*.made.json")}
        self.assertEqual(len(made), 3 * 2 * 2)
        again, said_again, _ = self.reproduce()
        self.assertEqual((again, said_again.split("**")[1:]), (code, said.split("**")[1:]))
        self.assertEqual(made, {file: file.stat().st_mtime_ns for file in made})


class MiddleTest(unittest.TestCase):
    """A model that the project makes is taken as any other, with the real tokenizer."""

    def test_from_dialogues_to_the_model_of_a_table(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        lines = [
            {"context": f"Do you like {i}?\nYes.\nWhy?", "candidates": [f"It is {i + n}." for n in range(4)]}
            for i in range(600)
        ]
        released = (("train_dialogs_4k", lines), ("train_dialogs_1k", lines[-9:]), ("test_dialogs", lines))
        for name, some in released:
            write_lines(folder / f"data/{name}.jsonl", some)
        (folder / "tokenizer").mkdir()
        (folder / "tokenizer/tokenizer.model").write_bytes(MISTRAL_V1.read_bytes())

        def middle(*words):
            done = subprocess.run(
                [ROOT / "launch/reproduce", "middle", "out", "--model", "tokenizer", "--data", "data",
                 "--small", "--seeds", "3", *words],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
            )  # fmt: skip
            self.assertIn(done.returncode, (0, 1), done.stderr)  # 1: a check does not hold after one step
            return done.stdout

        self.assertRegex(
            middle("--plan", "--tflops", "1"),
            r"(?s)pretrained:.*run-s3 +waiting +1 .*answering:.*run-s3 +waiting +1 .* hours on one card",
        )
        self.assertRegex(middle(), r"and on answers to requests +\| \d")
        made = folder / "out/models/middle"
        self.assertEqual((made / "tokenizer.model").read_bytes(), MISTRAL_V1.read_bytes())
        self.assertEqual(json.loads((made / "config.json").read_text())["model_type"], "mistral")
        self.assertTrue((made / "model.safetensors").is_file())


class BeforeSetUp(unittest.TestCase):
    def test_a_wrong_command_line_ends_before_set_up(self):
        root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (root / "launch").mkdir()
        shutil.copy(ROOT / "launch/reproduce", root / "launch/reproduce")
        for name in ("recipes", "data"):
            (root / name).symlink_to(ROOT / name)
        (root / "launch/setup").write_text("#!/bin/sh\necho set-up\nexit 9\n")
        (root / "launch/setup").chmod(0o755)
        for words, code, said in (
            (["stories"], 64, "'stories' is no study"),
            (["story", "--seeds", "1,1"], 64, "'1,1' is not a list of different seeds"),
            (["story", "--plans"], 64, "unrecognized arguments: --plans"),
            (["first-paper", "--seeds", "1"], 64, "first-paper takes no further words"),
            (["own.yaml"], 66, "own.yaml: not there"),
            (["story", "--help"], 0, "usage: launch/reproduce NAME"),
            (["story", "--seeds", "1"], 9, "set-up"),
        ):
            done = subprocess.run(
                [root / "launch/reproduce", *words], cwd=root, capture_output=True, text=True
            )
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn(said, done.stdout + done.stderr)
            self.assertEqual("set-up" in done.stdout.split(), code == 9)


if __name__ == "__main__":
    unittest.main()

"""A table of a paper as a user makes it, with a tiny model and a tiny release of data."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from hub_models import make_qwen2

ROOT = Path(__file__).resolve().parents[2]


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


if __name__ == "__main__":
    unittest.main()

"""`profile=true`: a trace that a browser reads, a table whose shares are the whole step, nothing
otherwise."""

import json
import re
import tempfile
import unittest
from pathlib import Path

import training

PARTS = {"linear", "attention", "head", "lora", "norm", "optimizer", "waiting", "data", "step"}
ROW = re.compile(r"^  (\S.*?)\s+(\d+\.\d+)\s+(\d+\.\d+)\s+(\d+\.\d+)$")


class ProfileTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(6))
        training.write_recipe(
            self.folder / "r.yaml", "run", dtype="fp32", extra="train: {epochs: 3}"
        )  # 9 steps
        self.profile = self.folder / "runs/run/profile"

    def train(self, *overrides, ranks=1):
        result = training.train(self.folder, "r.yaml", *overrides, ranks=ranks)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout

    def check_rank(self, rank, steps):
        """A rank's two files; returns the table's rows."""
        trace = json.loads((self.profile / f"rank-{rank:05d}.json").read_text())
        scopes = [event for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
        self.assertEqual({event["name"] for event in scopes} - {"Iteration"}, PARTS)
        self.assertEqual(sum(event["name"] == "step" for event in scopes), steps)
        table = (self.profile / f"rank-{rank:05d}.txt").read_text()
        self.assertRegex(table, f"profile of {steps} steps")
        self.assertRegex(table, r"utilisation \d+\.\d %")
        rows = [ROW.match(line).groups() for line in table.splitlines() if ROW.match(line)]
        shares = {name: float(share) for name, share, _, _ in rows}
        milliseconds = {name: float(value) for name, _, value, _ in rows}
        self.assertEqual(len(rows), len(PARTS) + 1)  # "other" for "step", and the sum
        self.assertEqual(shares.pop("together"), 100.0)
        # Each of the nine shares is rounded to 0.01, each time to 0.01 ms.
        self.assertAlmostEqual(sum(shares.values()), 100.0, delta=9 * 0.005 + 1e-9)
        self.assertAlmostEqual(
            sum(milliseconds.values()), 2 * milliseconds["together"], delta=10 * 0.005 + 1e-9
        )
        for name in ("matrix multiplies of the linear layers", "attention", "LoRA", "optimizer", "other"):
            self.assertGreater(shares[name], 0.0, name)
        return milliseconds["together"]

    def test_trace_and_table(self):
        out = self.train("profile=true", "profile.after=2", "profile.steps=4")
        self.assertIn((self.profile / "rank-00000.txt").read_text().rstrip(), out)
        together = self.check_rank(0, 4)
        # The table's step is the metrics' step: the same four, timed around the same code.
        steps = [line for line in training.metrics(self.folder, "run") if line["event"] == "step"]
        mean = 1e3 * sum(line["seconds"] for line in steps[2:6]) / 4
        self.assertAlmostEqual(together, mean, delta=0.25 * mean)

    def test_one_trace_a_rank(self):
        self.train("profile=true", "profile.steps=2", ranks=2)
        for rank in (0, 1):
            self.check_rank(rank, 2)

    def test_a_run_that_is_over_sooner(self):
        out = self.train("profile=true", "profile.after=7", "profile.steps=100")
        self.assertIn("profile of 2 steps", out)
        self.check_rank(0, 2)

    def test_a_run_that_never_comes_there(self):
        out = self.train("profile=true", "profile.after=9")
        self.assertIn("the run ended before step 10 of this start; lower profile.after (9)", out)
        self.assertFalse(self.profile.exists())

    def test_nothing_unless_asked_for_and_the_same_numbers(self):
        out = self.train()
        self.assertNotIn("profile", out)
        self.assertFalse(self.profile.exists())
        losses = [line["loss"] for line in training.metrics(self.folder, "run") if line["event"] == "step"]
        self.train("profile=true", "name=again")
        again = [line["loss"] for line in training.metrics(self.folder, "again") if line["event"] == "step"]
        self.assertEqual(losses, again)

    def test_words(self):
        for override, message in (
            ("profile=maybe", "profile.enabled must be true or false"),
            ("profile.steps=5", "profile.steps has no effect without profile.enabled true"),
        ):
            result = training.train(self.folder, "r.yaml", override)
            self.assertEqual(result.returncode, 78, result.stderr)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()

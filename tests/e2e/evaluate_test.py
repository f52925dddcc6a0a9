"""`plural evaluate`: the base beside the tuned model, what numbers decide, the same on any number of
ranks."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import training


class EvaluateTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(5))
        training.write_corpus(cls.folder / "plain.h5", training.random_groups(3, possibilities=0))
        training.write_recipe(
            cls.folder / "base.yaml", "base", method="pretrain", adapter=False, extra="train: {steps: 1}"
        )
        training.write_recipe(cls.folder / "peft.yaml", "peft", extra="train: {steps: 6}")
        for recipe, overrides in (
            ("base.yaml", ()),
            ("peft.yaml", ("model.config=null", "model.path=runs/base/model")),
        ):
            result = training.train(cls.folder, recipe, *overrides)
            assert result.returncode == 0, result.stderr

    def evaluate(self, *arguments, ranks=1, corpus="corpus.h5"):
        launcher = [] if ranks == 1 else training.mpirun(ranks)
        return subprocess.run(
            [
                *launcher,
                training.PLURAL,
                "evaluate",
                "--model",
                "runs/base/model",
                "--corpus",
                corpus,
                "--dtype",
                "fp64",
                *arguments,
                "-o",
                "figures.json",
                "--force",
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def figures(self, *arguments, **options):
        result = self.evaluate(*arguments, **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads((self.folder / "figures.json").read_text())

    def test_base_and_tuned_side_by_side(self):
        adapter = ("--adapter", "runs/peft/adapter")
        both = self.figures(*adapter, "--compare-base", "--possibilities")["summary"]
        base, tuned = self.figures()["summary"], self.figures(*adapter)["summary"]
        self.assertAlmostEqual(both["base_perplexity"], base["perplexity"], places=9)
        self.assertAlmostEqual(both["perplexity"], tuned["perplexity"], places=9)
        self.assertAlmostEqual(
            both["perplexity_rise_share"], tuned["perplexity"] / base["perplexity"] - 1, places=9
        )
        self.assertGreater(both["kl_from_base_nats_per_token"], 1e-4)
        self.assertLess(both["possibility_information_nats"], both["possibility_mixture_entropy_nats"])
        for low, high in both["intervals_95"].values():
            self.assertLessEqual(low, high)

    def test_the_same_on_three_ranks(self):
        arguments = ("--adapter", "runs/peft/adapter", "--compare-base", "--possibilities")
        alone, together = self.figures(*arguments), self.figures(*arguments, ranks=3)
        self.assertEqual([group["id"] for group in alone["groups"]], [f"g{i}" for i in range(5)])
        for one, other in zip(
            [alone["summary"], *alone["groups"]], [together["summary"], *together["groups"]]
        ):
            self.assertEqual(one.keys(), other.keys())
            for key, value in one.items():
                if isinstance(value, float):  # matrix products may sum in an order that depends on addresses
                    self.assertAlmostEqual(value, other[key], delta=1e-11, msg=key)
                elif key != "intervals_95":
                    self.assertEqual(value, other[key], key)

    def test_what_cannot_be_measured_is_refused(self):
        for arguments, options, code, words in (
            (("--compare-base",), {}, 64, "--compare-base needs --adapter"),
            (("--possibilities",), {"corpus": "plain.h5"}, 65, "has no possibility numbers"),
        ):
            result = self.evaluate(*arguments, **options)
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(words, result.stderr)
            self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)


if __name__ == "__main__":
    unittest.main()

"""Figures while training: what a validation line says, that it changes nothing, and that ranks agree on
it."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import training


class ValidationTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(6))
        training.write_corpus(self.folder / "held-out.h5", training.random_groups(5, seed=1))

    def run_folder(self, name, *overrides, ranks=1, **recipe):
        training.write_recipe(
            self.folder / "r.yaml", name, extra="train: {steps: 4, groups_per_step: 3}", **recipe
        )
        result = training.train(self.folder, "r.yaml", *overrides, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return training.metrics(self.folder, name)

    def lines(self, run):
        return [line for line in run if line["event"] == "validation"]

    def test_same_figures_on_any_ranks_and_the_same_training(self):
        given = ("data.validation=held-out.h5", "validation.every_steps=2", "validation.max_new_tokens=8")
        without = self.run_folder("without")
        alone = self.run_folder("alone", *given)
        self.assertEqual(
            [line["loss"] for line in without if line["event"] == "step"],
            [line["loss"] for line in alone if line["event"] == "step"],
        )
        figures = self.lines(alone)
        self.assertEqual([line["step"] for line in figures], [2, 4])
        last = figures[-1]
        self.assertEqual(last["groups"], 5)
        self.assertEqual(last["responses"], 5)
        self.assertLessEqual(last["possibility_information_nats"], last["possibility_mixture_entropy_nats"])
        self.assertLessEqual(1.0, last["different_responses"])
        self.assertLessEqual(last["different_responses"], 5.0)
        for other in self.lines(self.run_folder("three", *given, ranks=3)):
            mine = next(line for line in figures if line["step"] == other["step"])
            for key in other.keys() - {"seconds"}:
                # Parameters of several ranks differ by the order of sums only (ranks_test.py).
                self.assertAlmostEqual(other[key], mine[key], delta=1e-9, msg=key)

    def test_loss_is_that_of_training_on_the_same_groups(self):
        # Numbers drawn once a group, and a learning rate that moves nothing: one step sees the whole corpus.
        training.write_recipe(self.folder / "r.yaml", "same", extra="train: {steps: 1, groups_per_step: 6}")
        result = training.train(
            self.folder,
            "r.yaml",
            "data.validation=corpus.h5",
            "group.assignment=fixed",
            "optimizer.lr=1.0e-300",
            "validation.responses=0",
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        run = training.metrics(self.folder, "same")
        step = next(line for line in run if line["event"] == "step")
        figures = self.lines(run)[-1]
        for key in ("loss", "likelihood", "unlikelihood"):  # fp64, two orders of one sum
            self.assertAlmostEqual(figures[key], step[key], delta=1e-12 * abs(step[key]), msg=key)

    def test_targets_as_evaluate_measures_them(self):
        training.write_corpus(
            self.folder / "targets.h5",
            training.random_groups(4, responses=7, possibilities=0, targets=True),
            "targets",
        )
        run = self.run_folder(
            "targets",
            "data.validation=targets.h5",
            method="distribution_matching",
            corpus="targets.h5",
            adapter=False,
        )
        figures = self.lines(run)[-1]
        self.assertNotIn("different_responses", figures)
        result = subprocess.run(
            [
                training.PLURAL,
                "evaluate",
                "--model",
                "runs/targets/model",
                "--corpus",
                "targets.h5",
                "--dtype",
                "fp64",
                "-o",
                "figures.json",
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        summary = json.loads((self.folder / "figures.json").read_text())["summary"]
        for key in ("kl_nats", "entropy_nats", "target_mass", "cross_entropy_nats"):
            self.assertAlmostEqual(summary[key], figures[key], delta=1e-10, msg=key)
            low, high = summary["intervals_95"][key]
            self.assertLessEqual(low, summary[key])
            self.assertLessEqual(summary[key], high)
        self.assertLessEqual(summary["expected_coverage_1000"], 7.0)

    def test_validation_corpus_is_checked_before_the_run(self):
        training.write_corpus(self.folder / "short.h5", training.random_groups(2, responses=3))
        training.write_recipe(self.folder / "r.yaml", "bad")
        for corpus, code, words in (
            ("short.h5", 65, "group.responses asks for 4"),
            ("absent.h5", 66, "absent.h5"),
        ):
            result = training.train(self.folder, "r.yaml", f"data.validation={corpus}")
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertIn(words, result.stderr)
            self.assertFalse((self.folder / "runs/bad").exists())


if __name__ == "__main__":
    unittest.main()

"""launch/reproduce distributions, much reduced: one seed, a model that has read a tenth, two parts of the
study."""

import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes" / "reproduction"))

import distribution_grammar
import distributions
import study
from distribution_grammar import DistributionGrammar

FEWER = {
    "PEAKED_DOCUMENTS": 50,
    "FLAT_DOCUMENTS_PER_ANSWER": 4,
    "RECORD_DOCUMENTS": 0,
    "NAME_PEAKED_DOCUMENTS": 50,
    "NAME_FLAT_DOCUMENTS_PER_ANSWER": 1,
    "UNRELATED_SENTENCES": 300,
}


class Grammar(unittest.TestCase):
    def setUp(self):
        self.grammar = DistributionGrammar(random.Random(1))

    def test_random_numbers_are_the_specified_ones(self):
        rng = self.grammar.rng
        self.assertEqual(rng.targets, [f"{{{n}}}" for n in range(1, 11)])
        kl = sum(0.1 * math.log(0.1 / p) for p in rng.peaked)
        self.assertAlmostEqual(kl, 0.645486, places=6)  # methods' vector for these ten probabilities
        self.assertAlmostEqual(sum(rng.peaked), 1.0, places=12)

    def test_binomial_target_has_its_entropy(self):
        weights = self.grammar.target_set(self.grammar.binomial)["weights"]
        self.assertAlmostEqual(-sum(w * math.log(w) for w in weights), 1.621929, places=6)

    def test_names_are_tuned_on_half(self):
        (names,) = self.grammar.tasks["names"]
        self.assertEqual((len(set(names.answers)), len(set(names.targets))), (400, 200))
        self.assertLessEqual(set(names.targets), set(names.answers))

    def test_biography_targets_leave_the_profession_out_and_are_not_closed(self):
        row = self.grammar.biography_target_set(random.Random(2))
        self.assertIs(row["eos"], False)
        self.assertEqual(len(set(row["targets"])), 210)
        counts = [
            sum(f"{{{gender}}}" in target for target in row["targets"])
            for gender in ("Female", "Male", "Non-binary")
        ]
        self.assertEqual(counts, [101, 102, 7])
        self.assertTrue(all(target.count("{") == 4 and target.endswith("}") for target in row["targets"]))

    def test_a_cue_alone_separates_peaked_from_flat(self):
        documents = self.grammar.model_documents(random.Random(3))
        for cue, most in (("usual", True), ("random", True), ("variety", False)):
            asked = self.grammar.ask(self.grammar.tasks["fruits"][0], cue) + "\n"
            answers = [text[len(asked) :] for text in documents if text.startswith(asked)]
            top = max(answers.count(answer) for answer in set(answers)) / len(answers)
            self.assertEqual(top > 0.5, most, cue)


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        words = ["distributions", cls.folder.name, "--seeds", "1", "--parts", "closed_sets"]
        with mock.patch.object(sys, "argv", words), mock.patch.multiple(distribution_grammar, **FEWER):
            options = study.arguments("distributions", "reduced", distributions.add_options)
            cls.study = study.Study("distributions", options)
            runs = distributions.Runs(study.Seed(cls.study, 1), cls.study.report)
            runs.closed_sets()
            runs.leave_one_out(["dates"])
        cls.report = cls.study.report

    def test_tuning_makes_random_numbers_uniform(self):
        self.assertGreater(self.report.mean("rng base", "kl_nats"), 0.4)
        self.assertLess(self.report.mean("rng tuned", "kl_nats"), 0.05)
        self.assertEqual(self.report.mean("rng tuned", "coverage_valid"), 10)
        self.assertGreater(self.report.mean("rng tuned", "entropy_nats"), 2.25)
        # The minimum of the loss is the target's entropy; 1e-5: fp32 sums of ten log-probabilities.
        self.assertGreater(self.report.mean("rng tuned", "loss_nats"), math.log(10) - 1e-5)

    def test_tuning_matches_a_distribution_that_is_not_uniform(self):
        self.assertLess(self.report.mean("binomial tuned", "kl_nats"), 0.05)

    def test_a_task_that_tuning_never_saw_flattens(self):
        gain = self.report.mean("dates ood", "entropy_nats") - self.report.mean("dates base", "entropy_nats")
        self.assertGreater(gain, 0.3)

    def test_finished_steps_are_kept(self):
        stamps = {
            path: path.stat().st_mtime_ns
            for path in pathlib.Path(self.folder.name).rglob("steps/train-*.json")
        }
        self.assertEqual(len(stamps), 4)
        with mock.patch.multiple(distribution_grammar, **FEWER):
            distributions.Runs(study.Seed(self.study, 1), self.study.report).closed_sets()
        self.assertEqual(stamps, {path: path.stat().st_mtime_ns for path in stamps})


class CommandLine(unittest.TestCase):
    def test_an_unknown_part_is_one_line(self):
        path = {"PYTHONPATH": f"{ROOT}/recipes/reproduction:{ROOT}/data/text"}
        done = subprocess.run(
            [sys.executable, ROOT / "recipes/reproduction/distributions.py", "--parts", "numbers"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, **path},
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn("no part 'numbers'; there are closed_sets, names,", done.stderr)


if __name__ == "__main__":
    unittest.main()

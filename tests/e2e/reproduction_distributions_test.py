"""Distribution matching, much reduced: one seed, a model that has read a tenth, some of the study's rows."""

import json
import math
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes" / "reproduction"))

from distribution_grammar import ALL, DistributionGrammar


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
        documents = self.grammar.model_documents(random.Random(3), ALL)
        for cue, most in (("usual", True), ("random", True), ("variety", False)):
            asked = self.grammar.ask(self.grammar.tasks["fruits"][0], cue) + "\n"
            answers = [text[len(asked) :] for text in documents if text.startswith(asked)]
            top = max(answers.count(answer) for answer in set(answers)) / len(answers)
            self.assertEqual(top > 0.5, most, cue)


def reduced_study():
    """distributions.yaml with the closed sets and one task that is left out."""
    study = yaml.safe_load((ROOT / "recipes/papers/distributions.yaml").read_text())
    stages = {stage["name"]: stage for stage in study["stages"]}
    sweep = stages["tuned"]["sweep"]
    kept = ("rng", "binomial", "without-dates")
    name_of = lambda one: pathlib.Path(one["data.train"]).stem
    sweep["include"] = [one for one in sweep["include"] if name_of(one) in kept]
    sweep["evaluate"] = [
        one for one in sweep["evaluate"] if one["name"] in ("answers", "training", "rng", "binomial", "dates")
    ]
    closed, _, left_out, *_ = study["tables"]
    left_out["rows"] = [row for row in left_out["rows"] if row["title"].startswith("dates")]
    study["tables"] = [closed, left_out]
    titles = [row["title"] for table in study["tables"] for row in table["rows"]]
    study["checks"] = [
        check for check in study["checks"] if set(check.get("rising", [check.get("row")])) <= set(titles)
    ]
    return {**study, "stages": [stages["base"], stages["tuned"]]}


class Study(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        (folder / "reduced.yaml").write_text(yaml.safe_dump(reduced_study()))
        words = [sys.executable, "-P", ROOT / "recipes/papers/reproduce.py", folder / "reduced.yaml"]
        path = os.pathsep.join(map(str, (ROOT / "recipes/papers", ROOT / "data/text")))
        cls.done = subprocess.run(
            [*words, folder / "out", "--small", "--seeds", "1"],
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "PYTHONPATH": path},
        )
        file = folder / "out/results.json"
        cls.results = json.loads(file.read_text()) if file.exists() else {}

    def mean(self, row, figure):
        self.assertTrue(self.results, self.done.stderr)
        return self.results["rows"][row][figure]["mean"]

    def test_tuning_makes_random_numbers_uniform(self):
        base, tuned = "numbers 1 to 10, base", "numbers 1 to 10, tuned"
        self.assertGreater(self.mean(base, "evaluate.kl_nats"), 0.4)
        self.assertLess(self.mean(tuned, "evaluate.kl_nats"), 0.05)
        self.assertEqual(self.mean(tuned, "program.coverage_valid"), 10)
        self.assertGreater(self.mean(tuned, "program.entropy_nats"), 2.25)
        # The minimum of the loss is the target's entropy; 1e-5: fp32 sums of ten log-probabilities.
        self.assertGreater(self.mean(tuned, "/training.program.loss_nats"), math.log(10) - 1e-5)
        self.assertEqual(self.results["rows"][base]["program.coverage"]["published"], 7)

    def test_tuning_matches_a_distribution_that_is_not_uniform(self):
        self.assertLess(self.mean("binomial B(10, 0.2), tuned", "evaluate.kl_nats"), 0.05)

    def test_a_task_that_tuning_never_saw_flattens(self):
        base, tuned = (self.mean(f"dates: {way}", "program.entropy_nats") for way in ("base", "tuned, OOD"))
        self.assertGreater(tuned - base, 0.3)
        self.assertEqual(len(self.results["checks"]), 7)
        (check,) = [check for check in self.results["checks"] if check["name"].startswith("dates: unseen")]
        self.assertTrue(check["holds"], check)


if __name__ == "__main__":
    unittest.main()

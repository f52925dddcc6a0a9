"""`train.reduction: canonical`: the same bytes on any number of ranks, and over stops in between."""

import tempfile
import unittest
from pathlib import Path

import training

EXTRA = """train: {epochs: 2, groups_per_step: 5, reduction: canonical}
checkpoint: {every_steps: 3}
"""


class Canonical(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(13))
        training.write_corpus(
            cls.folder / "targets.h5", training.random_groups(13, targets=True), source_format="targets"
        )

    def recipe(self, name, method, **settings):
        settings.setdefault("dtype", "fp32")
        file = self.folder / f"{name}.yaml"
        training.write_recipe(file, name, method, extra=EXTRA, **settings)
        return file

    def run_on(self, recipe, name, ranks, *overrides, code=0):
        done = training.train(self.folder, recipe, f"name={name}", *overrides, ranks=ranks)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertNotIn("may differ", done.stdout + done.stderr)

    def adapter(self, name):
        return (self.folder / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()

    def losses(self, name):
        return training.losses(self.folder, name)

    def test_any_number_of_ranks(self):
        """13 groups and 5 per step: a last step of 3, shares of one to three groups, ranks without any."""
        for method, settings in (
            ("peft", {"dropout": 0.1}),
            ("cvf", {}),
            ("distribution_matching", {"corpus": "targets.h5"}),
        ):
            with self.subTest(method=method):
                recipe = self.recipe(method, method, **settings)
                self.run_on(recipe, f"{method}-1", 1)
                for ranks in (2, 4) if method != "peft" else (2, 3, 4):
                    self.run_on(recipe, f"{method}-{ranks}", ranks)
                    self.assertEqual(self.adapter(f"{method}-{ranks}"), self.adapter(f"{method}-1"), ranks)
                    self.assertEqual(self.losses(f"{method}-{ranks}"), self.losses(f"{method}-1"))

    def test_other_ranks_after_a_stop(self):
        recipe = self.recipe("stops", "peft")
        self.run_on(recipe, "whole", 1)
        for last, ranks in ((3, 1), (4, 3), (6, 2)):
            # A copy of the run that ends earlier: the schedule is constant, so its steps are the same.
            self.run_with_kill(recipe, "moved", ranks, last)
        self.run_on(recipe, "moved", 4)
        self.assertEqual(self.adapter("moved"), self.adapter("whole"))

    def run_with_kill(self, recipe, name, ranks, step):
        """Ends before `step`; the checkpoint of the third step may be the newest."""
        done = training.train(
            self.folder,
            recipe,
            f"name={name}",
            "checkpoint.every_steps=1",
            ranks=ranks,
            environment={"PLURAL_FAULT": f"kill@0:{step}"},
        )
        self.assertNotEqual(done.returncode, 0)

    def test_fast_sums_differ(self):
        """What the test above would not see if all sums had the same bits anyway."""
        recipe = self.recipe("fast", "peft")
        for ranks in (1, 3):
            self.run_on(recipe, f"fast-{ranks}", ranks, "train.reduction=fast")
        self.assertNotEqual(self.adapter("fast-1"), self.adapter("fast-3"))


if __name__ == "__main__":
    unittest.main()

"""The number of ranks changes nothing: the same losses on 1 to 4, whoever has work and whoever has not."""

import tempfile
import unittest
from pathlib import Path

import training

STEPS = 20


class RanksTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # 7 groups by 3 or 5 a step: epochs end in the middle of a plan, and nothing divides.
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(7, responses=4))
        training.write_corpus(
            self.folder / "targets.h5",
            training.random_groups(7, responses=9, possibilities=0, targets=True),
            "targets",
        )

    def losses(self, name, ranks, **recipe):
        training.write_recipe(self.folder / "r.yaml", name, **recipe)
        result = training.train(self.folder, "r.yaml", ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        losses = training.losses(self.folder, name)
        self.assertEqual(len(losses), STEPS)
        return losses, result

    def compare(self, tolerance, groups_per_step, rank_counts=(2, 3, 4), **recipe):
        extra = (
            f"train: {{steps: {STEPS}, groups_per_step: {groups_per_step}}}\ncheckpoint: {{every_steps: 0}}"
        )
        alone, _ = self.losses("r1", 1, extra=extra, **recipe)
        self.assertNotAlmostEqual(alone[0], alone[-1], delta=1e-2)  # something was trained
        for ranks in rank_counts:
            together, _ = self.losses(f"r{ranks}", ranks, extra=extra, **recipe)
            for step, (one, many) in enumerate(zip(alone, together)):
                self.assertAlmostEqual(
                    one, many, delta=tolerance * abs(one), msg=f"{ranks} ranks, step {step + 1}"
                )

    # Sums over ranks are made in another order: fp64 rounds at 1.1e-16, and twenty AdamW steps of 0.01
    # amplify it by far less than 1e5. fp32 likewise from 6e-8.
    def test_peft(self):
        self.compare(1e-10, groups_per_step=3)

    def test_peft_in_fp32(self):
        self.compare(1e-5, groups_per_step=5, dtype="fp32")

    # Besides, a parameter that differs in fp32's last bits may be rounded to the next bf16 where it is
    # multiplied, 2^-8 away; if all were, the loss would move by that much.
    def test_peft_in_bf16(self):
        self.compare(2**-8, groups_per_step=5, rank_counts=(3,), dtype="bf16")

    def test_peft_with_dropout(self):
        self.compare(1e-10, groups_per_step=5, rank_counts=(3,), dropout=0.2)

    def test_otmft_with_all_weights(self):
        self.compare(1e-10, groups_per_step=5, method="otmft", adapter=False)

    def test_distribution_matching(self):
        self.compare(1e-10, groups_per_step=3, method="distribution_matching", corpus="targets.h5")
        one, two = (training.metrics(self.folder, name) for name in ("r1", "r3"))
        passes = [[line for line in run if line["event"] == "pass"] for run in (one, two)]
        self.assertEqual(len(passes[0]), STEPS // 3)
        for alone, together in zip(*passes):
            for key in ("kl_nats", "entropy_nats", "target_mass", "cross_entropy_nats"):
                self.assertAlmostEqual(alone[key], together[key], delta=1e-9, msg=key)
        self.assertLess(passes[0][-1]["kl_nats"], passes[0][0]["kl_nats"])

    def test_fewer_groups_than_ranks(self):
        extra = f"train: {{steps: {STEPS}, groups_per_step: 2}}\ncheckpoint: {{every_steps: 0}}"
        alone, _ = self.losses("r1", 1, extra=extra)
        together, result = self.losses("r4", 4, extra=extra)
        self.assertEqual(result.stderr.count("train.groups_per_step is 2 on 4 ranks"), 1, result.stderr)
        for one, many in zip(alone, together):
            self.assertAlmostEqual(one, many, delta=1e-10 * abs(one))

    # One rank a machine reads the weights: the others get its bits, and hear of its error.
    def test_weights_from_a_folder(self):
        extra = "train: {steps: 2}"
        training.write_recipe(self.folder / "r.yaml", "base", adapter=False, extra=extra)
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)
        base = ["model.config=null", "model.path=runs/base/model"]
        training.write_recipe(self.folder / "r.yaml", "tuned", extra=extra)
        losses = []
        for ranks in (1, 3):
            result = training.train(self.folder, "r.yaml", *base, f"name=tuned{ranks}", ranks=ranks)
            self.assertEqual(result.returncode, 0, result.stderr)
            losses.append(training.losses(self.folder, f"tuned{ranks}"))
        for one, many in zip(*losses):
            self.assertAlmostEqual(one, many, delta=1e-10 * abs(one))
        with open(self.folder / "runs/base/model/model.safetensors", "r+b") as file:
            file.truncate(file.seek(0, 2) - 8)
        result = training.train(self.folder, "r.yaml", *base, "name=broken", ranks=3, timeout=60)
        self.assertEqual(result.returncode, 65, result.stderr)
        self.assertEqual(result.stderr.count("plural: error:"), 1, result.stderr)
        self.assertIn("model.safetensors", result.stderr)


if __name__ == "__main__":
    unittest.main()

"""Activation checkpointing: the same numbers for less memory, where the byte budget asks for it."""

import tempfile
import unittest
from pathlib import Path

import training


class RecomputeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(8))

    def steps(self, name, *overrides, ranks=1, **recipe):
        training.write_recipe(
            self.folder / "r.yaml", name, dtype="fp32", extra="train: {groups_per_step: 4}", **recipe
        )
        result = training.train(self.folder, "r.yaml", *overrides, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return [line for line in training.metrics(self.folder, name) if line["event"] == "step"]

    def compare(self, **recipe):
        kept = self.steps("off", "train.activation_checkpointing=off", **recipe)
        twice = self.steps("on", "train.activation_checkpointing=on", **recipe)
        for one, other in zip(kept, twice, strict=True):
            self.assertEqual(
                [one[key] for key in ("loss", "grad_norm")], [other[key] for key in ("loss", "grad_norm")]
            )
            self.assertNotIn("recomputed_passes", one)
            self.assertGreater(other["recomputed_passes"], 0)

    def test_peft_with_dropout(self):
        self.compare(dropout=0.2)

    def test_all_weights_on_two_ranks(self):
        self.compare(method="otmft", adapter=False, ranks=2)

    def test_latents(self):
        self.compare(method="cvf")

    def test_auto(self):
        # Tiny passes fit what any machine has free; of one byte of budget nothing fits.
        self.assertNotIn("recomputed_passes", self.steps("free")[0])
        self.assertIn("recomputed_passes", self.steps("tight", "train.activation_bytes=1")[0])
        self.assertNotIn("recomputed_passes", self.steps("wide", "train.activation_bytes=1000000000")[0])

    def out_of_memory(self, name, fault, *overrides, ranks=1, code=0):
        """Memory runs out behind the first of a step's several passes."""
        training.write_recipe(
            self.folder / "r.yaml", name, dtype="fp32", extra="train: {groups_per_step: 4, row_budget: 1}"
        )
        environment = {"PLURAL_FAULT": fault}
        result = training.train(self.folder, "r.yaml", *overrides, ranks=ranks, environment=environment)
        self.assertEqual(result.returncode, code, result.stderr)
        return result.stderr

    def test_a_pass_out_of_memory_is_done_again_with_the_same_bits(self):
        for ranks, reduction in ((1, "fast"), (2, "canonical")):
            with self.subTest(ranks=ranks, reduction=reduction):
                found = {}
                for name, fault in (("calm", ""), ("oom", "oom@0:2")):
                    name = f"{name}-{ranks}-{reduction}"
                    error = self.out_of_memory(name, fault, f"train.reduction={reduction}", ranks=ranks)
                    weights = self.folder / "runs" / name / "adapter/adapter_model.safetensors"
                    found[bool(fault)] = weights.read_bytes()
                    self.assertEqual(
                        error.count("rank 0 ran out of memory in step 2"), 1 if fault else 0, error
                    )
                self.assertEqual(found[True], found[False])
                steps = [line for line in training.metrics(self.folder, name) if line["event"] == "step"]
                self.assertGreater(steps[1]["recomputed_passes"], 0)

    def test_out_of_memory_where_nothing_is_left_to_compute_twice(self):
        for name, override in (
            ("forbidden", "train.activation_checkpointing=off"),
            ("all", "train.activation_checkpointing=on"),
            ("sent", "train.row_budget=1000"),  # one pass, whose gradients are on their way
        ):
            error = self.out_of_memory(name, "oom@0:1", override, code=70)
            self.assertIn("out of GPU memory", error)

    def test_words(self):
        for override, message in (
            ("train.activation_checkpointing=true", "must be one of auto, on, off"),
            ("train.activation_checkpointing=on", "train.activation_bytes has no effect"),
        ):
            training.write_recipe(self.folder / "r.yaml", "words", extra="train: {activation_bytes: 5}")
            result = training.train(self.folder, "r.yaml", override)
            self.assertEqual(result.returncode, 78, result.stderr)
            self.assertIn(message, result.stderr)


if __name__ == "__main__":
    unittest.main()

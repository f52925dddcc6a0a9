"""`optimizer.sharding`: the bytes of a run that shards nothing, on any number of ranks and over stops."""

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

EXTRA = """train: {epochs: 1, groups_per_step: 3, reduction: canonical}
checkpoint: {every_steps: 2}
"""


class Sharding(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(12))
        cls.recipe = cls.folder / "full.yaml"
        training.write_recipe(cls.recipe, "full", adapter=False, dtype="fp32", extra=EXTRA)
        with open(cls.recipe) as file:
            text = file.read()
        cls.recipe.write_text(text.replace("{lr: 1.0e-2}", "{lr: 1.0e-2, clip_norm: 1.0, weight_decay: 0.1}"))

    def train(self, name, ranks, *overrides, code=0, fault=""):
        done = training.train(
            self.folder,
            self.recipe,
            f"name={name}",
            *overrides,
            ranks=ranks,
            environment={"PLURAL_FAULT": fault} if fault else None,
        )
        if code is None:
            self.assertNotEqual(done.returncode, 0)
        else:
            self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def files(self, name, step=4):
        run = self.folder / "runs" / name
        checkpoint = run / f"checkpoints/step-{step:08d}"
        return [
            (run / "model/model.safetensors").read_bytes(),
            (checkpoint / "optimizer.safetensors").read_bytes(),
            (checkpoint / "trainable.safetensors").read_bytes(),
        ]

    def test_the_same_bytes_over_stops_on_other_numbers_of_ranks(self):
        self.train("one", 1)
        # Sharded on two ranks, then on three, then not sharded, each killed behind a checkpoint.
        self.train("moved", 2, code=None, fault="kill@0:3")
        self.train("moved", 3, "checkpoint.every_steps=1", code=None, fault="kill@1:4")
        self.train("moved", 2, "optimizer.sharding=off", "checkpoint.every_steps=4")
        self.assertEqual(self.files("moved"), self.files("one"))
        self.assertEqual(training.losses(self.folder, "moved"), training.losses(self.folder, "one"))

    def test_a_mirror_has_the_moments_of_all_ranks(self):
        self.train("alone", 1)
        mirror = f"checkpoint.mirror={self.folder}/mirror"
        self.train("mirrored", 2, mirror)
        whole = self.files("mirrored")
        copy = self.folder / "mirror/mirrored/step-00000004"
        self.assertEqual((copy / "optimizer.safetensors").read_bytes(), whole[1])
        shutil.rmtree(self.folder / "runs/mirrored")
        self.assertIn("the second copy", self.train("mirrored", 3, mirror))
        result = (self.folder / "runs/mirrored/model/model.safetensors").read_bytes()
        self.assertEqual([result, *whole[1:]], self.files("alone"))

    def test_the_sums_of_a_number_of_ranks_are_as_without(self):
        for name, sharding in (("with", "auto"), ("without", "off")):
            self.train(
                name,
                3,
                "train.reduction=fast",
                "train.bucket_bytes=2000",
                f"optimizer.sharding={sharding}",
                "checkpoint.asynchronous=on",
            )
        self.assertEqual(self.files("with"), self.files("without"))
        self.assertEqual(
            [line["grad_norm"] for line in training.metrics(self.folder, "with") if line["event"] == "step"],
            [
                line["grad_norm"]
                for line in training.metrics(self.folder, "without")
                if line["event"] == "step"
            ],
        )

    def dry_run(self, *arguments):
        command = [training.PLURAL, "dry-run", str(self.recipe), "--json", *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_dry_run_predicts_a_share_of_the_moments(self):
        shared = self.dry_run("--ranks", "2", "--device", "cuda")
        alone = self.dry_run("--ranks", "2", "--device", "cuda", "optimizer.sharding=off")
        self.assertEqual(
            alone["rank_memory_bytes"] - shared["rank_memory_bytes"], 4 * shared["trained_parameters"]
        )
        # Of a GPU the program's own memory is none, and partial sums are the host's.
        self.assertLess(alone["rank_memory_bytes"], self.dry_run("--ranks", "2")["rank_memory_bytes"])
        apart = [
            self.dry_run("--device", "cuda", "train.row_budget=1", f"train.reduction={reduction}")
            for reduction in ("fast", "canonical")
        ]
        self.assertEqual(apart[0]["rank_memory_bytes"], apart[1]["rank_memory_bytes"])

    def test_a_rank_with_other_parameters_is_found_before_it_can_hand_them_on(self):
        error = self.train("flip", 2, code=79, fault="bitflip@1:3")
        self.assertIn("step 2: parameters or moments", error)


if __name__ == "__main__":
    unittest.main()

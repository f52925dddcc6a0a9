"""Bad input to `plural train`: the right exit code, one clear line, nothing left half-written."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np
from safetensors.numpy import load_file

import training


class BadInputTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.corpus = self.folder / "corpus.h5"
        self.groups = training.random_groups(4)
        training.write_corpus(self.corpus, self.groups)
        self.write_recipe()

    def write_recipe(self, **changes):
        changes.setdefault("extra", "train: {steps: 3, groups_per_step: 2}")
        training.write_recipe(self.folder / "r.yaml", changes.pop("name", "bad"), **changes)

    def edit_recipe(self, old, new):
        path = self.folder / "r.yaml"
        text = path.read_text()
        self.assertIn(old, text)
        path.write_text(text.replace(old, new))

    def refused(self, code, *words, ranks=1, overrides=(), runs=False):
        """`runs`: a run folder may exist (it did before)."""
        result = training.train(self.folder, "r.yaml", *overrides, ranks=ranks)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        errors = [line for line in result.stderr.splitlines() if "plural: error" in line]
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertIn(f"exit {code}", errors[0])
        for word in words:
            self.assertIn(word, result.stderr)
        if not runs:
            self.assertFalse((self.folder / "runs").exists(), "something was left behind")
        return result

    # The corpus.

    def test_missing_corpus(self):
        self.corpus.unlink()
        self.refused(66, "corpus.h5")

    def test_truncated_corpus(self):
        os.truncate(self.corpus, self.corpus.stat().st_size - 1000)
        self.refused(65, "corpus.h5")

    def test_flipped_bit(self):
        data = bytearray(self.corpus.read_bytes())
        data[len(data) // 2] ^= 1
        self.corpus.write_bytes(data)
        self.refused(65, "corpus.h5")

    def test_flipped_bit_on_two_ranks(self):
        data = bytearray(self.corpus.read_bytes())
        data[len(data) // 2] ^= 1
        self.corpus.write_bytes(data)
        self.refused(65, "corpus.h5", ranks=2)

    def test_foreign_file(self):
        self.corpus.write_bytes(b"PK\x03\x04" + bytes(5000))
        training.write_sidecar(self.corpus)
        self.refused(65, "corpus.h5")

    def test_oversized_corpus(self):
        with h5py.File(self.corpus, "r+", libver=("v110", "v110")) as file:
            del file["prompt_tokens"]
            file.create_dataset(
                "prompt_tokens",
                shape=(1 << 50,),
                maxshape=(None,),
                chunks=(4096,),
                dtype=np.int32,
                fletcher32=True,
            )
        training.write_sidecar(self.corpus)
        self.refused(65, "prompt_tokens")

    def test_token_outside_the_vocabulary(self):
        self.groups[2][2][1][0][0] = training.VOCAB + 3
        training.write_corpus(self.corpus, self.groups)
        self.refused(65, f"token id {training.VOCAB + 3}", "group 2")

    def test_vocabulary_larger_than_the_models(self):
        self.edit_recipe("vocab_size: 40", "vocab_size: 30")
        self.refused(65, "token ids up to 39", "30")

    def test_sequence_longer_than_the_model_takes(self):
        self.edit_recipe("max_position_embeddings: 128", "max_position_embeddings: 8")
        self.refused(65, "max_position_embeddings", "group")

    def test_too_few_possibility_numbers(self):
        self.edit_recipe("possibilities: 5", "possibilities: 6")
        self.refused(65, "group.possibilities", "6")

    def test_too_few_responses(self):
        self.groups[3][2].pop()
        training.write_corpus(self.corpus, self.groups)
        self.refused(65, "'g3'", "group.responses asks for 4")

    def test_targets_that_are_not_prefix_free(self):
        groups = training.random_groups(3, possibilities=0, targets=True)
        groups[1][2][:2] = [([11, 12], [0, 0], 1.0), ([11, 12, 13], [0, 0, 0], 1.0)]
        training.write_corpus(self.corpus, groups, "targets")
        self.write_recipe(method="distribution_matching")
        self.refused(65, "'g1'", "begins")

    # The model folder.

    def model_folder(self):
        """A whole model, as an earlier run leaves it, and a recipe that starts from it."""
        self.write_recipe(name="base", method="otmft", adapter=False, dtype="fp32")
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)
        shutil.move(self.folder / "runs/base/model", self.folder / "model")
        shutil.rmtree(self.folder / "runs")
        self.write_recipe(dtype="fp32")
        self.edit_recipe(f"config: {training.MODEL}", "path: model")
        return self.folder / "model"

    def test_model_folder(self):
        model = self.model_folder()
        tensors = model / "model.safetensors"
        whole, config = tensors.read_bytes(), (model / "config.json").read_text()

        (model / "tokenizer.json").write_text("{}")
        self.refused(65, "tokenizer.json", "0" * 64)
        (model / "tokenizer.json").unlink()

        tensors.unlink()
        self.refused(66, "model")
        tensors.write_bytes(whole[:-1])
        self.refused(65, "model.safetensors")
        header_size = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + header_size])
        renamed = whole.replace(b"model.norm.weight", b"model.morn.weight")
        self.assertIn("model.norm.weight", header)
        tensors.write_bytes(renamed)
        self.refused(65, "model.norm.weight", "model.morn.weight")
        tensors.write_bytes(whole)
        (model / "config.json").write_text(config.replace('"hidden_size": 16', '"hidden_size": 24'))
        self.refused(65)
        (model / "config.json").unlink()
        self.refused(66, "config.json")
        (model / "config.json").write_text(config)
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)  # the folder was the only fault

    def test_missing_model_folder(self):
        self.edit_recipe(f"config: {training.MODEL}", "path: nowhere")
        self.refused(66, "nowhere")

    # The recipe.

    def test_missing_recipe(self):
        (self.folder / "r.yaml").unlink()
        self.refused(66, "r.yaml")

    def test_bad_recipes(self):
        for old, new, word in (
            ("seed: 7", "seeed: 7", "seed"),
            ("seed: 7", "seed: 7\nseed: 8", "seed"),
            ("seed: 7", "seed: seven", "seven"),
            ("lr: 1.0e-2", "lr: -1", "optimizer.lr"),
            ("possibilities: 5", "possibilities: 3", "group.possibilities"),
        ):
            with self.subTest(new=new):
                self.write_recipe()
                self.edit_recipe(old, new)
                self.refused(78, word, "r.yaml")

    def test_bad_recipe_is_told_once_on_two_ranks(self):
        self.edit_recipe("seed: 7", "seeed: 7")
        self.refused(78, "seeed", ranks=2)

    # The run folder.

    def test_run_folder_that_cannot_be_made(self):
        (self.folder / "runs").write_text("a file stands here")
        self.refused(73, "run.dir", runs=True)

    def test_run_folder_of_another_recipe(self):
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)
        before = sorted(self.folder.rglob("*"))
        self.refused(78, "optimizer.lr", "0.02", overrides=["optimizer.lr=0.02"], runs=True)
        self.assertEqual(sorted(self.folder.rglob("*")), before)

    def test_run_folder_in_use(self):
        (self.folder / "runs/bad").mkdir(parents=True)
        with open(self.folder / "runs/bad/run.lock", "w") as lock:
            subprocess.run(["flock", "--exclusive", str(lock.fileno())], pass_fds=[lock.fileno()], check=True)
            self.refused(73, "run.lock", runs=True)

    def test_corpus_changed_between_starts(self):
        self.write_recipe(extra="train: {steps: 6, groups_per_step: 2}\ncheckpoint: {every_steps: 2}")
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)
        shutil.rmtree(self.folder / "runs/bad/adapter")
        training.write_corpus(self.corpus, training.random_groups(4, seed=1))
        self.refused(65, "data.train", runs=True)

    # Numbers.

    def test_divergence(self):
        self.write_recipe(
            method="otmft",
            adapter=False,
            dtype="fp32",
            extra="train: {steps: 50, groups_per_step: 2}\ncheckpoint: {every_steps: 1}",
        )
        self.edit_recipe("lr: 1.0e-2", "lr: 1.0e30")
        result = self.refused(77, "step", "groups", runs=True)
        self.assertNotIn("terminate", result.stderr)
        self.assertFalse((self.folder / "runs/bad/model").exists())
        for path in (self.folder / "runs/bad/checkpoints").rglob("trainable.safetensors"):
            self.assertTrue(all(np.isfinite(tensor).all() for tensor in load_file(path).values()), path)

    # Ranks.

    def test_ranks_with_different_recipes(self):
        self.write_recipe()
        shutil.copy(self.folder / "r.yaml", self.folder / "other.yaml")
        self.edit_recipe("lr: 1.0e-2", "lr: 2.0e-2")
        one = ["-np", "1", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", training.PLURAL, "train"]
        result = subprocess.run(
            ["mpirun", *one, "r.yaml", ":", *one, "other.yaml"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(result.returncode, 69, result.stderr)
        errors = [line for line in result.stderr.splitlines() if "plural: error" in line]
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertIn("rank 1", errors[0])
        self.assertFalse((self.folder / "runs").exists())


if __name__ == "__main__":
    unittest.main()

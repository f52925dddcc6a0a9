"""Adapters that PEFT wrote, loaded by plural.

Tolerance of log-probabilities, 1e-4 nats: as in score_test, sums of 48 to 80 products over 3 layers with some
100 fp32 roundings of the largest logit (about 10), 100 * 2^-24 * 10 = 6e-5; LoRA adds two shorter sums a
layer.
"""

import json
import pathlib
import tempfile
import unittest
import warnings

import torch
from safetensors.torch import load_file, save_file

from parity import reference

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOLERANCE = 1e-4


def write_adapter(model_folder, folder, seed=0, **settings):
    """An adapter of PEFT with random factors and random copies of whole layers, and PEFT's model with it."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ALL, "task_type": "CAUSAL_LM", **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stores the adapted head's base weight
        model = get_peft_model(reference.load(model_folder), LoraConfig(**settings))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_" in name:
                    weight.normal_(std=0.1)
                elif "modules_to_save" in name:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
        model.save_pretrained(folder)
    return model.eval()


def change(folder, **settings):
    """Other values in adapter_config.json."""
    path = pathlib.Path(folder) / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_tensors(folder, function):
    """`function` changes the dictionary of tensors in place."""
    path = pathlib.Path(folder) / "adapter_model.safetensors"
    tensors = load_file(path)
    function(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


# Model settings, adapter settings.
CASES = {
    "all layers": (dict(), dict()),
    "queries and head": (dict(), dict(target_modules=["q_proj", "lm_head"])),
    "tied head": (dict(tie_word_embeddings=True), dict(target_modules=["v_proj", "lm_head"])),
    "mistral in shards": (dict(family="mistral", shard_size="40KB"), dict(r=7, lora_alpha=16)),
    "with dropout": (dict(), dict(lora_dropout=0.3)),
    "rsLoRA": (dict(), dict(use_rslora=True)),
    "ranks and alphas by name": (
        dict(),
        dict(rank_pattern={"q_proj": 7, "mlp.up_proj": 2}, alpha_pattern={"q_proj": 3, "down_proj": 11}),
    ),
    "ranks and alphas by expression": (
        dict(family="mistral"),
        dict(
            rank_pattern={r"layers\.[12]\.self_attn\.\w+": 5, "^model.layers.0.mlp.up_proj": 9, "v_proj": 2},
            # In the order in which PEFT saves them: the first that matches counts.
            alpha_pattern={r"(?!.*mlp).*layers.0.*": 9, r".*\.(k|o)_proj": 2},
            use_rslora=True,
        ),
    ),
    "targets by expression": (dict(), dict(target_modules=r".*layers\.(0|2)\..*(q|up)_proj$")),
    "all-linear": (dict(), dict(target_modules="all-linear")),
    "some layers": (dict(), dict(target_modules=["q_proj", "down_proj"], layers_to_transform=[0, 2])),
    "one layer and the head": (
        dict(),
        dict(target_modules=["v_proj", "lm_head"], layers_to_transform=1, layers_pattern="layers"),
    ),
    "all but some": (dict(), dict(exclude_modules=["k_proj", "model.layers.1.mlp.up_proj"])),
    "paths": (dict(), dict(target_modules=["1.self_attn.q_proj", "model.layers.2.mlp.gate_proj"])),
    "a copy of the head": (dict(), dict(target_modules=["q_proj"], modules_to_save=["lm_head"])),
    "copies of embedding and norms": (
        dict(),
        dict(target_modules="all-linear", modules_to_save=["embed_tokens", "norm", "1.mlp.up_proj"]),
    ),
    "MiCA": (dict(), dict(init_lora_weights="mica")),
}


class AdapterTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.lines = reference.random_lines(16, seed=7)

    def refused(self, adapter, model="model", code=65):
        reference.write_lines(self.work / "in.jsonl", self.lines)
        return reference.plural(
            "score",
            "--model",
            self.work / model,
            "--adapter",
            adapter,
            "--input",
            self.work / "in.jsonl",
            "-o",
            self.work / "out.jsonl",
            expect=code,
        )

    def test_adapter_of_peft(self):
        models, bare = {}, {}
        for name, (model_settings, adapter_settings) in CASES.items():
            with self.subTest(name):
                settings = str(model_settings)
                if settings not in models:
                    models[settings] = folder = self.work / f"model-{len(models)}"
                    reference.make_model(folder, **model_settings)
                    bare[settings] = reference.plural_scores(folder, self.work, self.lines)
                folder, adapter = models[settings], self.work / name
                model = write_adapter(folder, adapter, **adapter_settings)
                expected = reference.reference_scores(model, self.lines)
                scores = reference.plural_scores(folder, self.work, self.lines, adapter)
                self.assertLess(reference.worst(scores, expected), TOLERANCE)
                # The comparison means something only if the adapter matters.
                self.assertGreater(reference.worst(bare[settings], expected), 0.1)

    def test_config_that_was_edited(self):
        """PEFT expands "all-linear" and sorts patterns when it saves; what it would read itself counts."""
        folder, adapter = self.work / "model", self.work / "adapter"
        reference.make_model(folder)
        write_adapter(folder, adapter)
        # The file's first pattern that matches wins, not the alphabet's.
        change(
            adapter, target_modules="all-linear", alpha_pattern={"q_proj": 20, ".*_proj": 3, "up_proj": 40}
        )
        expected = reference.reference_scores(reference.load(folder, adapter), self.lines)
        scores = reference.plural_scores(folder, self.work, self.lines, adapter)
        self.assertLess(reference.worst(scores, expected), TOLERANCE)

    def test_features_that_are_not_supported(self):
        reference.make_model(self.work / "model")
        write_adapter(self.work / "model", self.work / "dora", use_dora=True)
        self.assertIn("use_dora", self.refused(self.work / "dora"))
        write_adapter(self.work / "model", self.work / "embedding", target_modules=["q_proj", "embed_tokens"])
        self.assertIn("embedding", self.refused(self.work / "embedding"))
        adapter = self.work / "adapter"
        write_adapter(self.work / "model", adapter)
        good = (adapter / "adapter_config.json").read_text()
        for key, value in {
            "fan_in_fan_out": True,
            "bias": "all",
            "lora_bias": True,
            "init_lora_weights": "pissa",
            "trainable_token_indices": [3],
            "layer_replication": [[0, 1]],
            "alora_invocation_tokens": [3],
            "target_parameters": ["a"],
            "invented_feature": True,
            "rank_pattern": {"(?i)q_proj": 3},
            "alpha_pattern": {"q_proj": -1},
            "target_modules": "(",
            "modules_to_save": ["mlp"],
            "layers_pattern": "layers",
            "layers_to_transform": ["0"],
            "exclude_modules": ["*"],
        }.items():
            with self.subTest(key):
                change(adapter, **{key: value})
                said = self.refused(adapter)
                self.assertIn(key, said)
                self.assertIn("adapter_config.json", said)
                self.assertEqual(said.count("\n"), 1)
                (adapter / "adapter_config.json").write_text(good)

    def test_copy_of_a_tied_head(self):
        reference.make_model(self.work / "model", tie_word_embeddings=True)
        write_adapter(self.work / "model", self.work / "adapter", modules_to_save=["lm_head"])
        self.assertIn("tie_word_embeddings", self.refused(self.work / "adapter"))

    def test_adapter_of_another_base(self):
        for seed in (0, 1):
            reference.make_model(self.work / f"model-{seed}", seed=seed)
        write_adapter(self.work / "model-0", self.work / "adapter", target_modules=["q_proj", "lm_head"])
        self.assertIn("lm_head", self.refused(self.work / "adapter", "model-1"))
        reference.make_model(self.work / "model-2", hidden_size=64)
        said = self.refused(self.work / "adapter", "model-2")
        self.assertIn("model.layers.0.self_attn.q_proj.lora_A.weight (file [4, 48], model [4, 64])", said)

    def test_tensors_that_do_not_fit(self):
        adapter, name = self.work / "adapter", "base_model.model.model.layers.1.mlp.up_proj.lora_A.weight"
        reference.make_model(self.work / "model")

        def set_nan(tensors):
            tensors[name][0, 0] = float("nan")

        faults = {
            "missing": lambda tensors: tensors.pop(name),
            "unexpected": lambda tensors: tensors.update({name + "x": torch.ones(1)}),
            "mismatched": lambda tensors: tensors.update({name: tensors[name].t().contiguous()}),
            "NaN": set_nan,
        }
        for word, fault in faults.items():
            with self.subTest(word):
                write_adapter(self.work / "model", adapter)
                change_tensors(adapter, fault)
                said = self.refused(adapter)
                self.assertIn(word, said)
                self.assertIn(name, said)
        write_adapter(self.work / "model", adapter)
        change(adapter, rank_pattern={"up_proj": 5})
        self.assertIn(name + " (file [4, 48], model [5, 48])", self.refused(adapter))


if __name__ == "__main__":
    unittest.main()

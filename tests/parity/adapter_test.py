"""Adapters that PEFT wrote, loaded by plural."""
import json
import pathlib
import tempfile
import unittest
import warnings

import torch

from parity import reference

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_adapter(model_folder, folder, seed=0, **settings):
    """An adapter of PEFT with random factors, and PEFT's own scores with it."""
    from peft import LoraConfig, get_peft_model
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ALL, "task_type": "CAUSAL_LM", **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stores the adapted head's base weight
        model = get_peft_model(reference.load(model_folder), LoraConfig(**settings))
        for name, weight in model.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(weight, std=0.1)
        model.save_pretrained(folder)
    return model.eval()


class AdapterTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.lines = reference.random_lines(16, seed=7)

    def test_adapter_of_peft(self):
        cases = {
            "all layers": (dict(), dict()),
            "queries and head": (dict(), dict(target_modules=["q_proj", "lm_head"])),
            "tied head": (dict(tie_word_embeddings=True), dict(target_modules=["v_proj", "lm_head"])),
            "mistral in shards": (dict(family="mistral", shard_size="40KB"), dict(r=7, lora_alpha=16)),
            "with dropout": (dict(), dict(lora_dropout=0.3)),
        }
        for name, (model_settings, adapter_settings) in cases.items():
            with self.subTest(name):
                folder, adapter = self.work / name / "model", self.work / name / "adapter"
                reference.make_model(folder, **model_settings)
                model = write_adapter(folder, adapter, **adapter_settings)
                expected = reference.reference_scores(model, self.lines)
                scores = reference.plural_scores(folder, self.work, self.lines, adapter)
                self.assertLess(reference.worst(scores, expected), 1e-4)
                # The comparison means something only if the adapter matters.
                bare = reference.plural_scores(folder, self.work, self.lines)
                self.assertGreater(reference.worst(bare, expected), 0.1)

    def test_features_that_are_not_supported(self):
        reference.make_model(self.work / "model")
        reference.write_lines(self.work / "in.jsonl", self.lines)
        for key, settings in {"use_rslora": dict(use_rslora=True), "use_dora": dict(use_dora=True),
                              "rank_pattern": dict(rank_pattern={"q_proj": 8}),
                              "modules_to_save": dict(modules_to_save=["lm_head"])}.items():
            with self.subTest(key):
                adapter = self.work / key
                write_adapter(self.work / "model", adapter, **settings)
                said = reference.plural("score", "--model", self.work / "model", "--adapter", adapter, "--input",
                                        self.work / "in.jsonl", "-o", self.work / "out.jsonl", expect=65)
                self.assertIn(key, said)
                self.assertIn("adapter_config.json", said)

    def test_adapter_of_another_base(self):
        for seed in (0, 1):
            reference.make_model(self.work / f"model-{seed}", seed=seed)
        write_adapter(self.work / "model-0", self.work / "adapter", target_modules=["q_proj", "lm_head"])
        reference.write_lines(self.work / "in.jsonl", self.lines)
        said = reference.plural("score", "--model", self.work / "model-1", "--adapter", self.work / "adapter",
                                "--input", self.work / "in.jsonl", "-o", self.work / "out.jsonl", expect=65)
        self.assertIn("lm_head", said)

    def test_unknown_key_that_is_on(self):
        reference.make_model(self.work / "model")
        write_adapter(self.work / "model", self.work / "adapter")
        path = self.work / "adapter" / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "invented_feature": True}))
        reference.write_lines(self.work / "in.jsonl", self.lines)
        said = reference.plural("score", "--model", self.work / "model", "--adapter", self.work / "adapter",
                                "--input", self.work / "in.jsonl", "-o", self.work / "out.jsonl", expect=65)
        self.assertIn("invented_feature", said)


if __name__ == "__main__":
    unittest.main()

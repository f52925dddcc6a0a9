"""`plural export`: the merged model is the base with its adapter, for plural and for transformers.

Tolerance of log-probabilities: a merged weight W + scale * B A is rounded to fp32 once more than the two
branches are, one rounding of 2^-24 a weight beside those of the sums: the 1e-4 nats of adapter_test stay.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import torch
from safetensors.torch import load_file

from parity import reference
from parity.adapter_test import CASES, TOLERANCE, write_adapter


def export(*arguments, expect=0):
    return reference.plural("export", *arguments, expect=expect)


class ExportTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)
        self.lines = reference.random_lines(12, seed=8)
        self.model, self.adapter, self.out = self.work / "model", self.work / "adapter", self.work / "out"
        self.arguments = ["--model", self.model, "--adapter", self.adapter, "-o", self.out]

    def make(self, model=None, **adapter):
        reference.make_model(self.model, **(model or {}))
        return write_adapter(self.model, self.adapter, **adapter)

    def tensors(self):
        return {
            name: tensor
            for path in sorted(self.out.glob("*.safetensors"))
            for name, tensor in load_file(path).items()
        }

    def test_merged_equals_adapter_on_base(self):
        for name in (
            "all layers",
            "tied head",
            "mistral in shards",
            "ranks and alphas by expression",
            "a copy of the head",
            "copies of embedding and norms",
        ):
            with self.subTest(name):
                work = self.work / name
                model_settings, adapter_settings = CASES[name]
                reference.make_model(work / "model", **model_settings)
                model = write_adapter(work / "model", work / "adapter", **adapter_settings)
                export("--model", work / "model", "--adapter", work / "adapter", "-o", work / "out")
                expected = reference.reference_scores(model, self.lines)
                on_base = reference.plural_scores(work / "model", work, self.lines, work / "adapter")
                merged = reference.plural_scores(work / "out", work, self.lines)
                loaded = reference.reference_scores(reference.load(work / "out"), self.lines)
                self.assertLess(reference.worst(merged, on_base), TOLERANCE)
                self.assertLess(reference.worst(merged, expected), TOLERANCE)
                self.assertLess(reference.worst(loaded, expected), TOLERANCE)

    def test_weights_equal_those_that_peft_merges(self):
        model = self.make(use_rslora=True, rank_pattern={"up_proj": 3}).merge_and_unload()
        export(*self.arguments)
        merged, expected = self.tensors(), model.state_dict()
        self.assertEqual(merged.keys(), expected.keys())
        for name, tensor in merged.items():
            # At most rank + 2 roundings of a weight below 2, in another order.
            self.assertLess((tensor - expected[name]).abs().max().item(), 8 * 2**-23, name)
        names = {path.name for path in self.out.iterdir()}
        self.assertEqual(
            names, {"config.json", "generation_config.json", "model.safetensors", "weights.json"}
        )

    def test_shards_hold_the_same(self):
        self.make()
        (self.model / "tokenizer.json").write_text("{}")
        export(*self.arguments)
        whole = self.tensors()
        self.out = self.work / "shards"
        export("--model", self.model, "--adapter", self.adapter, "-o", self.out, "--shard-bytes", 40000)
        index = json.loads((self.out / "model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"]["total_size"], sum(t.nbytes for t in whole.values()))
        parts = self.tensors()
        self.assertEqual(parts.keys(), whole.keys())
        for name, tensor in whole.items():
            self.assertTrue(torch.equal(tensor, parts[name]), name)
        shards = sorted(set(index["weight_map"].values()))
        self.assertGreater(len(shards), 3)
        self.assertEqual(shards[0], f"model-00001-of-{len(shards):05}.safetensors")
        for shard in shards:
            self.assertLessEqual(sum(t.nbytes for t in load_file(self.out / shard).values()), 40000)
        self.assertEqual((self.out / "tokenizer.json").read_text(), "{}")

    def test_tied_head_gets_its_own_weights(self):
        self.make(dict(tie_word_embeddings=True), target_modules=["lm_head"])
        said = export(*self.arguments)
        self.assertIn("tie_word_embeddings false", said)
        self.assertIs(json.loads((self.out / "config.json").read_text())["tie_word_embeddings"], False)
        base = load_file(self.model / "model.safetensors")["model.embed_tokens.weight"]
        self.assertTrue(torch.equal(self.tensors()["model.embed_tokens.weight"], base))

    def test_tied_head_that_is_not_adapted_stays_tied(self):
        self.make(dict(tie_word_embeddings=True))
        self.assertEqual(export(*self.arguments), "")
        self.assertNotIn("lm_head.weight", self.tensors())

    def test_dtype(self):
        self.make(dict(dtype=torch.bfloat16))
        export(*self.arguments)
        self.assertEqual({t.dtype for t in self.tensors().values()}, {torch.bfloat16})
        self.out = self.work / "fp32"
        export("--model", self.model, "--adapter", self.adapter, "-o", self.out, "--dtype", "fp32")
        self.assertEqual({t.dtype for t in self.tensors().values()}, {torch.float32})
        self.assertEqual(json.loads((self.out / "config.json").read_text())["dtype"], "float32")
        merged = reference.reference_scores(reference.load(self.out), self.lines)
        on_base = reference.reference_scores(reference.load(self.model, self.adapter), self.lines)
        self.assertLess(reference.worst(merged, on_base), TOLERANCE)

    def test_value_beyond_the_written_dtype(self):
        self.make()
        from parity.adapter_test import change

        change(self.adapter, lora_alpha=10000000)
        said = export(*self.arguments, "--dtype", "fp16", expect=65)
        self.assertIn("float16", said)
        self.assertFalse(self.out.exists())

    def test_bad_input(self):
        self.make()
        self.out.mkdir()
        self.assertIn("exists", export(*self.arguments, expect=73))
        self.out.rmdir()
        self.assertIn(
            "config.json",
            export("--model", self.adapter, "--adapter", self.adapter, "-o", self.out, expect=66),
        )
        self.assertIn(
            "adapter_config.json",
            export("--model", self.model, "--adapter", self.model, "-o", self.out, expect=66),
        )
        reference.make_model(self.work / "wide", hidden_size=64)
        said = export("--model", self.work / "wide", "--adapter", self.adapter, "-o", self.out, expect=65)
        self.assertIn("q_proj.lora_A.weight (file [4, 48], model [4, 64])", said)
        config = json.loads((self.model / "config.json").read_text())
        (self.model / "config.json").write_text(json.dumps({**config, "quantization_config": {"bits": 4}}))
        self.assertIn("quantization_config", export(*self.arguments, expect=65))
        (self.model / "config.json").write_text(json.dumps(config))
        (self.model / "model.safetensors").unlink()
        export(*self.arguments, expect=66)
        self.assertEqual(sorted(p.name for p in self.work.iterdir()), ["adapter", "model", "wide"])

    def test_help(self):
        done = subprocess.run(
            [os.environ["PLURAL_BINARY"], "export", "--help"], capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0)
        self.assertIn("--shard-bytes", done.stdout)


if __name__ == "__main__":
    unittest.main()

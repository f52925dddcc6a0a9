"""Model and adapter folders that cannot be used: exit code 65, and one line that names the tensor."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

PLURAL = os.environ["PLURAL_BINARY"]
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 32,
    "tie_word_embeddings": False,
}
SHAPES = {
    "self_attn.q_proj": (8, 8),
    "self_attn.k_proj": (4, 8),
    "self_attn.v_proj": (4, 8),
    "self_attn.o_proj": (8, 8),
    "mlp.gate_proj": (12, 8),
    "mlp.up_proj": (12, 8),
    "mlp.down_proj": (8, 12),
}
NORM, DOWN = "model.norm.weight", "model.layers.1.mlp.down_proj.weight"
LORA_B = "base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"


def model_tensors():
    draw = np.random.default_rng(1)
    shapes = {"model.embed_tokens.weight": (11, 8), NORM: (8,), "lm_head.weight": (11, 8)}
    for layer in (f"model.layers.{i}" for i in range(CONFIG["num_hidden_layers"])):
        shapes |= {f"{layer}.{name}.weight": shape for name, shape in SHAPES.items()}
        shapes |= {f"{layer}.{name}_layernorm.weight": (8,) for name in ("input", "post_attention")}
    return {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def adapter_tensors(layers=2, rank=2):
    tensors = {}
    for i in range(layers):
        prefix = f"base_model.model.model.layers.{i}.mlp.down_proj"
        tensors[f"{prefix}.lora_A.weight"] = np.ones((rank, 12), np.float32)
        tensors[f"{prefix}.lora_B.weight"] = np.ones((8, rank), np.float32)
    return tensors


class BadWeightsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.model, self.adapter = Path(folder.name) / "model", Path(folder.name) / "adapter"
        self.lines = Path(folder.name) / "lines.jsonl"
        self.lines.write_text(json.dumps({"id": 0, "prompt_tokens": [1, 2], "response_tokens": [3]}) + "\n")
        self.model.mkdir()
        (self.model / "config.json").write_text(json.dumps(CONFIG))
        self.adapter.mkdir()
        (self.adapter / "adapter_config.json").write_text(
            json.dumps(
                {
                    "peft_type": "LORA",
                    "task_type": "CAUSAL_LM",
                    "r": 2,
                    "lora_alpha": 4,
                    "lora_dropout": 0.0,
                    "target_modules": ["down_proj"],
                    "bias": "none",
                }
            )
        )
        self.tensors = model_tensors()
        self.write_model()

    def write_model(self):
        save_file(self.tensors, self.model / "model.safetensors", {"format": "pt"})

    def score(self, adapter=False):
        extra = ["--adapter", self.adapter] if adapter else []
        return subprocess.run(
            [
                PLURAL,
                "score",
                "--model",
                self.model,
                "--input",
                self.lines,
                "-o",
                self.lines.with_name("scores"),
                "--force",
                *extra,
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def accepted(self, adapter=False):
        result = self.score(adapter)
        self.assertEqual(result.returncode, 0, result.stderr)

    def refused(self, *words, adapter=False):
        result = self.score(adapter)
        self.assertEqual(result.returncode, 65, result.stdout + result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def test_tensors(self):
        whole = dict(self.tensors)
        holed = whole[DOWN].copy()
        holed[3, 4] = np.nan
        for name, tensors, words in (
            ("missing", {k: v for k, v in whole.items() if k != NORM}, ("1 missing", NORM)),
            (
                "extra",
                whole | {"model.layers.2.mlp.down_proj.weight": whole[DOWN]},
                ("1 unexpected", "model.layers.2.mlp.down_proj.weight"),
            ),
            (
                "transposed",
                whole | {DOWN: np.ascontiguousarray(whole[DOWN].T)},
                (f"{DOWN} (file [12, 8], model [8, 12])",),
            ),
            ("NaN", whole | {DOWN: holed}, ("model.safetensors", DOWN, "NaN")),
        ):
            with self.subTest(name):
                self.tensors = tensors
                self.write_model()
                self.refused(*words)
        self.tensors = whole
        self.write_model()
        self.accepted()  # the tensors were the only fault

    def test_headers(self):
        one = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
        for name, entries in (("twice", [one, one]), ("overlap", [one, one.replace('"a"', '"b"')])):
            with self.subTest(name):
                header = ("{" + ",".join(entries) + "}").encode()
                (self.model / "model.safetensors").write_bytes(
                    len(header).to_bytes(8, "little") + header + bytes(8)
                )
                self.refused("model.safetensors", f"tensor '{'a' if name == 'twice' else 'b'}'", name)

    def test_shards(self):
        (self.model / "model.safetensors").unlink()
        names = sorted(self.tensors)
        map_ = {name: f"model-{1 + (k >= 9)}.safetensors" for k, name in enumerate(names)}
        for shard in set(map_.values()):
            save_file({name: self.tensors[name] for name in names if map_[name] == shard}, self.model / shard)
        index = self.model / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": map_}))
        self.accepted()

        index.write_text(json.dumps({"weight_map": map_ | {NORM: "../model/model-2.safetensors"}}))
        self.refused("index.json", NORM, "../model/model-2.safetensors")
        index.write_text(json.dumps({"weight_map": map_}))
        shard = self.model / "model-2.safetensors"
        os.truncate(shard, shard.stat().st_size - 5)
        self.refused("model-2.safetensors", "tensor '", "truncated")

    def test_adapters(self):
        file = self.adapter / "adapter_model.safetensors"
        save_file(adapter_tensors(), file)
        self.accepted(adapter=True)
        save_file(adapter_tensors(layers=3), file)
        self.refused("unexpected", LORA_B.replace("layers.1", "layers.2"), adapter=True)
        save_file(adapter_tensors(layers=1), file)
        self.refused("missing", LORA_B, adapter=True)
        wider = adapter_tensors() | {LORA_B: np.ones((16, 2), np.float32)}
        save_file(wider, file)
        self.refused("mismatched", f"{LORA_B} (file [16, 2], model [8, 2])", adapter=True)
        save_file(load_file(file) | {LORA_B: np.full((8, 2), np.nan, np.float32)}, file)
        self.refused("adapter_model.safetensors", LORA_B, "NaN", adapter=True)


if __name__ == "__main__":
    unittest.main()

"""NF4: bits are those of bitsandbytes on a CPU, folders those that transformers saves with it.

Tolerance of log-probabilities: the 1e-4 nats of adapter_test, for sums of 64 to 128 products.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import quantised  # before torch

# isort: split
import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from parity import reference
from parity.adapter_test import TOLERANCE, write_adapter

CONVERT = pathlib.Path(os.environ["PLURAL_BINARY"]).parent / "tests" / "nf4_convert"


def matrices():
    """Name -> matrix; what is rare in weights is here."""
    torch.manual_seed(3)
    draw, smallest = torch.randn, 2.0**-149
    values = functional.get_4bit_type("nf4", device="cpu")
    middles = (values[1:] + values[:-1]) / 2
    borders = torch.cat(
        [
            torch.ones(1),
            middles,
            middles.nextafter(torch.tensor(2.0)),
            middles.nextafter(torch.tensor(-2.0)),
            torch.zeros(18),
        ]
    )
    found = {
        "weights": draw(96, 192) * 0.02,
        "bf16": (draw(160, 256) * 0.05).bfloat16(),
        "fp16": (draw(64, 64) * 0.1).half(),
        "many blocks of blocks": draw(512, 320) * torch.rand(512, 1),
        "no multiple of 64": draw(33, 41),
        "odd number of values": draw(7, 9),
        "one value": draw(1, 1),
        "a block and a value": draw(5, 13),
        "constant": torch.full((40, 64), 0.3),
        "constant, short block": torch.full((3, 30), -0.3),
        "zero": torch.zeros(40, 64),
        "zero, short block": torch.zeros(3, 23),
        "zero block between": torch.cat([draw(2, 64), torch.zeros(1, 64), draw(2, 64)]),
        "all magnitudes": draw(80, 64) * torch.logspace(-44, 38, 80)[:, None],
        "large": (torch.rand(40, 64) * 2 - 1) * 3.38e38,
        "smallest": torch.full((4, 64), smallest) * torch.randint(-3, 4, (4, 64)),
        "borders of values": torch.stack([borders, -borders, borders * 0.7]),
    }
    return {name: tensor.contiguous() for name, tensor in found.items()}


def bits(tensor):
    return tensor.flatten().view(
        {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    )


class Nf4Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)

    def convert(self, tensors):
        source, target = self.work / "in.safetensors", self.work / "out.safetensors"
        save_file(tensors, source)
        subprocess.run(
            [CONVERT, source, target], check=True, timeout=120, env=os.environ | {"OMP_NUM_THREADS": "2"}
        )
        return load_file(target)

    def test_bits(self):
        tensors = matrices()
        found = self.convert(tensors)
        for name, tensor in tensors.items():
            for mode in ("plain", "double"):
                with self.subTest(name, mode=mode):
                    packed, state = quantised.quantise(tensor.flatten(), double=mode == "double")
                    expected = {"packed": packed, "absmax": state.absmax}
                    if mode == "double":
                        expected |= {
                            "map": state.state2.code,
                            "nested": state.state2.absmax,
                            "offset": state.offset,
                        }
                    for key, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                        state.dtype = dtype
                        expected[key] = functional.dequantize_4bit(packed, state)
                    expected["fp64"] = expected["fp32"].double()
                    for key, reference_tensor in expected.items():
                        own, other = found[f"{name}.{mode}.{key}"].flatten(), reference_tensor.flatten()
                        self.assertEqual(own.dtype, other.dtype, key)
                        if key == "bf16":
                            # The conversion instruction that bitsandbytes uses where there is one takes
                            # subnormal numbers for 0.
                            subnormal = expected["fp32"].flatten().abs() < 2.0**-126
                            own, other = own[~subnormal], other[~subnormal]
                        self.assertTrue(torch.equal(bits(own), bits(other)), key)

    def save_with_transformers(self, folder, settings, **quantisation):
        """A random model, quantised while transformers loads it, and that model."""
        full = folder.with_name(folder.name + " full")
        # Rows are multiples of the block, for a bitsandbytes that needs that on the CPU.
        reference.make_model(full, **{"hidden_size": 64, "intermediate_size": 128, **settings})
        config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", **quantisation)
        model = AutoModelForCausalLM.from_pretrained(
            full, quantization_config=config, dtype=torch.float32, device_map="cpu"
        )
        model.save_pretrained(folder, max_shard_size=settings.get("shard_size", "1GB"))
        return model.train()  # in evaluation bitsandbytes rounds to bf16 on some CPUs; there is no dropout

    def test_folders_of_transformers(self):
        lines = reference.random_lines(8, seed=2)
        for name, settings, quantisation in (
            ("double", {}, {"bnb_4bit_use_double_quant": True}),
            ("not double", {}, {}),
            ("bf16 storage", {}, {"bnb_4bit_quant_storage": torch.bfloat16}),
            (
                "fp32 storage, double",
                {},
                {"bnb_4bit_quant_storage": torch.float32, "bnb_4bit_use_double_quant": True},
            ),
            (
                "tied mistral in shards",
                {"family": "mistral", "tie_word_embeddings": True, "shard_size": "40KB"},
                {},
            ),
            (
                "with layers in full",
                {},
                {"llm_int8_skip_modules": ["lm_head", "down_proj", "layers.1.self_attn"]},
            ),
            ("head as well", {}, {"llm_int8_skip_modules": ["none"]}),
        ):
            with self.subTest(name):
                folder = self.work / name
                model = self.save_with_transformers(folder, settings, **quantisation)
                expected = reference.reference_scores(model, lines)
                self.assertLess(
                    reference.worst(reference.plural_scores(folder, self.work, lines), expected), TOLERANCE
                )

    def test_export_merges_into_what_is_computed_with(self):
        lines = reference.random_lines(8, seed=5)
        full, nf4, adapter = (self.work / name for name in ("full", "nf4", "adapter"))
        reference.make_model(full)
        write_adapter(full, adapter)
        quantised.write(full, nf4)
        for extra, dtype in (((), torch.float32), (("--dtype", "bf16"), torch.bfloat16)):
            target = self.work / str(dtype)
            message = reference.plural("export", "--model", nf4, "--adapter", adapter, "-o", target, *extra)
            self.assertIn("21 tensors of the model are stored in NF4", message)
            self.assertNotIn("quantization_config", json.loads((target / "config.json").read_text()))
            merged = load_file(target / "model.safetensors")
            self.assertEqual({tensor.dtype for tensor in merged.values()}, {dtype})
        on_base = reference.plural_scores(nf4, self.work, lines, adapter)
        merged = reference.plural_scores(self.work / "torch.float32", self.work, lines)
        self.assertLess(reference.worst(merged, on_base), TOLERANCE)

    def test_adapters_with_copies_of_quantised_layers(self):
        lines = reference.random_lines(4, seed=6)
        full, nf4, plain, adapter = (self.work / name for name in ("full", "nf4", "plain", "adapter"))
        reference.make_model(full)
        write_adapter(full, adapter, target_modules=["q_proj"], modules_to_save=["down_proj"])
        quantised.write(full, nf4)
        quantised.write(full, plain, dequantised=True)
        self.assertEqual(
            reference.plural_scores(nf4, self.work, lines, adapter),
            reference.plural_scores(plain, self.work, lines, adapter),
        )


if __name__ == "__main__":
    unittest.main()

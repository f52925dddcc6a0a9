"""Training and answering on weights in NF4, and folders in NF4 that cannot be used."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import quantised  # before torch

# isort: split
import torch
from safetensors.torch import load_file, save_file

import training
from parity import reference

ADAPTER = "adapter/adapter_model.safetensors"
Q = "model.layers.1.self_attn.q_proj.weight"
STATE = f"{Q}.quant_state.bitsandbytes__nf4"


class Nf4Test(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = Path(folder.name)
        # Rows of 48 and 80: blocks go over their ends.
        reference.make_model(cls.work / "full", num_hidden_layers=2, vocab_size=training.VOCAB)
        quantised.write(cls.work / "full", cls.work / "nf4")
        quantised.write(cls.work / "full", cls.work / "plain", dequantised=True)
        training.write_corpus(cls.work / "corpus.h5", training.random_groups(8))

    def train(self, name, model, *overrides, expect=0, ranks=1, adapter=True, dtype="fp32"):
        training.write_recipe(
            self.work / "recipe.yaml",
            name,
            dtype=dtype,
            adapter=adapter,
            extra="train: {steps: 6, groups_per_step: 2}\ncheckpoint: {every_steps: 3}",
        )
        overrides = ["model.config=null", f"model.path={model}", *overrides]
        result = training.train(self.work, "recipe.yaml", *overrides, ranks=ranks)
        self.assertEqual(result.returncode, expect, result.stdout + result.stderr)
        return result

    def back_to_step_3(self, name):
        run = self.work / "runs" / name
        shutil.rmtree(run / "checkpoints" / "step-00000006")
        shutil.rmtree(run / "adapter")

    def adapter_of(self, name):
        return (self.work / "runs" / name / ADAPTER).read_bytes()

    def test_training_is_that_on_dequantised_weights(self):
        for dtype in ("fp32", "fp64"):
            self.train(f"plain-{dtype}", "plain", dtype=dtype)
            self.train(f"stored-{dtype}", "nf4", dtype=dtype)
            self.train(f"own-{dtype}", "full", "model.quantize=nf4", dtype=dtype)
            self.train(f"as-stored-{dtype}", "nf4", "model.quantize=nf4", dtype=dtype)
            for name in ("stored", "own", "as-stored"):
                self.assertEqual(self.adapter_of(f"{name}-{dtype}"), self.adapter_of(f"plain-{dtype}"), name)
                self.assertEqual(
                    training.losses(self.work, f"{name}-{dtype}"),
                    training.losses(self.work, f"plain-{dtype}"),
                    name,
                )
        self.train("full", "full")
        self.assertNotEqual(training.losses(self.work, "full"), training.losses(self.work, "plain-fp32"))

    def test_two_ranks_and_a_resume_end_alike(self):
        self.train("whole", "full", "model.quantize=nf4")
        self.train("ranks", "full", "model.quantize=nf4", ranks=2)
        self.train("halves", "full", "model.quantize=nf4")
        self.back_to_step_3("halves")
        self.train("halves", "full", "model.quantize=nf4")
        self.assertEqual(self.adapter_of("halves"), self.adapter_of("whole"))
        # Two ranks sum the gradient of a step in another order.
        for one, two in zip(training.losses(self.work, "whole"), training.losses(self.work, "ranks")):
            self.assertAlmostEqual(one, two, delta=1e-5 * one)

    def test_a_resume_needs_the_same_weights(self):
        shutil.copytree(self.work / "nf4", self.work / "changing")
        self.train("resumed", "changing")
        self.back_to_step_3("resumed")
        tensors = load_file(self.work / "changing" / "model.safetensors")
        tensors[Q][7] ^= 1
        save_file(tensors, self.work / "changing" / "model.safetensors", {"format": "pt"})
        result = self.train("resumed", "changing", expect=65)
        self.assertIn("base model, model.path", result.stderr)

    def test_contradictions(self):
        result = self.train("all", "full", "model.quantize=nf4", adapter=False, expect=78)
        self.assertIn("model.quantize", result.stderr)
        result = self.train("all", "nf4", adapter=False, expect=78)
        self.assertIn("in NF4, which cannot be trained", result.stderr)
        training.write_recipe(self.work / "random.yaml", "random")
        result = training.train(self.work, "random.yaml", "model.quantize=nf4")
        self.assertEqual(result.returncode, 78, result.stderr)

    def answers(self, model, *options):
        """What every command that computes with a model says of `model` with its adapter, without times."""
        adapter, corpus = self.work / "runs" / "answering" / "adapter", self.work / "corpus.h5"
        request = {"id": "0", "prompt_tokens": [4, 5, 6], "max_new_tokens": 8}
        use, made = ["--model", self.work / model, *options], self.work / "made.jsonl"
        said = []
        for command, *words in (
            ("generate", "--adapter", adapter, "--corpus", corpus, "--responses", 3, "--max-new-tokens", 8),
            ("score", "--adapter", adapter, "--input", self.work / "lines.jsonl"),
            ("rate", "--rating-corpus", self.work / "ratings.h5", "--input", self.work / "rated.jsonl"),
            ("evaluate", "--corpus", corpus),
            ("generate", "--stream", "--adapter", adapter),
        ):
            to = [] if "--stream" in words else ["-o", made, "--force"]
            done = subprocess.run(
                [*map(str, [training.PLURAL, command, *words, *use, *to])],
                input=json.dumps(request) + "\n",
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
            text = made.read_text() if to else done.stdout
            said.append(re.sub(r'"[a-z_]*seconds[a-z_]*":[-+.e0-9]+', "", text).replace(f"/{model}", ""))
        return said

    def test_answers_are_those_of_dequantised_weights(self):
        self.train("answering", "nf4")
        ratings = [([20 + n, 3], [0, 0], 1.0) for n in range(9)] + [([20, 4, 3], [0, 0, 0], 1.0)]
        groups = training.random_groups(2)
        training.write_corpus(
            self.work / "ratings.h5", [(prompt, [[5, 6]], ratings) for prompt, _, _ in groups]
        )
        rated = [{"id": f"g{n}", "responses": [{"text": "x", "tokens": [11, 12 + n]}]} for n in range(2)]
        reference.write_lines(self.work / "rated.jsonl", rated)
        line = {"id": 0, "prompt_tokens": list(range(1, 9)), "response_tokens": list(range(39, 9, -1))}
        reference.write_lines(self.work / "lines.jsonl", [line])
        wanted = self.answers("plain")
        for model, *options in (("nf4",), ("nf4", "--quantize", "nf4"), ("full", "--quantize", "nf4")):
            self.assertEqual(self.answers(model, *options), wanted, (model, options))
        # Each command computes with the weights that it was told to.
        for others, here in zip(self.answers("full"), wanted):
            self.assertNotEqual(others, here)


class BadFolderTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.work = Path(folder.name)
        reference.make_model(cls.work / "full", num_hidden_layers=2)
        quantised.write(cls.work / "full", cls.work / "nf4")
        cls.config = json.loads((cls.work / "nf4" / "config.json").read_text())
        cls.tensors = load_file(cls.work / "nf4" / "model.safetensors")
        cls.lines = cls.work / "lines.jsonl"
        reference.write_lines(cls.lines, reference.random_lines(1))

    def write(self, tensors=None, **config):
        folder = self.work / "bad"
        folder.mkdir(exist_ok=True)
        tensors = self.tensors if tensors is None else tensors
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self.config | config))

    def score(self):
        return subprocess.run(
            [
                training.PLURAL,
                "score",
                "--model",
                self.work / "bad",
                "--input",
                self.lines,
                "-o",
                self.work / "scores",
                "--force",
            ],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def refused(self, *words):
        result = self.score()
        self.assertEqual(result.returncode, 65, result.stdout + result.stderr)
        self.assertEqual(len(result.stderr.splitlines()), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def state(self, **changes):
        found = json.loads(bytes(self.tensors[STATE].numpy())) | changes
        text = json.dumps({key: value for key, value in found.items() if value is not None})
        return self.tensors | {STATE: torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    def without(self, name):
        return {key: tensor for key, tensor in self.tensors.items() if key != name}

    def changed(self, suffix, tensor):
        return self.tensors | {Q + suffix: tensor}

    def test_tensors(self):
        text = lambda words: torch.frombuffer(bytearray(words), dtype=torch.uint8)
        of = lambda suffix: self.tensors[Q + suffix].clone()
        hole, other_map, nan_map = of(".nested_absmax"), of(".quant_map"), of(".nested_quant_map")
        hole[0] = float("nan")
        other_map[3] += 0.01
        nan_map[7] = float("inf")
        cases = {
            "block": (self.state(blocksize=32), "blocksize is 32; supported is 64"),
            "block of blocks": (
                self.state(nested_blocksize=128),
                "nested_blocksize is 128; supported is 256",
            ),
            "shape": (
                self.state(shape=[24, 96]),
                "gives the weight the shape [24,96]; the model has [48,48]",
            ),
            "no shape": (self.state(shape=None), "gives the weight the shape null"),
            "kind": (self.state(quant_type="fp4"), 'quant_type is "fp4"; supported is nf4'),
            "dtype": (self.state(dtype="int8"), 'dtype is "int8"'),
            "no offset": (self.state(nested_offset=None), "nested_offset is null"),
            "offset": (self.state(nested_offset=1e39), "nested_offset is 1e+39"),
            "no object": (self.tensors | {STATE: text(b"[1]")}, "must be the bytes of a JSON object"),
            "no JSON": (self.tensors | {STATE: text(b'{"a":')}, STATE),
            "keys twice": (self.tensors | {STATE: text(b'{"a":1,"a":2}')}, STATE),
            "state of another dtype": (self.tensors | {STATE: torch.zeros(3)}, "must be the bytes"),
            "fp4": (
                {
                    k.replace("bitsandbytes__nf4", "bitsandbytes__fp4") if k == STATE else k: v
                    for k, v in self.tensors.items()
                },
                "is quantised as fp4",
            ),
            "packed too short": (self.changed("", of("")[:-1]), "holds 1151 bytes"),
            "absmax too short": (self.changed(".absmax", of(".absmax")[:-1]), f"{Q}.absmax"),
            "absmax in fp32": (self.changed(".absmax", of(".absmax").float()), f"{Q}.absmax"),
            "nested absmax too long": (self.changed(".nested_absmax", torch.ones(2)), f"{Q}.nested_absmax"),
            "NaN": (self.changed(".nested_absmax", hole), "NaN"),
            "infinite map": (
                self.changed(".nested_quant_map", nan_map),
                f"{Q}.nested_quant_map' holds NaN or infinite",
            ),
            "another map": (self.changed(".quant_map", other_map), "not the map of NF4: value 3"),
            "map in fp16": (self.changed(".quant_map", of(".quant_map").half()), f"{Q}.quant_map"),
        }
        for suffix in (
            "",
            ".absmax",
            ".quant_map",
            ".nested_absmax",
            ".nested_quant_map",
            ".quant_state.bitsandbytes__nf4",
        ):
            cases[f"no {suffix or 'weight'}"] = (self.without(Q + suffix), f"'{Q}{suffix}'")
        for name, (tensors, words) in cases.items():
            with self.subTest(name):
                self.write(tensors)
                self.refused("model.safetensors" if not name.startswith("no ") else "bad", Q, words)
        with self.subTest("a norm"):
            self.write(self.tensors | {"model.norm.weight.absmax": torch.ones(1)})
            self.refused("tensor 'model.norm.weight' is quantised; of a model only matrices can be")
        with self.subTest("unknown companion"):
            self.write(self.changed(".zero_point", torch.ones(1)))
            self.refused("1 unexpected", f"{Q}.zero_point")
        with self.subTest("no companion at all"):
            self.write({k: v for k, v in self.tensors.items() if not k.startswith(f"{Q}.")})
            self.refused("mismatched", Q)
        self.write()
        self.assertEqual(self.score().returncode, 0)  # the tensors were the only fault

    def test_config(self):
        for words, config in (
            ('quant_method: found "gptq"', {"quant_method": "gptq", "bits": 4}),
            ('quant_method: found "awq"', {"quant_method": "awq", "bits": 4}),
            ("load_in_8bit: found true", {"quant_method": "bitsandbytes", "load_in_8bit": True}),
            ("load_in_4bit: found null", {"quant_method": "bitsandbytes"}),
            ('bnb_4bit_quant_type: found "fp4"', quantised.CONFIG | {"bnb_4bit_quant_type": "fp4"}),
            ("bnb_4bit_quant_type: found none, which means fp4", {"load_in_4bit": True}),
            ("quantization_config: found 4", 4),
        ):
            with self.subTest(words):
                self.write(quantization_config=config)
                self.refused("config.json", words)


if __name__ == "__main__":
    unittest.main()

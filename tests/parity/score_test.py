"""`plural score` against transformers: the same model folder gives the same numbers."""

import contextlib
import io
import json
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

import torch

from parity import reference

# What the folders of published models differ in.
SHAPES = {
    "llama": dict(family="llama"),
    "llama, tied head": dict(family="llama", tie_word_embeddings=True),
    "llama, in shards": dict(family="llama", shard_size="40KB"),
    "llama, tied head, in shards": dict(family="llama", tie_word_embeddings=True, shard_size="40KB"),
    "llama, one key-value head, wide heads": dict(family="llama", num_key_value_heads=1, head_dim=20),
    "llama, as many key-value heads": dict(family="llama", num_key_value_heads=4),
    "llama, rotary base 5e5": dict(
        family="llama", rope_parameters={"rope_type": "default", "rope_theta": 500000.0}
    ),
    "mistral": dict(family="mistral"),
    "mistral, window of 7": dict(family="mistral", sliding_window=7),
    "mistral, no window, in shards": dict(family="mistral", sliding_window=None, shard_size="40KB"),
    "mistral, bf16": dict(family="mistral", dtype=torch.bfloat16),
    "llama, fp16": dict(family="llama", dtype=torch.float16),
}


class ScoreTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.work = pathlib.Path(folder.name)

    def test_logits(self):
        # fp32 sums of 48 to 80 terms over 3 layers: 2e-5 of the largest logit is some 100 roundings.
        prompt = reference.random_lines(1, seed=5)[0]["prompt_tokens"] + list(range(10, 40))
        for name, settings in SHAPES.items():
            with self.subTest(name):
                folder = self.work / name
                reference.make_model(folder, **settings)
                model = reference.load(folder)
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
                row = torch.log_softmax(logits, -1).tolist()
                scores = reference.plural_scores(folder, self.work, reference.vocabulary_lines(prompt))
                difference = reference.worst(scores, [[value] for value in row])
                self.assertLess(difference, 2e-5 * logits.abs().max().item())

    def test_token_log_probabilities(self):
        for name, settings in SHAPES.items():
            with self.subTest(name):
                folder = self.work / name
                reference.make_model(folder, seed=1, **settings)
                lines = reference.random_lines(24, seed=2)
                scores = reference.plural_scores(folder, self.work, lines)
                expected = reference.reference_scores(reference.load(folder), lines)
                self.assertLess(reference.worst(scores, expected), 1e-4)

    def test_sharing_changes_nothing(self):
        """A line has the same score alone as among lines that share its prompt."""
        reference.make_model(self.work / "model")
        lines = reference.random_lines(12, seed=3)
        together = reference.plural_scores(self.work / "model", self.work, lines)
        alone = [reference.plural_scores(self.work / "model", self.work, [line])[0] for line in lines]
        self.assertLess(reference.worst(together, alone), 1e-5)

    def test_config_of_transformers_4(self):
        folder = self.work / "model"
        reference.make_model(folder, rope_parameters={"rope_type": "default", "rope_theta": 30000.0})
        expected = reference.reference_scores(reference.load(folder), reference.random_lines(4))
        config = json.loads((folder / "config.json").read_text())
        del config["rope_parameters"], config["dtype"], config["head_dim"]
        config.update(rope_theta=30000.0, rope_scaling=None, torch_dtype="float32")
        (folder / "config.json").write_text(json.dumps(config))
        scores = reference.plural_scores(folder, self.work, reference.random_lines(4))
        self.assertLess(reference.worst(scores, expected), 1e-4)

    def test_bad_input(self):
        folder, target = self.work / "model", self.work / "out.jsonl"
        reference.make_model(folder)
        good = {"id": "a", "prompt_tokens": [1, 2], "response_tokens": [3]}
        bad = [
            ("not json", "line 2"),
            ('{"id": "a", "id": "b", "prompt_tokens": [1], "response_tokens": [3]}', "twice"),
            (json.dumps([1]), "line 2"),
            (json.dumps({**good, "id": None}), "id"),
            (json.dumps({**good, "prompt_tokens": []}), "prompt_tokens"),
            (json.dumps({**good, "response_tokens": []}), "response_tokens"),
            (json.dumps({**good, "response_tokens": "3"}), "response_tokens"),
            (json.dumps({**good, "response_tokens": [3.0]}), "3.0"),
            (json.dumps({**good, "response_tokens": [-1]}), "-1"),
            (json.dumps({**good, "response_tokens": [reference.VOCAB]}), str(reference.VOCAB)),
            (json.dumps({**good, "response_tokens": [3] * 300}), "max_position_embeddings"),
            (json.dumps({"id": "a", "prompt_tokens": [1]}), "response_tokens"),
            # Texts, and lines that generate did not write.
            (json.dumps({"id": "a", "prompt": "x", "response": "y"}), "'prompt_tokens' is missing"),
            *(
                (json.dumps({"id": "a", "prompt_tokens": [1], "responses": responses}), word)
                for responses, word in (
                    (3, "'responses' must hold a list"),
                    ([], "'responses' must hold a list"),
                    ([3], "response 1: has no 'tokens'"),
                    ([{"tokens": [3]}, {"tokens": 3}], "'tokens' must be a list"),
                    ([{"tokens": [3], "latent": 1}], "response 1: was asked with a latent"),
                    ([{"tokens": [3], "tail_tokens": [-1]}], "-1"),
                    ([{"tokens": [3] * 300}], "max_position_embeddings"),
                )
            ),
        ]
        for line, word in bad:
            with self.subTest(line[:70]):
                source = self.work / "in.jsonl"
                source.write_text(json.dumps(good) + "\n" + line + "\n")
                said = reference.plural(
                    "score", "--model", folder, "--input", source, "-o", target, expect=65
                )
                self.assertIn("line 2", said)
                self.assertIn(word, said)
                self.assertEqual(sorted(p.name for p in self.work.iterdir()), ["in.jsonl", "model"])
        reference.plural("score", "--model", folder, "--input", self.work / "no", "-o", target, expect=66)
        reference.plural("score", "--model", self.work / "no", "--input", source, "-o", target, expect=66)
        reference.plural(
            "score", "--model", folder, "--input", source, "-o", self.work / "no" / "x", expect=73
        )
        reference.plural("score", "--model", folder, expect=64)

    def test_ranks_give_the_same_bytes(self):
        reference.make_model(self.work / "model")
        lines = reference.random_lines(40, seed=4) + [
            line for k in range(30) for line in reference.vocabulary_lines([1, 5 + k])
        ]  # several blocks
        reference.write_lines(self.work / "in.jsonl", lines)
        outputs = []
        for ranks in (1, 3):
            target = self.work / f"out-{ranks}.jsonl"
            command = [
                "mpirun",
                "-np",
                str(ranks),
                "--map-by",
                ":OVERSUBSCRIBE",
                "--bind-to",
                "none",
                os.environ["PLURAL_BINARY"],
                "score",
                "--model",
                self.work / "model",
                "--input",
                self.work / "in.jsonl",
                "-o",
                target,
                "--threads",
                "1",
            ]
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
            self.assertEqual(done.returncode, 0, done.stderr)
            outputs.append(target.read_bytes())
        self.assertEqual(len(outputs[0].splitlines()), len(lines))
        self.assertEqual(outputs[0], outputs[1])

    def test_reference_script(self):
        """Models and figures of the reference scripts, with the vocabulary of a real tokenizer."""
        peers = pathlib.Path(os.environ.get("PLURAL_SHARED_DIR", "")) / "peers"
        if not os.environ.get("PLURAL_SHARED_DIR") or not (peers / "hf_score.py").is_file():
            self.skipTest("PLURAL_SHARED_DIR has no peers/hf_score.py")
        small = "--hidden 128 --layers 2 --heads 4 --kv 2 --ffn 256"
        lines = reference.random_lines(16, seed=6)
        reference.write_lines(self.work / "in.jsonl", lines)

        def run(script, *arguments):
            # In this process: importing transformers takes longer than all the rest.
            printed = io.StringIO()
            with (
                mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]),
                contextlib.redirect_stdout(printed),
            ):
                runpy.run_path(str(script), run_name="__main__")
            return printed.getvalue()

        for options in (
            "--family mistral",
            "--family llama --shards",
            "--family llama --tie --shards",
            "--family mistral --tie --dtype bfloat16",
            "--family gemma --tie",
            "--family qwen2",
        ):
            with self.subTest(options):
                folder = self.work / options.replace(" ", "")
                run(peers / "make_model.py", folder, *small.split(), *options.split())
                expected = [
                    json.loads(line)["token_logprobs"]
                    for line in run(peers / "hf_score.py", folder, self.work / "in.jsonl").splitlines()
                ]
                scores = reference.plural_scores(folder, self.work, lines)
                self.assertLess(reference.worst(scores, expected), 1e-4)


if __name__ == "__main__":
    unittest.main()

"""`plural persona` with the real program behind it: a model of known distribution, entropies it must come
near."""

import json
import math
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from text.support import FolderTest, byte_level_folder, open_tokenizer, run, write_lines

# What the model answers after any ":", the end of every prompt; 1.75 bits.
ANSWERS = {"b": 0.5, "d": 0.25, "o": 0.125, "s": 0.125}
BITS = 1.75


def write_model(folder: Path) -> Path:
    """A model whose next token hangs on the last one alone: embeddings are one-hot, the layer leaves them
    alone, and the head's column of a token holds the log-probabilities of what follows it."""
    byte_level_folder(folder)
    tokenizer = open_tokenizer(folder)
    size = len(tokenizer.token_bytes)
    one = lambda text: tokenizer.encode_prompts([text])[0][0]
    head = np.full((size, size), -60.0, np.float32)  # e^-60: never drawn
    head[tokenizer.eos_id] = 0.0
    head[tokenizer.eos_id, one(":")] = -60.0
    for answer, p in ANSWERS.items():
        head[one(answer), one(":")] = math.log(p)
    zero = lambda *shape: np.zeros(shape, np.float32)
    layer = {f"self_attn.{name}_proj.weight": zero(2, size) for name in "qkv"}
    layer |= {
        "self_attn.o_proj.weight": zero(size, 2),
        "mlp.gate_proj.weight": zero(4, size),
        "mlp.up_proj.weight": zero(4, size),
        "mlp.down_proj.weight": zero(size, 4),
        "input_layernorm.weight": zero(size),
        "post_attention_layernorm.weight": zero(size),
    }
    tensors = {f"model.layers.0.{name}": tensor for name, tensor in layer.items()}
    tensors |= {
        "model.embed_tokens.weight": np.eye(size, dtype=np.float32),
        "lm_head.weight": head,
        "model.norm.weight": np.full(size, size**-0.5, np.float32),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "architectures": ["LlamaForCausalLM"],
                "vocab_size": size,
                "hidden_size": size,
                "intermediate_size": 4,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "num_key_value_heads": 1,
                "head_dim": 2,
                "max_position_embeddings": 256,
                "rms_norm_eps": 1e-12,
                "bos_token_id": tokenizer.bos_id,
                "eos_token_id": tokenizer.eos_id,
            }
        )
    )
    return folder


class Persona(FolderTest):
    def setUp(self):
        super().setUp()
        self.model = write_model(self.folder / "model")
        self.questions = write_lines(
            self.folder / "questions.jsonl",
            [{"ask": "So?", "attribute": "first"}, {"ask": "And?", "attribute": "second"}],
        )

    def persona(self, output, *options, code=0):
        figures = self.folder / f"{output}.json"
        done = run(
            "persona",
            "--model",
            self.model,
            "-o",
            self.folder / output,
            "--questions",
            self.questions,
            "--possibilities",
            "9",
            "--figures",
            figures,
            *options,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            return done.stderr
        talks = {
            line["id"]: line for line in map(json.loads, (self.folder / output).read_text().splitlines())
        }
        return talks, json.loads(figures.read_text())["figures"]

    def test_entropy_of_a_known_model(self):
        talks, figures = self.persona("talks.jsonl", "--conversations", "300")
        for attribute in ("first", "second"):
            # The plug-in entropy of N draws has standard deviation sd(log2 p) / sqrt(N), here sqrt(0.6875 /
            # 300), and is low by 3 / (2 N ln 2) bits; four deviations are allowed.
            bits = figures[f"{attribute}_entropy_bits"]["value"]
            self.assertAlmostEqual(bits, BITS, delta=4 * math.sqrt(0.6875 / 300) + 3 / (600 * math.log(2)))
            self.assertEqual(figures[f"{attribute}_top_share"]["note"], "b")
        # Two turns of a conversation are drawn apart: they agree with probability sum p^2 = 0.34375.
        same = sum(talk["turns"][1] == talk["turns"][3] for talk in talks.values())
        self.assertAlmostEqual(same / 300, 0.34375, delta=4 * math.sqrt(0.34375 * 0.65625 / 300))

    def test_conversations_do_not_depend_on_what_runs_beside_them(self):
        beside, _ = self.persona("a.jsonl", "--conversations", "12")
        alone, _ = self.persona("b.jsonl", "--conversations", "8", "--parallel", "1")
        for name, talk in alone.items():
            self.assertEqual(talk["turns"], beside[name]["turns"])

    def test_prompt_that_does_not_fit(self):
        write_lines(self.questions, [{"ask": "why " * 200, "attribute": "first"}])
        said = self.persona("talks.jsonl", "--conversations", "2", code=65)
        self.assertIn("exceed the model's context of 256", said)
        self.assertIn("0 conversations are kept", said)


if __name__ == "__main__":
    unittest.main()

"""Aligned possibilities from text to replies: the kind of a number learnt on some prompts holds for
others."""

import json
import random
import subprocess
import tempfile
import unittest
from pathlib import Path

import training
from text import support

REPLIES = {"ask": "Why?", "plan": "Let us go.", "share": "Same here."}
NUMBERS = list(REPLIES)  # kinds in the order of their numbers, 1 to 3
TOPICS = (
    "apples boats cats doors eggs farms games hats inns jars kites lamps maps nuts oats pens queens rings "
    "ships trees urns vans wheels yards"
).split()
UNSEEN = ["bells", "corn", "dogs", "foxes"]

RECIPE = """name: run
method: peft
seed: 3
run: {dir: runs, threads: 1}
model:
  dtype: fp32
  config: {model_type: llama, architectures: [LlamaForCausalLM], vocab_size: 402, hidden_size: 32,
           intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
           max_position_embeddings: 128, hidden_act: silu, rms_norm_eps: 1.0e-6, rope_theta: 10000.0,
           initializer_range: 0.1, tie_word_embeddings: false, bos_token_id: 0, eos_token_id: 1}
adapter: {type: none}
data: {train: train.h5}
group: {responses: 3, possibilities: 3, assignment: aligned, selection: aligned}
train: {steps: 60, groups_per_step: 6}
optimizer: {lr: 1.0e-2}
checkpoint: {every_steps: 0}
"""


class AlignedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        support.byte_level_folder(cls.folder / "tokenizer")
        draw = random.Random(5)
        rows = []
        for topic in TOPICS:
            # A reply of each kind and one kind twice, in any order: a number is no place in the list.
            kinds = [*draw.sample(NUMBERS, 3), draw.choice(NUMBERS)]
            draw.shuffle(kinds)
            rows.append(
                {
                    "context": f"I like {topic}.",
                    "candidates": [REPLIES[kind] for kind in kinds],
                    "kinds": kinds,
                }
            )
        cls.prepare("train", rows, "--align", "kinds")
        cls.prepare("plain", rows, "--possibilities", "3")
        cls.prepare(
            "prompts",
            [{"context": f"I like {topic}."} for topic in UNSEEN],
            "--possibilities",
            "3",
            "--prompts-only",
        )
        (cls.folder / "r.yaml").write_text(RECIPE)

    @classmethod
    def prepare(cls, name, rows, *options):
        support.write_lines(cls.folder / f"{name}.jsonl", rows)
        done = support.run(
            "prepare",
            cls.folder / f"{name}.jsonl",
            "--tokenizer",
            cls.folder / "tokenizer",
            "--format",
            "dialogue",
            "-o",
            cls.folder / f"{name}.h5",
            *options,
        )
        assert done.returncode == 0, done.stderr

    def train(self, *overrides, code=0, ranks=1):
        done = training.train(self.folder, "r.yaml", *overrides, ranks=ranks)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stderr

    def test_numbers_keep_their_meaning_on_unseen_prompts(self):
        self.train()
        done = subprocess.run(
            [
                training.PLURAL,
                "generate",
                "--model",
                "runs/run/model",
                "--corpus",
                "prompts.h5",
                "--possibilities",
                "2,3,1",
                "--responses",
                "3",
                "--temperature",
                "0",
                "-o",
                "out.jsonl",
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        prompts = [json.loads(line) for line in (self.folder / "out.jsonl").read_text().splitlines()]
        self.assertEqual(len(prompts), len(UNSEEN))
        for prompt in prompts:
            said = {response["possibility"]: response["text"].strip() for response in prompt["responses"]}
            self.assertEqual(said, {k: REPLIES[kind] for k, kind in enumerate(NUMBERS, 1)}, prompt["prompt"])

    def test_layouts_and_ranks_agree(self):
        steps = ("model.dtype=fp64", "train.steps=4")
        self.train("name=alone", *steps)
        self.train("name=plain", "train.layout=plain", *steps)
        self.train("name=ranks", *steps, ranks=3)
        alone = training.losses(self.folder, "alone")
        self.assertEqual(len(alone), 4)
        # Sums in another order: fp64 rounds at 1.1e-16, and four steps amplify it by far less than 1e5.
        for name in ("plain", "ranks"):
            for one, other in zip(alone, training.losses(self.folder, name), strict=True):
                self.assertAlmostEqual(one, other, delta=1e-10 * abs(one), msg=name)

    def test_a_corpus_without_meanings_is_refused_before_the_run(self):
        error = self.train("name=none", "data.train=plain.h5", code=65)
        self.assertIn("plain.h5: does not say what possibility numbers stand for", error)
        self.assertIn("--align 3 or --align kinds", error)
        error = self.train("name=none", "group.possibilities=2", "group.responses=2", code=65)
        self.assertIn(
            "says what 3 possibility numbers stand for; group.possibilities asks for 2; set it to 3", error
        )
        self.assertFalse((self.folder / "runs" / "none" / "checkpoints").exists())


if __name__ == "__main__":
    unittest.main()

"""What training leaves for those who ask: plural.json, tokenizer and card. `plural ask`, transformers and
`plural score` agree on what the model reads."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import training
from plural_text.prepare.tokenizer_files import open_tokenizer
from text.support import run, write_lines
from text.tiny_tokenizers import byte_level, chatml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
RECIPE = """name: {name}
method: {method}
model: {{path: base, device: cpu}}
adapter: {adapter}
data: {{train: {name}.h5}}
{group}train: {{steps: 1, groups_per_step: 2}}
checkpoint: {{every_steps: 0}}
run: {{threads: 1}}
"""
LORA = "{rank: 2, alpha: 4, targets: [q_proj, v_proj]}"


def write_model(folder: Path) -> None:
    """A small llama of random weights, with a chat template."""
    special = ["<s>", "<|im_start|>", "<|im_end|>"]
    tokens = {"bos_token": "<s>", "eos_token": "<|im_end|>", "add_bos_token": True}
    byte_level(folder, special, tokens, chatml())
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    size = len(vocabulary["model"]["vocab"]) + len(special)
    draw = np.random.default_rng(0)
    shapes = {
        "self_attn.q_proj": (16, 16),
        "self_attn.k_proj": (8, 16),
        "self_attn.v_proj": (8, 16),
        "self_attn.o_proj": (16, 16),
        "mlp.gate_proj": (32, 16),
        "mlp.up_proj": (32, 16),
        "mlp.down_proj": (16, 32),
    }
    tensors = {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}
    tensors |= {"model.embed_tokens.weight": (size, 16), "lm_head.weight": (size, 16)}
    weights = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in tensors.items()}
    ones = ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm")
    weights |= {f"{name}.weight": np.ones(16, np.float32) for name in ones}
    save_file(weights, folder / "model.safetensors")
    ends = {"bos_token_id": size - 3, "eos_token_id": size - 1, "vocab_size": size}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **ends}))


class Asked(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        write_model(cls.folder / "base")
        cls.train("dialogue", {"context": "Hello!\nHow are you?", "candidates": ["Fine.", "So so."]})
        cls.train(
            "chat", {"messages": [{"role": "user", "content": "A fruit?"}], "responses": ["Plum.", "Fig."]}
        )
        targets = {"request": "Name a fruit.", "targets": ["Plum", "Fig"]}
        cls.train("targets", targets, method="distribution_matching", adapter="{type: none}")

    @classmethod
    def train(cls, name, record, method="peft", adapter=LORA):
        write_lines(cls.folder / f"{name}.jsonl", [{"id": f"{name}{i}", **record} for i in range(2)])
        numbers = ("--possibilities", "4") if name != "targets" else ()
        done = run(
            "prepare",
            *(f"{name}.jsonl", "--tokenizer", "base", "-o", f"{name}.h5", *numbers),
            cwd=cls.folder,
        )
        assert done.returncode == 0, done.stderr
        group = "group: {responses: 2, possibilities: 4}\n" if numbers else ""
        recipe = RECIPE.format(name=name, method=method, adapter=adapter, group=group)
        (cls.folder / f"{name}.yaml").write_text(recipe)
        done = training.train(cls.folder, f"{name}.yaml")
        assert done.returncode == 0, done.stderr

    def plural(self, *arguments):
        done = subprocess.run(
            [ROOT / "launch/plural", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def ask(self, name, *arguments):
        """The answers of `plural ask` as JSON."""
        return json.loads(
            self.plural(
                *("ask", "--model", "base", "--adapter", f"runs/{name}/adapter", "--json", "--quiet"),
                *("--threads", 1, "--max-new-tokens", 6, *arguments),
            )
        )

    def lines(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def test_a_corpus_and_a_question_read_the_same(self):
        for name, question in (("dialogue", "Hello!\nHow are you?"), ("chat", "A fruit?")):
            self.plural(
                *(
                    "generate",
                    "--model",
                    "base",
                    "--adapter",
                    f"runs/{name}/adapter",
                    "--corpus",
                    f"{name}.h5",
                ),
                *("-o", f"{name}.answers", "--possibilities", "1,4", "--responses", 2, "--threads", 1),
                *("--max-new-tokens", 6, "--limit", 1),
            )
            (corpus,) = self.lines(f"{name}.answers")
            asked = self.ask(name, question, "--possibilities", "1,4")
            self.assertEqual([r["possibility"] for r in asked["responses"]], [1, 4])
            for ours, theirs in zip(asked["responses"], corpus["responses"], strict=True):
                self.assertEqual(
                    asked["prompt_tokens"] + ours["tail_tokens"],
                    corpus["prompt_tokens"] + theirs["tail_tokens"],
                )
                read = corpus["prompt"] + theirs["tail"]
                self.assertEqual(asked["prompt"] + ours["tail"], read)
                self.assertIn(f"#{theirs['possibility']}", read)

    def test_answers_are_scored(self):
        """generate's own log-probabilities, where an answer has no end token that would count, too."""
        self.plural(
            *("generate", "--model", "base", "--adapter", "runs/dialogue/adapter", "--corpus", "dialogue.h5"),
            *("-o", "scored.answers", "--possibilities", "sample", "--responses", 4, "--threads", 1),
            *("--max-new-tokens", 5),
        )
        folders = ("--model", "base", "--adapter", "runs/dialogue/adapter", "--threads", 1)
        self.plural("score", *folders, "--input", "scored.answers", "-o", "scores")
        answers = [
            (line["id"], response) for line in self.lines("scored.answers") for response in line["responses"]
        ]
        scores = self.lines("scores")
        self.assertEqual(len(scores), 8)
        compared = 0
        for (name, response), score in zip(answers, scores, strict=True):
            keys = (score["id"], score["index"], score["possibility"])
            self.assertEqual(keys, (name, response["index"], response["possibility"]))
            self.assertEqual(len(score["token_logprobs"]), len(response["tokens"]))
            if not response["finished"]:
                self.assertAlmostEqual(score["logprob"], response["logprob_nats"], places=4)
                compared += 1
        self.assertGreater(compared, 3)
        # An answer that ended at once has nothing to score.
        line = self.lines("scored.answers")[0]
        line["responses"][0]["tokens"] = []
        write_lines(self.folder / "empty.answers", [line, {**line, "responses": line["responses"][:1]}, line])
        self.plural("score", *folders, "--input", "empty.answers", "-o", "scores")
        self.assertEqual([score["index"] for score in self.lines("scores")], [1, 2, 3] * 2)
        # And as texts, in the same prompt.
        write_lines(
            self.folder / "texts",
            [{"id": "t", "question": "Hello!\nHow are you?", "response": "Fine.", "possibility": 2}],
        )
        self.plural("score", *folders, "--input", "texts", "-o", "of_texts")
        (of_text,) = self.lines("of_texts")
        tokenizer = open_tokenizer(self.folder / "base")
        asked = ("--possibilities", "2", "-n", 1, "--max-new-tokens", 1, "--quiet", "--json")
        line = json.loads(self.plural("ask", *folders, *asked, "Hello!\nHow are you?"))
        prompt = line["prompt_tokens"] + line["responses"][0]["tail_tokens"]
        response = tokenizer.encode_text(["Fine."])[0]
        write_lines(self.folder / "ids", [{"id": "t", "prompt_tokens": prompt, "response_tokens": response}])
        self.plural("score", *folders, "--input", "ids", "-o", "of_ids")
        (of_ids,) = self.lines("of_ids")
        self.assertEqual(of_text["token_logprobs"], of_ids["token_logprobs"])

    def test_texts_go_on_after_a_stop(self):
        write_lines(
            self.folder / "many",
            ({"id": n, "prompt": f"Name {n}.", "responses": ["A plum.", "A pear."]} for n in range(6000)),
        )
        score = [
            ROOT / "launch/plural",
            "score",
            "--model",
            "base",
            "--threads",
            "1",
            "--input",
            "many",
            "-o",
        ]
        partial = self.folder / "stopped.scores.partial"
        process = subprocess.Popen(
            [*score, "stopped.scores"], cwd=self.folder, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and (not partial.exists() or partial.read_bytes().count(b"\n") < 2):
            time.sleep(0.02)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, errors)
        self.assertIn("kept in stopped.scores.partial", errors)
        kept = partial.read_bytes().count(b"\n") - 1
        self.assertLess(0, kept)
        done = subprocess.run([*score, "stopped.scores"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"goes on behind {kept} scored sequences", done.stderr)
        ids = [(score["id"], score["index"]) for score in self.lines("stopped.scores")]
        self.assertEqual(ids, [(n, i) for n in range(6000) for i in (0, 1)])

    def test_the_adapters_folder(self):
        folder = self.folder / "runs/chat/adapter"
        record = json.loads((folder / "plural.json").read_text())
        self.assertEqual((record["method"], record["possibilities"], record["latents"]), ("poexft", 4, 0))
        self.assertEqual(record["template"]["chat_template"], chatml())
        self.assertEqual((folder / "chat_template.jinja").read_text(), chatml())
        for name in ("tokenizer.json", "tokenizer_config.json"):
            self.assertEqual((folder / name).read_bytes(), (self.folder / "base" / name).read_bytes())
        # Of a model of its own.
        model = self.folder / "runs/targets/model"
        record = json.loads((model / "plural.json").read_text())
        self.assertEqual((record["method"], record["possibilities"]), ("distribution_matching", 0))
        options = ("--max-new-tokens", 4, "-n", 2, "--quiet", "--json", "Name a fruit.")
        asked = json.loads(self.plural("ask", "--model", model, *options))
        self.assertEqual(asked["prompt"], "<s>Name a fruit.\n")
        self.assertEqual([r["possibility"] for r in asked["responses"]], [0, 0])

    def test_an_export(self):
        self.plural("export", "--model", "base", "--adapter", "runs/dialogue/adapter", "-o", "merged")
        merged, adapter = self.folder / "merged", self.folder / "runs/dialogue/adapter"
        self.assertEqual((merged / "plural.json").read_text(), (adapter / "plural.json").read_text())
        card = (merged / "README.md").read_text()
        self.assertIn("possibility #{k}:", card)
        self.assertNotIn("adapter", card.lower())
        printed = self.plural(
            *("ask", "--model", "merged", "--possibilities", "3", "--max-new-tokens", 4, "Hi", "--quiet")
        )
        self.assertTrue(printed.startswith("#3  "), printed)

    def test_the_cards_code(self):
        """What the README of an adapter tells users of transformers to do gives the ids that `ask` sends."""
        code = ["import json"]
        for name in ("dialogue", "chat"):
            card = (self.folder / f"runs/{name}/adapter" / "README.md").read_text()
            (block,) = re.findall(r"## transformers\n\n```python\n(.*?)```", card, re.DOTALL)
            code += [
                block.replace("THIS_FOLDER", f"runs/{name}/adapter"),
                "print(json.dumps([ids, k, question]))",
            ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(code)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
        for name, (ids, k, question) in zip(("dialogue", "chat"), found, strict=True):
            asked = self.ask(name, question, "--possibilities", k)
            (response,) = asked["responses"]
            self.assertEqual(ids, asked["prompt_tokens"] + response["tail_tokens"])


if __name__ == "__main__":
    unittest.main()

"""The README's "Your own data in five lines", typed as they stand, on a tiny model with the real tokenizer
and shape of the one that they name."""

import json
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import mistral_common
import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
)
PROMPTS = 6
REPLIES = ("A film", "A walk", "Reading", "Rest")


def commands():
    """The commands of the section, continued lines joined, without their comments."""
    section = (ROOT / "README.md").read_text().split("## Your own data in five lines")[1]
    block = re.search(r"```\n(.*?)```", section, re.DOTALL)[1].replace("\\\n", " ")
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]


class ReadmeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in ("launch", "recipes"):
            (self.folder / name).symlink_to(ROOT / name)
        lines = [
            {"context": f"Any plans for day {n}?", "candidates": [f"{reply} {n}." for reply in REPLIES]}
            for n in range(PROMPTS)
        ]
        (self.folder / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.make_model(self.folder / "models/mistral-7b-instruct-v0.2")

    @staticmethod
    def make_model(folder):
        torch.manual_seed(0)
        config = transformers.MistralConfig(
            vocab_size=32000,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            sliding_window=None,
        )
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        shutil.copy(TOKENIZER, folder / "tokenizer.model")
        settings = {
            "tokenizer_class": "LlamaTokenizer",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "add_bos_token": True,
            "chat_template": CHAT_TEMPLATE,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    def plural_ask(self, *options):
        """What the last of the commands notes with more options."""
        done = subprocess.run(
            f"{commands()[-1]} {' '.join(options)}",
            shell=True,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.stderr

    def test_the_five_lines(self):
        typed = commands()
        self.assertEqual(len(typed), 5)
        for command in typed:
            done = subprocess.run(
                command, shell=True, cwd=self.folder, capture_output=True, text=True, timeout=300
            )
            self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        self.assertTrue((self.folder / "runs/mine/adapter/adapter_model.safetensors").is_file())
        # The last asks in the model's own chat format, with five different numbers.
        numbers = re.findall(r"(?m)^#(\d)  ", done.stdout)
        self.assertEqual(len(set(numbers)), 5, done.stdout)
        self.assertIn("template mistral-dialogue, possibility numbers 1 to 9", done.stderr)
        shown = self.plural_ask("--show-prompt", "-n", "1")
        self.assertIn('reads "<s> [INST] Here is a conversation:', shown)
        self.assertIn("Person A: Any plans for tonight?", shown)
        ends = json.loads((self.folder / "runs/mine/adapter/generation_config.json").read_text())
        self.assertEqual(ends["eos_token_id"], 2)


if __name__ == "__main__":
    unittest.main()

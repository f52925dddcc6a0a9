"""The common part of the tests of `plural ask` and `plural serve`: a made model's process, which answers
with the last tokens that it read, and folders of a model and its adapter."""

import json
import os
import sys
from pathlib import Path

import h5py
import numpy as np

from text.support import FolderTest
from text.tiny_tokenizers import byte_level, chatml

# Answers each response with the last READ tokens of its prompt; keeps its command and its requests.
PROGRAM = """#!{python}
import json, os, sys
read, log = int(os.environ.get("READ", 3)), open(os.environ["LOG"], "a")
print(json.dumps(sys.argv[1:]), file=log, flush=True)
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(request), file=log, flush=True)
    if "FAILS" in os.environ:
        sys.exit("plural: error: " + os.environ["FAILS"])
    count = request.get("responses") or len(request.get("latents", [])) or len(request["tails"])
    if not all([request["prompt_tokens"], *request.get("tails", [])]):
        sys.exit("plural: error: a list of token ids is empty")
    responses = []
    for i in range(count):
        prompt = request["prompt_tokens"] + (request["tails"][i] if "tails" in request else [])
        latent = request["latents"][i] if "latents" in request else 0
        finished = read <= request["max_new_tokens"]
        tokens = prompt[-read:][: request["max_new_tokens"]]
        figures = {{"logprob_nats": -2.0, "finished": finished}}
        responses.append({{"index": i, "latent": latent, "tokens": tokens, **figures}})
    print(json.dumps({{"id": request["id"], "responses": responses}}), flush=True)
"""
DIALOGUE = {
    "name": "mine",
    "format": "dialogue",
    "speakers": {"a": "Person A: ", "b": "Person B: "},
    "prompt": "{context}\nPerson B:",
    "prompt_with_number": "{context}\nPerson B, #{k}:",
}
CHAT = {"name": "chat", "format": "chat", "number": " #{k}", "chat_template": chatml()}


class AnsweringTest(FolderTest):
    """self.model has a chat template and a context of 200 tokens, self.adapter what trained() leaves."""

    def setUp(self):
        super().setUp()
        self.model, self.adapter = self.folder / "model", self.folder / "run" / "adapter"
        special = ["<|im_start|>", "<|im_end|>", "<s>"]
        config = {"bos_token": "<s>", "eos_token": "<|im_end|>", "add_bos_token": True}
        byte_level(self.model, special, config, chatml())
        (self.model / "config.json").write_text(json.dumps({"max_position_embeddings": 200}))
        self.adapter.mkdir(parents=True)
        (self.adapter / "adapter_config.json").write_text("{}")
        self.log, program = self.folder / "log", self.folder / "program"
        program.write_text(PROGRAM.format(python=sys.executable))
        program.chmod(0o755)
        self.environment = os.environ | {"PLURAL_BINARY": str(program), "LOG": str(self.log)}

    def trained(self, template=DIALOGUE, method="peft", possibilities=4, latents=0) -> Path:
        """Leaves plural.json in the adapter's folder."""
        record = {
            "method": method,
            "possibilities": possibilities,
            "latents": latents,
            "template": template,
            "tokenizer_sha256": "",
        }
        (self.adapter / "plural.json").write_text(json.dumps(record))
        return self.adapter

    def requests(self) -> list[dict]:
        """What the process was asked."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if isinstance(line, dict)]

    def command(self) -> list[str]:
        return json.loads(self.log.read_text().splitlines()[0])


def older_run(folder: Path, adapter: Path) -> None:
    """A run folder as it was before adapters had plural.json: a recipe that names its corpus."""
    template = {
        "name": "x",
        "format": "dialogue",
        "prompt": "{context}",
        "prompt_with_number": "{context}, number {k}",
    }
    with h5py.File(folder / "corpus.h5", "w") as file:
        file["template"] = np.frombuffer(json.dumps(template).encode(), np.uint8)
        file.attrs["tokenizer_sha256"] = np.bytes_(b"\0")
    (adapter.parent / "recipe.yaml").write_text(
        f"method: peft\ndata: {{train: {folder / 'corpus.h5'}}}\ngroup: {{possibilities: 5}}\n"
    )


__all__ = ["CHAT", "DIALOGUE", "AnsweringTest", "older_run"]

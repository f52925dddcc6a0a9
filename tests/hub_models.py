"""Small models with the look of published ones, in a cache as huggingface_hub lays it out.

Owns: the cache's folders, tiny random weights and tokenizers. Does not own: what is expected of them. Thread
rule: free of state.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
from pathlib import Path

from text.tiny_tokenizers import byte_level, chatml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_into_cache(cache: Path, name: str, source: Path, commit: str = COMMIT, refs=("main",)) -> Path:
    """The files of `source` as `hf download NAME` leaves them: links into blobs/. Returns the snapshot."""
    folder = cache / f"models--{name.replace('/', '--')}"
    snapshot = folder / "snapshots" / commit
    for part in (folder / "blobs", folder / "refs", snapshot):
        part.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        blob = hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, folder / "blobs" / blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob)
    for ref in refs:
        (folder / "refs" / ref).write_text(commit)
    return snapshot


def make_qwen2(folder: Path) -> Path:
    """A random model of Qwen 2.5's shape (biases, tied head, ChatML), two layers of 32."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    byte_level(folder, special, config, chatml("You are Qwen."))
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    (end,) = (token["id"] for token in tokens if token["content"] == "<|im_end|>")
    shape = transformers.Qwen2Config(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=end,
        bos_token_id=None,
    )
    model = transformers.AutoModelForCausalLM.from_config(shape, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def qwen2_in_cache(cache: Path, name="Qwen/Qwen2.5-0.5B-Instruct") -> Path:
    """Such a model under a published one's name. Returns its snapshot."""
    return put_into_cache(cache, name, _kept_qwen2())


def _kept_qwen2() -> Path:
    """Made once per build: transformers takes seconds to load."""
    made_by = Path(__file__).read_bytes() + importlib.metadata.version("transformers").encode()
    builds = Path(os.environ["PLURAL_BINARY"]).resolve().parent
    kept = builds / "tests" / f"qwen2-{hashlib.sha256(made_by).hexdigest()[:16]}"
    if not kept.exists():
        folder = Path(tempfile.mkdtemp(dir=kept.parent))
        make_qwen2(folder)
        try:
            folder.rename(kept)
        except OSError:  # another test was quicker
            shutil.rmtree(folder)
    return kept

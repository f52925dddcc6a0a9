"""The common part of the tests of `plural train`: tiny corpora and recipes, and the command itself."""

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path

import h5py
import numpy as np

PLURAL = os.environ["PLURAL_BINARY"]
VOCAB = 40
END = 2  # the terminator

MODEL = (
    "{model_type: llama, architectures: [LlamaForCausalLM], vocab_size: 40, hidden_size: 16, "
    "intermediate_size: 32, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2, "
    "max_position_embeddings: 128, hidden_act: silu, rms_norm_eps: 1.0e-6, rope_theta: 10000.0, "
    "initializer_range: 0.2, tie_word_embeddings: false, bos_token_id: 1, eos_token_id: 2}"
)


def random_groups(count, responses=4, possibilities=5, seed=0, targets=False):
    """Groups as (prompt, tails, [(tokens, mask, weight)]); with `targets`, responses of one group differ."""
    draw = random.Random(seed)
    groups = []
    for _ in range(count):
        prompt = [1] + [draw.randrange(10, VOCAB) for _ in range(draw.randint(3, 9))]
        tails = [[3]] + [[4 + k, 3] for k in range(possibilities)]
        seen, answers = set(), []
        while len(answers) < responses:
            tokens = [draw.randrange(10, VOCAB) for _ in range(draw.randint(1, 6))]
            if targets and tuple(tokens) in seen:
                continue
            seen.add(tuple(tokens))
            mask = [draw.choice([0, 7]) for _ in tokens] + [0]
            answers.append(([*tokens, END], mask, draw.uniform(0.5, 2.0) if targets else 1.0))
        groups.append((prompt, tails, answers))
    return groups


def _ragged(file, name, offsets_name, lists, dtype):
    flat = np.array([item for part in lists for item in part], dtype=dtype)
    _dataset(file, name, flat)
    _dataset(file, offsets_name, np.cumsum([0] + [len(part) for part in lists]).astype(np.int64))


def _dataset(file, name, values):
    file.create_dataset(
        name, data=values, maxshape=(None,), chunks=(max(1, min(len(values), 4096)),), fletcher32=True
    )


def write_corpus(
    path, groups, source_format="dialogue", tokenizer_sha256="0" * 64, vocabulary=None, template=None
):
    """A corpus after docs/corpus-format.md, with its sidecar. `vocabulary`: what ids stand for, as bytes;
    `template`: that of its prompts."""
    template = template or {}
    vocabulary = vocabulary or [b"<%d>" % i for i in range(VOCAB)]
    possibilities = len(groups[0][1]) - 1
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        text = {
            "format": "plural-corpus",
            "source_format": source_format,
            "tokenizer_name": "tokenizer.json",
            "tokenizer_sha256": tokenizer_sha256,
            "template_name": template.get("name", "none"),
            "mask_modes": "content_first,all_first,repo_compat",
        }
        for key, value in text.items():
            file.attrs[key] = np.bytes_(value)
        for key, value in {
            "format_version": 1,
            "vocab_size": len(vocabulary),
            "possibilities": possibilities,
        }.items():
            file.attrs.create(key, value, dtype=np.int64)
        answers = [answer for _, _, group in groups for answer in group]
        _ragged(file, "prompt_tokens", "prompt_offsets", [prompt for prompt, _, _ in groups], np.int32)
        _ragged(
            file, "tail_tokens", "tail_offsets", [tail for _, tails, _ in groups for tail in tails], np.int32
        )
        _ragged(file, "response_tokens", "response_offsets", [tokens for tokens, _, _ in answers], np.int32)
        _dataset(file, "response_masks", np.array([m for _, mask, _ in answers for m in mask], np.uint8))
        _dataset(file, "response_weights", np.array([weight for _, _, weight in answers], np.float64))
        _dataset(
            file, "group_responses", np.cumsum([0] + [len(group) for _, _, group in groups]).astype(np.int64)
        )
        _ragged(file, "id_bytes", "id_offsets", [b"g%d" % i for i in range(len(groups))], np.uint8)
        _ragged(file, "vocab_bytes", "vocab_offsets", vocabulary, np.uint8)
        _dataset(file, "template", np.frombuffer(json.dumps(template).encode(), np.uint8))
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file.attrs.create("complete", 1, dtype=np.int64)
    write_sidecar(path)


def write_sidecar(path):
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {Path(path).name}\n")


def write_recipe(
    path, name, method="peft", corpus="corpus.h5", adapter=True, dtype="fp64", dropout=0.0, extra=""
):
    """A recipe of a tiny random model; `extra` is appended as YAML."""
    adapter_line = (
        f"{{type: lora, rank: 4, alpha: 8, dropout: {dropout}, "
        "targets: [q_proj, v_proj, down_proj, lm_head]}"
        if adapter
        else "{type: none}"
    )
    group = {"peft": "group: {responses: 4, possibilities: 5}", "otmft": "group: {responses: 4}"}.get(
        method, ""
    )
    Path(path).write_text(f"""name: {name}
method: {method}
seed: 7
run: {{dir: runs, threads: 1}}
model: {{config: {MODEL}, dtype: {dtype}, device: cpu}}
adapter: {adapter_line}
data: {{train: {corpus}}}
{group}
optimizer: {{lr: 1.0e-2}}
{extra}
""")


def command(recipe, *overrides, ranks=1):
    plural = [PLURAL, "train", str(recipe), *overrides]
    return plural if ranks == 1 else mpirun(ranks) + plural


def mpirun(ranks):
    return ["mpirun", "-np", str(ranks), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]


def train(folder, recipe, *overrides, ranks=1, timeout=300, environment=None):
    return subprocess.run(
        command(recipe, *overrides, ranks=ranks),
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def metrics(folder, name):
    with open(Path(folder) / "runs" / name / "metrics.jsonl") as file:
        return [json.loads(line) for line in file]


def losses(folder, name):
    return [line["loss"] for line in metrics(folder, name) if line["event"] == "step"]

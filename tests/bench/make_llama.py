"""Writes a Llama-shaped model with random weights in bf16, in shards; by default of TinyLlama's shape, 1.1 B.

    python tests/bench/make_llama.py DIR [--tokenizer DIR]

One shard is in memory at a time. A tokenizer's files are copied beside it, for corpora made with them.
"""

import argparse
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file


def layer(index, a):
    keys = a.hidden // a.heads * a.key_value_heads
    shapes = {
        "self_attn.q_proj": (a.hidden, a.hidden),
        "self_attn.k_proj": (keys, a.hidden),
        "self_attn.v_proj": (keys, a.hidden),
        "self_attn.o_proj": (a.hidden, a.hidden),
        "mlp.gate_proj": (a.inner, a.hidden),
        "mlp.up_proj": (a.inner, a.hidden),
        "mlp.down_proj": (a.hidden, a.inner),
    }
    tensors = {f"model.layers.{index}.{name}.weight": shape for name, shape in shapes.items()}
    norms = {
        f"model.layers.{index}.{name}_layernorm.weight": (a.hidden,) for name in ("input", "post_attention")
    }
    return tensors | norms


def draw(shape, generator):
    if len(shape) == 1:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, generator=generator) * 0.02).bfloat16()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=22)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--key-value-heads", type=int, default=4)
    parser.add_argument("--inner", type=int, default=5632)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--layers-per-shard", type=int, default=8)
    parser.add_argument("--tokenizer", type=pathlib.Path)
    a = parser.parse_args()
    a.folder.mkdir(parents=True)
    table = (a.vocabulary, a.hidden)
    parts = [{"model.embed_tokens.weight": table}]
    for first in range(0, a.layers, a.layers_per_shard):
        last = min(a.layers, first + a.layers_per_shard)
        parts.append({name: shape for i in range(first, last) for name, shape in layer(i, a).items()})
    parts.append({"model.norm.weight": (a.hidden,), "lm_head.weight": table})

    generator, files = torch.Generator().manual_seed(0), {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        tensors = {key: draw(shape, generator) for key, shape in part.items()}
        save_file(tensors, a.folder / name, {"format": "pt"})
        files |= {key: name for key in part}
    (a.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": a.vocabulary,
        "hidden_size": a.hidden,
        "intermediate_size": a.inner,
        "num_hidden_layers": a.layers,
        "num_attention_heads": a.heads,
        "num_key_value_heads": a.key_value_heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
    (a.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in a.tokenizer.glob("token*") if a.tokenizer else []:
        shutil.copy(path, a.folder)


if __name__ == "__main__":
    main()

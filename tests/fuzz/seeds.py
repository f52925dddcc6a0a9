"""Writes tests/fuzz/corpus: the small files that fuzzing starts from. To be run where a target changes:

PYTHONPATH=tests PLURAL_BINARY= .venv/bin/python tests/fuzz/seeds.py
"""

import json
import struct
import tempfile
from pathlib import Path

import training

CORPUS = Path(__file__).parent / "corpus"
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1}


def write(target, name, data):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(data)


def safetensors(tensors, **metadata):
    """A file of (name, dtype, shape, value) with one value all through; float32 only has values but 0."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, dtype, shape, value in tensors:
        count = 1
        for size in shape:
            count *= size
        begin = len(data)
        data += struct.pack("<f", value) * count if dtype == "F32" else bytes(count * BYTES[dtype])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def raw(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def write_safetensors():
    write("safetensors", "all_types", safetensors([(kind, kind, [2, 3], 1.5) for kind in BYTES], format="pt"))
    write("safetensors", "empty", raw(b"{}"))
    write("safetensors", "scalar_and_none", safetensors([("a", "F32", [], 2.0), ("b", "F32", [0, 7], 0.0)]))
    one = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
    write("safetensors", "twice", raw(b"{" + one + b"," + one + b"}", bytes(8)))
    two = one + b"," + one.replace(b'"a"', b'"b"')
    write("safetensors", "overlap", raw(b"{" + two + b"}", bytes(8)))
    write("safetensors", "truncated", raw(b"{" + one + b"}", bytes(3)))
    controls = one.replace(b'"a"', b'"\\u001b[2J\\n"').replace(b"[0,4]", b"[0,5]")
    write("safetensors", "name_with_controls", raw(b"{" + controls + b"}", bytes(5)))


# The values of the type, trainer/kernels/nf4_loops.cc.
NF4 = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
]


def nf4(double, **changes):
    """The weight of nf4_fuzz.cc, 8 by 12: two blocks, one of 32 values."""
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [8, 12]}
    parts = {"w": ("U8", [48, 1], bytes(range(48))), "w.quant_map": ("F32", [16], struct.pack("<16f", *NF4))}
    if double:
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5}
        levels = [i / 128 - 1 for i in range(256)]
        parts |= {
            "w.absmax": ("U8", [2], bytes([3, 250])),
            "w.nested_absmax": ("F32", [1], struct.pack("<f", 2)),
            "w.nested_quant_map": ("F32", [256], struct.pack("<256f", *levels)),
        }
    else:
        parts["w.absmax"] = ("F32", [2], struct.pack("<2f", 1.5, 0.25))
    text = json.dumps(state | changes).encode()
    parts["w.quant_state.bitsandbytes__nf4"] = ("U8", [len(text)], text)
    header, data = {}, b""
    for name, (dtype, shape, values) in parts.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return raw(json.dumps(header, separators=(",", ":")).encode(), data)


def write_nf4():
    write("nf4", "plain", nf4(False))
    write("nf4", "double", nf4(True))
    write("nf4", "other_block", nf4(True, blocksize=32))
    write("nf4", "other_shape", nf4(False, shape=[12, 8]))
    write("nf4", "infinite", nf4(True, nested_offset=1e39))


# The tiny model of adapter_fuzz.cc: rows, columns of the layers that seeds adapt.
SHAPES = {
    "model.layers.0.self_attn.q_proj": (8, 8),
    "model.layers.0.mlp.down_proj": (8, 12),
    "lm_head": (11, 8),
}


def adapter(targets, rank=2, value=0.5, stored=(), **changes):
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "base_model_name_or_path": "x",
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "modules_to_save": None,
        "init_lora_weights": True,
    }
    tensors = list(stored)
    for name, (rows, columns) in SHAPES.items():
        if name.rsplit(".", 1)[-1] in targets:
            tensors.append((f"base_model.model.{name}.lora_A.weight", "F32", [rank, columns], value))
            tensors.append((f"base_model.model.{name}.lora_B.weight", "F32", [rows, rank], value))
    return json.dumps(config | changes).encode() + b"\0" + safetensors(tensors, format="pt")


def write_adapters():
    write("adapter", "one", adapter(["q_proj"]))
    write("adapter", "three", adapter(["q_proj", "down_proj", "lm_head"]))
    write("adapter", "nan", adapter(["q_proj"], value=float("nan")))
    write("adapter", "other_rank", adapter(["q_proj"], r=3))
    write(
        "adapter",
        "patterns",
        adapter(
            ["q_proj", "lm_head"], rank_pattern={"lm_head": 4}, alpha_pattern={"q_proj": 8}, use_rslora=True
        ),
    )
    head = ("base_model.model.lm_head.base_layer.weight", "F32", [11, 8], 0.0)
    write("adapter", "stored_head", adapter(["lm_head"], stored=[head]))
    head = ("base_model.model.lm_head.weight", "F32", [11, 8], 0.0)
    write("adapter", "saved_module", adapter(["q_proj"], modules_to_save=["lm_head"], stored=[head]))
    write("adapter", "no_weights", adapter(["q_proj"]).split(b"\0")[0])


def write_corpora():
    """Of corpus_values only changes are kept: an input there is read from its end (FuzzedDataProvider)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "corpus.h5"
        training.write_corpus(path, training.random_groups(1, responses=2, possibilities=2))
        write("corpus_file", "one_group", path.read_bytes())
        write("corpus_file", "truncated", path.read_bytes()[:1000])
    write("corpus_values", "none", bytes([0]))
    write("corpus_values", "kinds", bytes([1]))
    write("corpus_values", "centres", bytes([2]))
    for seed in range(4):
        changes = bytes((seed * 97 + i * i * 31 + i) % 256 for i in range(48))
        write("corpus_values", f"changes_{seed}", changes)


if __name__ == "__main__":
    write_safetensors()
    write_adapters()
    write_nf4()
    write_corpora()

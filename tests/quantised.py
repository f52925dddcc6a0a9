"""Folders in NF4 for tests: tiny models quantised with bitsandbytes, in the keys that transformers writes."""

import json
import os
import pathlib
import shutil

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # read by torch: bitsandbytes would compile what it calls once

import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file

CONFIG = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "llm_int8_skip_modules": None,
}


def is_linear_of_a_layer(name, tensor):
    return name.startswith("model.layers.") and tensor.dim() == 2


def quantise(tensor, double=True):
    """(packed, state) in one thread, whose order of sums decides the mean of absmax."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return functional.quantize_4bit(tensor, quant_type="nf4", compress_statistics=double)
    finally:
        torch.set_num_threads(threads)


def dequantise(packed, state, shape):
    """In fp32. Flat: on some CPUs bitsandbytes takes rows whose length is no multiple of the block as if
    blocks began anew in each, which is not its own format."""
    state.dtype, state.shape = torch.float32, (torch.Size(shape).numel(),)
    return functional.dequantize_4bit(packed, state).view(shape)


def write(source, target, double=True, wanted=is_linear_of_a_layer, dequantised=False):
    """The model of `source` with the tensors that are `wanted` in NF4, or as NF4 makes them, in fp32."""
    shutil.copytree(source, target)
    target = pathlib.Path(target)
    tensors, out = load_file(target / "model.safetensors"), {}
    for name, tensor in tensors.items():
        if not wanted(name, tensor):
            out[name] = tensor
            continue
        packed, state = quantise(tensor, double)
        if dequantised:
            out[name] = dequantise(packed, state, tensor.shape)
            continue
        out[name] = packed
        for key, value in state.as_dict(packed=True).items():
            out[f"{name}.{key}"] = value
    save_file(out, target / "model.safetensors", {"format": "pt"})
    if not dequantised:
        path = target / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": CONFIG}))

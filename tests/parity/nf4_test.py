"""NF4: the bits of quantised and dequantised weights are those of bitsandbytes on a CPU.

bitsandbytes is called on flat tensors: on some CPUs it takes rows whose length is no multiple of the block as if
blocks began anew in each, which is not its own format.
"""
import os
import pathlib
import subprocess
import tempfile
import unittest

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # read when torch is imported: bitsandbytes compiles what it calls once

import torch
from bitsandbytes import functional
from safetensors.torch import load_file, save_file

CONVERT = pathlib.Path(os.environ["PLURAL_BINARY"]).parent / "tests" / "nf4_convert"


def matrices():
    """Name -> matrix; what is rare in weights is here."""
    torch.manual_seed(3)
    draw, smallest = torch.randn, 2.0 ** -149
    values = functional.get_4bit_type("nf4", device="cpu")
    middles = (values[1:] + values[:-1]) / 2
    borders = torch.cat([torch.ones(1), middles, middles.nextafter(torch.tensor(2.0)),
                         middles.nextafter(torch.tensor(-2.0)), torch.zeros(18)])
    found = {
        "weights": draw(96, 192) * 0.02,
        "two of a layer, bf16": (draw(160, 256) * 0.05).bfloat16(),
        "fp16": (draw(64, 64) * 0.1).half(),
        "many blocks of blocks": draw(512, 320) * torch.rand(512, 1),
        "no multiple of 64": draw(33, 41),
        "odd number of values": draw(7, 9),
        "one value": draw(1, 1),
        "a block and a value": draw(5, 13),
        "constant": torch.full((40, 64), 0.3),
        "constant, short block": torch.full((3, 30), -0.3),
        "zero": torch.zeros(40, 64),
        "zero, short block": torch.zeros(3, 23),
        "zero block between": torch.cat([draw(2, 64), torch.zeros(1, 64), draw(2, 64)]),
        "all magnitudes": draw(80, 64) * torch.logspace(-44, 38, 80)[:, None],
        "large": (torch.rand(40, 64) * 2 - 1) * 3.38e38,
        "smallest": torch.full((4, 64), smallest) * torch.randint(-3, 4, (4, 64)),
        "borders of values": torch.stack([borders, -borders, borders * 0.7]),
    }
    return {name: tensor.contiguous() for name, tensor in found.items()}


def bits(tensor):
    return tensor.flatten().view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
                                 [tensor.element_size()])


class Nf4Test(unittest.TestCase):
    def convert(self, tensors):
        with tempfile.TemporaryDirectory() as folder:
            source, target = pathlib.Path(folder) / "in.safetensors", pathlib.Path(folder) / "out.safetensors"
            save_file(tensors, source)
            subprocess.run([CONVERT, source, target], check=True, timeout=120,
                           env=os.environ | {"OMP_NUM_THREADS": "2"})
            return load_file(target)

    def test_bits(self):
        threads = torch.get_num_threads()
        self.addCleanup(torch.set_num_threads, threads)
        torch.set_num_threads(1)  # the mean of absmax is summed in the order of one thread
        tensors = matrices()
        found = self.convert(tensors)
        for name, tensor in tensors.items():
            for mode in ("plain", "double"):
                with self.subTest(name, mode=mode):
                    packed, state = functional.quantize_4bit(tensor.flatten(), quant_type="nf4",
                                                             compress_statistics=mode == "double")
                    expected = {"packed": packed, "absmax": state.absmax}
                    if mode == "double":
                        expected |= {"map": state.state2.code, "nested": state.state2.absmax,
                                     "offset": state.offset}
                    for key, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
                        state.dtype = dtype
                        expected[key] = functional.dequantize_4bit(packed, state)
                    expected["fp64"] = expected["fp32"].double()
                    for key, reference in expected.items():
                        own = found[f"{name}.{mode}.{key}"]
                        self.assertEqual(own.dtype, reference.dtype, key)
                        own, reference = own.flatten(), reference.flatten()
                        if key == "bf16":
                            # The conversion instruction that bitsandbytes uses where there is one takes
                            # subnormal numbers for 0.
                            subnormal = expected["fp32"].flatten().abs() < 2.0 ** -126
                            own, reference = own[~subnormal], reference[~subnormal]
                        self.assertTrue(torch.equal(bits(own), bits(reference)), key)


if __name__ == "__main__":
    unittest.main()

"""How the compiled program computes where it answers for a command: its device, type, 4 bits and threads.

Owns: these options of every command that starts `plural generate --stream`, and their words for it. Does not
own: what they mean, which the program knows. Thread rule: main thread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from plural_text.common.options import whole_number


def add_compute_options(add: Callable) -> None:
    """add: add_argument of a parser or a group."""
    add("--dtype", choices=("fp32", "bf16", "fp64"), default="fp32", help="(default: fp32)")
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: a GPU if there is one (default)",
    )
    add(
        "--quantize",
        choices=("none", "nf4"),
        default="none",
        help="nf4: the linear weights of the layers in 4 bits (default: none, as the folder has them)",
    )
    add("--threads", type=whole_number(0, 4096), default=0, metavar="N", help="0: the machine's (default)")


def compute_words(arguments: argparse.Namespace) -> list[str]:
    return [
        "--dtype",
        arguments.dtype,
        "--device",
        arguments.device,
        "--quantize",
        arguments.quantize,
        "--threads",
        str(arguments.threads),
    ]

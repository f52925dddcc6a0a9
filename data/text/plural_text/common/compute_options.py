"""How the compiled program computes where it answers for a command: its device, type and threads.

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
    add("--threads", type=whole_number(0, 4096), default=0, metavar="N", help="0: the machine's (default)")


def compute_words(arguments: argparse.Namespace) -> list[str]:
    return [
        "--dtype",
        arguments.dtype,
        "--device",
        arguments.device,
        "--threads",
        str(arguments.threads),
    ]

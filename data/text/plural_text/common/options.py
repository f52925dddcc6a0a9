"""Types of command line options: a value that is not valid is refused with the allowed ones.

Owns: parsing for argparse. Does not own: which options there are.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

_MAX_DIGITS = 9


def whole_number(low: int, high: int = 10**_MAX_DIGITS) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (
            text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS + 1 and low <= int(text) <= high
        ):
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {low:,} to {high:,}")
        return int(text)

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number from {low:g} to {high:g}")
        return value

    return parse


def option_words(options: dict) -> list[str]:
    """The options as the command line has them. None and False are left out, True is a flag, lists repeat."""
    words: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if one is True:
                words.append(option)
            elif one is not None and one is not False:
                words += [option, str(one)]
    return words

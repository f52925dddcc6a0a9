"""Writes requests for random numbers of several ranges, each in five wordings, for `diffuse-2`.

    number_requests.py FOLDER    FOLDER/to-HIGH/wording-N.json: from 1 to HIGH; FOLDER/from-LOW/...: 100
                                 numbers from LOW on

Owns: ranges and words. The paper draws five ranges with a lowest number of up to 900 and prints five wordings
that are not in its repository: draws and words here are ours.
"""

import json
import random
import sys
from pathlib import Path

HIGHS = (10, 20, 50, 100, 200, 500, 1000)
LOWEST, NUMBERS, RANGES, DRAW = (1, 900), 100, 5, 2404
WORDINGS = (
    "Give me a random whole number from {low} to {high}. Write just the number in curly braces, such "
    "as {{7}}. No code.",
    "Choose any integer between {low} and {high}, both included, so that each is equally likely. Your"
    " answer is the integer in curly braces, such as {{7}}, and nothing else.",
    "I need a number drawn by chance out of {low} to {high}. Answer with {{number}} only, without "
    "code.",
    "Roll a die whose sides read {low} to {high}. Which side is up? Put it in curly braces, such as "
    "{{7}}, and write nothing more.",
    "Act as a generator of uniform random integers with minimum {low} and maximum {high}. Print one "
    "sample between curly braces, such as {{7}}. Do not print code.",
)  # fmt: skip


def ranges() -> dict[str, tuple[int, int]]:
    """Name -> lowest and highest number."""
    draw = random.Random(DRAW)
    lows = sorted(draw.sample(range(LOWEST[0], LOWEST[1] + 1), RANGES))
    return {f"to-{high}": (1, high) for high in HIGHS} | {
        f"from-{low}": (low, low + NUMBERS - 1) for low in lows
    }


def main(folder: Path) -> None:
    for name, (low, high) in ranges().items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place, wording in enumerate(WORDINGS, 1):
            record = {"request": wording.format(low=low, high=high), "response": "", "targets": []}
            file = folder / name / f"wording-{place}.json"
            file.write_text(json.dumps(record) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

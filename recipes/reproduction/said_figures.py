"""What `plural metrics` found beside a single value, and how long replies are.

    python said_figures.py RESPONSES.jsonl OUTPUT.json

semantic_diversity_low, semantic_diversity_high: the 95 % interval over prompts, from metrics.json beside
OUTPUT; tokens: per reply. Owns: this file of figures.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from words import read_lines, write_figures


def main(responses: Path, output: Path) -> None:
    measured = json.loads((output.parent / "metrics.json").read_text(encoding="utf-8"))["figures"]
    low, high = measured["semantic_diversity"]["interval_95"]
    tokens = [len(reply["tokens"]) for line in read_lines(responses) for reply in line["responses"]]
    figures = {"semantic_diversity_low": low, "semantic_diversity_high": high}
    write_figures(output, {**figures, "tokens": sum(tokens) / len(tokens)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

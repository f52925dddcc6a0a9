"""What tuning did to text that it was not about, from what `plural evaluate --compare-base` wrote beside
OUTPUT.

    python harm_figures.py OUTPUT.json

Owns: this file of figures.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from words import write_figures


def harmed_percent(sentences: list[dict]) -> float:
    """Of 100 sentences, those whose own perplexity rose by over 10 %: the mean may hide a few."""
    rises = [
        (each["base_logprob_nats"] - each["logprob_nats"]) / each["response_tokens"] for each in sentences
    ]
    return 100 * sum(rise > math.log(1.1) for rise in rises) / len(rises)


def main(output: Path) -> None:
    exact = json.loads((output.parent / "evaluate.json").read_text(encoding="utf-8"))
    write_figures(
        output,
        {
            "rise_percent": 100 * exact["summary"]["perplexity_rise_share"],
            "harmed_percent": harmed_percent(exact["groups"]),
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

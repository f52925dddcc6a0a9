"""How likely a model of the real-text study finds written replies.

    python written_figures.py --base MODEL RESULT RUN OUTPUT.json WRITTEN-0.h5 WRITTEN-1.h5 ...

perplexity: exp of minus the mean log-probability per token; of a model with M possibility numbers that of
their even mixture, log (1/M) sum_k p(reply | number k); undefined for latents, since nothing says which one
a written reply would have. The corpora have the replies behind no number, behind the first, and so on. Owns:
this file of figures. Does not own: exact log-probabilities (plural evaluate).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from commands import Commands, measuring, model_words, numbers_of, recipe_of
from words import write_figures


def perplexity(options: argparse.Namespace, numbers: int) -> float:
    folder = options.output.parent / "written"
    commands = Commands(folder)
    by_number = []
    for number in range(1, numbers + 1) if numbers else (0,):
        exact = folder / f"{number}.json"
        corpus = str(options.written[number])
        commands.plural("evaluate", *model_words(options), "--corpus", corpus, "--threads", "1", output=exact)
        by_number.append(json.loads(exact.read_text(encoding="utf-8"))["groups"])
    nats = tokens = 0.0
    for replies in zip(*by_number, strict=True):
        values = [reply["logprob_nats"] for reply in replies]
        top = max(values)
        nats -= top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))
        tokens += replies[0]["response_tokens"]
    return math.exp(nats / tokens)


def main() -> None:
    parser = measuring(__doc__)
    parser.add_argument("written", type=Path, nargs="+")
    options = parser.parse_args()
    found = (
        None if recipe_of(options.run)["method"] == "cvf" else perplexity(options, numbers_of(options.run))
    )
    write_figures(options.output, {"perplexity": found})


if __name__ == "__main__":
    main()

"""Measures answers to requests of the toy of distribution matching.

    python distribution_figures.py REQUESTS.json RESPONSES.jsonl OUTPUT.json

Means over the requests: coverage and entropy of all answers, valid or not, as in the paper; shares of valid
ones. Owns: this file of figures. Does not own: what an answer means (plural_text.metrics.coverage).
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from plural_text.metrics.coverage import answer_key, key_figures
from words import read_lines, write_figures


def sampled(answers: list[str], targets: list[str], texts: list[str]) -> dict[str, float]:
    """Of one request."""
    keys = [answer_key(text) for text in texts]
    valid = {answer_key(answer) for answer in answers}
    wanted = {answer_key(target) for target in targets}
    measured = key_figures(keys)
    return {
        "coverage": measured.coverage,
        "entropy_nats": measured.entropy_nats,
        "coverage_valid": len(valid.intersection(keys)),
        "valid_share": sum(key in valid for key in keys) / len(keys),
        "outside_share": sum(key in valid - wanted for key in keys) / len(keys),
    }


def main(requests: Path, responses: Path, output: Path) -> None:
    known = json.loads(requests.read_text(encoding="utf-8"))["requests"]
    found = [
        sampled(**known[line["id"]], texts=[response["text"] for response in line["responses"]])
        for line in read_lines(responses)
    ]
    write_figures(output, {key: statistics.fmean(each[key] for each in found) for key in found[0]})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Measures biographies of the toy of distribution matching.

    python biography_figures.py REQUESTS.json RESPONSES.jsonl OUTPUT.json

Noise is no diversity: coverage and entropy are of values that the toy has. Owns: this file of figures. Does
not own: how a biography is read (plural_text.metrics.biography).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from plural_text.metrics.biography import ATTRIBUTES, attribute_values, gender_distance, parse
from plural_text.metrics.coverage import key_figures
from words import read_lines, write_figures


def main(requests: Path, responses: Path, output: Path) -> None:
    fields = json.loads(requests.read_text(encoding="utf-8"))["fields"]
    (line,) = read_lines(responses)
    texts = [response["text"] for response in line["responses"]]
    values = attribute_values(texts)
    known = {name: [value for value in values[name] if value in fields[name]] for name in ATTRIBUTES}
    figures = {
        "biography_share": sum(parse(text) is not None for text in texts) / len(texts),
        "unknown_share": 1 - sum(map(len, known.values())) / sum(map(len, values.values())),
        "gender_distance": gender_distance(values["gender"]),
    }
    for name in ATTRIBUTES:
        measured = key_figures(known[name])
        figures |= {
            f"{name}_coverage": measured.coverage,
            f"{name}_entropy_nats": measured.entropy_nats,
        }
    write_figures(output, figures)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""Measures replies of a toy (dialogue, story) exactly.

    python reply_figures.py GRAMMAR.json RESPONSES.jsonl OUTPUT.json

diversity, different, incoherent_percent: as reply_grammar.py says; decode_steps: of all prompts. Owns: this
file of figures. Does not own: what a reply means.
"""

from __future__ import annotations

import sys
from pathlib import Path

from reply_grammar import ReplyGrammar
from words import read_lines, write_figures


def main(grammar: Path, responses: Path, output: Path) -> None:
    lines = read_lines(responses)
    figures = ReplyGrammar(grammar).measure(lines)
    write_figures(output, {**figures, "decode_steps": sum(line["decode_steps"] for line in lines)})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

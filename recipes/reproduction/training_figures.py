"""How much tuning a run had: passes over its prompts, optimizer steps, replies read per prompt, and the mean
loss of the last pass in nats, before each step of it.

    python training_figures.py RUN OUTPUT.json

Owns: this file of figures. Does not own: the run's own (metrics.jsonl).
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import yaml

from words import read_lines, write_figures


def main(run: Path, output: Path) -> None:
    steps = [line for line in read_lines(run / "metrics.jsonl") if line.get("event") == "step"]
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    last = steps[-1]["epoch"]
    passes = last + 1
    figures = {
        "passes": passes,
        "steps": len(steps),
        "loss_nats": statistics.fmean(step["loss"] for step in steps if step["epoch"] == last),
    }
    if recipe["group"]["responses"]:  # 0: all that a prompt has
        figures["replies_per_prompt"] = passes * recipe["group"]["responses"]
    write_figures(output, figures)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

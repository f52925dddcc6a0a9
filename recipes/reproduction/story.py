"""Stories (table 5 of the first paper) on a toy grammar: what `launch/reproduce story` runs.

As dialogue.py, with plots instead of replies. Owns: rows, published figures, expectations.
"""

from __future__ import annotations

import sys

import reply_study
from reply_grammar import ReplyGrammar
from reply_study import DIFFERENT, DIVERSITY, INCOHERENT, LATENCY, METHODS
from report import Row
from study import Seed, Study, run

TEMPERATURE = 0.75
TABLE_5 = [
    Row("base", "base, sampling", {"diversity": 0.28, "incoherent_percent": 3.5, "latency_multiple": 1}),
    Row(
        "list",
        "base, list prompting",
        {"diversity": 0.47, "incoherent_percent": 6.1, "latency_multiple": 3.7},
    ),
    Row("cvf", "CVF", {"diversity": 0.50, "incoherent_percent": 8.4, "latency_multiple": 1}),
    Row(
        "cvf-rerank",
        "CVF, best rated 5 of 6",
        {"diversity": 0.49, "incoherent_percent": 4.3, "latency_multiple": 1.3},
    ),
    Row(
        "peft",
        "POEXFT, random numbers",
        {"diversity": 0.54, "incoherent_percent": 5.4, "latency_multiple": 1},
    ),
    Row(
        "peft-rerank",
        "POEXFT, best rated 5 of 9",
        {"diversity": 0.52, "incoherent_percent": 2.9, "latency_multiple": 1.3},
    ),
    Row("peft-aligned", "POEXFT, aligned numbers"),
]


def measure_seed(seed: Seed) -> dict[str, dict[str, float]]:
    grammar = ReplyGrammar("story")
    base, lines = reply_study.start(seed, grammar, [METHODS[row.key] for row in TABLE_5]), {}
    for row in TABLE_5:
        method = METHODS[row.key]
        adapter = reply_study.tune(seed, base, method)
        lines[row.key] = reply_study.ask(
            seed, grammar, base, adapter, method, None if row.key == "list" else TEMPERATURE
        )
    return {row: reply_study.measure(grammar, answers, lines["base"]) for row, answers in lines.items()}


def work(study: Study) -> None:
    report = study.report
    for seed, rows in study.each_seed(measure_seed).items():
        for row, figures in rows.items():
            report.add(row, seed, figures)
    report.table(f"Table 5, t = {TEMPERATURE}", TABLE_5, [DIVERSITY, DIFFERENT, INCOHERENT, LATENCY])
    report.check_increasing("diversity: base < CVF < POEXFT", DIVERSITY, ["base", "cvf", "peft"])
    for method in ("cvf", "peft"):
        report.check_increasing(
            f"re-ranking lowers incoherence: {METHODS[method].title}",
            INCOHERENT,
            [f"{method}-rerank", method],
        )
    report.check_bound("list prompting costs over 3 times the decode steps", LATENCY, "list", low=3.0)


if __name__ == "__main__":
    sys.exit(run("story", "Stories: table 5 of the first paper, on a toy grammar.", work))

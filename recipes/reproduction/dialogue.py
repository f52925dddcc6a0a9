"""Dialogue (tables 1 to 3 of the first paper) on a toy grammar: what `launch/reproduce dialogue` runs.

One model from nothing a seed; tuned by each method, asked for five replies to 90 prompts, of words that
tuning never saw, over a grid of temperatures. Owns: rows, published figures, expectations. Does not own: how
replies are made and measured (reply_study.py).
"""

from __future__ import annotations

import argparse
import sys

import reply_study
from reply_grammar import ReplyGrammar
from reply_study import DIFFERENT, DISTINCT_1, DISTINCT_2, DIVERSITY, INCOHERENT, LATENCY, METHODS
from report import Figure, Report, Row
from study import Seed, Study, run

TEMPERATURES = (0.5, 0.75, 1.0, 1.25)
LOW = 0.5  # where the paper's gain shows
BASE_ONLY = (0.0, 1.5)  # its most likely reply; its published temperature
WITHOUT_SAMPLING = ("dbs", "list")
BASELINE = "base@1.0"  # of latency

TABLE_1 = [
    Row("base@0.0", "base, most likely reply"),
    Row(
        "dbs",
        "base, diverse beam search",
        {
            "distinct_1": 0.108,
            "distinct_2": 0.452,
            "diversity": 0.356,
            "incoherent_percent": 2.2,
            "latency_multiple": 3,
        },
    ),
    Row(
        "base@1.5",
        "base, t = 1.50",
        {
            "distinct_1": 0.135,
            "distinct_2": 0.547,
            "diversity": 0.383,
            "incoherent_percent": 3.6,
            "latency_multiple": 1,
        },
    ),
    Row(
        "otoft@1.0",
        "OTOFT, t = 1.00",
        {
            "distinct_1": 0.139,
            "distinct_2": 0.595,
            "diversity": 0.495,
            "incoherent_percent": 2.6,
            "latency_multiple": 1,
        },
    ),
    Row(
        "otoft@1.25",
        "OTOFT, t = 1.25",
        {
            "distinct_1": 0.154,
            "distinct_2": 0.655,
            "diversity": 0.535,
            "incoherent_percent": 4.5,
            "latency_multiple": 1,
        },
    ),
    Row(
        "otmft@0.75",
        "OTMFT, t = 0.75",
        {
            "distinct_1": 0.133,
            "distinct_2": 0.529,
            "diversity": 0.522,
            "incoherent_percent": 3.1,
            "latency_multiple": 1,
        },
    ),
    Row(
        "otmft@1.0",
        "OTMFT, t = 1.00",
        {
            "distinct_1": 0.150,
            "distinct_2": 0.604,
            "diversity": 0.565,
            "incoherent_percent": 4.0,
            "latency_multiple": 1,
        },
    ),
    Row(
        "peft@0.5",
        "POEXFT, t = 0.50",
        {
            "distinct_1": 0.130,
            "distinct_2": 0.484,
            "diversity": 0.530,
            "incoherent_percent": 2.3,
            "latency_multiple": 1,
        },
    ),
    Row(
        "peft@0.75",
        "POEXFT, t = 0.75",
        {
            "distinct_1": 0.149,
            "distinct_2": 0.561,
            "diversity": 0.585,
            "incoherent_percent": 3.9,
            "latency_multiple": 1,
        },
    ),
    Row("peft-aligned@0.5", "POEXFT, aligned numbers, t = 0.50"),
    Row("peft-clustered@0.5", "POEXFT, numbers aligned by clustering, t = 0.50"),
]
TABLE_2 = [
    Row("dbs", "base, diverse beam search", {"diversity": 0.422, "incoherent_percent": 7.0}),
    Row("base@1.25", "base, t = 1.25", {"diversity": 0.479, "incoherent_percent": 8.9}),
    Row("otoft@1.0", "OTOFT, t = 1.00", {"diversity": 0.513, "incoherent_percent": 5.3}),
    Row("otoft@1.25", "OTOFT, t = 1.25", {"diversity": 0.556, "incoherent_percent": 9.3}),
    Row("otmft@0.75", "OTMFT, t = 0.75", {"diversity": 0.536, "incoherent_percent": 4.7}),
    Row("otmft@1.0", "OTMFT, t = 1.00", {"diversity": 0.579, "incoherent_percent": 7.2}),
    Row("peft@0.5", "POEXFT, t = 0.50", {"diversity": 0.530, "incoherent_percent": 3.8}),
    Row("peft@0.75", "POEXFT, t = 0.75", {"diversity": 0.583, "incoherent_percent": 6.3}),
]
TABLE_3 = [
    Row(
        "base@1.5",
        "base, sampling, t = 1.50",
        {"diversity": 0.38, "incoherent_percent": 3.6, "latency_multiple": 1},
    ),
    Row(
        "list",
        "base, list prompting",
        {"diversity": 0.58, "incoherent_percent": 7.9, "latency_multiple": 3.7},
    ),
    Row("cvf@0.75", "CVF, t = 0.75", {"diversity": 0.52, "incoherent_percent": 8.1, "latency_multiple": 1}),
    Row(
        "cvf-rerank@0.75",
        "CVF, best rated 5 of 6, t = 0.75",
        {"diversity": 0.50, "incoherent_percent": 4.6, "latency_multiple": 1.3},
    ),
    Row(
        "peft@0.75", "POEXFT, t = 0.75", {"diversity": 0.59, "incoherent_percent": 3.9, "latency_multiple": 1}
    ),
    Row("peft-rerank@0.75", "POEXFT, best rated 5 of 9, t = 0.75"),
    Row("peft-aligned@0.75", "POEXFT, aligned numbers, t = 0.75"),
]


def measure_seed(seed: Seed, methods: list[str]) -> dict[str, dict[str, float]]:
    """Figures by row ("method@temperature")."""
    grammar = ReplyGrammar("dialogue")
    base, lines = reply_study.start(seed, grammar, [METHODS[key] for key in methods]), {}
    for key in methods:
        method = METHODS[key]
        adapter = reply_study.tune(seed, base, method)
        if key in WITHOUT_SAMPLING:
            lines[key] = reply_study.ask(seed, grammar, base, adapter, method)
            continue
        for temperature in TEMPERATURES + (BASE_ONLY if key == "base" else ()):
            lines[f"{key}@{temperature}"] = reply_study.ask(seed, grammar, base, adapter, method, temperature)
    return {row: reply_study.measure(grammar, answers, lines.get(BASELINE)) for row, answers in lines.items()}


def fill(report: Report, methods: list[str]) -> None:
    for key in (DIVERSITY, DIFFERENT, INCOHERENT):
        grid = [
            Row(f"{method}|{key.key}", METHODS[method].title)
            for method in methods
            if method not in WITHOUT_SAMPLING
        ]
        figures = [Figure(str(t), f"t = {t}", key.form) for t in TEMPERATURES]
        for row, method in zip(grid, [m for m in methods if m not in WITHOUT_SAMPLING]):
            for t in TEMPERATURES:
                for seed, value in report.values(f"{method}@{t}", key.key).items():
                    report.add(row.key, seed, {str(t): value})
        report.table(f"Over temperatures: {key.title}", grid, figures)
    report.table(
        "Table 1, Mistral 7B in the paper",
        TABLE_1,
        [DISTINCT_1, DISTINCT_2, DIVERSITY, DIFFERENT, INCOHERENT, LATENCY],
    )
    report.table("Table 2, Llama 2 7B in the paper", TABLE_2, [DIVERSITY, INCOHERENT])
    report.table("Table 3", TABLE_3, [DIVERSITY, DIFFERENT, INCOHERENT, LATENCY])


def check(report: Report) -> None:
    low = [f"{method}@{LOW}" for method in ("base", "otoft", "otmft", "peft")]
    report.check_increasing(f"diversity at t = {LOW}: base < OTOFT < OTMFT < POEXFT", DIVERSITY, low)
    aligned, random = f"peft-aligned@{LOW}", f"peft@{LOW}"
    report.check_bound(
        f"aligned numbers: at least 4.7 different of 5 at t = {LOW}", DIFFERENT, aligned, low=4.7
    )
    report.check_bound(f"aligned numbers: at most 2 % incoherent at t = {LOW}", INCOHERENT, aligned, high=2.0)
    report.check_bound(f"random numbers: 3.1 to 3.6 different of 5 at t = {LOW}", DIFFERENT, random, 3.1, 3.6)
    for method in ("cvf", "peft"):
        report.check_increasing(
            f"re-ranking lowers incoherence: {METHODS[method].title}, t = 1.0",
            INCOHERENT,
            [f"{method}-rerank@1.0", f"{method}@1.0"],
        )
    report.check_increasing(
        "diversity at t = 0.75: OTOFT < CVF < POEXFT", DIVERSITY, ["otoft@0.75", "cvf@0.75", "peft@0.75"]
    )
    # Of the way from the base model's most likely reply, which a search is after, too, to a tuned model.
    way = {
        figure.key: _share_of_way(report, figure, "base@0.0", "dbs", random)
        for figure in (DISTINCT_2, DIVERSITY)
    }
    report.check(
        "diverse beam search raises Distinct-2 more than diversity",
        way["distinct_2"] > way["diversity"],
        f"{way['distinct_2']:.2f} of the way from the most likely reply to POEXFT in Distinct-2, "
        f"{way['diversity']:.2f} in diversity",
    )
    report.check_bound("list prompting costs over 3 times the decode steps", LATENCY, "list", low=3.0)


def _share_of_way(report: Report, figure: Figure, start: str, here: str, end: str) -> float:
    first, last = report.mean(start, figure.key), report.mean(end, figure.key)
    return (report.mean(here, figure.key) - first) / (last - first)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=_methods,
        default=list(METHODS),
        help=f"only these, such as base,otoft (default: {','.join(METHODS)})",
    )


def _methods(text: str) -> list[str]:
    methods = text.split(",")
    unknown = [method for method in methods if method not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(METHODS)}")
    return methods


def work(study: Study) -> None:
    methods = study.options.methods
    for seed, rows in study.each_seed(lambda seed: measure_seed(seed, methods)).items():
        for row, figures in rows.items():
            study.report.add(row, seed, figures)
    fill(study.report, methods)
    check(study.report)


if __name__ == "__main__":
    sys.exit(
        run("dialogue", "Dialogue: tables 1 to 3 of the first paper, on a toy grammar.", work, add_options)
    )

"""Dialogue (tables 1 to 3 of the first paper) on a toy grammar: what `launch/reproduce dialogue` runs.

Two models from nothing a seed; tuned by each method, asked for five replies to 90 prompts, of words that
tuning never saw, over a grid of temperatures. Table 2 is about the second one, the others about the first.
Numbers drawn at random and aligned ones are compared after the same number of passes. Owns: rows, published
figures, expectations. Does not own: how replies are made and measured (reply_study.py).
"""

from __future__ import annotations

import argparse
import sys

import reply_study
from reply_grammar import ReplyGrammar
from reply_study import (
    DIFFERENT,
    DISTINCT_1,
    DISTINCT_2,
    DIVERSITY,
    INCOHERENT,
    LATENCY,
    MANY,
    METHODS,
    PASSES,
    PASSES_MADE,
    REPLIES_READ,
    STEPS,
    after,
)
from report import Figure, Report, Row
from study import Seed, Study, run

TEMPERATURES = (0.5, 0.75, 1.0, 1.25)
LOW = 0.5  # where the paper's gain shows
BASE_ONLY = (0.0, 1.5)  # its most likely reply; its published temperature
WITHOUT_SAMPLING = ("dbs", "list")
MODELS = ("first", "second")
BASELINE = "base@1.0"  # of latency
NUMBERS = (("random numbers", "peft"), ("aligned numbers", "peft-aligned"))
# Between one pass and many, only the low temperature is asked.
CURVE_ONLY = tuple(after(key, passes) for _, key in NUMBERS for passes in PASSES[1:-1])

# The second model is of another shape (as Llama 2 7B beside Mistral 7B: as many key and value heads as query
# heads), and all its texts and weights are other draws.
SECOND_SHAPE = {
    "model.config.hidden_size": 96,
    "model.config.intermediate_size": 256,
    "model.config.num_hidden_layers": 6,
    "model.config.num_key_value_heads": 4,
}
SECOND_DRAWS = 1000  # added to the seed
# --small: minutes instead of an hour a seed.
SMALL_CATEGORIES = 3
SMALL = {
    "model.config.hidden_size": 64,
    "model.config.intermediate_size": 176,
    "model.config.num_hidden_layers": 2,
    "train.groups_per_step": 12,
    "optimizer.lr": "4.0e-3",
}
SECOND_SMALL = SMALL | {"model.config.num_hidden_layers": 3, "model.config.num_key_value_heads": 4}

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
    *(
        Row(f"{key}@0.5", f"{METHODS[key].title}, t = 0.50")
        for key in (
            "peft-aligned",
            "peft-clustered",
            after("peft", MANY),
            after("peft-aligned", MANY),
            after("peft-clustered", MANY),
        )
    ),
]
# The second model's rows.
TABLE_2 = [
    Row("second dbs", "base, diverse beam search", {"diversity": 0.422, "incoherent_percent": 7.0}),
    Row("second base@1.25", "base, t = 1.25", {"diversity": 0.479, "incoherent_percent": 8.9}),
    Row("second otoft@1.0", "OTOFT, t = 1.00", {"diversity": 0.513, "incoherent_percent": 5.3}),
    Row("second otoft@1.25", "OTOFT, t = 1.25", {"diversity": 0.556, "incoherent_percent": 9.3}),
    Row("second otmft@0.75", "OTMFT, t = 0.75", {"diversity": 0.536, "incoherent_percent": 4.7}),
    Row("second otmft@1.0", "OTMFT, t = 1.00", {"diversity": 0.579, "incoherent_percent": 7.2}),
    Row("second peft@0.5", "POEXFT, t = 0.50", {"diversity": 0.530, "incoherent_percent": 3.8}),
    Row("second peft@0.75", "POEXFT, t = 0.75", {"diversity": 0.583, "incoherent_percent": 6.3}),
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
        "peft@0.75",
        "POEXFT, t = 0.75",
        {"diversity": 0.59, "incoherent_percent": 3.9, "latency_multiple": 1},
    ),
    Row("peft-rerank@0.75", "POEXFT, best rated 5 of 9, t = 0.75"),
    *(
        Row(f"{key}@0.75", f"{METHODS[key].title}, t = 0.75")
        for key in ("peft-aligned", after("peft", MANY), after("peft-aligned", MANY))
    ),
]


def measure_seed(seed: Seed, methods: list[str], models: list[str], small: bool) -> dict[str, dict]:
    """Figures by row: "method@temperature" of the first model, "second method@temperature" of the second."""
    rows = {}
    if "first" in models:
        asked = {key: _temperatures(key) for key in methods}
        rows = _measure(seed, asked, SMALL if small else {}, small)
    if "second" in models:
        asked = {}
        for row in TABLE_2:
            key, _, temperature = row.key.removeprefix("second ").partition("@")
            if key in methods:
                asked.setdefault(key, []).append(float(temperature) if temperature else None)
        further = seed.further("second", seed.number + SECOND_DRAWS)
        measured = _measure(further, asked, SECOND_SMALL if small else SECOND_SHAPE, small)
        rows |= {f"second {key}": figures for key, figures in measured.items()}
    return rows


def _temperatures(key: str) -> tuple[float | None, ...]:
    if key in WITHOUT_SAMPLING:
        return (None,)
    if key in CURVE_ONLY:
        return (LOW,)
    return TEMPERATURES + (BASE_ONLY if key == "base" else ())


def _measure(seed: Seed, asked: dict[str, list | tuple], shape: dict, small: bool) -> dict[str, dict]:
    """One model from nothing of this shape, tuned by each method and asked at the method's temperatures."""
    grammar = ReplyGrammar("dialogue", categories=SMALL_CATEGORIES if small else None)
    base, lines, trained = reply_study.start(seed, grammar, [METHODS[key] for key in asked], shape), {}, {}
    for key, temperatures in asked.items():
        method = METHODS[key]
        adapter = reply_study.tune(seed, base, method)
        for temperature in temperatures:
            row = key if temperature is None else f"{key}@{temperature}"
            lines[row] = reply_study.ask(seed, grammar, base, adapter, method, temperature)
            trained[row] = reply_study.training(seed, method)
    return {
        row: reply_study.measure(grammar, answers, lines.get(BASELINE)) | trained[row]
        for row, answers in lines.items()
    }


def fill(report: Report, methods: list[str]) -> None:
    sampled = [method for method in methods if method not in WITHOUT_SAMPLING + CURVE_ONLY]
    for key in (DIVERSITY, DIFFERENT, INCOHERENT):
        grid = [Row(f"{method}|{key.key}", METHODS[method].title) for method in sampled]
        figures = [Figure(str(t), f"t = {t}", key.form) for t in TEMPERATURES]
        for row, method in zip(grid, sampled):
            for t in TEMPERATURES:
                for seed, value in report.values(f"{method}@{t}", key.key).items():
                    report.add(row.key, seed, {str(t): value})
        report.table(f"Over temperatures: {key.title}", grid, figures)
    trained = [Row(f"{key}@{LOW}", METHODS[key].title) for key in methods if METHODS[key].recipe]
    report.table("Training that each method had", trained, [PASSES_MADE, REPLIES_READ, STEPS])
    curve = [
        Row(f"{after(key, passes)}@{LOW}", f"{kind}, {passes} pass{'es' if passes > 1 else ''}")
        for passes in PASSES
        for kind, key in NUMBERS
    ]
    report.table(
        f"Both kinds of numbers after the same training, t = {LOW}", curve, [DIVERSITY, DIFFERENT, INCOHERENT]
    )
    report.table(
        "Table 1, beside Mistral 7B in the paper",
        TABLE_1,
        [DISTINCT_1, DISTINCT_2, DIVERSITY, DIFFERENT, INCOHERENT, LATENCY],
    )
    report.table(
        "Table 2, the second toy model, beside Llama 2 7B in the paper",
        TABLE_2,
        [DIVERSITY, DIFFERENT, INCOHERENT],
    )
    report.table("Table 3", TABLE_3, [DIVERSITY, DIFFERENT, INCOHERENT, LATENCY])


def check(report: Report) -> None:
    low = [f"{method}@{LOW}" for method in ("base", "otoft", "otmft", "peft")]
    report.check_increasing(f"diversity at t = {LOW}: base < OTOFT < OTMFT < POEXFT", DIVERSITY, low)
    random, many, aligned = (
        f"{key}@{LOW}" for key in ("peft", after("peft", MANY), after("peft-aligned", MANY))
    )
    report.check_increasing(
        f"different of 5 after {MANY} passes of both, t = {LOW}: random < aligned numbers",
        DIFFERENT,
        [many, aligned],
    )
    report.check_bound(
        f"aligned numbers, {MANY} passes: at least 4.7 different of 5 at t = {LOW}",
        DIFFERENT,
        aligned,
        low=4.7,
    )
    report.check_bound(
        f"aligned numbers, {MANY} passes: at most 2 % incoherent at t = {LOW}", INCOHERENT, aligned, high=2.0
    )
    for row, passes in ((random, "1 pass"), (many, f"{MANY} passes")):
        report.check_bound(
            f"random numbers, {passes}: 3.1 to 3.6 different of 5 at t = {LOW}", DIFFERENT, row, 3.1, 3.6
        )
    report.check_increasing(
        "second model, diversity at the published temperatures: base < OTOFT < OTMFT < POEXFT",
        DIVERSITY,
        ["second base@1.25", "second otoft@1.0", "second otmft@0.75", "second peft@0.75"],
    )
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
        [(row, key) for row in ("base@0.0", "dbs", random) for key in way],
    )
    report.check_bound("list prompting costs over 3 times the decode steps", LATENCY, "list", low=3.0)


def _share_of_way(report: Report, figure: Figure, start: str, here: str, end: str) -> float:
    first, last = report.mean(start, figure.key), report.mean(end, figure.key)
    return (report.mean(here, figure.key) - first) / (last - first) if last != first else 0.0


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--methods",
        type=_methods,
        default=list(METHODS),
        help=f"only these, such as base,otoft (default: {','.join(METHODS)})",
    )

    parser.add_argument(
        "--models",
        type=_models,
        default=list(MODELS),
        help="first (tables 1 and 3), second (table 2: another shape, other draws); default: first,second",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="three of the ten categories and smaller models: minutes a seed, for a first look",
    )


def _some_of(text: str, allowed) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in allowed]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is none of {', '.join(allowed)}")
    return names


def _methods(text: str) -> list[str]:
    return _some_of(text, METHODS)


def _models(text: str) -> list[str]:
    return _some_of(text, MODELS)


def work(study: Study) -> None:
    options = study.options
    measured = study.each_seed(
        lambda seed: measure_seed(seed, options.methods, options.models, options.small)
    )
    for seed, rows in measured.items():
        for row, figures in rows.items():
            study.report.add(row, seed, figures)
    left_out = [
        f"--{name}"
        for name, chosen, every in (("methods", options.methods, METHODS), ("models", options.models, MODELS))
        if set(chosen) != set(every)
    ]
    if left_out:
        study.report.run_in_part(" or ".join(left_out))
    fill(study.report, options.methods)
    check(study.report)


if __name__ == "__main__":
    sys.exit(
        run("dialogue", "Dialogue: tables 1 to 3 of the first paper, on a toy grammar.", work, add_options)
    )

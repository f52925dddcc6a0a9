"""The settings that possibility exploration fine-tuning depends on, on the dialogue grammar: the program of
`launch/reproduce ablations`.

One setting at a time is changed, all else as in recipes/reproduction/peft.yaml (or peft-aligned.yaml). Every
row is tuned from the same model of its seed and asked at one low temperature, where the method's gain shows.
Owns: which settings, and which effects are expected. Does not own: how replies are made and measured
(reply_study.py).
"""

from __future__ import annotations

import sys
from dataclasses import replace

import reply_study
from reply_grammar import ReplyGrammar
from reply_study import DIFFERENT, DIVERSITY, INCOHERENT, Method
from report import Row
from study import Seed, Study, run

TEMPERATURE = 0.5
ALIGNED = reply_study.after("peft-aligned", reply_study.MANY)
# Title, method, recipe key, values; the recipe's own value is the one in DEFAULTS.
GRIDS = [
    ("Unlikelihood weight, random numbers", "peft", "loss.unlikelihood.alpha", (0, 0.5, 4.0)),
    ("Unlikelihood weight, aligned numbers", ALIGNED, "loss.unlikelihood.alpha", (0, 0.5)),
    ("Replies a prompt, N", "peft", "group.responses", (2, 3, 4)),
    ("Possibility numbers, M, asked for 1 to 5", "peft", "group.possibilities", (5, 9)),
    (
        "Which words are penalised",
        "peft",
        "loss.unlikelihood.mask",
        ("content_first", "all_first", "repo_compat"),
    ),
    ("Negatives kept of 12", "peft", "group.max_negatives", (3, 12)),
    ("Which 3 negatives are kept", "peft-few", "seed", (None, 1001, 1002)),
    ("LoRA rank", "peft", "adapter.rank", (2, 16, 64)),
    ("Passes, random numbers", "peft", "train.epochs", (1, 3, 8)),
]
DEFAULTS = {
    "loss.unlikelihood.alpha": 0.5,
    "group.responses": 4,
    "group.possibilities": 9,
    "loss.unlikelihood.mask": "content_first",
    "group.max_negatives": 12,
    "adapter.rank": 16,
    "train.epochs": 1,
    "seed": None,
}
# The order of negatives decides only which of them are kept, where they are cut: the loss is a sum over them.
# A seed of its own draws others, and all else that is drawn, too.
METHODS = {
    **reply_study.METHODS,
    "peft-few": replace(
        reply_study.METHODS["peft"], key="peft_max_negatives_3", overrides={"group.max_negatives": 3}
    ),
}


def variant(key: str, setting: str, value) -> Method:
    """The method `key` with one setting of its recipe changed, or the method itself."""
    method = METHODS[key]
    name = f"{method.key}_{setting.rpartition('.')[2]}_{value}"
    if setting == "group.possibilities":
        method = replace(
            method, key=name, tuned_as=key, ask=("--possibilities", "first")
        )  # those that every M has
    if value == DEFAULTS[setting]:
        return method
    overrides = {**method.overrides, setting: value}
    if setting == "adapter.rank":
        overrides["adapter.alpha"] = 2 * value  # the adapter's scale, alpha / rank, stays
    return replace(method, key=name, tuned_as=None, overrides=overrides)


def measure_seed(seed: Seed) -> dict[str, dict[str, float]]:
    grammar = ReplyGrammar("dialogue")
    base, rows = reply_study.start(seed, grammar, [METHODS[key] for _, key, _, _ in GRIDS]), {}
    for _, key, setting, values in GRIDS:
        for value in values:
            method = variant(key, setting, value)
            adapter = reply_study.tune(seed, base, method)
            rows[method.key] = reply_study.measure(
                grammar, reply_study.ask(seed, grammar, base, adapter, method, TEMPERATURE)
            )
    return rows


def work(study: Study) -> None:
    report = study.report
    for seed, rows in study.each_seed(measure_seed).items():
        for row, figures in rows.items():
            report.add(row, seed, figures)
    for title, key, setting, values in GRIDS:
        rows = [Row(variant(key, setting, value).key, f"{setting} = {value}") for value in values]
        report.table(f"{title} (t = {TEMPERATURE})", rows, [DIVERSITY, DIFFERENT, INCOHERENT])

    def expect(name, figure, key, setting, *values):
        report.check_increasing(name, figure, [variant(key, setting, value).key for value in values])

    alpha = "loss.unlikelihood.alpha"
    expect("aligned numbers: unlikelihood raises diversity", DIVERSITY, ALIGNED, alpha, 0, 0.5)
    expect("far too much unlikelihood costs coherence", INCOHERENT, "peft", alpha, 0.5, 4.0)
    expect("more replies per prompt raise diversity", DIVERSITY, "peft", "group.responses", 2, 4)


if __name__ == "__main__":
    sys.exit(run("ablations", "What possibility exploration fine-tuning depends on, on a toy grammar.", work))

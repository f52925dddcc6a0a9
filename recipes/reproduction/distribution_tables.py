"""Tables and checks of `launch/reproduce distributions`, beside the figures published for Llama-2-13B-chat.

Owns: what the paper prints, which directions are expected, thresholds. Does not own: measuring. Published
entropies are in nats; the biographies' columns are put in the order that entropy <= ln(coverage) leaves
possible.
"""

from __future__ import annotations

import math

from plural_text.metrics.biography import ATTRIBUTES
from report import Figure, Report, Row

SAMPLES = 1000
COVERAGE = Figure("coverage", f"coverage of {SAMPLES:,}", "{:.1f}")
COVERAGE_VALID = Figure("coverage_valid", "of valid answers", "{:.1f}")
ENTROPY = Figure("entropy_nats", "entropy, nats", "{:.2f}")
EXACT_ENTROPY = Figure("exact_entropy_nats", "exact entropy on the targets, nats", "{:.3f}")
KL = Figure("kl_nats", "exact KL(p*‖p), nats", "{:.4f}")
MASS = Figure("target_mass", "exact mass on the targets", "{:.3f}")
OUTSIDE = Figure("outside_share", "share of other valid names", "{:.3f}")
VALID = Figure("valid_share", "valid share", "{:.3f}")
LOSS = Figure("loss_nats", "loss of the last pass, nats", "{:.3f}")
PASSES = Figure("passes", "passes", "{:.1f}")
GENDER = Figure("gender_distance", "gender: distance from uniform", "{:.2f}")
BASE_PERPLEXITY = Figure("base_perplexity", "perplexity of the base", "{:.3f}")
BIOGRAPHIES = Figure("biography_share", "biographies, share", "{:.3f}")
UNKNOWN = Figure("unknown_share", "values of no list, share", "{:.3f}")
PERPLEXITY = Figure("perplexity", "perplexity", "{:.3f}")
RISE = Figure("rise_percent", "rise, %", "{:.2f}")
HARMED = Figure("harmed_percent", "sentences with over 10 % more, %", "{:.1f}")
TOKEN_KL = Figure("kl_nats_per_token", "KL(base‖tuned), nats a token", "{:.4f}")

# Task -> ours -> (coverage, entropy in nats): the paper's tables 1, 5 and 6. Only names were tuned alone
# there.
_PUBLISHED_TASKS = {
    "names": {"base": (129, 3.24), "ood": (426, 5.57), "id": (490, 5.83)},
    "countries": {"base": (17.8, 1.19), "ood": (43.0, 2.73)},
    "fruits": {"base": (45.0, 2.33), "ood": (60.5, 3.28)},
    "dates": {"base": (14.3, 1.47), "ood": (22.5, 2.81)},
    "numbers": {"base": (10.0, 0.91), "ood": (31.9, 2.70)},
    "occupations": {"base": (192.7, 3.21), "ood": (313.3, 4.68)},
}
# Attribute -> (base, OOD, ID), each (coverage, entropy in nats): the paper's tables 7 and 8.
_PUBLISHED_FIELDS = {
    "first_name": ((158, 3.23), (637, 6.18), (375, 5.58)),
    "last_name": ((288, 4.30), (845, 6.63), (557, 5.96)),
    "birth_year": ((26, 1.10), (67, 3.15), (89, 4.22)),
    "birth_place": ((98, 2.65), (305, 5.08), (533, 5.98)),
    "profession": ((178, 3.81), (276, 4.61), (198, 4.33)),
}
# From the counts of female, male and non-binary per 1,000 in the paper's table 2: the distance of their
# shares from a third each.
_PUBLISHED_GENDERS = ((966, 13, 17), (762, 189, 31), (487, 478, 34))
_WAYS = {"base": "base", "ood": "tuned, OOD", "id": "tuned, ID"}


def tables(report: Report, parts: list[str]) -> None:
    """Fills the report with the tables and checks of the parts that were run."""
    for part in parts:
        {
            "closed_sets": _closed_sets,
            "names": _names,
            "leave_one_out": _leave_one_out,
            "leave_one_in": _leave_one_in,
            "biographies": _biographies,
            "unrelated": _unrelated,
        }[part](report)


def _closed_sets(report: Report) -> None:
    rows = [
        Row("rng base", "numbers 1 to 10, base", {"coverage": 7, "entropy_nats": 1.07}),
        Row("rng tuned", "numbers 1 to 10, tuned", {"coverage": 10, "entropy_nats": 2.29}),
        Row("binomial base", "binomial B(10, 0.2), base"),
        Row("binomial tuned", "binomial B(10, 0.2), tuned"),
    ]
    report.table("Closed sets", rows, [KL, MASS, COVERAGE, COVERAGE_VALID, ENTROPY, LOSS])
    report.check_bound("random numbers: the base is far from uniform", KL, "rng base", low=0.5)
    report.check_bound("random numbers: KL below 0.01", KL, "rng tuned", high=0.01)
    report.check_bound("random numbers: entropy of 1,000 draws", ENTROPY, "rng tuned", low=2.28)
    report.check_bound("random numbers: coverage 10 of 10", COVERAGE_VALID, "rng tuned", low=10, high=10)
    report.check_bound(
        "random numbers: the loss does not go below ln 10", LOSS, "rng tuned", low=math.log(10) - 1e-5
    )
    report.check_bound("binomial: KL below 0.01", KL, "binomial tuned", high=0.01)


def _names(report: Report) -> None:
    rows = [
        Row("names base", "base", {"coverage": 129, "entropy_nats": 3.24}),
        Row("names tuned", "tuned, early stop", {"coverage": 490, "entropy_nats": 5.83}),
        Row("names to the end", "tuned, no early stop"),
    ]
    report.table(
        "Names: tuned on 200 of 400", rows, [COVERAGE, COVERAGE_VALID, ENTROPY, OUTSIDE, LOSS, PASSES]
    )
    report.check_bound(
        "names: early stop at a loss of at most 1.2 ln 200", LOSS, "names tuned", high=1.2 * math.log(200)
    )
    base, tuned = (report.mean(f"names {way}", "coverage_valid") for way in ("base", "tuned"))
    report.check(
        "names: coverage of valid names over twice the base's",
        tuned > 2 * base,
        f"{base:.1f} -> {tuned:.1f}",
        [("names base", "coverage_valid"), ("names tuned", "coverage_valid")],
    )
    report.check_bound("names: others than the 200 appear", OUTSIDE, "names tuned", low=0.05)
    report.check_increasing(
        "names: without early stop fewer others appear", OUTSIDE, ["names to the end", "names tuned"]
    )


def _task_rows(ways: tuple[str, ...]) -> list[Row]:
    rows = []
    for task, published in _PUBLISHED_TASKS.items():
        for way in ways:
            paper = dict(zip(("coverage", "entropy_nats"), published.get(way, ())))
            rows.append(Row(f"{task} {way}", f"{task}: {_WAYS[way]}", paper))
    return rows


def _leave_one_out(report: Report) -> None:
    report.table(
        "Leave one out: tuned on five tasks, asked for the sixth",
        _task_rows(("base", "ood")),
        [COVERAGE, COVERAGE_VALID, ENTROPY, EXACT_ENTROPY, VALID],
    )
    for task in _PUBLISHED_TASKS:
        gains = [
            report.mean(f"{task} ood", key) - report.mean(f"{task} base", key)
            for key in ("entropy_nats", "exact_entropy_nats")
        ]
        report.check(
            f"{task}: unseen, flatter by over 0.3 nats",
            min(gains) > 0.3,
            f"{gains[0]:+.2f} sampled, {gains[1]:+.2f} exact",
            [(f"{task} {way}", "exact_entropy_nats") for way in ("base", "ood")],
        )


def _leave_one_in(report: Report) -> None:
    report.table(
        "Leave one in: tuned on the task alone (names, fruits, occupations with early stop)",
        _task_rows(("id",)),
        [COVERAGE, COVERAGE_VALID, ENTROPY, EXACT_ENTROPY, VALID, KL],
    )
    for task in _PUBLISHED_TASKS:
        report.check_increasing(
            f"{task}: exact entropy {' < '.join(_WAYS)}", EXACT_ENTROPY, [f"{task} {way}" for way in _WAYS]
        )


def _biographies(report: Report) -> None:
    rows = []
    for place, (way, title) in enumerate({**_WAYS, "id from base": "tuned, ID, from the base"}.items()):
        paper = {}
        if way in _WAYS:
            for name, published in _PUBLISHED_FIELDS.items():
                paper |= dict(zip((f"{name}_coverage", f"{name}_entropy_nats"), published[place]))
            shares = [count / sum(_PUBLISHED_GENDERS[place]) for count in _PUBLISHED_GENDERS[place]]
            paper["gender_distance"] = sum(abs(share - 1 / 3) for share in shares) / 2
        rows.append(Row(f"biographies {way}", title, paper))
    titles = {name: name.replace("_", " ") for name in ATTRIBUTES}
    coverages = [Figure(f"{name}_coverage", titles[name], "{:.0f}") for name in _PUBLISHED_FIELDS]
    entropies = [Figure(f"{name}_entropy_nats", titles[name], "{:.2f}") for name in _PUBLISHED_FIELDS]
    report.table("Biographies: coverage of 1,000", rows, [*coverages, BIOGRAPHIES, UNKNOWN])
    report.table("Biographies: entropy, nats", rows, [*entropies, GENDER])
    for way in ("ood", "id"):
        for coverage, entropy in zip(coverages, entropies):
            pairs = [
                (report.mean("biographies base", f.key), report.mean(f"biographies {way}", f.key))
                for f in (coverage, entropy)
            ]
            report.check(
                f"biographies: {coverage.title} more diverse when {_WAYS[way]}",
                all(before < after for before, after in pairs),
                ", ".join(f"{before:.2f} -> {after:.2f}" for before, after in pairs),
                [(f"biographies {each}", f.key) for each in ("base", way) for f in (coverage, entropy)],
            )
    report.check_increasing(
        "biographies: gender nearest to uniform when tuned on it",
        GENDER,
        [f"biographies {way}" for way in ("id", "ood", "base")],
    )


def _unrelated(report: Report) -> None:
    report.table(
        "Text that tuning was not about: 300 held-out sentences",
        [Row("unrelated", "tuned on all six tasks")],
        [BASE_PERPLEXITY, PERPLEXITY, RISE, HARMED, TOKEN_KL],
    )
    report.check_bound("unrelated text: perplexity rises by less than 2 %", RISE, "unrelated", high=2)

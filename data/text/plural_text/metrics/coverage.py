"""Coverage and entropy of the answers to a prompt, and how many are valid.

An answer's key is the text in the first balanced braces, trimmed; without braces, the whole trimmed text.
Case and accents are kept. Coverage is the number of different keys, entropy that of their shares. Each figure
is a prompt's own; over several prompts it is their mean. For one prompt the interval is over its responses.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plural_text.metrics.bootstrap import Interval, influence_interval, interval
from plural_text.metrics.entropy import check_entropy, entropy_nats, expected_coverage, expected_entropy_nats
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers
from plural_text.metrics.targets import match_targets, read_targets


@dataclass(frozen=True)
class KeyFigures:
    """The figures of the keys of one prompt."""

    draws: int
    coverage: int
    entropy_nats: float | None  # None without draws
    coverage_interval: Interval | None  # over draws
    entropy_interval: Interval | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets",
        type=Path,
        metavar="FILE",
        help="coverage, --values: the valid answers: what prepare --format targets reads, or a corpus. "
        "Sets go to prompts by id; a single set is every prompt's",
    )


def answer_key(text: str) -> str:
    """The key of an answer: '{Ann}!' -> 'Ann', ' Ann ' -> 'Ann'."""
    inside = first_braces(text)
    return (text if inside is None else text[inside[0] : inside[1]]).strip()


def first_braces(text: str, start: int = 0) -> tuple[int, int] | None:
    """Begin and end of the text inside the first balanced {...} from `start` on; None without one."""
    open_at: list[int] = []
    first: tuple[int, int] | None = None
    for place in range(start, len(text)):
        if text[place] == "{":
            open_at.append(place)
        elif text[place] == "}" and open_at:
            begin = open_at.pop()
            if first is None or begin < first[0]:
                first = begin + 1, place
            if not open_at:
                return first
    return first


def key_figures(keys: Sequence[str]) -> KeyFigures:
    """Coverage and entropy of draws, invariant checked, each with its interval over draws."""
    counts = Counter(keys)
    draws, coverage = len(keys), len(counts)
    if not draws:
        return KeyFigures(0, 0, None, None, None)
    nats = entropy_nats(counts.values())
    check_entropy(nats, coverage, draws)
    without_coverage, without_nats = [], []
    if draws > 1:
        # Draws of equal count have equal influence. With counts c: H = ln N - sum c ln c / N.
        weighted = math.fsum(count * math.log(count) for count in counts.values())
        for count in counts.values():
            less = (
                weighted - count * math.log(count) + ((count - 1) * math.log(count - 1) if count > 1 else 0.0)
            )
            without_coverage += [coverage - (count == 1)] * count
            without_nats += [math.log(draws - 1) - less / (draws - 1)] * count
    return KeyFigures(
        draws,
        coverage,
        nats,
        influence_interval(coverage, without_coverage, units="responses", range_of_values=(1, draws)),
        influence_interval(nats, without_nats, units="responses", range_of_values=(0.0, math.log(draws))),
    )


def figures(answers: list[Answers], arguments) -> list[Figure]:
    keys = {prompt.id: [answer_key(text) for text in prompt.texts] for prompt in answers if prompt.responses}
    found = _both("", [key_figures(own) for own in keys.values()])
    sets, reason = {}, "needs the valid answers: --targets FILE"
    if arguments.targets:
        sets = read_targets(arguments.targets)
        sets = match_targets(sets, list(keys), arguments.targets, required=arguments.whole_file)
        reason = f"{arguments.targets} has no set for these prompts"
    if not sets:
        return found + [undefined(name, 0, "prompts", reason) for name in ("coverage_valid", "valid_rate")]
    return found + _valid_figures(
        {prompt: keys[prompt] for prompt in sets},
        {prompt: {answer_key(target.text) for target in own} for prompt, own in sets.items()},
    )


def _valid_figures(keys: dict[str, list[str]], valid: dict[str, set[str]]) -> list[Figure]:
    hits = {prompt: [key for key in own if key in valid[prompt]] for prompt, own in keys.items()}
    draws = [len(own) for own in keys.values()]
    if len(keys) == 1:
        own = next(iter(keys))
        rate_interval = interval([float(key in valid[own]) for key in keys[own]], units="responses")
    else:
        rate_interval = interval([len(own) for own in hits.values()], draws)
    rate = sum(map(len, hits.values())) / sum(draws)
    sizes = [(len(valid[prompt]), len(own)) for prompt, own in keys.items()]
    return [
        *_both("_valid", [key_figures(own) for own in hits.values()]),
        Figure("valid_rate", rate, sum(draws), "responses", rate_interval),
        Figure(
            "coverage_of_uniform",
            _mean([expected_coverage(*size) for size in sizes]),
            len(sizes),
            "prompts",
            note="expected from a uniform source over the targets",
        ),
        Figure(
            "entropy_of_uniform_nats",
            _mean([expected_entropy_nats(*size) for size in sizes]),
            len(sizes),
            "prompts",
            note="expected from a uniform source over the targets",
        ),
    ]


def _both(suffix: str, per_prompt: list[KeyFigures]) -> list[Figure]:
    """Mean coverage and entropy over prompts."""
    draws = sum(found.draws for found in per_prompt)
    coverage = [found.coverage for found in per_prompt]
    entropies = [found.entropy_nats for found in per_prompt if found.entropy_nats is not None]
    one = per_prompt[0] if len(per_prompt) == 1 else None
    note = f"mean over {len(per_prompt):,} prompts" if one is None else ""
    figures_ = [
        Figure(
            f"coverage{suffix or '_all'}",
            _mean(coverage),
            draws,
            "responses",
            one.coverage_interval if one else interval(coverage),
            note=note,
        )
    ]
    if not entropies:
        reason = "no valid answer" if suffix else "no answer"
        return figures_ + [
            undefined(f"entropy{suffix}_{unit}", 0, "responses", reason) for unit in ("nats", "bits")
        ]
    nats, nats_interval = _mean(entropies), one.entropy_interval if one else interval(entropies)
    bits_interval = nats_interval and Interval(
        nats_interval.low / math.log(2), nats_interval.high / math.log(2), nats_interval.method
    )
    return [
        *figures_,
        Figure(f"entropy{suffix}_nats", nats, draws, "responses", nats_interval, note=note),
        Figure(f"entropy{suffix}_bits", nats / math.log(2), draws, "responses", bits_interval, note=note),
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)

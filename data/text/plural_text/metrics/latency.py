"""The cost of answers: wall time, and decode steps and token forwards, which do not depend on the hardware.

Owns: medians over prompts, multiples of a baseline. Does not own: the clock (`plural generate` writes seconds
a prompt). Seconds can be compared only where both files were made alone on the same machine, one prompt at a
time. The first prompts warm up and are left out of seconds and their multiple.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.options import whole_number
from plural_text.metrics.bootstrap import interval
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers, read_answers

DEFAULT_WARMUP_PROMPTS = 10

_COSTS: dict[str, Callable[[Answers], float | None]] = {
    "seconds": lambda answers: answers.seconds,
    "decode_steps": lambda answers: answers.decode_steps,
    "token_forwards": lambda answers: answers.token_forwards,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="RESPONSES.jsonl",
        help="latency: also as a multiple of this file's costs on the same prompts",
    )
    parser.add_argument(
        "--warmup-prompts",
        type=whole_number(0),
        default=DEFAULT_WARMUP_PROMPTS,
        metavar="N",
        help="latency: prompts at the beginning whose seconds do not count (default: %(default)s)",
    )


def multiple(costs: Sequence[float], baseline: Sequence[float]) -> float | None:
    """Median cost over the median of the baseline's; None without costs or with a baseline that costs
    nothing."""
    below = statistics.median(baseline) if baseline else 0
    return statistics.median(costs) / below if costs and below > 0 else None


def figures(answers: list[Answers], arguments) -> list[Figure]:
    baseline = None
    if arguments.baseline:
        baseline = {prompt.id: prompt for prompt in read_answers(arguments.baseline)}
        if arguments.whole_file and not any(prompt.id in baseline for prompt in answers):
            raise BadData(
                f"{arguments.baseline}: has no prompt with the id of one of ours, such as "
                f"'{answers[0].id}'; a baseline answers the same prompts"
            )
    found = []
    for name, cost in _COSTS.items():
        skipped = arguments.warmup_prompts if name == "seconds" else 0
        found.append(_median(name, cost, answers[skipped:], skipped))
        if baseline is not None:
            found.append(_multiple(name, cost, answers[skipped:], baseline, skipped))
    return [*found, _sum_over_longest(answers)]


def _median(name: str, cost, answers: list[Answers], skipped: int) -> Figure:
    title, costs = (
        f"prompt_{name}_median",
        [value for prompt in answers if (value := cost(prompt)) is not None],
    )
    if not costs:
        return undefined(title, 0, "prompts", _why_nothing(name, answers, skipped))
    return Figure(title, statistics.median(costs), len(costs), "prompts", note=_note(skipped))


def _multiple(name: str, cost, answers: list[Answers], baseline: dict[str, Answers], skipped: int) -> Figure:
    title = "latency_multiple" if name == "seconds" else f"{name}_multiple"
    pairs = [
        (ours, theirs)
        for prompt in answers
        if prompt.id in baseline
        and (ours := cost(prompt)) is not None
        and (theirs := cost(baseline[prompt.id])) is not None
    ]
    value = multiple([ours for ours, _ in pairs], [theirs for _, theirs in pairs])
    if value is None:
        return undefined(title, 0, "prompts", _why_nothing(name, answers, skipped) + " in both files")
    # Medians of few different step counts jump from resample to resample, so the interval is of another
    # ratio.
    notes = ["ratio of medians; the interval is of the ratio of sums", _note(skipped)]
    return Figure(
        title,
        value,
        len(pairs),
        "prompts",
        interval(*map(list, zip(*pairs))),
        note="; ".join(filter(None, notes)),
    )


def _sum_over_longest(answers: list[Answers]) -> Figure:
    """The cost of a prompt's responses in one sequence over that side by side: sum of lengths / longest."""
    name = "tokens_sum_over_longest"
    lengths = [[response.tokens for response in prompt.responses] for prompt in answers]
    known = [own for own in lengths if own and None not in own and max(own) > 0]
    if not known:
        return undefined(name, 0, "prompts", "no prompt whose responses have tokens")
    sums, longest = [sum(own) for own in known], [max(own) for own in known]
    return Figure(name, sum(sums) / sum(longest), len(known), "prompts", interval(sums, longest))


def _why_nothing(name: str, answers: list[Answers], skipped: int) -> str:
    if not answers:
        return f"all prompts are warm-up; give --warmup-prompts below {skipped}"
    return f"no prompt has '{name}'"


def _note(skipped: int) -> str:
    return f"without the first {skipped} prompts" if skipped else ""

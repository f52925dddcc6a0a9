"""What seeds say about the difference of two settings, and which settings are the best trade-offs.

Owns: paired differences with intervals, the correction for many comparisons, the seeds that would be needed,
Pareto fronts. scipy computes the distributions. Does not own: which settings are compared (table.py). Thread
rule: free of state.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from plural_text.common.pareto import front

CONFIDENCE = 0.95
POWER = 0.8
_MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, with a 95 % t interval where there are two or more."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Difference:
    """Of a setting to the baseline over the seeds that both have. `p`: two-sided paired t test.
    `seeds_needed`: so that this difference would be told from zero at 5 % in 80 % of studies."""

    seeds: int
    interval: Interval
    p: float | None = None
    seeds_needed: int | None = None


def mean_of(values: Sequence[float]) -> Interval:
    """values: one per seed, at least one."""
    from scipy import stats

    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean)
    error = stats.sem(values)
    if error == 0:
        return Interval(mean, mean, mean)
    low, high = stats.t.interval(CONFIDENCE, len(values) - 1, loc=mean, scale=error)
    return Interval(mean, float(low), float(high))


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """values, baseline: seed -> figure. None where they have no seed in common."""
    from scipy import stats

    seeds = sorted(values.keys() & baseline.keys())
    if not seeds:
        return None
    differences = [values[seed] - baseline[seed] for seed in seeds]
    interval = mean_of(differences)
    if len(seeds) < 2:
        return Difference(len(seeds), interval)
    if len(set(differences)) == 1:  # no spread: the test is not defined
        return Difference(len(seeds), interval, seeds_needed=2 if differences[0] else None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal differences
        test = stats.ttest_rel([values[seed] for seed in seeds], [baseline[seed] for seed in seeds])
    return Difference(len(seeds), interval, float(test.pvalue), seeds_needed(differences))


def seeds_needed(differences: Sequence[float]) -> int | None:
    """The least number of seeds at which a paired t test at 5 % finds this mean difference, with this spread,
    in 80 % of studies; None where it is zero or takes more than 10,000."""
    mean = math.fsum(differences) / len(differences)
    spread = stdev(differences)
    if mean == 0:
        return None
    if spread == 0:
        return 2
    low, high = 2, _MOST_SEEDS
    if _power(abs(mean) / spread, high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        if _power(abs(mean) / spread, middle) >= POWER:
            high = middle
        else:
            low = middle + 1
    return low


def _power(effect: float, seeds: int) -> float:
    """Of a two-sided t test of `seeds` differences whose mean is `effect` standard deviations."""
    from scipy import stats

    bound = stats.t.ppf(1 - (1 - CONFIDENCE) / 2, seeds - 1)
    shift = effect * math.sqrt(seeds)
    power = stats.nct.sf(bound, seeds - 1, shift) + stats.nct.cdf(-bound, seeds - 1, shift)
    # Far from zero scipy's series does not end; the test then finds the difference for certain.
    return float(power) if math.isfinite(power) else 1.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: each p times the number of comparisons that are not smaller, at least the
    one before, at most 1. Those without p stay without and do not count."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for place, (p, i) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - place)))
        found[i] = highest
    return found


def pareto_front(points: Sequence[tuple[float, float]], x_higher: bool, y_higher: bool) -> list[int]:
    """Indices of the points that no other point beats in one figure without losing in the other."""
    return sorted(front(points, "higher" if x_higher else "lower", "higher" if y_higher else "lower"))

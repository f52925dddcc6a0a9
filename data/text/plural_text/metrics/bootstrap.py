"""Intervals of figures: how much a value would move with other prompts, or other draws.

Owns: percentile bootstrap of ratios of sums, bootstrap of influences, Wilson's interval. Pure functions:
equal arguments give equal intervals. Units (what is resampled) are prompts wherever there are several, since
responses of one prompt are not independent.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SEED = 42
RESAMPLES = 2000
CONFIDENCE = 0.95
# Resamples held at a time are bounded by this many drawn units (8 bytes each).
_CHUNK_UNITS = 1 << 20


@dataclass(frozen=True)
class Interval:
    low: float
    high: float
    method: str  # for people: "bootstrap over 300 prompts"


def interval(
    above: Sequence[float],
    below: Sequence[float] | None = None,
    *,
    units: str = "prompts",
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Percentile interval of sum(above) / sum(below) over units; without `below`, of the mean of `above`.

    None with fewer than two units: nothing varies then. Resamples whose `below` adds up to 0 have no ratio
    and are left out.
    """
    import numpy

    if len(above) < 2:
        return None
    above_U = numpy.asarray(above, dtype=float)
    below_U = numpy.ones_like(above_U) if below is None else numpy.asarray(below, dtype=float)
    ratios = []
    shares_U = numpy.full(len(above_U), 1 / len(above_U))
    for count_BU in _resampled_counts(len(above_U), seed, resamples, shares_U):
        sums_B, weights_B = count_BU @ above_U, count_BU @ below_U
        ratios.append(sums_B[weights_B > 0] / weights_B[weights_B > 0])
    values = numpy.concatenate(ratios)
    return _percentiles(values, f"bootstrap over {len(above_U):,} {units}") if len(values) else None


def influence_interval(
    value: float,
    without: Sequence[float],
    *,
    units: str = "prompts",
    range_of_values: tuple[float, float] = (-math.inf, math.inf),
    seed: int = SEED,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Interval of a figure that counts different things (types of words, keys), from without[i], its value
    with unit i left out.

    A plain bootstrap is wrong for such figures: a resample repeats units, and a repeated unit brings nothing
    new, so every resample lies below the value. Here the resamples move the value by the mean of their units'
    influences (n - 1)(value - without[i]), the jackknife's; see Efron & Tibshirani 1993, chapters 11 and 20.
    Limits are clipped to `range_of_values`. None with fewer than two units.
    """
    import numpy

    units_count = len(without)
    if units_count < 2:
        return None
    # Units of equal influence are drawn as one: a thousand draws often have a handful of influences.
    without_G, size_G = numpy.unique(numpy.asarray(without, dtype=float), return_counts=True)
    influence_G = (units_count - 1) * (value - without_G)
    influence_G -= influence_G @ size_G / units_count
    moved = [
        value + count_BG @ influence_G / units_count
        for count_BG in _resampled_counts(units_count, seed, resamples, size_G / units_count)
    ]
    found = _percentiles(numpy.concatenate(moved), f"bootstrap of influences over {units_count:,} {units}")
    low, high = range_of_values
    return Interval(max(found.low, low), min(found.high, high), found.method)


def wilson(hits: int, count: int, units: str = "responses") -> Interval | None:
    """Wilson's score interval of a share of independent hits; has width at 0 hits, too. None without any."""
    if not count:
        return None
    z = statistics.NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, shrink = hits / count, 1 + z * z / count
    centre = (share + z * z / (2 * count)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # At 0 and at `count` hits the limit equals the share but for rounding.
    return Interval(
        max(0.0, min(centre - half, share)),
        min(1.0, max(centre + half, share)),
        f"Wilson over {count:,} {units}",
    )


def _resampled_counts(units: int, seed: int, resamples: int, shares_G):
    """How many of `units` draws fall on each group of units of these shares, float [B, groups], in chunks of
    B."""
    import numpy

    random = numpy.random.default_rng(seed)
    chunk = max(1, min(resamples, _CHUNK_UNITS // len(shares_G)))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        yield random.multinomial(units, shares_G, size=rows).astype(float)


def _percentiles(values, method: str) -> Interval:
    import numpy

    tail = (1 - CONFIDENCE) / 2
    low, high = numpy.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), method)

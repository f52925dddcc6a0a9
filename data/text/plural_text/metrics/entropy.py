"""Entropy of counts, and what a uniform source would give.

Owns: formulas. The unit is in every name: the possibility exploration paper reports bits, the distribution
matching paper nats. These are plug-in estimates from counts, biased low by about (values - 1) / (2 draws)
nats; exact entropies of a model come from `plural evaluate`.
"""

from __future__ import annotations

import math
from collections.abc import Collection

# Rounding of a sum of up to some thousand terms of about 1, each good to 2^-53.
_ROUNDING = 1e-9


def entropy_nats(counts: Collection[float]) -> float:
    """-sum p ln p of the empirical distribution. Counts of 0 bring nothing. Errors: ValueError without
    draws."""
    total = math.fsum(counts)
    if not total > 0 or min(counts) < 0:
        raise ValueError("entropy needs counts of 0 or more that do not add up to 0")
    return max(0.0, math.fsum(count / total * math.log(total / count) for count in counts if count > 0))


def entropy_bits(counts: Collection[float]) -> float:
    return entropy_nats(counts) / math.log(2)


def check_entropy(nats: float, coverage: int, draws: int) -> None:
    """entropy <= ln(coverage) <= ln(draws) holds for every empirical distribution, so figures that break it
    were not measured on the same draws (as in tables whose columns were swapped). Errors: ValueError."""
    if coverage > draws or nats > math.log(coverage) + _ROUNDING:
        raise ValueError(
            f"entropy of {nats} nats, coverage {coverage}, {draws} draws: must be entropy <= "
            "ln(coverage) <= ln(draws)"
        )


def expected_coverage(values: int, draws: int) -> float:
    """Different values among draws from a uniform source: n (1 - (1 - 1/n)^N)."""
    return values * -math.expm1(draws * math.log1p(-1 / values)) if values > 1 else 1.0


def expected_entropy_nats(values: int, draws: int) -> float:
    """Mean plug-in entropy of draws from a uniform source: -n sum_k Binomial(N, 1/n)(k) k/N ln(k/N)."""
    if values == 1:
        return 0.0
    log_hit, log_miss = -math.log(values), math.log1p(-1 / values)
    terms = []
    for k in range(1, draws):  # k = draws brings ln 1 = 0
        log_p = (
            math.lgamma(draws + 1)
            - math.lgamma(k + 1)
            - math.lgamma(draws - k + 1)
            + k * log_hit
            + (draws - k) * log_miss
        )
        terms.append(math.exp(log_p) * k / draws * math.log(draws / k))
    return values * math.fsum(terms)

"""Spherical k-means over rows that need not fit in memory.

Owns: the search for centres, the variance they explain. Does not own: the source of the rows (alignment.py).
Memory is bounded by a sample of rows and one block, whatever their number. Thread rule: one thread at a
time.

Several starts run on a sample; the best one is then improved by passes over all rows, block by block, with
sums in fp64. Everything random derives from the seed, so that the same rows give the same centres.

scikit-learn has no spherical k-means. Its KMeans copies all rows into memory and finds a lower mean cosine,
which is what the assignment of numbers maximises; its MiniBatchKMeans, which reads blocks, stays well below
both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_SAMPLE_ROWS = 1 << 16  # 100 MB at 384 dimensions
_BLOCK_ROWS = 1 << 13
_STARTS = 8
_START_PASSES = 100  # at most; a start ends when its objective no longer grows
_FULL_PASSES = 20
_STANDSTILL = 1e-5  # gain in mean cosine of a pass
_SAME_DIRECTION = 1e-6  # 1 - cosine


class TooFewDirections(Exception):
    """There are fewer different rows than centres; `found` of them."""

    def __init__(self, found: int):
        super().__init__(f"{found} different rows")
        self.found = found


@dataclass
class Clusters:
    centres: object  # float32 [M, d], rows of length 1, the largest cluster first
    sizes: list[int]  # rows whose nearest centre it is
    mean_cosine: float  # of rows to their nearest centre
    variance_explained: float  # share of the rows' variance that lies between clusters


@dataclass
class _Assigned:
    """One pass: rows given to their nearest centres."""

    sums: object  # float64 [M, d]
    sizes: object  # int64 [M]
    cosine_sum: float
    farthest: object  # the row with the lowest cosine to its centre


def spherical_kmeans(
    rows,
    count: int,
    seed: int,
    report: Callable[[float, int], None] = lambda share, done: None,
    sample_rows: int = _SAMPLE_ROWS,
    block_rows: int = _BLOCK_ROWS,
) -> Clusters:
    """`count` centres of `rows`, float32 [n, d] of length 1, in memory or mapped; rows of zeros are left out.

    report(share, done) gets the share of the work that is finished and the number of rows that were read.
    Raises TooFewDirections.
    """
    import numpy

    sample = _sample(rows, sample_rows, numpy.random.default_rng([seed, 0]))
    done = 0

    def told(share: float, more: int) -> None:
        nonlocal done
        done += more
        report(share, done)

    best, best_objective = None, -numpy.inf
    for start in range(_STARTS):
        centres = _seed_centres(sample, count, numpy.random.default_rng([seed, 1, start]))
        objective = -numpy.inf
        for step in range(_START_PASSES):
            assigned = _assign(sample, centres, block_rows)
            told((start + step / _START_PASSES) / (2 * _STARTS), len(sample))
            if assigned.cosine_sum / len(sample) - objective < _STANDSTILL:
                break
            objective = assigned.cosine_sum / len(sample)
            centres = _moved(centres, assigned)
        if objective > best_objective:
            best, best_objective = centres, objective
    return _refine(rows, best, block_rows, told)


def _refine(rows, centres, block_rows: int, told) -> Clusters:
    """Passes over all rows until they gain nothing more; the last one measures the centres it was given."""
    objective = -1.0
    for step in range(_FULL_PASSES):
        assigned = _assign(
            rows,
            centres,
            block_rows,
            lambda share, step=step: told(0.5 + (step + share) / _FULL_PASSES / 2, block_rows),
        )
        used = int(assigned.sizes.sum())
        gain, objective = assigned.cosine_sum / used - objective, assigned.cosine_sum / used
        if gain < _STANDSTILL or step == _FULL_PASSES - 1:
            break
        centres = _moved(centres, assigned)
    order = sorted(range(len(centres)), key=lambda k: (-int(assigned.sizes[k]), centres[k].tolist()))
    return Clusters(centres[order], [int(assigned.sizes[k]) for k in order], objective, _explained(assigned))


def _explained(assigned: _Assigned) -> float:
    """Variance between clusters over the variance of all rows, which have length 1."""
    used = assigned.sizes.sum()
    overall = float((assigned.sums.sum(axis=0) ** 2).sum()) / used**2
    between = float(((assigned.sums**2).sum(axis=1) / assigned.sizes.clip(1)).sum()) / used
    return (between - overall) / (1 - overall) if overall < 1 else 0.0


def _sample(rows, limit: int, random):
    """At most `limit` rows that are not zero, in their order."""
    import numpy

    if len(rows) > limit:
        kept = rows[numpy.sort(random.choice(len(rows), limit, replace=False))]
    else:
        kept = numpy.array(rows)
    not_zero = kept.any(axis=1)
    if not not_zero.any():
        raise TooFewDirections(0)
    return kept if not_zero.all() else kept[not_zero]


def _seed_centres(rows, count: int, random):
    """k-means++: each centre is drawn with a chance in proportion to its distance from those before it."""
    import numpy

    centres = [rows[random.integers(len(rows))]]
    distance = 1.0 - rows @ centres[0]
    while len(centres) < count:
        distance[distance < _SAME_DIRECTION] = 0.0
        total = distance.sum(dtype=numpy.float64)
        if total == 0.0:
            raise TooFewDirections(len(centres))
        chance = numpy.cumsum(distance, dtype=numpy.float64)
        place = min(
            int(numpy.searchsorted(chance, random.random() * chance[-1], side="right")), len(rows) - 1
        )
        centres.append(rows[place])
        distance = numpy.minimum(distance, 1.0 - rows @ centres[-1])
    return numpy.array(centres)


def _assign(rows, centres, block_rows: int, told=lambda share: None) -> _Assigned:
    import numpy

    sums = numpy.zeros(centres.shape, numpy.float64)
    sizes = numpy.zeros(len(centres), numpy.int64)
    cosine_sum, worst, farthest = 0.0, numpy.inf, centres[0]
    for begin in range(0, len(rows), block_rows):
        block = numpy.asarray(rows[begin : begin + block_rows])
        block = block[block.any(axis=1)]
        if len(block):
            cosines = block @ centres.T
            nearest = cosines.argmax(axis=1)
            best = cosines[numpy.arange(len(block)), nearest]
            for k in numpy.unique(nearest):
                members = block[nearest == k]
                sums[k] += members.sum(axis=0, dtype=numpy.float64)
                sizes[k] += len(members)
            cosine_sum += float(best.sum(dtype=numpy.float64))
            if best.min() < worst:
                worst, farthest = best.min(), block[best.argmin()].copy()
        told(min(begin + block_rows, len(rows)) / len(rows))
    return _Assigned(sums, sizes, cosine_sum, farthest)


def _moved(centres, assigned: _Assigned):
    """Every centre to the mean direction of its rows; a centre without rows to the row with the lowest
    cosine."""
    import numpy

    lengths = numpy.linalg.norm(assigned.sums, axis=1)
    moved = centres.copy()
    has_rows = lengths > 0
    moved[has_rows] = (assigned.sums[has_rows] / lengths[has_rows, None]).astype(numpy.float32)
    empty = numpy.flatnonzero(assigned.sizes == 0)
    if len(empty):
        moved[empty[0]] = assigned.farthest  # one per pass: two would get the same place
    return moved

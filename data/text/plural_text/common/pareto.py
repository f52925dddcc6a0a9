"""The Pareto front: points that no other point beats.

Owns: which points those are. Does not own: points, pictures. Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]], x_better: str, y_better: str) -> list[int]:
    """The places of the points to which none is at least as good on both axes and better on one, by rising x.

    x_better, y_better: "higher" or "lower". Equal points stand or fall together.
    """
    sign_x, sign_y = (1 if better == "higher" else -1 for better in (x_better, y_better))
    # From the best x down; of equal x the best y comes first, and only that one can stay.
    order = sorted(range(len(points)), key=lambda i: (-sign_x * points[i][0], -sign_y * points[i][1]))
    kept: list[int] = []
    best = None  # the last point that was kept
    for place in order:
        point = points[place]
        if best is None or point == best or sign_y * point[1] > sign_y * best[1]:
            kept.append(place)
            best = point
    return sorted(kept, key=lambda i: (points[i][0], points[i][1], i))

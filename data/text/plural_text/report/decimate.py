"""Long curves with fewer points: the extremes stay.

Owns: which points of a curve are kept. Does not own: curves. Thread rule: free of state.
"""

from __future__ import annotations

from collections.abc import Sequence

# Of one curve. More cannot be told apart on a screen of 1,280 pixels.
MAX_POINTS = 2000


def kept_places(values: Sequence[float | None], most: int = MAX_POINTS) -> list[int]:
    """The places of the values to draw, rising: all where there are at most `most`, else the first, the last,
    and of each of most / 4 equal stretches the smallest, the largest, and the first one that is None."""
    count = len(values)
    if count <= most:
        return list(range(count))
    kept = {0, count - 1}
    stretches = max(1, most // 4)
    for i in range(stretches):
        begin, end = count * i // stretches, count * (i + 1) // stretches
        present = [place for place in range(begin, end) if values[place] is not None]
        if len(present) < end - begin:
            kept.add(next(place for place in range(begin, end) if values[place] is None))
        if present:
            kept.add(min(present, key=lambda place: values[place]))
            kept.add(max(present, key=lambda place: values[place]))
    return sorted(kept)

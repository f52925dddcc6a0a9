"""A set of ids that only grows, at 8 bytes an id.

Owns: finding duplicate ids in a stream of millions. Ids are kept as 64-bit hashes: for a million
different ids the chance that any two are taken for equal is 3e-8. Thread rule: one thread at a time.
"""

import hashlib


class IdSet:
    def __init__(self):
        import numpy

        self._numpy = numpy
        self._sorted = numpy.empty(0, numpy.uint64)
        self._recent: set[int] = set()

    def add(self, text: str) -> bool:
        """Adds the id; False when it was there already."""
        value = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
        if value in self._recent or self._holds(value):
            return False
        self._recent.add(value)
        # Merging at a fixed share of the size keeps the total work at n log n.
        if len(self._recent) > max(4096, len(self._sorted) // 16):
            self._merge()
        return True

    def _holds(self, value: int) -> bool:
        place = int(self._sorted.searchsorted(self._numpy.uint64(value)))
        return place < len(self._sorted) and int(self._sorted[place]) == value

    def _merge(self) -> None:
        recent = self._numpy.fromiter(self._recent, self._numpy.uint64, len(self._recent))
        self._sorted = self._numpy.concatenate([self._sorted, recent])
        self._sorted.sort()
        self._recent.clear()

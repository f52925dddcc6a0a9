"""One measured figure: the value, how many things it is of, its interval, or why it is undefined.

Owns: the value type that every metric returns, and its JSON. Does not own: how a figure is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from plural_text.metrics.bootstrap import Interval


@dataclass(frozen=True)
class Figure:
    """`name` ends with the unit where there is one (entropy_bits); bare names are ratios or counts."""

    name: str
    value: float | None  # None: undefined, for `reason`
    count: int  # how many `of` the value comes from
    of: str
    interval: Interval | None = None
    reason: str = ""  # why there is no value
    note: str = ""  # what a reader of the value should know

    def json(self) -> dict:
        fields = {"value": self.value, "count": self.count, "of": self.of, "interval_95": None}
        if self.interval:
            fields["interval_95"] = [self.interval.low, self.interval.high]
            fields["interval_method"] = self.interval.method
        return fields | {key: text for key in ("reason", "note") if (text := getattr(self, key))}


def undefined(name: str, count: int, of: str, reason: str) -> Figure:
    return Figure(name, None, count, of, reason=reason)

"""The way of lines from metrics.jsonl to one tracker.

Owns: the order of sending and of remembering what was sent, the time of a line. Does not own: trackers, names
of figures. Thread rule: one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from plural_text.common.json_lines import parse_object
from plural_text.common.metrics_file import Line, new_lines
from plural_text.common.run_state import RunFolder
from plural_text.track.figures import event_of, figures_of
from plural_text.track.sent import Sent, SentFile
from plural_text.track.tracker import Tracker

# What a kill can make be sent again (or, where it counts before it is sent, be missing).
_LINES_PER_BATCH = 100


@dataclass(frozen=True)
class _Row:
    event: str
    step: int
    figures: dict[str, float]
    time_unix_seconds: float


class Sending:
    """One tracker of one run. `make`: opens it with Sent.own, at the first line that it has not got."""

    def __init__(self, name: str, run: RunFolder, file: SentFile, make: Callable[[dict], Tracker]):
        self.name, self._run, self._file, self._make = name, run, file, make
        self._sent: Sent = file.read(name)
        self._tracker: Tracker | None = None
        self.count = 0  # lines with figures that were sent
        self.where = ""  # ", in FOLDER", of a tracker that was opened

    @property
    def bytes_read(self) -> int:
        """Of metrics.jsonl."""
        return self._sent.place.end_bytes

    def has_new(self) -> bool:
        return bool(new_lines(self._run.metrics, self._sent.place)[0])

    def send_new(self) -> bool:
        """Sends lines that have come since; whether there were any. Errors: BadData of a line that is none;
        those of the tracker; WriteFailed."""
        lines, _ = new_lines(self._run.metrics, self._sent.place)
        for begin in range(0, len(lines), _LINES_PER_BATCH):
            self._send(lines[begin : begin + _LINES_PER_BATCH])
        return bool(lines)

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
            self.where = f", {self._tracker.where}"
            self._tracker = None

    def _send(self, lines: list[Line]) -> None:
        found = []
        for line in lines:
            where = f"{self._run.metrics}: the line that ends at byte {line.place.end_bytes:,}"
            fields = parse_object(line.content, where)
            event, step = event_of(fields, where)
            seconds = self._time_of(fields)
            if (figures := figures_of(fields)) and not self._sent.has(event, step):
                found.append(_Row(event, step, figures, seconds))
        if found and self._tracker is None:
            self._tracker = self._make(self._sent.own)
        if self._tracker is not None and self._tracker.counts_before_sending:
            self._remember(lines, found)
            self._send_all(found)
        else:
            self._send_all(found)
            self._remember(lines, found)
        self.count += len(found)

    def _send_all(self, found: list[_Row]) -> None:
        for row in found:
            assert self._tracker is not None
            self._tracker.send(row.step, row.figures, row.time_unix_seconds)

    def _remember(self, lines: list[Line], found: list[_Row]) -> None:
        self._sent.place = lines[-1].place
        for row in found:
            self._sent.steps[row.event] = row.step
        if self._tracker is not None:
            self._sent.own.update(self._tracker.commit())
        self._file.write(self.name, self._sent)

    def _time_of(self, fields: dict) -> float:
        """Lines have no time of day: that of the start plus the seconds of steps and validations since."""
        own = self._sent.own
        if fields["event"] in ("start", "resume"):
            own["time_unix_seconds"] = fields.get("time_unix_seconds", time.time())
        elif fields["event"] in ("step", "validation"):
            own["time_unix_seconds"] = own.get("time_unix_seconds", time.time()) + fields.get("seconds", 0.0)
        return own.get("time_unix_seconds", time.time())

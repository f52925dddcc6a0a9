"""The way of lines from metrics.jsonl to one tracker.

Owns: the order of sending and of remembering what was sent, the time of a line. Does not own: trackers, names
of figures. Thread rule: one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from plural_text.common.errors import BadData
from plural_text.common.json_lines import finite
from plural_text.common.metrics_file import Line, line_number, new_lines, parse_line
from plural_text.common.run_state import RunFolder
from plural_text.track.figures import figures_of
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
            fields = self._parse(line)
            event, step = fields["event"], fields["step"]
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

    def _parse(self, line: Line) -> dict:
        path = self._run.metrics
        try:
            return parse_line(line.content, str(path))
        except BadData:  # counted only now: a long file is not read again for each of its lines
            return parse_line(line.content, f"{path}:{line_number(path, line.place.end_bytes)}")

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
        """Lines have no time of day: that of the start plus the seconds of steps and validations since. With
        train.log_every_steps above 1, the steps without a line count as long as the one behind them."""
        own, event, step = self._sent.own, fields["event"], fields["step"]
        seconds = finite(fields.get("seconds")) or 0.0
        now = finite(own.get("time_unix_seconds")) or time.time()
        if event in ("start", "resume"):
            now = finite(fields.get("time_unix_seconds")) or time.time()
            own |= {"start_unix_seconds": now, "timed_step": step}
        elif event == "step":
            before = finite(own.get("timed_step"))
            now += seconds * max(step - (step - 1 if before is None else before), 0)
            own["timed_step"] = step
        elif event == "validation":
            now += seconds
        elif event == "end" and seconds and "start_unix_seconds" in own:
            now = own["start_unix_seconds"] + seconds  # which the trainer has measured
        own["time_unix_seconds"] = now
        return now

"""Progress of a stream on a terminal or in a log.

Owns: how often and how it is shown. A terminal gets one line that is rewritten; anything else gets a
plain line now and then, so that logs stay readable. Thread rule: one thread at a time.
"""

from __future__ import annotations

import time
from typing import TextIO

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0
_BAR_CELLS = 24


class Progress:
    def __init__(self, total_bytes: int, stream: TextIO, quiet: bool = False, clock=time.monotonic,
                 items: str = "groups"):
        """total_bytes: of the work, in whatever unit update() is told; items: what is counted beside it."""
        self._total = max(total_bytes, 1)
        self._items = items
        self._stream = stream
        self._quiet = quiet
        self._clock = clock
        self._terminal = stream.isatty()
        self._start = self._shown = clock()
        self._open_line = False

    def update(self, bytes_read: float, count: int) -> None:
        now = self._clock()
        if self._quiet or now - self._shown < (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
            return
        self._shown = now
        elapsed = now - self._start
        share = min(bytes_read / self._total, 1.0)
        left = f"{_duration(elapsed * (1 - share) / share)} left" if share else "time left unknown"
        line = f"{share:4.0%}  {count:,} {self._items}  {count / elapsed:,.0f} {self._items}/s  {left}"
        if self._terminal:
            cells = round(share * _BAR_CELLS)
            self._stream.write(f"\r[{'#' * cells}{'.' * (_BAR_CELLS - cells)}] {line}\x1b[K")
            self._open_line = True
        else:
            self._stream.write(f"prepare: {line}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the bar away, so that other lines can be written."""
        if self._open_line:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._open_line = False


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"

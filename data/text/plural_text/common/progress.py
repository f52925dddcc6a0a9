"""Progress of a stream of work on a terminal or in a log, shown by tqdm.

Owns: how often and in which form it is shown. A terminal gets one line that is rewritten; anything else gets
a plain line every ten seconds, so that logs stay readable. Thread rule: one thread at a time.
"""

from __future__ import annotations

import threading
from typing import TextIO

_TERMINAL_SECONDS = 0.2
_LOG_SECONDS = 10.0


class Progress:
    """Use as a context manager, or call close()."""

    def __init__(
        self, what: str, total: float, items: str, stream: TextIO, *, quiet: bool = False, done: float = 0
    ):
        """what: the beginning of the line. total: the whole work, in the unit of update(); `done` of it is
        finished already. items: the word for the counted things."""
        self._items = items
        self._bar = None if quiet else _bar(what, max(total, 1), done, stream)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def update(self, done: float, count: int) -> None:
        """`done` of the total is finished; `count` items were finished since the beginning."""
        if self._bar is not None:
            elapsed = self._bar.format_dict["elapsed"]
            rate = f", {count / elapsed:,.0f} {self._items}/s" if elapsed > 0 else ""
            self._bar.set_postfix_str(f"{count:,} {self._items}{rate}", refresh=False)
            self._bar.update(min(done, self._bar.total) - self._bar.n)

    def clear(self) -> None:
        """Removes the line from the terminal, so that other lines can be written; the next update shows it
        again."""
        if self._bar is not None:
            self._bar.clear()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _Log:
    """Turns the rewriting of one line by tqdm into separate lines."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()


def _bar(what: str, total: float, done: float, stream: TextIO):
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own; update() is called often enough
    tqdm.set_lock(threading.RLock())  # nor a semaphore that processes share
    terminal = stream.isatty()
    seconds = _TERMINAL_SECONDS if terminal else _LOG_SECONDS
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        file=stream if terminal else _Log(stream),
        leave=False,
        delay=seconds,
        mininterval=seconds,
        miniters=0,
        smoothing=0,
        dynamic_ncols=terminal,
        bar_format="{desc}: {percentage:3.0f}%" + "|{bar}|" * terminal + "{postfix}, {remaining} left",
    )

"""What is shown while an answer is waited for.

Owns: how often and in which form: a terminal has one line that is rewritten and removed, anything else a
plain line every ten seconds. Thread rule: one thread at a time.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TextIO

_FIRST_SECONDS = 2.0
_TERMINAL_SECONDS = 1.0
_LOG_SECONDS = 10.0


def wait_for(answer: Future, what: str, stream: TextIO, *, quiet: bool = False):
    """The result of `answer`; `what` is said, with the time it has taken, from its third second on."""
    terminal = stream.isatty()
    began, shown = time.monotonic(), False
    due = _FIRST_SECONDS if terminal else _LOG_SECONDS
    while True:
        try:
            return answer.result(due)
        except TimeoutError:
            if answer.done():  # it came just now, or failed with an error of this kind
                return answer.result()
            due = _TERMINAL_SECONDS if terminal else _LOG_SECONDS
            line = f"{what}, {time.monotonic() - began:.0f} s"
            if not quiet:
                stream.write(f"\r{line}" if terminal else f"plural: {line}\n")
                stream.flush()
                shown = terminal
        finally:
            if shown and answer.done():
                stream.write("\r\x1b[K")
                stream.flush()

"""A tracker: where figures go.

Owns: what every tracker does, the error where its library is missing. Does not own: any library. Thread rule:
one thread.
"""

from __future__ import annotations

import sys
from typing import Protocol

from plural_text.common.errors import NotInstalled
from plural_text.common.places import FILES, PROJECT


class Tracker(Protocol):
    """Made with what an earlier one left in Sent.own."""

    # True: a batch counts as sent before it is, since what has been sent cannot be taken back.
    counts_before_sending: bool
    where: str  # where the figures are seen

    def send(self, step: int, figures: dict[str, float], time_unix_seconds: float) -> None:
        """Steps never fall."""

    def commit(self) -> dict:
        """What was sent is safe; returns Sent.own."""

    def close(self) -> None: ...


def not_installed(library: str, missing: ImportError) -> NotInstalled:
    """The error that says how the library is installed."""
    pip = f"{sys.executable} -m pip install"
    packages = (
        f"--no-deps -r {FILES / 'requirements-tracking.txt'}" if PROJECT else "tensorboard wandb trackio"
    )
    return NotInstalled(f"{library} is not installed ({missing}); install it with: {pip} {packages}")

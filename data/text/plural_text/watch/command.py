"""`plural watch RUN... | FOLDER_OF_RUNS`: runs while they train and after, from their files alone.

Per run: its state, steps, groups per second, the time that the steps left will take, the parts of the loss,
the last validation, and why it failed. On a terminal the view goes on until q or Ctrl-C, which leaves the
runs alone; elsewhere, or with --once, it is printed once.

Owns: options, which folders are runs, the terminal. Does not own: figures (run_view.py), lines (lines.py).
Thread rule: one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from plural_text.common.errors import MissingInput
from plural_text.common.run_state import RunFolder
from plural_text.watch.lines import clean, lines_of
from plural_text.watch.run_view import RunView

_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_BETWEEN_SEARCHES = 2.0  # for runs that have come
_COLUMNS_OF_A_FILE = 1000  # nothing is left out
_ALIVE_FIRST = ("running", "starting", "elsewhere")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "folders", type=Path, nargs="+", metavar="RUN", help="folder of a run, or one that holds such folders"
    )
    add("--once", action="store_true", help="print it once, as plain lines")


def run(arguments: argparse.Namespace) -> int:
    runs = Runs(arguments.folders)
    console = Console(highlight=False)
    if arguments.once or not console.is_terminal or console.is_dumb_terminal:
        runs.look()
        if runs.without_run():
            missing = runs.without_run()[0]
            what = "has no run in it" if missing.is_dir() else "is no folder"
            raise MissingInput(f"{missing}: {what}; give the folder of a run, such as runs/mine, or of runs")
        for line in body(runs.sorted(), _COLUMNS_OF_A_FILE):
            print(line.plain.rstrip())
        return 0
    view = Live(console=console, screen=True, auto_refresh=False)
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed, view:
        while True:
            runs.look()
            view.update(_screen(runs, console.size.width, console.size.height), refresh=True)
            if pressed(_SECONDS_BETWEEN_LOOKS) in ("q", "Q"):
                break
    return 0


class Runs:
    """The runs of the folders that were named, those that come later, too."""

    def __init__(self, folders: list[Path]):
        self._folders = folders
        self._views: dict[Path, RunView] = {}
        self._searched = -_SECONDS_BETWEEN_SEARCHES
        self._without_run: list[Path] = []

    def look(self) -> None:
        if time.monotonic() - self._searched >= _SECONDS_BETWEEN_SEARCHES:
            self._searched = time.monotonic()
            inside = {named: _runs_in(named) for named in self._folders}
            self._without_run = [named for named, folders in inside.items() if not folders]
            found = [folder for folders in inside.values() for folder in folders]
            self._views = {folder: self._views.get(folder) or RunView(RunFolder(folder)) for folder in found}
        for view in self._views.values():
            view.look()

    def sorted(self) -> list[RunView]:
        """Those that live first, then the newest."""
        return sorted(
            self._views.values(),
            key=lambda run: (run.state.word not in _ALIVE_FIRST, run.seconds_since_last_line()),
        )

    def without_run(self) -> list[Path]:
        """The folders in which the last search found none."""
        return self._without_run


def body(runs: list[RunView], columns: int) -> list[Text]:
    """The lines of all runs, an empty one between them."""
    lines: list[Text] = []
    for view in runs:
        lines += ([Text("")] if lines else []) + lines_of(view, columns)
    return lines


def _screen(runs: Runs, columns: int, rows: int) -> Group:
    views = runs.sorted()
    words = [view.state.word for view in views]
    counts = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
    head = Text(f"plural watch  {counts}".rstrip()[: max(columns - 12, 8)], style="dim")
    head.append("  q leaves", style="dim")
    lines = [head, Text(""), *body(views, columns)]
    for folder in runs.without_run():
        lines += [Text(f"waiting for a run in {clean(str(folder))}"[:columns], style="dim")]
    if len(lines) > rows:
        lines = [*lines[: rows - 1], Text("more below: a larger window shows it", style="dim")]
    for line in lines:
        line.truncate(columns)
        line.no_wrap = True
    return Group(*lines)


def _runs_in(named: Path) -> list[Path]:
    """The folder itself where it is a run, else its folders that are."""
    if RunFolder(named).is_run():
        return [named]
    try:
        inner = [Path(entry.path) for entry in os.scandir(named) if entry.is_dir()]
    except OSError:
        return []
    return sorted(folder for folder in inner if RunFolder(folder).is_run())


@contextlib.contextmanager
def _keys() -> Iterator:
    """A function that waits so many seconds for a key, and gives it or "". At the end the terminal is as
    before."""
    if not sys.stdin.isatty():
        yield lambda seconds: time.sleep(seconds) or ""
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        # The end of the input is that of the terminal.
        return (os.read(descriptor, 1).decode("ascii", "replace") or "q") if ready else ""

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

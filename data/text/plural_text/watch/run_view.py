"""What is known of a run, from its metrics.jsonl and log/ alone.

Owns: reading on, the last line of each kind, the rate, the state of the run. Does not own: how it is shown
(lines.py). Thread rule: one thread. Nothing is written and no lock is taken.
"""

from __future__ import annotations

import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import finite
from plural_text.common.metrics_file import Place, new_lines, parse_line
from plural_text.common.run_state import RunFolder

# Enough for a steady mean, few enough to follow a change.
_STEPS_OF_RATE = 50
_LOG_BYTES = 64 << 10
# 2026-05-01T12:00:00.000Z info start, rank 0 of 2 on host
_LOG_LINE = re.compile(r"(\S+Z) (\w+) (.*)")


@dataclass(frozen=True)
class State:
    word: str  # starting, running, elsewhere, finished, stopped, failed, ended
    detail: str = ""


class RunView:
    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.name = folder.root.resolve().name
        self.state = State("starting")
        self.tracking_error = ""
        self._forget()

    def _forget(self) -> None:
        self._place = Place()
        self.last: dict[str, dict] = {}  # event -> its last line
        self.unreadable_lines = 0
        self._recent: deque[tuple[float, float, float]] = deque(maxlen=_STEPS_OF_RATE)

    def look(self) -> None:
        """Reads what has come since."""
        held = self.folder.is_held()  # first: what a process that has ended wrote is read below
        try:
            while lines := self._new_lines():
                for line in lines:
                    self._take(line)
        except OSError as error:
            self.state = State("unreadable", f"{self.folder.metrics}: {error.strerror}")
            return
        self.state = self._state_now(held)
        self.tracking_error = self._last_tracking_error()

    def _new_lines(self) -> list[bytes]:
        lines, cut = new_lines(self.folder.metrics, self._place)
        if cut:
            self._forget()
        if lines:
            self._place = lines[-1].place
        return [line.content for line in lines]

    def _take(self, content: bytes) -> None:
        try:
            line = parse_line(content, str(self.folder.metrics))
        except BadData:
            self.unreadable_lines += 1
            return
        event = line["event"]
        if event in ("start", "resume"):
            self._recent.clear()  # another machine, or other ranks
            self.last["begin"] = line
        self.last[event] = line
        if event == "step":
            self._recent.append(
                (number(line, "groups"), number(line, "seconds"), number(line, "data_wait_seconds"))
            )

    @property
    def step(self) -> int:
        return int(max((number(line, "step") for line in self.last.values()), default=0))

    @property
    def last_step(self) -> int:
        return int(number(self.last.get("begin", {}), "last_step"))

    def groups_per_second(self) -> float:
        """Of the last steps, without validations and checkpoints; 0: not known."""
        seconds = sum(seconds for _, seconds, _ in self._recent)
        return sum(groups for groups, _, _ in self._recent) / seconds if seconds > 0 else 0.0

    def seconds_left(self) -> float | None:
        """Of steps alone; None: not known."""
        if not self._recent or self.last_step <= 0:
            return None
        mean = sum(seconds for _, seconds, _ in self._recent) / len(self._recent)
        return finite(max(self.last_step - self.step, 0) * mean)

    def data_wait_share(self) -> float:
        """Of the last steps' time, what rank 0 waited for groups to be read."""
        seconds = sum(seconds for _, seconds, _ in self._recent)
        return sum(wait for _, _, wait in self._recent) / seconds if seconds > 0 else 0.0

    def seconds_since_last_line(self) -> float:
        try:
            return max(time.time() - self.folder.metrics.stat().st_mtime, 0.0)
        except OSError:
            return 0.0

    def _state_now(self, held: bool) -> State:
        if self.folder.is_finished():
            return State("finished")
        if held:
            return State("running" if "step" in self.last else "starting")
        state = self._how_it_ended()
        if (host := self.folder.host()) and state.word in ("starting", "ended"):
            return State("elsewhere", f"on {host}, where this machine cannot see whether it lives")
        return state

    def _how_it_ended(self) -> State:
        lead = _lines_of(self.folder.logs / "rank-00000.log")
        begun = max((when for when, _, what in lead if what.startswith(("start,", "resume "))), default="")
        errors = []
        for log in sorted(self.folder.logs.glob("rank-*.log")):
            last = lead[-1:] if log.name == "rank-00000.log" else _lines_of(log)[-1:]
            errors += [(when, what) for when, level, what in last if level == "error" and when >= begun]
        if errors:  # the first one made the others end
            return State("failed", min(errors)[1])
        if lead and lead[-1][2].startswith("stopped on request"):
            return State("stopped", "start it again to go on")
        if not self.last:
            return State("starting" if not lead else "ended", "nothing has been trained")
        return State("ended", "no result and no error in its logs: killed? start it again to go on")

    def _last_tracking_error(self) -> str:
        lines = _tail(self.folder.logs / "track.log")
        last = lines[-1] if lines else ""
        return last.removeprefix("plural: error: ") if last.startswith("plural: error: ") else ""


def number(line: dict, key: str) -> float:
    """0 where the line has none."""
    return finite(line.get(key)) or 0


def _lines_of(log: Path) -> list[tuple[str, str, str]]:
    """(time, level, message) of the last lines of a log."""
    return [found.groups() for line in _tail(log) if (found := _LOG_LINE.fullmatch(line))]


def _tail(path: Path) -> list[str]:
    try:
        with open(path, "rb") as stream:
            stream.seek(max(stream.seek(0, 2) - _LOG_BYTES, 0))
            return stream.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []

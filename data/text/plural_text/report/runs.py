"""Run folders: metrics.jsonl, recipe.yaml, the tables of profile/, warnings of log/.

Owns: reading them. Does not own: figures; what is in them (docs/running.md). Thread rule: values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.metrics_file import parse_line
from plural_text.common.run_state import RunFolder
from plural_text.report.recipe_lines import RecipeLine, read_recipe, value_of

# A row of a profile's table: part, share of the step, milliseconds per step, of it multiplies.
_PART = re.compile(r"  (\S.*?)\s+(\d+\.\d+)\s+(\d+\.\d+)\s+(\d+\.\d+)")
_LOG = re.compile(r"(\S+) (warning|error|critical) (.*)")
# Of one run; the page says how many there were.
MAX_LOG_LINES = 100


@dataclass(frozen=True)
class Run:
    """`events`: lines of metrics.jsonl by their "event", in the file's order. `profiles`: of each rank the
    parts of a step and their milliseconds. `log`: (rank, time, level, text) of warnings and errors,
    by time."""

    name: str
    folder: Path
    events: dict[str, list[dict]]
    recipe: list[RecipeLine]
    profiles: dict[str, list[tuple[str, float]]]
    log: list[tuple[str, str, str, str]]
    half_line: bool  # the last line is not whole: the run is being written, or was killed
    finished: bool
    alive: bool  # a process of this machine trains it

    def setting(self, key: str):
        return value_of(self.recipe, key)

    @property
    def steps(self) -> list[dict]:
        return self.events.get("step", [])

    @property
    def state(self) -> str:
        return "finished" if self.finished else "running" if self.alive else "not finished"


def read_run(folder: Path, name: str) -> Run:
    """Errors: MissingInput where there is no metrics.jsonl, BadData naming file and line."""
    place = RunFolder(folder)
    alive, finished = place.is_held(), place.is_finished()  # first: what is written since is read below
    events, half_line = _read_events(folder / "metrics.jsonl")
    return Run(
        name,
        folder,
        events,
        read_recipe(folder / "recipe.yaml"),
        {path.stem: _read_profile(path) for path in sorted(folder.glob("profile/rank-*.txt"))},
        sorted(
            (line for path in sorted(folder.glob("log/rank-*.log")) for line in _read_log(path)),
            key=lambda line: line[1],
        ),
        half_line,
        finished,
        alive,
    )


def _read_events(path: Path) -> tuple[dict[str, list[dict]], bool]:
    events: dict[str, list[dict]] = {}
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingInput(
            f"{path}: cannot be read: {error.strerror}; give a run's folder, or a sweep's with table.json"
        ) from None
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            fields = parse_line(line, where)
        except BadData:
            if number == len(lines):  # behind the last line end: not written to its end
                return events, True
            raise
        events.setdefault(fields["event"], []).append(fields)
    return events, False


def _read_profile(path: Path) -> list[tuple[str, float]]:
    rows = [_PART.fullmatch(line) for line in _text(path).splitlines()]
    return [(row[1], float(row[3])) for row in rows if row and row[1] != "together"]


def _read_log(path: Path) -> list[tuple[str, str, str, str]]:
    found = (_LOG.fullmatch(line) for line in _text(path).splitlines())
    return [(path.stem, *line.groups()) for line in found if line]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}") from None

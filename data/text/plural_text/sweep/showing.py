"""What `plural sweep plan` and `status` print.

Owns: those lines. Does not own: what they say. Thread rule: values.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plural_text.sweep import slurm
from plural_text.sweep.estimates import estimate_file, estimates
from plural_text.sweep.files import read_json
from plural_text.sweep.identity import Run
from plural_text.sweep.local import duration
from plural_text.sweep.places import places
from plural_text.sweep.planned import Planned


def plan_lines(planned: Planned) -> list[str]:
    sweep, folder = planned.sweep, planned.folder
    work = planned.check()
    known = estimates(folder, planned.runs, work)
    rows = [("run", "state", "steps", "memory_mib", "disk_mib", "minutes")]
    left = 0.0
    unknown = False
    for run in planned.runs:
        one, state = known[run.id], folder.state(run)
        minutes = f"{one.seconds / 60:.1f}" if one.seconds is not None else "?"
        memory = sweep.ranks * one.rank_memory_bytes / 2**20
        rows.append(
            (run.label, state, f"{one.steps:,}", f"{memory:,.0f}", f"{one.disk_bytes / 2**20:,.0f}", minutes)
        )
        if state != "finished":
            left += one.seconds or 0.0
            unknown |= one.seconds is None
    side_by_side = len(places(sweep.ranks, sweep.threads, None))
    gflop = sum(known[run.id].gflop for run in planned.runs if folder.state(run) != "finished")
    time = duration(left / side_by_side) + " of training, by the runs that are finished"
    if unknown:
        time = "of unknown time: no run has been measured yet"
    lines = _columns(rows)
    lines += [
        "",
        f"{len(planned.settings)} settings, {len(planned.runs)} runs in {folder.root}: {_counts(planned)}",
        f"left: {gflop:,.0f} GFLOP, {time}; {side_by_side} runs at a time fit here",
    ]
    return lines


def status_lines(planned: Planned) -> list[str]:
    folder = planned.folder
    queued = slurm.queue(folder)
    rows = [("run", "state", "progress", "groups_per_second", "queue")]
    failures = []
    for run in planned.runs:
        state = folder.state(run)
        step = _last_step(folder.run_folder(run)) if state in ("running", "waiting", "failed") else {}
        steps = _steps(planned, run)
        progress = f"step {step['step']}" + (f" of {steps}" if steps else "") if step else ""
        seconds = step.get("seconds") or 0.0
        rate = f"{step.get('groups', 0) / seconds:.3g}" if seconds else ""
        rows.append((run.label, state, progress, rate, ", ".join(queued.pop(run.id, []))))
        if state == "failed" and (failure := folder.failure(run)):
            failures.append(f"  {run.label}: {failure['step']}: {failure['message']}")
    lines = _columns(rows)
    lines += ["", f"{len(planned.runs)} runs: {_counts(planned)}"]
    lines += [f"job {which}: {', '.join(states)}" for which, states in queued.items()]
    if failures:
        lines += ["failures (plural sweep retry tries them again):", *failures]
    return lines


def _counts(planned: Planned) -> str:
    states = [planned.folder.state(run) for run in planned.runs]
    return ", ".join(
        f"{states.count(state)} {state}"
        for state in ("finished", "failed", "running", "waiting")
        if state in states
    )


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _steps(planned: Planned, run: Run) -> int | None:
    # One run per setting has been asked.
    same = [other for other in planned.runs if other.setting is run.setting]
    files = [estimate_file(planned.sweep, planned.folder, other) for other in same]
    return next((found["steps"] for file in files if (found := read_json(file))), None)


def _last_step(run: Path) -> dict[str, Any]:
    """The last whole line of a step, read from the end of the file."""
    try:
        with open(run / "metrics.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - 65536))
            lines = file.read().splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if found.get("event") == "step":
            return found
    return {}

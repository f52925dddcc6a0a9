"""What runs will take, before they start: steps, memory, disk, time.

Owns: `plural dry-run --json` per setting, kept in the sweep's folder; the time from runs that have been
measured. Does not own: the runs. Thread rule: asks side by side with threads of its own.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plural_text.common.errors import CommandError
from plural_text.common.json_lines import read_objects
from plural_text.common.program import program
from plural_text.common.progress import Progress
from plural_text.common.run_state import RunFolder
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run, recipe_text
from plural_text.sweep.sweep_values import SweepFile


@dataclass(frozen=True)
class Estimate:
    """Of one run's training, all 0 where nothing is trained. `seconds`: None where no run has been measured
    yet."""

    steps: int
    gflop: float
    rank_memory_bytes: int
    disk_bytes: int
    seconds: float | None


def check_settings(sweep: SweepFile, folder: SweepFolder, runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """dry-run of one run per setting, with every check that training makes before it computes; setting ->
    what it says. What an earlier call has found is not asked again. Errors: those of dry-run, for the
    setting."""
    firsts: dict[str, Run] = {}
    for run in runs:
        if run.untrained:
            continue
        firsts.setdefault(run.setting.label, run)
    found: dict[str, dict[str, Any]] = {}
    asked = []
    for label, run in firsts.items():
        kept = read_json(estimate_file(sweep, folder, run))
        if kept:
            found[label] = kept
        else:
            asked.append((label, run))
    with (
        ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))) as pool,
        Progress("checking settings", len(asked), "settings", sys.stderr) as progress,
    ):
        answers = pool.map(lambda one: _dry_run(sweep, folder, one[1]), asked)
        for done, ((label, run), answer) in enumerate(zip(asked, answers), 1):
            found[label] = answer
            write_whole(estimate_file(sweep, folder, run), json.dumps(answer) + "\n")
            progress.update(done, done)
    return found


def estimates(
    folder: SweepFolder, runs: Sequence[Run], work: Mapping[str, Mapping[str, Any]]
) -> dict[str, Estimate]:
    """Run id -> estimate. The time is that of finished runs of the setting, else their mean rate of
    arithmetic over the sweep."""
    found = {run.id: Estimate(0, 0.0, 0, 0, 0.0) for run in runs if run.untrained}
    runs = [run for run in runs if not run.untrained]
    measured = {run.id: seconds for run in runs if (seconds := training_seconds(folder.run_folder(run)))}
    gflop = {run.id: _gflop(work[run.setting.label]) for run in runs}
    total = sum(measured.values())
    rate = sum(gflop[run_id] for run_id in measured) / total if total else None
    for run in runs:
        same = [measured[other.id] for other in runs if other.setting is run.setting and other.id in measured]
        seconds = sum(same) / len(same) if same else gflop[run.id] / rate if rate else None
        sizes = work[run.setting.label]
        found[run.id] = Estimate(
            sizes["steps"], gflop[run.id], sizes["rank_memory_bytes"], sizes["disk_bytes"], seconds
        )
    return found


def training_seconds(run: Path) -> float | None:
    """The time of a finished run's steps; None where it is not finished."""
    folder = RunFolder(run)
    if not folder.is_finished():
        return None
    try:
        lines = [line for _, line in read_objects(folder.metrics) if line.get("event") == "step"]
        return math.fsum(line.get("seconds") or 0.0 for line in lines) or None
    except (CommandError, TypeError):
        return None


def _gflop(work: Mapping[str, Any]) -> float:
    return work["gflop_per_group"] * work["groups_per_step"] * work["steps"]


def estimate_file(sweep: SweepFile, folder: SweepFolder, run: Run) -> Path:
    """Where the answer of dry-run lies: memory depends on ranks and threads, which are no part of a run's
    identity."""
    return folder.root / "estimates" / f"{run.id}-{sweep.ranks}x{sweep.threads}.json"


def _dry_run(sweep: SweepFile, folder: SweepFolder, run: Run) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plural-sweep-") as place:
        file = Path(place) / "recipe.yaml"
        own = {
            "name": folder.name_of(run),  # the name itself is checked, too
            "run.dir": place,
            "run.threads": sweep.threads,
        }
        file.write_text(recipe_text(sweep, run, own, file.parent.resolve()), encoding="utf-8")
        words = [program(), "dry-run", str(file), "--json", "--ranks", str(sweep.ranks)]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("plural: error: ")]
        text = lines[-1].removeprefix("plural: error: ").rpartition(" [exit")[0] if lines else done.stderr
        error = CommandError(
            f"{sweep.file}: setting {run.setting.label}: {text}".replace(str(file), "its recipe")
        )
        error.exit_code = done.returncode if done.returncode > 0 else CommandError.exit_code
        raise error
    return json.loads(done.stdout)

"""Runs of a sweep as arrays of Slurm jobs.

Owns: the submission (which run is which member of the array), sbatch, squeue and scancel. Does not own: what
a job does (launch/slurm/sweep.sbatch starts `plural sweep task`). Thread rule: one thread.

    DIR/NAME/submissions/TIME.json         {"sweep", "runs": [ID, ...], "jobs": {PHASE: JOB}}
    DIR/NAME/submissions/TIME.cancelled    its members do not requeue themselves any more
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadData, CommandError, NotInstalled
from plural_text.common.places import PROJECT
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run
from plural_text.sweep.sweep_values import SweepFile


def submit(
    sweep: SweepFile, folder: SweepFolder, runs: Sequence[Run], most: int | None, options: Sequence[str]
) -> dict[str, int]:
    """An array that trains `runs`, `most` at a time; a second that measures each as soon as it is trained,
    where the sweep says what; a job that makes the table afterwards. Returns the ids of the jobs. `options`
    are sbatch's. Errors: NotInstalled, CommandError with what sbatch says."""
    _need("sbatch")
    if PROJECT is None:
        raise NotInstalled("submit needs the project's folder, whose launch/slurm/sweep.sbatch is the job")
    file = (
        folder.root / "submissions" / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}.json"
    )
    record: dict[str, Any] = {"sweep": str(sweep.file), "runs": [run.id for run in runs], "jobs": {}}
    write_whole(file, json.dumps(record, indent=1) + "\n")
    logs = folder.root / "submissions" / "log"
    logs.mkdir(exist_ok=True)
    width = f"0-{len(runs) - 1}" + (f"%{most}" if most else "")
    common = [
        f"--job-name={sweep.name}",
        f"--chdir={Path.cwd()}",
        f"--cpus-per-task={sweep.ranks * sweep.threads}",
        "--parsable",
        *options,
    ]
    script = [str(PROJECT / "launch/slurm/sweep.sbatch"), str(file)]
    jobs: dict[str, int] = record["jobs"]

    def add(phase: str, *words: str) -> None:
        jobs[phase] = _sbatch([*common, *words, *script, phase])
        write_whole(file, json.dumps(record, indent=1) + "\n")

    array = [f"--array={width}", f"--output={logs}/%A-%a.log"]
    add("train", *array)
    if any(run.evaluations for run in runs):
        add("measure", *array, f"--dependency=aftercorr:{jobs['train']}", "--kill-on-invalid-dep=yes")
    last = jobs.get("measure", jobs["train"])
    add("report", f"--dependency=afterany:{jobs['train']}:{last}", f"--output={logs}/%j.log")
    return jobs


def submission(file: Path) -> dict[str, Any]:
    """Errors: BadData."""
    found = read_json(file)
    if found is None or not {"sweep", "runs", "jobs"} <= found.keys():
        raise BadData(f"{file}: is no submission of plural sweep submit")
    return found


def queue(folder: SweepFolder) -> dict[str, list[str]]:
    """What squeue says of the sweep's jobs: run id, or the phase of a job that is no array -> states such as
    "train PENDING (Dependency)". Empty where there is no Slurm."""
    if not shutil.which("squeue"):
        return {}
    found: dict[str, list[str]] = {}
    for file in sorted((folder.root / "submissions").glob("*.json")):
        record = submission(file)
        jobs = record["jobs"]
        if not jobs:
            continue
        words = [
            "squeue",
            "--noheader",
            "--array",
            "--format=%F|%K|%T|%r",
            "--jobs",
            ",".join(map(str, jobs.values())),
        ]
        done = subprocess.run(words, capture_output=True, text=True)
        for line in done.stdout.splitlines():  # an error says that none of them is there any more
            job, member, state, reason = line.split("|", 3)
            phase = next((name for name, number in jobs.items() if str(number) == job), "job")
            text = f"{phase} {state.lower()}" + (f" ({reason})" if reason not in ("None", "") else "")
            which = record["runs"][int(member)] if member.isdigit() else phase
            found.setdefault(which, []).append(text)
    return found


def cancel(folder: SweepFolder) -> list[int]:
    """Takes the sweep's jobs out of the queue; those at work save their state. Returns the ids asked for."""
    files = sorted((folder.root / "submissions").glob("*.json"))
    jobs = [job for file in files for job in submission(file)["jobs"].values()]
    if not jobs or not shutil.which("scancel"):
        return []
    live = subprocess.run(
        ["squeue", "--noheader", "--format=%F", "--jobs", ",".join(map(str, jobs))],
        capture_output=True,
        text=True,
    )
    found = sorted({int(line) for line in live.stdout.split() if line.isdigit()})
    if found:
        for file in files:  # before the members hear of it
            write_whole(file.with_suffix(".cancelled"), "")
        subprocess.run(["scancel", "--batch", "--signal=USR1", *map(str, found)], check=False)
        subprocess.run(["scancel", "--state=PENDING", *map(str, found)], check=False)
    return found


def _sbatch(words: Sequence[str]) -> int:
    environment = {**os.environ, "PLURAL_ROOT": str(PROJECT)}
    done = subprocess.run(["sbatch", *words], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise CommandError(f"sbatch: {' '.join(done.stderr.split())}")
    return int(done.stdout.strip().partition(";")[0])


def _need(program: str) -> None:
    if not shutil.which(program):
        raise NotInstalled(f"no {program} here: submit it where Slurm is, or use plural sweep run")

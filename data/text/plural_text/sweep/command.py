"""Trains and measures every setting of a sweep with every seed, once each, and says what came out.

  plural sweep plan SWEEP.yaml        runs, steps, memory, time; what is done already
  plural sweep run SWEEP.yaml         does them here, several side by side; goes on where it stopped
  plural sweep submit SWEEP.yaml      as Slurm arrays
  plural sweep status SWEEP.yaml      state of each run, progress, failures with their error line
  plural sweep retry SWEEP.yaml       forgets failures, so that run and submit try them again
  plural sweep cancel SWEEP.yaml      asks runs at work to save and stop, takes jobs out of the queue
  plural sweep report SWEEP.yaml      a table and a page: means, comparisons, Pareto front
  plural sweep keys                   the keys of a sweep file

A run is known by its resolved recipe, corpora and base weights: a sweep that is extended, stopped or started
by two people does nothing twice. docs/sweeps.md tells more.
"""

# Owns: the command line. Does not own: what each word does.

from __future__ import annotations

import argparse
import difflib
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import BadData, UsageError
from plural_text.common.options import whole_number
from plural_text.sweep import schema
from plural_text.sweep.planned import Planned, plan
from plural_text.sweep.showing import plan_lines, status_lines

ACTIONS = ("plan", "run", "submit", "status", "retry", "cancel", "report", "keys")
# Of launch/slurm/sweep.sbatch alone.
TASK = "task"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", type=_action, metavar="ACTION", help=", ".join(ACTIONS))
    add("sweep", type=Path, nargs="?", metavar="SWEEP.yaml", help="the sweep file")
    add("rest", nargs="*", help=argparse.SUPPRESS)  # task: INDEX PHASE
    add(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="submit: an option of sbatch, such as --sbatch=--time=4:00:00; may be given several times",
    )
    add(
        "--jobs",
        type=whole_number(1),
        metavar="N",
        help="run: so many runs side by side (default: as many as fit)",
    )
    add(
        "--max-parallel",
        type=whole_number(1),
        metavar="N",
        help="submit: so many members of the array at a time",
    )
    add("--only", metavar="TEXT", help="run, submit, retry: only runs with this in their name")


def _action(text: str) -> str:
    if text not in (*ACTIONS, TASK):
        near = difflib.get_close_matches(text, ACTIONS, 1)
        hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(ACTIONS)}"
        raise argparse.ArgumentTypeError(f"'{text}' is no action of a sweep; {hint}")
    return text


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "keys":
        print(schema.reference(), end="")
        return 0
    if arguments.sweep is None:
        raise UsageError(f"{arguments.action} needs a sweep file: plural sweep {arguments.action} SWEEP.yaml")
    if arguments.rest and arguments.action != TASK:
        raise UsageError(f"'{arguments.rest[0]}': {arguments.action} takes one sweep file")
    if arguments.action == TASK:
        return _task(arguments.sweep, arguments.rest)
    planned = plan(arguments.sweep)
    if arguments.action == "plan":
        return _print(plan_lines(planned))
    if arguments.action == "status":
        return _print(status_lines(planned))
    if arguments.action == "report":
        return _report(planned)
    if arguments.action == "cancel":
        return _cancel(planned)
    runs = _chosen(planned, arguments.only)
    if arguments.action == "retry":
        return _retry(planned, runs)
    if arguments.action == "submit":
        return _submit(planned, runs, arguments.max_parallel, arguments.sbatch)
    return _run(planned, runs, arguments.jobs)


def _chosen(planned: Planned, only: str | None) -> list:
    runs = [run for run in planned.runs if only is None or only in run.label]
    if only is not None and not runs:
        known = ", ".join(run.label for run in planned.runs[:5])
        raise UsageError(f"--only '{only}': no run has this in its name; there are {known}, ...")
    return runs


def _run(planned: Planned, runs: Sequence, jobs: int | None) -> int:
    from plural_text.sweep.local import LocalRuns, outcome_code
    from plural_text.sweep.places import places
    from plural_text.sweep.searching import run_search

    sweep, folder = planned.sweep, planned.folder
    found = places(sweep.ranks, sweep.threads, jobs)
    planned.check()
    if sweep.search:
        run_search(planned, found)
        planned = plan(sweep.file)
        runs = planned.runs
    else:
        done = sum(folder.state(run) == "finished" for run in runs)
        print(f"{len(runs)} runs, {done} finished; {len(found)} at a time", flush=True)
        LocalRuns(sweep, folder, runs, found).run_all()
    _report(planned)
    return outcome_code(folder, runs, print)


def _submit(planned: Planned, runs: Sequence, most: int | None, options: Sequence[str]) -> int:
    from plural_text.sweep import slurm

    if planned.sweep.search:
        raise UsageError(
            "a search asks for its next settings as results come in: start plural sweep run in a job"
        )
    planned.check()
    queued = slurm.queue(planned.folder)
    left = [run for run in runs if planned.folder.state(run) == "waiting" and run.id not in queued]
    if not left:
        print(f"nothing to submit: of {len(runs)} runs none waits (plural sweep status)")
        return 0
    jobs = slurm.submit(planned.sweep, planned.folder, left, most, options)
    told = ", ".join(f"{phase} {number}" for phase, number in jobs.items())
    print(f"submitted {len(left)} of {len(runs)} runs: jobs {told}")
    return 0


def _task(file: Path, rest: Sequence[str]) -> int:
    """One member of an array, as launch/slurm/sweep.sbatch starts it: SUBMISSION INDEX PHASE."""
    from plural_text.sweep import slurm
    from plural_text.sweep.local import LocalRuns, outcome_code
    from plural_text.sweep.places import Place

    record = slurm.submission(file)
    planned = plan(Path(record["sweep"]))
    index, phase = rest
    if phase == "report":
        return _report(planned)
    run_id = record["runs"][int(index)]
    run = next((run for run in planned.runs if run.id == run_id), None)
    if run is None:
        raise BadData(f"{record['sweep']}: has no run {run_id} any more; it was changed after the submission")
    measure = phase == "measure"
    LocalRuns(
        planned.sweep,
        planned.folder,
        [run],
        [Place()],
        measure=measure,
        watched=planned.runs,
        job=os.environ.get("SLURM_JOB_ID", ""),
    ).run_all()
    return outcome_code(planned.folder, [run], print, measured=measure)


def _retry(planned: Planned, runs: Sequence) -> int:
    failed = [run for run in runs if planned.folder.state(run) == "failed"]
    for run in failed:
        planned.folder.forget_failure(run)
        print(f"{run.label}: waits again")
    print(f"{len(failed)} failures forgotten; plural sweep run or submit tries them again")
    return 0


def _cancel(planned: Planned) -> int:
    from plural_text.sweep import slurm

    jobs = slurm.cancel(planned.folder)
    processes = set()
    elsewhere = set()
    for run in planned.runs:
        claim = planned.folder.claimed_by(run)
        if claim and not claim.get("job"):
            here = claim["machine"] == socket.gethostname()
            (processes if here else elsewhere).add(claim["process"] if here else claim["machine"])
    for process in list(processes):
        try:
            os.kill(process, signal.SIGTERM)
        except OSError:  # it has ended by itself, or is another user's
            processes.remove(process)
    told = [f"{len(jobs)} jobs"] if jobs else []
    told += [f"{len(processes)} processes here"] if processes else []
    print(f"asked to save and stop: {', '.join(told)}" if told else "nothing is at work here")
    if elsewhere:
        print(f"runs at work on {', '.join(sorted(elsewhere))} are stopped there: plural sweep cancel")
    return 0


def _report(planned: Planned) -> int:
    from plural_text.report import command as page
    from plural_text.sweep.table import keep_table, make_table

    folder = planned.folder
    table = make_table(planned.sweep, folder, planned.settings, planned.runs, planned.baseline)
    _, text = keep_table(folder, table)
    print(f"{text}: {len(planned.runs)} runs of {len(planned.settings)} settings", flush=True)
    if planned.runs:
        page.write_page([folder.root], folder.root / "report.html")
    return 0


def _print(lines: Sequence[str]) -> int:
    print("\n".join(lines))
    return 0

"""What a page or a picture is made of: the options that name files, and their content.

Owns: the options of both commands, reading all files, labels, which files belong together. Does not own: the
files' formats (runs.py, answers.py, figure_files.py, sweep.py, target_sets.py). Thread rule: values.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import MissingInput, UsageError
from plural_text.common.json_lines import finite
from plural_text.common.progress import Progress
from plural_text.report.answers import AnswersFile, read_answers_file
from plural_text.report.comparable import validated_on
from plural_text.report.figure_files import FigureFile, Measured, read_figure_file
from plural_text.report.labels import short_names, split_label
from plural_text.report.runs import Run, read_run
from plural_text.report.sweep import TABLE, Sweep, read_sweep
from plural_text.report.target_sets import read_target_sets
from plural_text.report.token_tree import NoTree, corpus_of


@dataclass(frozen=True)
class Sources:
    """`figures`: label -> name -> value, of figure files and of each run's last validation. `prompts`: label
    -> evaluate's figures of each prompt. `notes`: what was not there, in words."""

    runs: list[Run]
    sweep: Sweep | None
    answers: list[AnswersFile]
    figures: dict[str, dict[str, Measured]]
    prompts: dict[str, list[dict]]
    targets: dict[str, dict[str, float]]
    notes: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "runs",
        type=Path,
        nargs="*",
        metavar="RUN",
        help="folder of a run, or of a sweep, which holds table.json",
    )
    files = {"nargs": "+", "action": "extend", "default": [], "metavar": "[LABEL=]FILE"}
    add("--responses", **files, help="answers files of plural generate; a label defaults to the file's name")
    add(
        "--metrics",
        **files,
        help="figures of plural metrics -o or plural evaluate -o; files of one label are one point. Of "
        "metrics a label defaults to that of the answers it measured, else to the file's name",
    )
    add(
        "--targets",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="CORPUS.h5",
        help="corpora of target sets that answers are compared with; those of the runs are looked for",
    )
    add("--title", help="of the page or the picture")


def read_sources(arguments: argparse.Namespace) -> Sources:
    """Errors: UsageError where nothing is given, MissingInput, BadData."""
    if not (arguments.runs or arguments.responses or arguments.metrics):
        raise UsageError("nothing to show; name a run's folder, or give --responses or --metrics")
    folders = [folder for folder in arguments.runs if not (folder / TABLE).is_file()]
    sweeps = [folder for folder in arguments.runs if (folder / TABLE).is_file()]
    if len(sweeps) > 1:
        raise UsageError(f"{sweeps[1]}: a second sweep; a page shows one")
    for folder in folders:
        if not folder.is_dir():
            raise MissingInput(f"{folder}: no such folder; give a run's folder, such as runs/mine")
    sweep = read_sweep(sweeps[0]) if sweeps else None
    notes: list[str] = []
    named_runs = list(zip(folders, short_names(folders))) + _runs_of(sweep, notes)
    named_answers = _labelled(arguments.responses) + _answers_of(sweep, notes)
    _refuse_twice([name for _, name in named_runs], "runs; give the folder of the run alone, or the sweep's")
    _refuse_twice([label for _, label in named_answers], "answers files; give LABEL=FILE")
    total = len(named_runs) + len(named_answers) + len(arguments.metrics)
    with Progress("reading", total, "files", sys.stderr) as progress:
        done = 0

        def count(found):
            nonlocal done
            done += 1
            progress.update(done, done)
            return found

        runs = [count(read_run(folder, name)) for folder, name in named_runs]
        answers = [count(read_answers_file(path, label)) for path, label in named_answers]
        files = [
            (label, count(read_figure_file(path))) for label, path in map(split_label, arguments.metrics)
        ]
    figures, prompts = _figures(files, answers)
    for run in runs:
        for name, value in _last_validation(run).items():
            figures.setdefault(run.name, {}).setdefault(name, value)
    targets = _targets(arguments.targets, runs, answers, notes)
    return Sources(runs, sweep, answers, figures, prompts, targets, notes)


def _runs_of(sweep: Sweep | None, notes: list[str]) -> list[tuple[Path, str]]:
    """Of a sweep the runs that have begun."""
    found = []
    for row in sweep.rows if sweep else ():
        if row.run is not None and os.path.isfile(row.run / "metrics.jsonl"):
            found.append((row.run, row.label))
        elif row.state in ("finished", "failed", "running"):
            notes.append(f"{row.label}: its run has no metrics.jsonl, so it has no curves")
    return found


def _answers_of(sweep: Sweep | None, notes: list[str]) -> list[tuple[Path, str]]:
    found = []
    for row in sweep.rows if sweep else ():
        if row.responses is not None and os.path.isfile(row.responses):
            found.append((row.responses, row.label))
        elif row.responses is not None:
            notes.append(f"{row.label}: its answers file is not there")
    return found


def _labelled(words: list[str]) -> list[tuple[Path, str]]:
    """Paths with the label given, else with the file's name without its ending."""
    split = [split_label(word) for word in words]
    names = short_names([path for _, path in split])
    return [(path, label or name.removesuffix(path.suffix)) for (label, path), name in zip(split, names)]


def _refuse_twice(labels: list[str], what: str) -> None:
    for place, label in enumerate(labels):
        if label in labels[:place]:
            raise UsageError(f"the name '{label}' stands for two {what}")


def _figures(
    files: list[tuple[str | None, FigureFile]], answers: list[AnswersFile]
) -> tuple[dict[str, dict[str, Measured]], dict[str, list[dict]]]:
    figures: dict[str, dict[str, Measured]] = {}
    prompts: dict[str, list[dict]] = {}
    for label, file in files:
        label = label or _label_of(file, answers)
        own = figures.setdefault(label, {})
        for name, value in file.figures.items():
            if name in own:
                raise UsageError(f"{file.path}: another file has '{name}' of '{label}', too; give LABEL=FILE")
            own[name] = value
        if file.prompts:
            prompts[label] = file.prompts
    return figures, prompts


def _label_of(file: FigureFile, answers: list[AnswersFile]) -> str:
    if os.path.isfile(file.responses_file):
        for candidate in answers:
            if os.path.samefile(file.responses_file, candidate.path):
                return candidate.label
    return file.path.stem


def _last_validation(run: Run) -> dict[str, Measured]:
    line: Mapping = run.events.get("validation", [{}])[-1]
    left_out = {"step", "groups", "responses", "temperature", "seconds"}
    return {
        key: Measured(number, None, validated_on(run, key))
        for key, value in line.items()
        if key not in left_out and (number := finite(value)) is not None
    }


def _targets(
    paths: list[Path], runs: list[Run], answers: list[AnswersFile], notes: list[str]
) -> dict[str, dict[str, float]]:
    """Of the corpora that are named, and of those that runs of distribution_matching were trained on."""
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        found.update(read_target_sets(path))
    if answers and not paths:
        for run in runs:
            if run.setting("method") == "distribution_matching":
                try:
                    found.update(read_target_sets(corpus_of(run)))
                except NoTree as problem:
                    notes.append(f"{run.name}: no targets: {problem}")
    return found

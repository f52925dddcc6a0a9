"""One run of a sweep: trained, asked, measured, each step once.

Owns: the steps of a run and their order, which steps need not be done again, what becomes of a failure, the
row of figures. Does not own: which runs there are, where they are computed (places.py), how figures are read
(figures.py). Thread rule: one run per thread; a Worker may be shared.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plural_text.common.errors import CommandError, MissingInput, NotInstalled
from plural_text.common.hub import hub_folder
from plural_text.common.json_lines import read_objects
from plural_text.common.places import PROJECT
from plural_text.common.run_state import RunFolder
from plural_text.sweep.contents import Contents
from plural_text.sweep.expand import Evaluation
from plural_text.sweep.figures import Figures, evaluated, measured, numbers, own_figures
from plural_text.sweep.files import write_whole
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run, digest, names_input, recipe_text
from plural_text.sweep.places import Place
from plural_text.sweep.processes import Processes
from plural_text.sweep.step_options import TEXT_COMMANDS, command_line, environment, words_of
from plural_text.sweep.steps import make_once
from plural_text.sweep.sweep_values import SweepFile

STOPPED = 75
LOCKED = 73
LOST_PEER = 76
# A run whose process was killed, or that lost a peer, goes on from its checkpoint so many times by itself.
_ATTEMPTS = 3
_LOCK_SECONDS = 60.0
_BAD_FIGURES = 65
_TRAINED = ("loss", "likelihood", "unlikelihood")
# The steps in their order, and what reads the figures of their outputs.
_READ_BY: Mapping[str, Callable[[Path], Figures] | None] = {
    "generate": None,
    "evaluate": evaluated,
    "metrics": measured,
    "persona": measured,
}


@dataclass
class Failure(Exception):
    """A step that ended with an error."""

    step: str
    exit_code: int
    message: str


class StopRequested(Exception):
    """The sweep is to stop; what the step has done is kept."""


class Worker:
    def __init__(self, sweep: SweepFile, folder: SweepFolder, processes: Processes):
        self._sweep = sweep
        self._folder = folder
        self._processes = processes
        # One for all runs: they share base weights and corpora.
        self._contents = Contents(folder.root / "inputs.json")

    def do(self, run: Run, place: Place, *, measure: bool = True) -> str:
        """Everything of a run that is not done yet, or its training alone; returns finished, trained, failed
        or stopped. The caller has claimed it. Errors: WriteFailed."""
        try:
            self.train(run, place)
            if not measure and run.evaluations:
                return "trained"
            self.measure(run, place)
        except StopRequested:
            return "stopped"
        except Failure as failure:
            self._folder.keep_failure(run, failure.step, failure.exit_code, failure.message)
            return "failed"
        return "finished"

    def train(self, run: Run, place: Place) -> None:
        """Nothing where the run is finished. Errors: Failure, StopRequested."""
        folder = self._folder
        name = folder.name_of(run)
        if run.untrained or self._result(run) is not None:
            return
        recipe = folder.root / "recipes" / f"{name}.yaml"
        values = {
            **run.overrides,
            "name": name,
            "seed": run.seed,
            "run.dir": str(folder.root / "runs"),
            "run.threads": self._sweep.threads,
        }
        write_whole(recipe, recipe_text(self._sweep, values, recipe.parent))
        words = self._start(["train", str(recipe)])
        self._command(run, place, "train", words, self._environment(place), wait_for_lock=True)
        if self._result(run) is None:
            raise Failure("train", 70, f"train ended without a result in {folder.run_folder(run)}")

    def measure(self, run: Run, place: Place) -> None:
        """Every evaluation, then the row. Errors: Failure, StopRequested."""
        figures = self._trained_figures(run)
        for evaluation in run.evaluations:
            figures.add(self._evaluate(run, place, evaluation))
        self._folder.keep_row(
            run,
            {
                "id": run.id,
                "measured_id": run.measured_id,
                "figures": figures.defined,
                "undefined": figures.undefined,
            },
        )

    def _result(self, run: Run) -> Path | None:
        folder = RunFolder(self._folder.run_folder(run))
        if not folder.is_finished():
            return None
        return next(folder.root / name for name in ("adapter", "model") if (folder.root / name).is_dir())

    def _trained_figures(self, run: Run) -> Figures:
        """Loss parts of the last step, figures of the last validation."""
        last: dict[str, Mapping[str, Any]] = {}
        if run.untrained:
            return Figures()
        try:
            for _, line in read_objects(RunFolder(self._folder.run_folder(run)).metrics):
                last[str(line.get("event"))] = line
        except CommandError as error:
            raise Failure("train", error.exit_code, str(error)) from None
        step = last.get("step", {})
        found = numbers("train.", {key: step[key] for key in _TRAINED if step.get(key) is not None})
        found.add(numbers("validation.", last.get("validation", {})))
        return found

    def _evaluate(self, run: Run, place: Place, evaluation: Evaluation) -> Figures:
        folder = self._folder.measured(run) / evaluation.name
        before = f"{evaluation.name}." if evaluation.name else ""
        answers = folder / "responses.jsonl"
        figures = Figures()
        for step, read in _READ_BY.items():
            if step not in evaluation.steps:
                continue
            options = dict(evaluation.steps[step])
            output = answers if step == "generate" else folder / f"{step}.json"
            if step == "metrics":
                words, inputs = [str(answers), "--quiet"], [answers]
            else:
                words, inputs = self._model(run)
            if step in ("generate", "evaluate"):
                words += ["--threads", str(self._sweep.threads)]
            if step in ("generate", "persona"):
                options.setdefault("seed", run.seed)
            words = [step, *words, *words_of(options)]
            inputs = [*inputs, *_files(options)]
            if step == "persona":
                talks = folder / f"conversations-{self._told_apart(before + step, words, inputs)}.jsonl"
                words += ["--quiet", "--figures", str(output), "-o", str(talks)]
            else:
                words += ["-o", str(output)]

            def work(name=before + step, words=words, output=output) -> None:
                force = ["--force"] if output.exists() else []
                self._command(run, place, name, self._start([*words, *force]), self._environment(place))

            found = self._make(before + step, words, inputs, output, read, work)
            figures.add(found, f"{before}{step}.")
        if "program" in evaluation.steps:
            figures.add(self._own_figures(run, place, before, evaluation), f"{before}program.")
        return figures

    def _told_apart(self, step: str, words: Sequence[str], inputs: Iterable[Path]) -> str:
        """A few letters that change with the words and inputs of a step: what it keeps to go on from is of
        these alone. Errors: Failure."""
        try:
            read = {str(path): self._contents.of(path) for path in inputs}
        except MissingInput as error:
            raise Failure(step, error.exit_code, str(error)) from None
        return digest([*words, read])

    def _own_figures(self, run: Run, place: Place, before: str, evaluation: Evaluation) -> Figures:
        """Those of the user's program."""
        folder = self._folder.measured(run) / evaluation.name
        output = folder / "program.json"
        result = self._model(run)[1][-1]
        responses = folder / "responses.jsonl"
        places = {
            "{output}": output,
            "{responses}": responses,
            "{result}": result,
            "{run}": self._folder.run_folder(run),
        }
        words = list(evaluation.steps["program"]["words"])
        for name, path in places.items():
            words = [word.replace(name, str(path)) for word in words]
        # What a program measures is what it was given, however its words say so.
        inputs = [result, *([responses] if "generate" in evaluation.steps else [])]
        named = [Path(word) for word in words if word != str(output) and Path(word).is_file()]
        own = {**os.environ, "OMP_NUM_THREADS": str(self._sweep.threads), **place.environment}

        def work() -> None:
            self._command(run, place, f"{before}program", words, own)

        inputs += [path for path in named if path not in inputs]
        return self._make(f"{before}program", words, inputs, output, own_figures, work)

    def _model(self, run: Run) -> tuple[list[str], list[Path]]:
        """The options that name the model to measure, and its folders; the last is what was trained."""
        if run.untrained:
            given = run.recipe["model"]["path"]
            return ["--model", str(given)], [hub_folder(Path(given), "model.path", "folder of a model")]
        result = self._result(run)
        assert result is not None
        if result.name == "model":
            return ["--model", str(result)], [result]
        given = run.recipe["model"]["path"]  # identity.py refuses an adapter without
        return ["--model", str(given), "--adapter", str(result)], [
            hub_folder(Path(given), "model.path", "folder of a model"),
            result,
        ]

    def _make(
        self,
        step: str,
        words: list[str],
        inputs: list[Path],
        output: Path,
        read: Callable[[Path], Figures] | None,
        work: Callable[[], None],
    ) -> Figures:
        """The figures of the output, which `work` makes unless it is there from these words and inputs. What
        cannot be read does not count as made. Errors: Failure, StopRequested."""

        def figures() -> Figures:
            try:
                return read(output) if read else Figures()
            except CommandError as error:
                raise Failure(step, _BAD_FIGURES, str(error)) from None

        def work_and_read() -> None:
            work()
            figures()

        stamp = output.with_name(f"{output.name}.made.json")
        try:
            made = make_once(stamp, words, inputs, [output], self._contents, work_and_read)
        except MissingInput as error:
            raise Failure(step, error.exit_code, str(error)) from None
        if made:
            self._contents.keep()
        return figures()

    def _command(
        self,
        run: Run,
        place: Place,
        step: str,
        words: list[str],
        environment: Mapping[str, str],
        *,
        wait_for_lock: bool = False,
    ) -> None:
        """Again where only its process was lost. Errors: Failure, StopRequested."""
        log = self._folder.measured(run) / "log" / f"{step}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        locked_until = time.monotonic() + _LOCK_SECONDS
        attempts = 0
        while True:
            if self._processes.stopping:
                raise StopRequested
            before = log.stat().st_size if log.exists() else 0
            try:
                code = self._processes.run([*place.prefix, *words], environment, log)
            except (FileNotFoundError, PermissionError) as error:  # of the user's program
                raise Failure(step, MissingInput.exit_code, f"{words[0]}: {error.strerror}") from None
            if code == 0:
                return
            if self._processes.stopping:
                raise StopRequested
            # A process that an earlier planner left behind saves its state and ends soon.
            if code == LOCKED and wait_for_lock and time.monotonic() < locked_until:
                time.sleep(1)
                continue
            attempts += 1
            if (code not in (STOPPED, LOST_PEER) and code > 0) or attempts >= _ATTEMPTS:
                raise Failure(step, code, _error_line(log, before, code))

    def _start(self, words: list[str]) -> list[str]:
        if self._sweep.ranks == 1 or words[0] in TEXT_COMMANDS:
            return [*command_line(words[0]), *words[1:]]
        if PROJECT is None:
            raise NotInstalled("ranks needs the project's folder with launch/ranks; set ranks: 1")
        return [str(PROJECT / "launch/ranks"), "-np", str(self._sweep.ranks), *words]

    def _environment(self, place: Place) -> dict[str, str]:
        return {
            **environment(),
            "OMP_NUM_THREADS": str(self._sweep.threads),
            **place.environment,
        }


def _files(options: Mapping[str, Any]) -> list[Path]:
    return [
        Path(value)
        for option, value in options.items()
        if isinstance(value, str) and names_input(option, value)
    ]


def _error_line(log: Path, begin: int, code: int) -> str:
    """The last error that the command printed behind byte `begin`; else its last line, or the signal."""
    try:
        with open(log, "rb") as content:
            content.seek(begin)
            lines = content.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    errors = [line.removeprefix("plural: error: ") for line in lines if line.startswith("plural: error: ")]
    if errors:
        return re.sub(r" \[exit \d+[^\]]*\]$", "", errors[-1])
    if code < 0:
        return f"ended by signal {-code}; its output is in {log}"
    return (lines[-1] if lines else f"ended with exit code {code}") + f"; its output is in {log}"

"""One run of a sweep: trained, asked, measured, each step once.

Owns: the steps of a run and their order, which steps need not be done again, what becomes of a failure, the
row of figures. Does not own: which runs there are, where they are computed (places.py). Thread rule: one run
per thread; a Worker may be shared.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadData, CommandError
from plural_text.common.hub import hub_folder
from plural_text.common.program import program
from plural_text.sweep.contents import Contents
from plural_text.sweep.expand import Evaluation
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run, recipe_text
from plural_text.sweep.places import Place
from plural_text.sweep.processes import Processes
from plural_text.sweep.step_options import TEXT_COMMANDS, command_line, environment, words_of
from plural_text.sweep.steps import make_once
from plural_text.sweep.sweep_file import SweepFile

STOPPED = 75
LOCKED = 73
LOST_PEER = 76
# A run whose process was killed, or that lost a peer, goes on from its checkpoint so many times by itself.
_ATTEMPTS = 3
_LOCK_SECONDS = 60.0
_TRAINED = ("loss", "likelihood", "unlikelihood")
_NOT_FIGURES = ("step", "epoch", "seconds", "groups_per_second", "groups")


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
        if self._result(run) is not None:
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
        self._step(run, place, "train", ["train", str(recipe)])
        if self._result(run) is None:
            raise Failure("train", 70, f"train ended without a result in {folder.run_folder(run)}")

    def measure(self, run: Run, place: Place) -> None:
        """Every evaluation, then the row. Errors: Failure, StopRequested."""
        measured = self._folder.measured(run)
        figures = dict(self._trained_figures(run))
        undefined: dict[str, str] = {}
        contents = Contents(measured / "inputs.json")
        for evaluation in run.evaluations:
            figures |= self._evaluate(run, place, evaluation, contents, undefined)
        row = {"id": run.id, "measured_id": run.measured_id, "figures": figures, "undefined": undefined}
        self._folder.keep_row(run, row)

    def _result(self, run: Run) -> Path | None:
        folder = self._folder.run_folder(run)
        return next((folder / name for name in ("adapter", "model") if (folder / name).is_dir()), None)

    def _trained_figures(self, run: Run) -> Iterator[tuple[str, float]]:
        """Loss parts of the last step, figures of the last validation."""
        last: dict[str, Mapping[str, Any]] = {}
        for line in _json_lines(self._folder.run_folder(run) / "metrics.jsonl"):
            last[line.get("event", "")] = line
        for key in _TRAINED:
            if _is_number(value := last.get("step", {}).get(key)):
                yield f"train.{key}", value
        for key, value in last.get("validation", {}).items():
            if key not in _NOT_FIGURES and _is_number(value):
                yield f"validation.{key}", value

    def _evaluate(
        self, run: Run, place: Place, evaluation: Evaluation, contents: Contents, undefined: dict[str, str]
    ) -> dict[str, float]:
        folder = self._folder.measured(run) / evaluation.name
        before = f"{evaluation.name}." if evaluation.name else ""
        answers = folder / "responses.jsonl"
        figures: dict[str, float] = {}
        for step in ("generate", "evaluate", "metrics"):
            if step not in evaluation.steps:
                continue
            options = dict(evaluation.steps[step])
            output = answers if step == "generate" else folder / f"{step}.json"
            if step == "metrics":
                words, inputs = [str(answers), "--quiet"], [answers]
            else:
                words, inputs = self._model(run)
                words += ["--threads", str(self._sweep.threads)]
            if step == "generate":
                options.setdefault("seed", run.seed)
            words = [step, *words, *words_of(options), "-o", str(output)]
            self._make(run, place, before + step, words, [*inputs, *_files(options)], output, contents)
            if step == "metrics":
                figures |= _measured_figures(f"{before}metrics.", output, undefined)
            elif step == "evaluate":
                figures |= _evaluated_figures(f"{before}evaluate.", output)
        if "program" in evaluation.steps:
            figures |= self._own_figures(run, place, before, evaluation, contents)
        return figures

    def _own_figures(
        self, run: Run, place: Place, before: str, evaluation: Evaluation, contents: Contents
    ) -> dict[str, float]:
        """Those of the user's program."""
        folder = self._folder.measured(run) / evaluation.name
        output, result = folder / "program.json", self._result(run)
        assert result is not None
        places = {
            "{output}": output,
            "{responses}": folder / "responses.jsonl",
            "{result}": result,
            "{run}": self._folder.run_folder(run),
        }
        words = list(evaluation.steps["program"]["words"])
        for name, path in places.items():
            words = [word.replace(name, str(path)) for word in words]
        inputs = [Path(word) for word in words if word != str(output) and Path(word).exists()]

        def work() -> None:
            self._command(run, place, f"{before}program", words)

        if make_once(output.with_name("program.made.json"), words, inputs, [output], contents, work):
            contents.keep()
        return {
            f"{before}program.{key}": value for key, value in _object(output).items() if _is_number(value)
        }

    def _model(self, run: Run) -> tuple[list[str], list[Path]]:
        """The options that name the trained model, and its folders."""
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
        run: Run,
        place: Place,
        step: str,
        words: list[str],
        inputs: list[Path],
        output: Path,
        contents: Contents,
    ) -> None:
        def work() -> None:
            self._step(run, place, step, [*words, *(["--force"] if output.exists() else [])])

        if make_once(output.with_name(f"{output.name}.made.json"), words, inputs, [output], contents, work):
            contents.keep()

    def _step(self, run: Run, place: Place, step: str, words: list[str]) -> None:
        """Runs a command of plural to its end. Errors: Failure, StopRequested."""
        self._command(run, place, step, self._start(words), wait_for_lock=words[0] == "train")

    def _command(
        self, run: Run, place: Place, step: str, words: list[str], *, wait_for_lock: bool = False
    ) -> None:
        """Again where only its process was lost. Errors: Failure, StopRequested."""
        log = self._folder.measured(run) / "log" / f"{step}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        locked_until = time.monotonic() + _LOCK_SECONDS
        attempts = 0
        while True:
            if self._processes.stopping:
                raise StopRequested
            code = self._processes.run([*place.prefix, *words], self._environment(place), log)
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
                raise Failure(step, code, _error_line(log, code))

    def _start(self, words: list[str]) -> list[str]:
        if self._sweep.ranks == 1 or words[0] in TEXT_COMMANDS:
            return [*command_line(words[0]), *words[1:]]
        launcher = Path(program()).resolve().parents[1] / "launch" / "ranks"
        return [str(launcher), "-np", str(self._sweep.ranks), *words]

    def _environment(self, place: Place) -> dict[str, str]:
        return {
            **environment(),
            "OMP_NUM_THREADS": str(self._sweep.threads),
            **place.environment,
        }


def _files(options: Mapping[str, Any]) -> list[Path]:
    return [Path(value) for value in options.values() if isinstance(value, str) and Path(value).is_file()]


def _error_line(log: Path, code: int) -> str:
    """The last error that the command printed; else its last line, or the signal."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    errors = [line.removeprefix("plural: error: ") for line in lines if line.startswith("plural: error: ")]
    if errors:
        return re.sub(r" \[exit \d+[^\]]*\]$", "", errors[-1])
    if code < 0:
        return f"ended by signal {-code}; its output is in {log}"
    return (lines[-1] if lines else f"ended with exit code {code}") + f"; its output is in {log}"


def _measured_figures(before: str, file: Path, undefined: dict[str, str]) -> dict[str, float]:
    found = {}
    for name, figure in _object(file)["figures"].items():
        if _is_number(figure["value"]):
            found[before + name] = figure["value"]
        else:
            undefined[before + name] = figure.get("reason", "undefined")
    return found


def _evaluated_figures(before: str, file: Path) -> dict[str, float]:
    return dict(_numbers(before, _object(file)["summary"]))


def _numbers(before: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{before}{key}.", value)
        elif key not in _NOT_FIGURES and _is_number(value):
            yield f"{before}{key}", value


def _object(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if found is None:
        raise BadData(f"{file}: is no JSON of figures; remove it to have it made again")
    return found


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(file, encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise Failure("train", CommandError.exit_code, f"{file}: {error}") from None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

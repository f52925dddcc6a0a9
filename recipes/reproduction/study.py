"""Runs the commands of a study for each seed, with progress, and keeps what is already there.

    launch/reproduce NAME [FOLDER] [--seeds 1,2,3] [--jobs N]

Owns: the command line that all studies share, the folder of a study, the commands that studies use. Does not
own: when a step is done and how it is stopped (plural_text.sweep), what is measured (each study), figures and
tables (report.py).

    FOLDER/seed-N/...        corpora, runs and responses of one seed
    FOLDER/seed-N/PART/...   the same for a further model, where a study starts from several
    FOLDER/seed-N/steps/     per step a .log (what the command printed) and a .json (its command, the hashes
                             of its inputs): a step whose command and inputs are the same and whose outputs
                             are there is not run again
    FOLDER/results.json      every figure (report.py)
    FOLDER/tables.md         what was printed

Every command runs on one rank with one thread, so figures do not depend on the number of cores; seeds run
side by side. Thread rule: a Seed belongs to one thread; a Study may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

from plural_text.sweep.contents import Contents
from plural_text.sweep.processes import Processes
from plural_text.sweep.steps import files_named, make_once
from report import Report

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "reproduction"


class StepFailed(Exception):
    """A command that ended with an error; the text says which and why."""


class Seed:
    """One seed of a study: its folder, and the commands that run in it.

    Paths given to the methods are relative to the seed's folder unless they are absolute; so are those
    returned.
    """

    def __init__(self, study: Study, number: int, folder: Path | None = None):
        self.number = number
        self.folder = folder or study.folder / f"seed-{number}"
        (self.folder / "steps").mkdir(parents=True, exist_ok=True)
        self._contents = Contents(self.folder / "steps" / "contents.txt")
        self._study = study
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def further(self, part: str, number: int) -> Seed:
        """Another number in a folder of this seed's, for a study that starts from several models."""
        return Seed(self._study, number, self.folder / part)

    def path(self, name: str | Path) -> Path:
        return self.folder / name

    def prepare(
        self,
        inputs: str | list[str],
        output: str,
        *,
        format: str,
        template: Path | str | None = None,
        tokenizer: str = "text/tokenizer",
        options: list = (),
    ) -> Path:
        """`plural prepare`; returns the corpus. `options` are further words of the command line."""
        inputs = [inputs] if isinstance(inputs, str) else inputs
        words = [
            "prepare",
            *map(self.path, inputs),
            "--format",
            format,
            "--tokenizer",
            self.path(tokenizer),
            "-o",
            self.path(output),
            "--force",
        ]
        words += ["--template", template] if template else []
        return self.plural(f"prepare {output}", [*words, *options], [output])[0]

    def train(self, name: str, recipe: str, overrides: dict) -> Path:
        """`plural train` with recipes/reproduction/<recipe>.yaml; returns the finished adapter/ or model/
        folder.

        overrides: recipe key -> value; paths are relative to the seed's folder. The seed decides every draw
        unless they name another.
        """
        run = self.path("runs") / name
        words = [
            "train",
            RECIPES / f"{recipe}.yaml",
            f"run.dir={self.path('runs')}",
            f"name={name}",
            "run.threads=1",
            "model.device=cpu",
        ]
        for key, value in {"seed": self.number, **overrides}.items():
            words.append(
                f"{key}={self.path(value) if key.endswith('.path') or key.startswith('data.') else value}"
            )
        # A finished run of another recipe or corpus would be refused.
        self.plural(
            f"train {name}",
            words,
            [f"runs/{name}/recipe.yaml"],
            before=lambda: shutil.rmtree(run, ignore_errors=True),
        )
        return next(run / kind for kind in ("adapter", "model") if (run / kind).is_dir())

    def metrics(self, name: str, event: str = "step") -> list[dict]:
        """The lines of a run's metrics.jsonl with this event."""
        lines = _json_lines(self.path("runs") / name / "metrics.jsonl")
        return [line for line in lines if line.get("event") == event]

    def generate(
        self, output: str, *, model: Path, corpus: str, adapter: Path | None = None, options: list = ()
    ) -> list[dict]:
        """`plural generate`; returns its lines, one per prompt. The seed keys every draw."""
        words = [
            "generate",
            "--model",
            model,
            "--corpus",
            self.path(corpus),
            "-o",
            self.path(output),
            "--force",
            "--seed",
            self.number,
            "--threads",
            1,
        ]
        words += ["--adapter", adapter] if adapter else []
        self.plural(f"generate {output}", [*words, *options], [output])
        return _json_lines(self.path(output))

    def evaluate(
        self, output: str, *, model: Path, corpus: str, adapter: Path | None = None, options: list = ()
    ) -> dict:
        """`plural evaluate`; returns the parsed output."""
        words = [
            "evaluate",
            "--model",
            model,
            "--corpus",
            self.path(corpus),
            "-o",
            self.path(output),
            "--force",
            "--threads",
            1,
        ]
        words += ["--adapter", adapter] if adapter else []
        self.plural(f"evaluate {output}", [*words, *options], [output])
        return json.loads(self.path(output).read_text(encoding="utf-8"))

    def plural(self, label: str, words: list, outputs: list[str], before=None) -> list[Path]:
        """Runs `launch/plural WORDS`, unless its outputs stand there from the same command and inputs."""
        return self.step(label, [ROOT / "launch" / "plural", *words], outputs, before)

    def python(self, label: str, words: list, outputs: list[str], before=None) -> list[Path]:
        """The same for a Python program of the project: words[0] is its file."""
        return self.step(label, [sys.executable, *words], outputs, before)

    def step(self, label: str, command: list, outputs: list[str], before=None) -> list[Path]:
        """Any command, with the same rules. `before` is called when it has to run. Errors: StepFailed."""
        command = [str(word) for word in command]
        made = [self.path(output) for output in outputs]
        stamp_file = self.folder / "steps" / f"{label.replace('/', '-').replace(' ', '-')}.json"
        started = time.monotonic()

        def work() -> None:
            if before:
                before()
            self._run(label, command, made, stamp_file.with_suffix(".log"))

        inputs = files_named(command, made)
        if make_once(stamp_file, command, inputs, made, self._contents, work):
            self._contents.keep()
            self._study.say(self.number, label, time.monotonic() - started)
        return made

    def _run(self, label: str, command: list[str], made: list[Path], log: Path) -> None:
        log.unlink(missing_ok=True)
        code = self._study.processes.run(command, self._environment, log, folder=self.folder)
        if code:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
            raise StepFailed(
                "\n".join([f"seed {self.number}: {label}: exit {code}; all of it in {log}", *last])
            )
        absent = [str(path) for path in made if not path.exists()]
        if absent:
            raise StepFailed(f"seed {self.number}: {label}: made no {', '.join(absent)}; see {log}")


class Study:
    """The folder, the seeds and the report of one study."""

    def __init__(self, name: str, options: argparse.Namespace):
        self.name = name
        self.folder = options.folder.resolve()
        self.seeds: list[int] = options.seeds
        self.options = options
        self.report = Report(name)
        self.processes = Processes()
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.folder.mkdir(parents=True, exist_ok=True)

    def each_seed(self, work) -> dict:
        """work(Seed) for every seed, some side by side; the results by seed number. Errors: the
        first."""
        with ThreadPoolExecutor(max_workers=min(self.options.jobs, len(self.seeds))) as pool:
            futures = {seed: pool.submit(work, Seed(self, seed)) for seed in self.seeds}
            try:
                return {seed: future.result() for seed, future in futures.items()}
            except BaseException:
                for future in futures.values():
                    future.cancel()
                self.processes.stop()  # what runs saves its state; the same command goes on
                raise

    def say(self, seed: int, label: str, seconds: float) -> None:
        """One line of progress: minutes since the start, seed, what was done and how long it took."""
        minutes = (time.monotonic() - self._started) / 60
        with self._lock:
            print(f"[{minutes:6.1f} min] seed {seed}: {label}, {seconds:.0f} s", file=sys.stderr, flush=True)

    def finish(self) -> int:
        """Prints the report, writes it to the folder. Returns the exit code: 1 when a check does not hold."""
        seconds = time.monotonic() - self._started
        text = self.report.text()
        print(f"\n{text}")
        (self.folder / "tables.md").write_text(text, encoding="utf-8")
        self.report.write(
            self.folder / "results.json",
            date=date.today().isoformat(),
            seeds=self.seeds,
            seconds=round(seconds, 1),
        )
        print(f"{self.folder / 'results.json'}: every figure by seed. {seconds / 60:.1f} minutes.")
        return 0 if self.report.all_hold else 1


def arguments(name: str, description: str, add=None) -> argparse.Namespace:
    """The command line of a study; add(parser) adds options of its own."""
    parser = argparse.ArgumentParser(prog=f"launch/reproduce {name}", description=description)
    if add:  # first: a study's own words stand before the folder
        add(parser)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=ROOT / "runs" / "reproduce" / name,
        help=f"where results stay (default: runs/reproduce/{name}); finished steps are kept",
    )
    parser.add_argument(
        "--seeds", type=seed_numbers, default=[1, 2, 3], help="seeds, such as 1,2,3 (default)"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="seeds side by side (default: cores)"
    )
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def run(name: str, description: str, work, add=None) -> int:
    """The main function of a study: work(Study) fills its report. A failed step is one line and exit code
    1, a stop 75."""
    study = Study(name, arguments(name, description, add))
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.default_int_handler)
    try:
        work(study)
    except StepFailed as error:
        print(f"launch/reproduce {name}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"launch/reproduce {name}: stopped on request: what is done is kept; start again to go on",
            file=sys.stderr,
        )
        return 75
    return study.finish()


def seed_numbers(text: str) -> list[int]:
    """Of an option such as 1,2,3."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different seeds such as 1,2,3")
    return seeds


def _json_lines(path: Path) -> list[dict]:
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]

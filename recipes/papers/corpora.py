"""The material and corpora of a study, each made once from what it is made of.

Owns: which of them a run of the study needs, where they lie, their commands. Does not own: what a definition
says (definition.py), when a step is done (plural_text.sweep.steps). Thread rule: making belongs to the main
thread, which alone hears signals; the commands run side by side.

    FOLDER/material/, or seed-N/ in it      what the study's own program wrote
    FOLDER/corpora/NAME.h5, seed-N/NAME.h5  with NAME.log, and NAME.made.json beside it (the stamp)
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from definition import Corpus, Definition, Stage
from plural_text.common.errors import CommandError, MissingInput
from plural_text.common.options import option_words
from plural_text.common.progress import Progress
from plural_text.sweep.contents import Contents
from plural_text.sweep.processes import Processes
from plural_text.sweep.step_options import environment
from plural_text.sweep.steps import make_once


@dataclass(frozen=True)
class _Step:
    words: list[str]  # a whole command line
    inputs: list[Path]
    output: Path
    log: Path
    stamp: Path
    before: Callable[[], None]


class Corpora:
    """model, data: what the user named; None where the study needs none. prompts: a folder whose templates,
    NAME.json, stand in for ours of that name."""

    def __init__(
        self,
        definition: Definition,
        model: Path | None,
        data: Path | None,
        folder: Path,
        prompts: Path | None = None,
    ):
        self._definition = definition
        self._model = model
        self._data = data
        self._folder = folder
        self._prompts = prompts
        self._processes = Processes()
        (folder / "corpora").mkdir(parents=True, exist_ok=True)
        self._contents = Contents(folder / "corpora" / "inputs.json")

    def make_material(self, seeds: Sequence[int], jobs: int) -> None:
        """That which is not there yet, of the seeds of all stages. Errors: MissingInput, CommandError;
        KeyboardInterrupt when it was stopped."""
        every = (seed for stage in self._definition.stages for seed in stage.seeds(seeds))
        self._make("material", self._material(every), jobs)

    def make_corpora(self, stages: Sequence[Stage], seeds: Sequence[int], jobs: int) -> None:
        """Those that these stages name. Errors: as above, those of plural prepare."""
        wanted = [(stage, seed) for stage in stages for seed in stage.seeds(seeds)]
        self._make("corpora", self._corpora(wanted), jobs)

    def path(self, corpus: Corpus) -> str:
        """Within FOLDER, with {seed} where there is one per seed."""
        return f"corpora/{'seed-{seed}/' if corpus.by_seed else ''}{corpus.name}.h5"

    def _material(self, seeds: Iterable[int]) -> list[_Step]:
        material = self._definition.material
        if material is None:
            return []
        found = []
        for seed in dict.fromkeys(seeds) if material.by_seed else (0,):
            folder = self._folder / "material"
            folder = folder / f"seed-{seed}" if material.by_seed else folder
            words = [word.replace("{seed}", str(seed)) for word in material.words]
            inputs = [Path(word) for word in words if Path(word).is_file()]
            inputs += [self._given(file) for file in material.reads]

            def empty(folder=folder) -> None:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)

            log, stamp = (folder.with_name(f"{folder.name}.{end}") for end in ("log", "made.json"))
            found.append(_Step(words, inputs, folder, log, stamp, empty))
        return found

    def _corpora(self, wanted: Sequence[tuple[Stage, int]]) -> list[_Step]:
        """Those that the sweep of a stage names."""
        found: dict[Path, _Step] = {}
        for stage, seed in wanted:
            text = str(stage.sweep)
            for corpus in self._definition.corpora:
                path = self.path(corpus)
                if str(self._folder / path) in text:
                    step = self._prepare(corpus, seed, self._folder / path.replace("{seed}", str(seed)))
                    found.setdefault(step.output, step)
        return list(found.values())

    def _prepare(self, corpus: Corpus, seed: int, made: Path) -> _Step:
        def of_seed(text: str) -> str:
            return text.replace("{seed}", str(seed))

        inputs = [self._given(of_seed(name)) for name in corpus.inputs]
        for file in inputs:
            if not file.exists():
                raise MissingInput(
                    f"{file}: not there; docs/data.md says where it comes from, --data names its folder"
                )
        view = made.with_suffix("")
        folders = all(file.is_dir() for file in inputs)
        tokenizer = of_seed(corpus.tokenizer) or str(self._model)
        words = [sys.executable, "-P", "-m", "plural_text", "prepare"]
        words += [str(view)] if folders else list(map(str, inputs))
        words += ["--tokenizer", tokenizer, "--format", corpus.format]
        template = self._template(of_seed(corpus.template))
        words += ["--template", template] if template else []
        words += ["--prompts-only"] if corpus.prompts_only else []
        words += option_words(dict(corpus.options))
        words += ["--quiet", "-o", str(made), "--force"]
        # A model's tokenizer lies beside its weights, which take minutes to read and decide nothing here.
        further = [Path(tokenizer)] if corpus.tokenizer else []
        further += [Path(template)] if Path(template).is_file() else []

        def together() -> None:
            if folders:
                _together(inputs, view)

        stamp = made.with_name(f"{corpus.name}.made.json")
        return _Step(words, [*inputs, *further], made, made.with_suffix(".log"), stamp, together)

    def _template(self, name: str) -> str:
        own = self._prompts / f"{name}.json" if self._prompts and name else None
        return str(own) if own and own.is_file() else name

    def _given(self, name: str) -> Path:
        return Path(name) if self._data is None else self._data / name

    def _make(self, what: str, steps: Sequence[_Step], jobs: int) -> None:
        with (
            Progress(what, len(steps), "steps", sys.stderr) as progress,
            ThreadPoolExecutor(max_workers=jobs) as pool,
        ):
            futures = [pool.submit(self._make_one, step) for step in steps]
            try:
                for done, future in enumerate(futures, 1):
                    future.result()
                    progress.update(done, done)
            except BaseException:
                for future in futures:
                    future.cancel()
                self._processes.stop()
                raise
        self._contents.keep()

    def _make_one(self, step: _Step) -> None:
        def work() -> None:
            step.log.parent.mkdir(parents=True, exist_ok=True)
            step.log.unlink(missing_ok=True)
            step.before()
            code = self._processes.run(step.words, {**environment(), "OMP_NUM_THREADS": "1"}, step.log)
            if code:
                lines = step.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                last = lines[-1] if lines else "no word"
                error = CommandError(last.removeprefix("plural: error: ").rpartition(" [exit")[0] or last)
                error.exit_code = code if code > 0 else CommandError.exit_code
                raise error

        make_once(step.stamp, step.words, step.inputs, [step.output], self._contents, work)


def _together(folders: Sequence[Path], view: Path) -> None:
    """A folder of these folders: ids of prompts then begin with the name of theirs, the task."""
    view.mkdir(exist_ok=True)
    for folder in folders:
        link = view / folder.name
        link.unlink(missing_ok=True)
        link.symlink_to(folder)

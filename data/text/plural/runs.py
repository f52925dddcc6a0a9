"""Runs of `plural train`, and their figures.

Owns: where a run's files lie. Does not own: training. Thread rule: values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plural.commands import PathLike, PluralError, run_command
from plural.recipe import Recipe, resolve

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Run:
    """A run's folder."""

    folder: Path

    @property
    def result(self) -> Path | None:
        """adapter/ or model/, which appears when the run is finished; None before."""
        return next(
            (self.folder / name for name in ("adapter", "model") if (self.folder / name).is_dir()), None
        )


def train(
    recipe: Recipe | PathLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    ranks: int = 1,
    quiet: bool = False,
) -> Run:
    """Trains as `recipe` (an object or a file) says, or goes on where that run stopped.

    `overrides`: `{"optimizer.lr": 1e-4}`. `ranks`: processes, under mpirun where there are several.
    `quiet`: no progress lines. Errors: PluralError; with code 75 the run was stopped, and the same call
    goes on.
    """
    words = [f"{key}={_word(value)}" for key, value in (overrides or {}).items()]
    if isinstance(recipe, Recipe):
        with recipe.file() as file:
            return _train(file, words, ranks, quiet)
    return _train(Path(recipe), words, ranks, quiet)


def _train(file: Path, words: list[str], ranks: int, quiet: bool) -> Run:
    resolved = resolve(file, *words)
    run_command("train", str(file), *words, ranks=ranks, quiet=quiet)
    return Run(Path(resolved["run"]["dir"]) / resolved["name"])


def _word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    return f"[{', '.join(map(_word, value))}]" if isinstance(value, (list, tuple)) else str(value)


def read_metrics(run: Run | PathLike, event: str | None = "step") -> pandas.DataFrame:
    """The lines of metrics.jsonl, one row each: of training steps, of another `event`, or all with None.

    `run`: a run, its folder or the file. Errors: PluralError (66) where there is none, (65) for a damaged
    line.
    """
    import pandas

    path = run.folder if isinstance(run, Run) else Path(run)
    path = path / "metrics.jsonl" if path.is_dir() else path
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PluralError(66, f"{path}: {error.strerror}; give a run's folder or its metrics.jsonl") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):  # of a run that is being written the last line may be half there
                raise PluralError(65, f"{path}:{number}: not a line of JSON") from None
    return pandas.DataFrame([row for row in rows if event is None or row.get("event") == event])

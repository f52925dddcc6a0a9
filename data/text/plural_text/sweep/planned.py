"""A sweep as it stands: its file, its folder, its settings and runs.

Owns: how these come from one file. Does not own: any of them. Thread rule: values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plural_text.sweep.contents import Contents
from plural_text.sweep.estimates import check_settings
from plural_text.sweep.expand import Setting, baseline_of, check_conditions, settings_of
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run, runs_of
from plural_text.sweep.step_options import check_options
from plural_text.sweep.sweep_file import read_sweep
from plural_text.sweep.sweep_values import SweepFile


@dataclass(frozen=True)
class Planned:
    sweep: SweepFile
    folder: SweepFolder
    settings: Sequence[Setting]
    runs: Sequence[Run]
    baseline: Setting | None

    def check(self) -> dict[str, dict[str, Any]]:
        """Every check before anything starts, of training and of what measures it; setting -> what dry-run
        says. Errors: its own, BadRecipe."""
        check_options(self.sweep, self.settings)
        return check_settings(self.sweep, self.folder, self.runs)


def plan(file: Path) -> Planned:
    """Errors: MissingInput, BadRecipe, CannotCreate."""
    sweep = read_sweep(file)
    if sweep.search:
        from plural_text.sweep.search import SearchStudy

        check_conditions(sweep)
        folder = SweepFolder(sweep.folder)
        return with_settings(sweep, folder, SearchStudy(sweep, folder).settings())
    settings = settings_of(sweep)
    baseline_of(sweep, settings)  # refused before anything is written
    return with_settings(sweep, SweepFolder(sweep.folder), settings)


def with_settings(sweep: SweepFile, folder: SweepFolder, settings: list[Setting]) -> Planned:
    """The runs of these settings."""
    contents = Contents(folder.root / "inputs.json")
    runs = runs_of(sweep, settings, contents)
    contents.keep()
    # A setting that resolves to the recipes of an earlier one has no runs of its own.
    with_runs = {run.setting.label for run in runs}
    kept = [setting for setting in settings if setting.label in with_runs]
    return Planned(sweep, folder, kept, runs, baseline_of(sweep, kept) if kept else None)

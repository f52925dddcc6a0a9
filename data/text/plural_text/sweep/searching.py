"""The runs of a search: each setting that optuna chooses is trained and measured with every seed.

Owns: how the two meet. Does not own: either. Thread rule: the main thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plural_text.common.errors import BadRecipe
from plural_text.sweep.expand import Setting
from plural_text.sweep.local import LocalRuns
from plural_text.sweep.places import Place
from plural_text.sweep.planned import Planned, with_settings
from plural_text.sweep.search import SearchStudy
from plural_text.sweep.statistics import mean_of
from plural_text.sweep.sweep_values import SweepFile


def run_search(planned: Planned, places: Sequence[Place]) -> None:
    """A later call goes on. Errors: BadRecipe for an objective that no run has."""
    sweep, folder = planned.sweep, planned.folder
    assert sweep.search is not None
    objectives = list(sweep.search.objectives)

    def measure(settings: list[Setting]) -> list[list[float] | None] | None:
        batch = with_settings(sweep, folder, settings)
        batch.check()
        LocalRuns(sweep, folder, batch.runs, list(places)).run_all()
        if sweep.stop_on_failure and any(folder.state(run) == "failed" for run in batch.runs):
            return None
        found: list[list[float] | None] = []
        for setting in settings:
            # Two settings that resolve to one run are one setting of the batch.
            rows = [folder.row(run) for run in with_settings(sweep, folder, [setting]).runs]
            found.append(_means(sweep, rows, objectives))
        return found

    side_by_side = max(1, len(places) // max(1, len(sweep.seeds)))
    SearchStudy(sweep, folder).run(side_by_side, measure)


def _means(
    sweep: SweepFile, rows: Sequence[Mapping[str, Any] | None], objectives: Sequence[str]
) -> list[float] | None:
    """rows: of the setting's seeds. Of each objective the mean; None where a seed has no row, or an objective
    is undefined for it. Errors: BadRecipe for an objective that no command measures."""
    whole = [row for row in rows if row is not None]
    for row in whole:
        for name in objectives:
            if name not in row["figures"] and name not in row["undefined"]:
                known = ", ".join(row["figures"])
                raise BadRecipe(f"{sweep.file}: search.objectives: no figure {name}; a run has {known}")
    if (
        not whole
        or len(whole) < len(rows)
        or any(name in row["undefined"] for row in whole for name in objectives)
    ):
        return None
    return [mean_of([row["figures"][name] for row in whole]).mean for name in objectives]

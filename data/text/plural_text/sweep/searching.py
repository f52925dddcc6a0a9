"""The runs of a search: each setting that optuna chooses is trained and measured with every seed.

Owns: how the two meet. Does not own: either. Thread rule: the main thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from plural_text.common.errors import BadRecipe
from plural_text.sweep.expand import Setting
from plural_text.sweep.local import LocalRuns
from plural_text.sweep.places import Place
from plural_text.sweep.planned import Planned, with_settings
from plural_text.sweep.search import SearchStudy
from plural_text.sweep.statistics import mean_of


def run_search(planned: Planned, places: Sequence[Place]) -> None:
    """A later call goes on. Errors: BadRecipe for an objective that no run has."""
    sweep, folder = planned.sweep, planned.folder
    assert sweep.search is not None
    objectives = list(sweep.search.objectives)

    def measure(settings: list[Setting]) -> list[list[float] | None]:
        batch = with_settings(sweep, folder, settings)
        batch.check()
        LocalRuns(sweep, folder, batch.runs, list(places)).run_all()
        found: list[list[float] | None] = []
        for setting in settings:
            rows = [folder.row(run) for run in batch.runs if run.setting.overrides == setting.overrides]
            figures = [row["figures"] for row in rows if row]
            missing = [name for name in objectives if figures and name not in figures[0]]
            if missing:
                known = ", ".join(figures[0])
                raise BadRecipe(f"{sweep.file}: search.objectives: no figure {missing[0]}; a run has {known}")
            whole = figures and len(figures) == len(rows)
            found.append(
                [mean_of([one[name] for one in figures]).mean for name in objectives] if whole else None
            )
        return found

    side_by_side = max(1, len(places) // max(1, len(sweep.seeds)))
    SearchStudy(sweep, folder).run(side_by_side, measure)

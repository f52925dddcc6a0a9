"""A search over settings instead of a grid: optuna chooses, the sweep trains and measures.

Owns: asking optuna and telling it, its storage in the sweep's folder (search.log, optuna's journal, which
survives a kill). Does not own: the runs, which are those of any sweep. Thread rule: one thread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from plural_text.common.errors import BadRecipe, NotInstalled
from plural_text.sweep.expand import Setting, settle
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.sweep_values import Search, SweepFile


class SearchStudy:
    """Errors: NotInstalled without optuna; BadRecipe where the kept search has another space or other
    objectives."""

    def __init__(self, sweep: SweepFile, folder: SweepFolder):
        assert sweep.search is not None
        self._sweep = sweep
        self._search = sweep.search
        optuna = _optuna()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder.root / "search.log"))),
            study_name=sweep.name,
            directions=list(self._search.objectives.values()),
            load_if_exists=True,
        )
        self._asked = {"space": self._search.space, "objectives": dict(self._search.objectives)}
        for key, kept in self._study.user_attrs.items():
            if self._study.trials and key in self._asked and kept != self._asked[key]:
                raise BadRecipe(
                    f"{sweep.file}: search.{key} has changed since the search in {folder.root} began; set it "
                    "back, or give the sweep another name"
                )
        # A sampler that begins again would draw the same settings again.
        self._study.sampler = _sampler(optuna, self._search, len(self._study.trials))

    def settings(self) -> list[Setting]:
        """Of every trial that has been asked for, in their order; equal ones are one."""
        return _settings(self._sweep, [self._chosen(trial.params) for trial in self._study.trials])

    def run(
        self, side_by_side: int, measure: Callable[[list[Setting]], list[list[float] | None] | None]
    ) -> None:
        """Tries settings until there are as many as asked for. measure: settings -> per setting the mean of
        each objective over seeds, or None where it has none; None instead of all where the search is to end,
        and these are to be tried again."""
        optuna = _optuna()
        for key, value in self._asked.items():
            self._study.set_user_attr(key, value)
        while True:
            # A trial that an earlier process has left open is gone on with.
            trials = [(t.number, t.params) for t in self._study.trials if not t.state.is_finished()]
            missing = self._search.trials - len(self._study.trials)
            for _ in range(min(side_by_side - len(trials), missing)):
                trial = self._study.ask(_distributions(optuna, self._search.space))
                trials.append((trial.number, trial.params))
            if not trials:
                return
            for first in range(0, len(trials), side_by_side):
                batch = trials[first : first + side_by_side]
                chosen = [self._chosen(params) for _, params in batch]
                found = measure(_settings(self._sweep, chosen, keep_equal=True))
                if found is None:
                    return
                for (number, _), values in zip(batch, found):
                    if values is None or not all(map(math.isfinite, values)):
                        self._study.tell(number, state=optuna.trial.TrialState.FAIL)
                    else:
                        self._study.tell(number, values)

    def _chosen(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {
            key: json.loads(value) if isinstance(self._search.space[key], list) else value
            for key, value in params.items()
            if key in self._search.space
        }


def _settings(sweep: SweepFile, chosen: list[dict[str, Any]], keep_equal: bool = False) -> list[Setting]:
    if not keep_equal:
        chosen = [one for i, one in enumerate(chosen) if one not in chosen[:i]]
    return settle(sweep, chosen)


def _distributions(optuna, space: Mapping[str, Any]) -> dict[str, Any]:
    """optuna takes texts and numbers for a choice: values of a list go through it as JSON."""
    found: dict[str, Any] = {}
    for key, values in space.items():
        if isinstance(values, list):
            found[key] = optuna.distributions.CategoricalDistribution([json.dumps(value) for value in values])
        elif all(isinstance(values.get(key, 1), int) for key in ("low", "high", "step")):
            found[key] = optuna.distributions.IntDistribution(
                values["low"], values["high"], log=values.get("log", False), step=values.get("step", 1)
            )
        else:
            found[key] = optuna.distributions.FloatDistribution(
                values["low"], values["high"], log=values.get("log", False), step=values.get("step")
            )
    return found


def _sampler(optuna, search: Search, trials: int):
    samplers = optuna.samplers
    kinds = {
        "tpe": lambda: samplers.TPESampler(seed=search.seed + trials),
        "random": lambda: samplers.RandomSampler(seed=search.seed + trials),
        "nsga2": lambda: samplers.NSGAIISampler(seed=search.seed + trials),
        "gp": lambda: samplers.GPSampler(seed=search.seed + trials),
    }
    return kinds[search.sampler]()


def _optuna():
    try:
        import optuna
    except ImportError:
        raise NotInstalled(
            "search needs optuna: .venv/bin/pip install --no-deps -r data/text/requirements-search.txt"
        ) from None
    return optuna

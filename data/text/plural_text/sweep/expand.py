"""The settings of a sweep: what its grid, zips and conditions come to, in one fixed order.

Owns: the settings and their labels. Does not own: seeds and identities (identity.py). Thread rule: values.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plural_text.common.errors import BadRecipe
from plural_text.sweep.sweep_values import Evaluation, SweepFile, same

_LABEL_CHARACTERS = 80
_UNTRAINED = "untrained"  # stands among recipe keys in conditions


@dataclass(frozen=True)
class Setting:
    """One arm. `chosen`: the keys that tell it from others. `overrides`: all recipe keys over the bases."""

    label: str
    chosen: Mapping[str, Any]
    overrides: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    @property
    def untrained(self) -> bool:
        """Whether it is the model as it is."""
        return _UNTRAINED in self.chosen


def settings_of(sweep: SweepFile) -> list[Setting]:
    """Errors: BadRecipe where a condition names no key of the sweep, nothing is left, or the baseline is not
    one setting."""
    check_conditions(sweep)
    chosen: list[dict[str, Any]] = []
    for values in _combinations(sweep):
        for when in sweep.when:
            if matches(when.where, {**sweep.common, **values}):
                values = {key: value for key, value in values.items() if key not in when.drop}
        if any(matches(left_out, {**sweep.common, **values}) for left_out in sweep.exclude):
            continue
        if not any(_equal(values, other) for other in chosen):
            chosen.append(values)
    if sweep.untrained:
        chosen.append({_UNTRAINED: True})
    if not chosen:
        raise BadRecipe(f"{sweep.file}: exclude leaves no setting; take a line of it away")
    return settle(sweep, chosen)


def settle(sweep: SweepFile, chosen: list[dict[str, Any]]) -> list[Setting]:
    """The settings of these choices, with what `set` and `when` say of them."""
    labels = _labels(chosen)
    found = []
    for label, values in zip(labels, chosen):
        facts = {_UNTRAINED: False, **sweep.common, **values}
        overrides = {**sweep.common, **values}
        if overrides.pop(_UNTRAINED, False):
            # Its recipe is complete with what another setting trains on, of which nothing is used.
            others = {key: one for key, one in chosen[0].items() if not key.startswith("model.")}
            overrides = {**others, **overrides}
        options: dict[str, Any] = {}
        for when in sweep.when:
            if matches(when.where, facts):
                for key, value in when.values.items():
                    if key.startswith("evaluate."):
                        options[key] = value
                    else:
                        facts[key] = overrides[key] = value
        evaluations = tuple(one for one in _with_options(sweep, options) if matches(one.where, facts))
        found.append(Setting(label, values, overrides, evaluations))
    return found


def baseline_of(sweep: SweepFile, settings: list[Setting]) -> Setting | None:
    """Errors: BadRecipe where `baseline` does not mean one setting."""
    if sweep.baseline is None:
        return None
    # Exactly these values, or else all that have them.
    found = [one for one in settings if _equal(sweep.baseline, one.chosen)]
    found = found or [one for one in settings if not one.untrained and matches(sweep.baseline, one.overrides)]
    if len(found) != 1:
        which = "no setting" if not found else f"{len(found)}: {', '.join(one.label for one in found[:5])}"
        known = ", ".join(one.label for one in settings[:10])
        raise BadRecipe(f"{sweep.file}: baseline means {which}; it names one of the settings ({known})")
    return found[0]


def matches(where: Mapping[str, Any], values: Mapping[str, Any]) -> bool:
    return all(key in values and same(values[key], value) for key, value in where.items())


def _combinations(sweep: SweepFile) -> Iterator[dict[str, Any]]:
    axes: list[list[dict[str, Any]]] = [
        [{key: value} for value in values] for key, values in sweep.grid.items()
    ]
    for one in sweep.zips:
        axes.append([dict(zip(one, together)) for together in zip(*one.values())])
    if axes or not sweep.include:
        for parts in itertools.product(*axes):
            yield {key: value for part in parts for key, value in part.items()}
    yield from (dict(one) for one in sweep.include)


def check_conditions(sweep: SweepFile) -> None:
    """Errors: BadRecipe where a condition names no key that the sweep sets."""
    known = {
        *sweep.common,
        *sweep.grid,
        *((_UNTRAINED,) if sweep.untrained else ()),
        *(key for one in (*sweep.zips, *sweep.include) for key in one),
    }
    if sweep.search:
        known |= set(sweep.search.space)
    seen = [*sweep.grid, *(key for one in sweep.zips for key in one)]
    twice = next((key for i, key in enumerate(seen) if key in seen[:i]), None)
    if twice:
        raise BadRecipe(f"{sweep.file}: {twice} stands in grid or zip twice; leave one")
    asked = [("exclude", one) for one in sweep.exclude]
    asked += [("when", when.where) for when in sweep.when]
    asked += [("when", dict.fromkeys(when.drop)) for when in sweep.when]
    asked += [("evaluate", one.where) for one in sweep.evaluations]
    asked += [("baseline", sweep.baseline)] if sweep.baseline else []
    for part, where in asked:
        for key in where:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, cutoff=0.5)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"they set {', '.join(sorted(known)) or 'nothing'}"
                )
                raise BadRecipe(
                    f"{sweep.file}: {part} names {key}, which neither set, grid, zip, include nor space "
                    f"sets; {hint}"
                )


def _equal(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)


def _with_options(sweep: SweepFile, options: Mapping[str, Any]) -> tuple[Evaluation, ...]:
    """The evaluations with these evaluate.STEP.OPTION (or evaluate.NAME.STEP.OPTION) in them."""
    evaluations = [
        Evaluation(one.name, {step: dict(given) for step, given in one.steps.items()}, one.where)
        for one in sweep.evaluations
    ]
    for key, value in options.items():
        parts = key.split(".")[1:]
        names = [one for one in evaluations if len(parts) == 2 or one.name == parts[0]]
        step, option = parts[-2:] if len(parts) in (2, 3) else ("", "")
        if step == "program":
            raise BadRecipe(f"{sweep.file}: when sets {key}; words of a program are the same in all settings")
        found = [one for one in names if step in one.steps]
        if not found:
            raise BadRecipe(f"{sweep.file}: when sets {key}, which is no option of a step of evaluate")
        for one in found:
            one.steps[step][option] = value  # type: ignore[index]
    return tuple(evaluations)


def _labels(chosen: list[dict[str, Any]]) -> list[str]:
    """Names for folders and tables: texts as they are, other values behind the last word of their key. They
    keep to the trainer's rule for names: letters, digits and . _ - +, neither . nor - first."""
    labels: list[str] = []
    for values in chosen:
        parts = [_word(key, value) for key, value in values.items()]
        text = re.sub(r"[^A-Za-z0-9_.+-]+", "_", "-".join(parts)).lstrip(".-")
        label = text = text[:_LABEL_CHARACTERS] or "run"
        number = 2
        while label in labels:
            label = f"{text}+{number}"
            number += 1
        labels.append(label)
    return labels


def _word(key: str, value: Any) -> str:
    if key == _UNTRAINED:
        return key
    if isinstance(value, str):
        name = value.replace("{seed}", "").rstrip("/").rpartition("/")[2]
        return name.removesuffix(".h5").removesuffix(".yaml").rstrip("-")
    if isinstance(value, list):
        text = "+".join(map(str, value))
    else:
        text = f"{value:.4g}" if isinstance(value, float) else str(value).lower()
    return f"{key.rpartition('.')[2]}{text}"

"""The runs of a sweep, each with the identity that decides its result.

Owns: resolving the recipes of settings (`plural validate`), the hash of a resolved recipe with the contents
of its corpora, base weights and starting adapter. The name of a run, where it lies, ranks, threads, what is
logged, watched over and kept of it are not in it: they decide no result. Does not own: what is done with a
run (work.py). Thread rule: resolving uses threads of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plural_text.common.errors import BadRecipe, MissingInput
from plural_text.common.hub import hub_folder
from plural_text.common.program import program
from plural_text.sweep.contents import Contents
from plural_text.sweep.expand import Setting
from plural_text.sweep.located_yaml import plain_value
from plural_text.sweep.sweep_values import Evaluation, SweepFile

_NOT_IDENTITY = (
    ("name",),
    ("run",),
    ("log",),
    ("profile",),
    ("watchdog",),
    ("checkpoint",),
    ("resume",),
    ("model", "device"),
    ("train", "log_every_steps"),
    ("train", "activation_checkpointing"),
    ("train", "activation_bytes"),
    ("optimizer", "sharding"),
)
# Recipe key -> what it is for a message. Their contents count, not their paths.
_CONTENTS = {
    ("model", "path"): "folder of a model",
    ("adapter", "init_from"): "folder of an adapter",
    ("data", "train"): "corpus",
    ("data", "validation"): "corpus",
}


@dataclass(frozen=True)
class Run:
    """`id`: of training. `measured_id`: of training and what is measured afterwards. `overrides` and
    `evaluations`: those of the setting with the seed put in."""

    id: str
    measured_id: str
    setting: Setting
    seed: int
    recipe: Mapping[str, Any]  # resolved
    overrides: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]

    @property
    def untrained(self) -> bool:
        """Whether it is the model as it is: nothing is trained."""
        return self.setting.untrained

    @property
    def label(self) -> str:
        return f"{self.setting.label}-s{self.seed}"


def runs_of(sweep: SweepFile, settings: list[Setting], contents: Contents) -> list[Run]:
    """Every setting with every seed; runs whose recipes resolve to the same are one. Errors: BadRecipe, also
    where one run would be measured in two ways; MissingInput."""
    found: dict[str, Run] = {}
    for setting, recipes in zip(settings, _recipes(sweep, settings)):
        for seed, recipe in recipes:
            _check_measured(sweep, setting, recipe)
            values = {**_with_seed(recipe, seed), "seed": setting.overrides.get("seed", seed)}
            evaluations = tuple(
                Evaluation(one.name, _with_seed(one.steps, seed)) for one in setting.evaluations
            )
            identity = _without(values)
            if setting.untrained:
                identity = {"untrained": True, "seed": seed, "model": identity["model"]}
            identity["contents"] = _inputs(sweep, values, setting, contents)
            run_id = digest(identity)
            steps = [[one.name, one.steps] for one in evaluations]
            measured = digest([run_id, steps, _step_inputs(sweep, evaluations, contents)])
            overrides = _with_seed(setting.overrides, seed)
            run = Run(run_id, measured, setting, seed, values, overrides, evaluations)
            first = found.setdefault(run_id, run)
            if first.setting is setting and first.seed != seed:
                raise BadRecipe(
                    f"{sweep.file}: setting {setting.label} sets seed, and nothing else differs between its "
                    f"runs {first.seed} and {seed}; leave seed to the key seeds"
                )
            if first.measured_id != measured:
                raise BadRecipe(
                    f"{sweep.file}: settings {first.setting.label} and {setting.label} train the same run "
                    "and measure it differently; name both ways in evaluate, or let a recipe key differ"
                )
    return list(found.values())


def recipe_text(sweep: SweepFile, run: Run, own: Mapping[str, Any], below: Path) -> str:
    """The recipe file of a run, with these keys of its own, for a place in the folder `below`."""
    bases = [os.path.relpath(base, below) for base in sweep.bases_of(run.overrides, run.seed)]
    values = _nested({**_without_base(run.overrides), "seed": run.recipe["seed"], **own})
    return yaml.safe_dump({"base": bases, **values}, sort_keys=False, allow_unicode=True)


def _check_measured(sweep: SweepFile, setting: Setting, recipe: Mapping[str, Any]) -> None:
    """Errors: BadRecipe where there is no model to measure."""
    asks = any(step in one.steps for one in setting.evaluations for step in ("generate", "evaluate"))
    if setting.untrained and not recipe["model"]["path"]:
        raise BadRecipe(f"{sweep.file}: untrained measures the model of model.path; give that key")
    if asks and recipe["adapter"]["type"] != "none" and not recipe["model"]["path"]:
        raise BadRecipe(
            f"{sweep.file}: setting {setting.label}: evaluate asks an adapter of a random model, "
            "which nothing keeps; give model.path, or train all weights (adapter.type: none)"
        )


def _recipes(sweep: SweepFile, settings: list[Setting]) -> list[list[tuple[int, dict[str, Any]]]]:
    """Per setting its seeds, each with the resolved recipe, which is asked for once where no base depends on
    the seed."""
    by_seed = [any("{seed}" in str(base) for base in sweep.bases_of(one.overrides, None)) for one in settings]
    asked = [
        (one, seed) for one, each in zip(settings, by_seed) for seed in (sweep.seeds if each else (None,))
    ]
    with ThreadPoolExecutor(max_workers=max(1, min(4, os.cpu_count() or 1))) as pool:
        resolved = iter(list(pool.map(lambda one: _resolve(sweep, *one), asked)))
    found = []
    for each in by_seed:
        if each:
            found.append([(seed, next(resolved)) for seed in sweep.seeds])
        else:
            recipe = next(resolved)
            found.append([(seed, recipe) for seed in sweep.seeds or (recipe["seed"],)])
    return found


def _without_base(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in overrides.items() if key != "base"}


def _resolve(sweep: SweepFile, setting: Setting, seed: int | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="plural-sweep-") as folder:
        file = Path(folder) / "recipe.yaml"
        bases = {"base": [str(base.resolve()) for base in sweep.bases_of(setting.overrides, seed)]}
        values = {"name": "run", **_without_base(setting.overrides)}
        try:
            recipe = {**bases, **_nested(values)}
        except BadRecipe as error:
            raise BadRecipe(f"{sweep.file}: setting {setting.label}: {error}") from None
        file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        done = subprocess.run(
            [program(), "validate", str(file)], capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise BadRecipe(f"{sweep.file}: setting {setting.label}: {_problems(done.stderr, file)}")
    return plain_value(done.stdout)


def _problems(printed: str, file: Path) -> str:
    """What validate says, in one line, of the values that the sweep sets."""
    text = re.sub(r" \[exit [^]]*\]", "", printed.removeprefix("plural: error: "))
    text = re.sub(re.escape(str(file)) + r":(?=\d)", "line ", text).replace(f"{file}: ", "")
    first, *others = [line.strip() for line in text.replace(str(file), "its recipe").splitlines()]
    return f"{first}: {'; '.join(others)}" if others else first


def _inputs(
    sweep: SweepFile, recipe: Mapping[str, Any], setting: Setting, contents: Contents
) -> dict[str, str]:
    found = {}
    for (section, key), what in _CONTENTS.items():
        if setting.untrained and (section, key) != ("model", "path"):
            continue
        given = recipe[section][key]
        if not given:
            continue
        path = Path(given)
        try:
            if what != "corpus":
                path = hub_folder(path, f"{section}.{key}", what)
            found[f"{section}.{key}"] = contents.of(path)
        except MissingInput as error:
            text = str(error)
            if what == "corpus":
                text = f"{section}.{key}: no corpus at '{given}'; make it with plural prepare"
            raise MissingInput(f"{sweep.file}: setting {setting.label}: {text}") from None
    return found


def _with_seed(value: Any, seed: int) -> Any:
    """Every text with the seed in the place of {seed}."""
    if isinstance(value, str):
        return value.replace("{seed}", str(seed))
    if isinstance(value, Mapping):
        return {key: _with_seed(item, seed) for key, item in value.items()}
    return [_with_seed(item, seed) for item in value] if isinstance(value, list) else value


def _step_inputs(sweep: SweepFile, evaluations: Sequence[Evaluation], contents: Contents) -> dict[str, str]:
    """Contents of the files that options of the steps and words of programs name."""
    found = {}
    for one in evaluations:
        for step, options in one.steps.items():
            named = dict(enumerate(options["words"])) if step == "program" else options
            for option, value in named.items():
                if option == "corpus" and not (isinstance(value, str) and Path(value).is_file()):
                    raise MissingInput(f"{sweep.file}: evaluate.{step}.corpus: no corpus at '{value}'")
                if isinstance(value, str) and names_input(option, value):
                    found[f"{one.name}.{step}.{option}"] = contents.of(Path(value))
    return found


def names_input(option: str | int, value: str) -> bool:
    """A folder counts where an option takes one: a word such as 'sample' may be a folder's name, too."""
    return Path(value).is_file() or (option in ("targets", "values") and Path(value).is_dir())


def _without(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found = json.loads(json.dumps(recipe))
    for path in (*_NOT_IDENTITY, *_CONTENTS):
        inner = found
        for part in path[:-1]:
            inner = inner.get(part, {})
        inner.pop(path[-1], None)
    if all(
        value in ("off", False) for value in found.get("guard", {}).values() if isinstance(value, (str, bool))
    ):
        found.pop("guard", None)  # A guard that is off leaves no step out.
    return found


def digest(value: Any) -> str:
    """Twelve hexadecimal digits of a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = found
        *sections, last = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise BadRecipe(f"{key} is set, and so is {section} as a whole; set one of them")
        if isinstance(inner.get(last), dict):
            raise BadRecipe(f"{key} is set as a whole, and so are keys in it; set one of them")
        inner[last] = value
    return found

"""The sweeps of a study: their files, which of them are needed, their order, the models that they hand on.

Owns: FOLDER/sweep.yaml, or FOLDER/STAGE.yaml of each stage, and FOLDER/models. Does not own: runs and figures
(plural_text.sweep), what is done with them (reproduce.py). Thread rule: the main thread alone.

    FOLDER/models/NAME-seed-N          link to the model or adapter that a stage has trained for later ones
    FOLDER/models-to-be/NAME-seed-N    config.json of one that is not there yet, for plans
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from definition import Definition, Stage
from judges import asks_a_judge, put_judges
from plural_text.common import new_output
from plural_text.common.errors import BadData, UsageError
from plural_text.common.run_state import RunFolder
from plural_text.sweep import command as sweep_command
from plural_text.sweep.expand import matches, settings_of
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.identity import Run
from plural_text.sweep.local import outcome_code
from plural_text.sweep.located_yaml import plain_value
from plural_text.sweep.planned import Planned
from plural_text.sweep.sweep_file import read_sweep
from plural_text.sweep.table import make_table

_FIRST = "adapter.init_from"
_STAND_INS = "models-to-be"
# Those that trainer/files/hf_folder.cc copies with a model.
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
)


def sweep_file(folder: Path, stage: Stage) -> Path:
    return folder / f"{stage.name or 'sweep'}.yaml"


def write_sweep(stage: Stage, folder: Path, options: argparse.Namespace) -> Path:
    """The stage's sweep with what the user asks for; its file."""
    sweep: dict[str, Any] = json.loads(json.dumps(stage.sweep))
    sweep |= {"name": stage.name or "runs", "dir": str(folder / "runs" if stage.name else folder)}
    sweep |= {"seeds": stage.seeds(options.seeds), "threads": options.threads}
    evaluations = sweep.get("evaluate", [])
    evaluations = evaluations if isinstance(evaluations, list) else [evaluations]
    if not options.judge and any(map(asks_a_judge, evaluations)):
        sweep["evaluate"] = evaluations = [one for one in evaluations if not asks_a_judge(one)]
    # Last and of all settings: what the study sets for some of them gives way, too.
    asked = {
        f"evaluate.{one['name'] + '.' if 'name' in one else ''}{step}.{option}": value
        for one in evaluations
        for step, given in _given(options).items()
        for option, value in given.items()
        if step in one
    }
    own = {**dict(map(pair, options.set)), **asked}
    if own:
        sweep["when"] = [*sweep.get("when", []), {"if": {}, "set": own}]
    for one in evaluations:
        put_judges(one, options)
    file = sweep_file(folder, stage)
    write_whole(file, yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True))
    return file


def plan_file(stage: Stage, folder: Path) -> Path:
    """Its sweep to be planned. Where it starts from what an earlier stage has not made yet, that is a file of
    its own, with stand-ins: nothing is ever trained from one. The sweep file is there."""
    file = sweep_file(folder, stage)
    text = file.read_text(encoding="utf-8")
    made = f"{folder}/models/"
    named = set(re.findall(rf"{re.escape(made)}([\w.{{}}-]+)", text))
    missing = {
        name
        for name in named
        if not all((folder / "models" / name.replace("{seed}", str(seed))).exists() for seed in _seeds(text))
    }
    if not missing:
        return file
    for name in missing:
        text = re.sub(rf"{re.escape(made + name)}(?![\w{{-])", f"{folder}/{_STAND_INS}/{name}", text)
    sweep = yaml.safe_load(text)
    for values in (sweep.get("set", {}), *sweep.get("include", [])):
        if f"/{_STAND_INS}/" in str(values.get(_FIRST, "")):
            del values[_FIRST]  # it changes no cost
    file = file.with_suffix(".plan.yaml")
    write_whole(file, yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True))
    return file


def stand_in_models(stage: Stage, planned: Planned, folder: Path) -> None:
    """The shapes of models that the stage has not made yet, for plans of later ones."""
    for name, run in _model_runs(stage, planned):
        place = folder / _STAND_INS / stage.link(name).replace("{seed}", str(run.seed))
        config = config_of(run.recipe)
        if config and run.recipe["adapter"]["type"] == "none":
            write_whole(place / "config.json", json.dumps(config) + "\n")


def config_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """That of the model that a run starts from; empty where none is there."""
    model = recipe["model"]
    return model["config"] or read_json(Path(model["path"] or "") / "config.json") or {}


def _seeds(sweep: str) -> Sequence[int]:
    return yaml.safe_load(sweep)["seeds"]


def changes(definition: Definition, options: argparse.Namespace) -> list[str]:
    """What the user asks for that the study does not say, for its foot."""
    found = dict(map(pair, options.set))
    for step, given in _given(options).items():
        if any(measures(stage, step) for stage in definition.stages):
            found |= given
    return [f"{key} = {value}" for key, value in found.items()]


def measures(stage: Stage, step: str) -> bool:
    """Whether the stage has an evaluation with this step."""
    evaluations = stage.sweep.get("evaluate", [])
    return any(step in one for one in (evaluations if isinstance(evaluations, list) else [evaluations]))


def _given(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Options of steps of the user's."""
    return {"generate": dict(map(pair, options.generate)), "persona": dict(map(pair, options.persona))}


def needed(definition: Definition, folder: Path, only: str | None) -> list[Stage]:
    """The stages with runs that have this in their name, and those that make models for them. The sweep files
    are there. Errors: UsageError."""
    if only is None:
        return list(definition.stages)
    found: list[Stage] = []
    for stage in reversed(definition.stages):
        wanted = any(
            re.search(rf"{re.escape(f'{folder}/models/{stage.link(name)}')}(?![\w-])", str(later.sweep))
            for name in stage.models
            for later in found
        )
        if wanted or (not stage.models and _names(folder, stage, only)):
            found.insert(0, stage)
    if not found:
        raise UsageError(f"--only '{only}': no run of {definition.name} has this in its name")
    return found


def _names(folder: Path, stage: Stage, only: str) -> bool:
    sweep = read_sweep(sweep_file(folder, stage))
    return any(only in f"{one.label}-s{seed}" for one in settings_of(sweep) for seed in sweep.seeds)


def run_stage(planned: Planned, stage: Stage, folder: Path, options: argparse.Namespace) -> int | None:
    """Everything of its sweep that is left. Exit code; None where it was submitted, and is not finished."""
    file = sweep_file(folder, stage)
    only = [] if stage.models or options.only is None else ["--only", options.only]
    runs = [run for run in planned.runs if not only or options.only in run.label]
    if any(planned.folder.state(one) != "finished" for one in runs):
        if not options.submit:
            words = ["run", str(file), *only, *(["--jobs", str(options.jobs)] if options.jobs else [])]
            return _sweep(words)
        code = _sweep(["submit", str(file), *only, *(f"--sbatch={option}" for option in options.sbatch)])
        # What has failed is not submitted again, and no job would say so.
        failed = [one for one in runs if planned.folder.state(one) == "failed"]
        if code or failed:
            return code or outcome_code(planned.folder, failed, print)
        print(f"the same command goes on when the jobs have ended (launch/plural sweep status {file})")
        return None
    if read_json(planned.folder.root / "table.json") != table_of(planned):
        _sweep(["report", str(file)])
    return 0


def table_of(planned: Planned) -> dict[str, Any]:
    """The sweep's table.json as its files are now."""
    made = make_table(planned.sweep, planned.folder, planned.settings, planned.runs, planned.baseline)
    return json.loads(json.dumps(made))


def link_models(stage: Stage, planned: Planned, folder: Path) -> None:
    """What the stage has trained, by a name that later stages know. Errors: BadData."""
    for name, run in _model_runs(stage, planned):
        made = RunFolder(planned.folder.run_folder(run)).root
        result = next(made / kind for kind in ("adapter", "model") if (made / kind).is_dir())
        if stage.tokenizer:
            _lay_tokenizer(Path(stage.tokenizer), result)
        link = folder / "models" / stage.link(name).replace("{seed}", str(run.seed))
        link.parent.mkdir(exist_ok=True)
        new = link.with_name(f".{link.name}-{os.getpid()}")
        new.symlink_to(os.path.relpath(result, link.parent))
        os.replace(new, link)  # whole at any time


def _model_runs(stage: Stage, planned: Planned) -> Iterator[tuple[str, Run]]:
    """The runs that make its models, with these models' names. Errors: BadData."""
    for name, where in stage.models.items():
        chosen = meant(where, [setting.chosen for setting in planned.settings])
        if len(chosen) != 1:
            raise BadData(f"stage {stage.name}: model {name} means {len(chosen)} settings, and takes one")
        label = planned.settings[chosen[0]].label
        yield from ((name, run) for run in planned.runs if run.setting.label == label)


def _lay_tokenizer(source: Path, model: Path) -> None:
    for name in _TOKENIZER_FILES:
        if (source / name).is_file() and not (model / name).exists():
            new_output.write_whole(model / name, (source / name).read_bytes())


def meant(where: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> list[int]:
    """Which settings `where` means: the one that has exactly these values, or else all that have them."""
    exact = [i for i, chosen in enumerate(choices) if matches(where, chosen) and matches(chosen, where)]
    return exact or [i for i, chosen in enumerate(choices) if matches(where, chosen)]


def _sweep(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    sweep_command.add_arguments(parser)
    return sweep_command.run(parser.parse_args(list(words)))


def pair(text: str) -> tuple[str, Any]:
    """Of KEY=VALUE. Errors: UsageError."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"'{text}' is no KEY=VALUE")
    return key, plain_value(value)

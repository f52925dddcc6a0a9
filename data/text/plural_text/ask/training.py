"""How a model or an adapter was trained, as far as it decides how it is asked.

Owns: reading plural.json, which training leaves beside the weights, and what the run folder of an older
adapter says instead. Does not own: the prompt (prompts.py). Thread rule: free of state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.json_lines import read_object, text_of

FILE = "plural.json"


@dataclass(frozen=True)
class Training:
    method: str = ""
    possibilities: int = 0  # numbers 1 to so many; 0: prompts without a number
    latents: int = 0  # of method cvf; 0: none
    template: dict = field(default_factory=dict)
    tokenizer_sha256: str = ""
    where: Path = Path()  # the file that says so


def read_training(model: Path, adapter: Path | None) -> Training | None:
    """None where no file says it. Errors: BadData naming the file and key."""
    folder = adapter or model
    if (folder / FILE).is_file():
        return _record(folder / FILE)
    return _run((folder.parent if folder.name else folder.resolve().parent) / "recipe.yaml")


def check_folders(model: Path, adapter: Path | None) -> None:
    """Errors: MissingInput, BadData for what is no model or no adapter, with the folder that was meant."""
    if not model.is_dir():
        raise MissingInput(f"{model}: no such folder; --model is the folder of a Hugging Face model")
    if not (model / "config.json").is_file():
        hint = "it holds an adapter: give it as --adapter, and its base as --model"
        if not (model / "adapter_config.json").is_file():
            hint = _inside(model, "config.json") or "a model's folder has its config.json and weights"
        raise MissingInput(f"{model}: has no config.json; {hint}")
    if adapter is None:
        return
    if not adapter.is_dir():
        raise MissingInput(f"{adapter}: no such folder; --adapter is a folder such as runs/NAME/adapter")
    if not (adapter / "adapter_config.json").is_file():
        hint = _inside(adapter, "adapter_config.json") or "an adapter's folder is such as runs/NAME/adapter"
        raise MissingInput(f"{adapter}: has no adapter_config.json; {hint}")


def _inside(folder: Path, name: str) -> str:
    found = sorted(path.parent for path in folder.glob(f"*/{name}"))
    return f"did you mean {found[0]}?" if found else ""


def _record(path: Path) -> Training:
    fields, where = read_object(path), str(path)
    template = fields.get("template")
    if not isinstance(template, dict):
        raise BadData(f"{where}: key 'template' must hold the template of the corpus; copy the file again")
    return Training(
        text_of(fields, "method", where),
        _count(fields, "possibilities", where),
        _count(fields, "latents", where),
        template,
        text_of(fields, "tokenizer_sha256", where),
        path,
    )


def _count(fields: dict, key: str, where: str) -> int:
    value = fields.get(key)
    if type(value) is not int or value < 0:
        raise BadData(f"{where}: key '{key}' holds {value!r}, must hold a whole number of 0 or more")
    return value


def _run(recipe: Path) -> Training | None:
    """What the recipe of a run and its corpus say, while both are there."""
    import json

    import h5py
    import yaml

    from plural_text.common import recipe_yaml

    try:
        values = recipe_yaml.load(recipe.read_text(encoding="utf-8"))
        with h5py.File(values["data"]["train"]) as corpus:
            template = json.loads(bytes(corpus["template"][:]))
            sha256 = corpus.attrs["tokenizer_sha256"].decode()
        method = values["method"]
        numbers = values["group"]["possibilities"] if method in ("peft", "poexft") else 0
        latents = values["cvf"]["latents"] if method == "cvf" else 0
        return Training(method, numbers, latents, template, sha256, recipe)
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None

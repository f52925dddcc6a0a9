"""Templates in the words of the possibility exploration paper's released code, from a clone of it.

The repository mailong25/peft_diversity has no licence, so that its sentences cannot be ours; whoever has a
clone can use them. Owns: which of its functions become which template. Does not own: templates
(plural_text.prepare.templates), judges. Thread rule: free of state.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadData, MissingInput
from plural_text.common.new_output import write_whole

# Stand-ins for a number until the text is there: the code takes whole numbers alone.
_NUMBER = 70707070
_LABELS = {"a": "Person A: ", "b": "Person B: "}
_MODELS = ("mistral", "llama2")  # The code asks both in one form.


def write_released_prompts(clone: Path, folder: Path) -> list[str]:
    """NAME.json in `folder` for each template of ours that the code has words for, "coherence" for the judge
    among them; returns the names. Errors: MissingInput, BadData."""
    asked = _functions(clone / "prompt_generator.py", ("dialog_prompt", "dialog_listing"))
    judged = _functions(clone / "utils.py", ("eval_dialog",))
    found: dict[str, dict[str, Any]] = {}
    for model in _MODELS:
        for name, tuned in ((f"{model}-dialogue", True), (f"{model}-dialogue-base", False)):
            found[name] = _dialogue(name) | {
                "prompt": asked["dialog_prompt"]("{context}", None, tuned),
                "prompt_with_number": _numbered(asked["dialog_prompt"]("{context}", _NUMBER, tuned)),
            }
    listing = asked["dialog_listing"]
    found["mistral-list-dialogue"] = _dialogue("mistral-list-dialogue") | {
        "prompt": listing("{context}", 5),
        "prompt_with_count": _numbered(listing("{context}", _NUMBER)),
    }
    found["coherence"] = {
        "name": "coherence",
        "label": "Coherence rating",
        "prompt": judged["eval_dialog"]("{context}", "{response}"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, template in found.items():
        write_whole(folder / f"{name}.json", json.dumps(template, indent=2, ensure_ascii=False) + "\n")
    return list(found)


def _dialogue(name: str) -> dict[str, Any]:
    return {"name": name, "format": "dialogue", "bos": True, "speakers": _LABELS}


def _numbered(text: str) -> str:
    return text.replace(str(_NUMBER), "{k}")


def _functions(file: Path, names: tuple[str, ...]) -> Mapping[str, Callable[..., str]]:
    """These functions alone, with the file's constants: nothing else of it is run, nothing is imported, and
    the turns of a conversation come back as they were given."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except OSError:
        raise MissingInput(
            f"{file}: not there; --released-code takes a clone of mailong25/peft_diversity"
        ) from None
    except (SyntaxError, UnicodeDecodeError) as error:
        raise BadData(f"{file}: is no Python: {error}") from None
    kept = [node for node in tree.body if _is_constant(node) or getattr(node, "name", None) in names]
    space: dict[str, Any] = {
        "__builtins__": {"str": str, "int": int, "type": type},
        "add_personAB": lambda context, *_: context,
    }
    exec(compile(ast.Module(kept, []), str(file), "exec"), space)
    for name in names:
        if name not in space:
            raise BadData(f"{file}: has no function {name}; the prompts are read from commit 66f9292")
    return {name: space[name] for name in names}


def _is_constant(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)

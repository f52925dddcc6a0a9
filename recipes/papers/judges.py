"""Which endpoints measure the rows of a table.

Owns: where the judges of the command line stand in a sweep's evaluations, and what stands there without any.
Does not own: what they are asked (data/text/judges, data/text/persona). Thread rule: free of state.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plural_text.common.endpoint import DEFAULT_KEY_VARIABLE

QUESTIONS = Path(__file__).resolve().parent / "persona-questions.jsonl"
_JUDGES_OPTIONS = ("judge-contexts", "judge-template")


def asks_a_judge(evaluation: Mapping[str, Any]) -> bool:
    """Whether it is a program that nothing comes of without a judge."""
    return any("{judge}" in word for word in evaluation.get("program", ()))


def put_judges(evaluation: dict[str, Any], options: argparse.Namespace) -> None:
    """Rates coherence by every judge; the first one seeks, reads and maps personas, and is what a program
    asks. Without a judge the rates go, and personas are asked by a script."""
    if asks_a_judge(evaluation):
        places = {"{judge}": options.judge[0], "{judge-model}": options.judge_model[0]}
        places["{judge-key-variable}"] = (options.judge_key_variable or [DEFAULT_KEY_VARIABLE])[0]
        for name, given in places.items():
            evaluation["program"] = [word.replace(name, given) for word in evaluation["program"]]
    if "incoherence" in str(evaluation.get("metrics", {}).get("metrics", "")).split(","):
        _rates(evaluation["metrics"], options)
    if "persona" in evaluation:
        _conversations(evaluation["persona"], options)


def _rates(metrics: dict[str, Any], options: argparse.Namespace) -> None:
    if options.judge:
        metrics |= {"judge": options.judge, "judge-model": options.judge_model}
        if options.prompts:
            metrics.setdefault("judge-template", str(options.prompts / "coherence.json"))
        if options.judge_key_variable:
            metrics["judge-key-variable"] = options.judge_key_variable
        return
    metrics["metrics"] = ",".join(name for name in metrics["metrics"].split(",") if name != "incoherence")
    for option in _JUDGES_OPTIONS:
        metrics.pop(option, None)


def _conversations(persona: dict[str, Any], options: argparse.Namespace) -> None:
    if not options.judge:
        persona.pop("openings", None)
        persona["questions"] = str(QUESTIONS)
        return
    for part in ("seeker", "extractor", "mapper"):
        persona |= {part: options.judge[0], f"{part}-model": options.judge_model[0]}
    if options.judge_key_variable:
        persona["key-variable"] = options.judge_key_variable[0]

"""Measures an answers file of `plural generate`: a table, and with -o a JSON file.

Every figure has its unit in its name where it has one, the number of things it is computed from, and a 95 %
interval. A figure that is undefined has a reason instead of a value. docs/metrics.md defines them all.
"""

# Owns: the command line, the table of metrics, the order of work. Does not own: any figure, the form
# of the output.

from __future__ import annotations

import argparse
import difflib
import importlib
from pathlib import Path

from plural_text.common.errors import UsageError
from plural_text.common.new_output import add_force
from plural_text.metrics.figure_report import check_output, table, write_report
from plural_text.metrics.responses import read_answers

# Name -> (module, one line for --help). A module has figures(answers, arguments) -> list of Figure, and where
# it has options add_arguments(parser). Modules import slow libraries when they are asked for figures.
METRICS = {
    "distinct": (
        "plural_text.metrics.distinct",
        "Distinct-1 and Distinct-2: different n-grams over all n-grams",
    ),
    "semantic": ("plural_text.metrics.semantic", "1 - mean cosine similarity of the responses to a prompt"),
    "self-bleu": ("plural_text.metrics.self_bleu", "BLEU of each response against the others to its prompt"),
    "coverage": (
        "plural_text.metrics.coverage",
        "different answers, their entropy; valid ones with --targets",
    ),
    "unigram": ("plural_text.metrics.unigram", "different words over all words"),
    "incoherence": (
        "plural_text.metrics.incoherence",
        "share of responses rated below 6, by `rating` or by judges",
    ),
    "biography": ("plural_text.metrics.biography", "coverage and entropy of the attributes of biographies"),
    "latency": (
        "plural_text.metrics.latency",
        "seconds, decode steps, token forwards; multiples with --baseline",
    ),
}
DEFAULT_METRICS = ("distinct", "semantic", "coverage", "unigram", "incoherence", "latency")

# Options that have no effect without their metric; giving one without it is a mistake.
_NEEDS = {"targets": "coverage", "baseline": "latency", "judge": "incoherence", "encoder": "semantic"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "metrics:\n" + "\n".join(f"  {name:<12} {line}" for name, (_, line) in METRICS.items())
    add = parser.add_argument
    add("responses", type=Path, metavar="RESPONSES.jsonl", help="answers, one prompt per line")
    add(
        "--metrics",
        type=_names,
        default=DEFAULT_METRICS,
        metavar="NAME,...",
        help=f"which, in this order (default: {','.join(DEFAULT_METRICS)})",
    )
    add("-o", "--output", type=Path, metavar="FIGURES.json", help="all figures; written whole or not at all")
    add_force(add)
    add("--quiet", action="store_true", help="no table")
    for module, _ in METRICS.values():
        metric = importlib.import_module(module)
        if hasattr(metric, "add_arguments"):
            metric.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    for option, metric in _NEEDS.items():
        if getattr(arguments, option) and metric not in arguments.metrics:
            raise UsageError(f"--{option} is for the metric '{metric}', which --metrics leaves out")
    check_output(arguments.output, arguments.responses, arguments.force)
    answers = read_answers(arguments.responses)
    found = [figure for name in arguments.metrics for figure in _module(name).figures(answers, arguments)]
    if arguments.output:
        write_report(
            arguments.output,
            {
                "responses_file": str(arguments.responses),
                "prompts": len(answers),
                "responses": sum(len(prompt.responses) for prompt in answers),
                "metrics": list(arguments.metrics),
            },
            found,
        )
    if not arguments.quiet:
        print("\n".join(table(found)))
    return 0


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, 1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise argparse.ArgumentTypeError(f"no metric '{name}'; {hint}known: {', '.join(METRICS)}")
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"'{text}' names a metric twice")
    return names


def _module(name: str):
    return importlib.import_module(METRICS[name][0])

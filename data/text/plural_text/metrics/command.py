"""Measures answers files of `plural generate`: a table, and with -o a JSON file.

Several files are measured alike and stand side by side, a column each.
Every figure has its unit in its name where it has one, the number of things it is computed from, and a 95 %
interval. A figure that is undefined has a reason instead of a value. docs/metrics.md defines them all.
"""

# Owns: the command line, the table of metrics, the order of work. Does not own: any figure, the form
# of the output.

from __future__ import annotations

import argparse
import difflib
import functools
import importlib
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import UsageError
from plural_text.common.new_output import add_force
from plural_text.metrics import groups
from plural_text.metrics.figure import Figure
from plural_text.metrics.figure_report import check_output, report, table, table_of_files, write_report
from plural_text.metrics.responses import Answers, read_answers
from plural_text.metrics.values import PromptValues, value_lines, values_of

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
    add("responses", type=Path, nargs="+", metavar="RESPONSES.jsonl", help="answers, one prompt per line")
    add(
        "--names",
        type=_words,
        metavar="NAME,...",
        help="of several files, in their order (default: the files')",
    )
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
    add(
        "--values",
        type=_count,
        nargs="?",
        const=10,
        metavar="N",
        help="also the answers of each prompt with count and share: the N most frequent (10) in the table, "
        "all of them in FIGURES.json; with --targets beside the targets' shares",
    )
    add(
        "--by",
        choices=groups.KINDS,
        help="also the figures of each prompt or task by itself; a task is what stands before the first / "
        "or : of an id",
    )
    for module, _ in METRICS.values():
        metric = importlib.import_module(module)
        if hasattr(metric, "add_arguments"):
            metric.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    for option, metric in _NEEDS.items():
        if getattr(arguments, option) and metric not in arguments.metrics:
            raise UsageError(f"--{option} is for the metric '{metric}', which --metrics leaves out")
    names = _file_names(arguments)
    for file in arguments.responses:
        check_output(arguments.output, file, arguments.force)
    # All files are read before any is measured: a mistake in the last one shows at once.
    answers = [read_answers(file) for file in arguments.responses]
    found = [
        _measure(name, file, own, arguments)
        for name, file, own in zip(names, arguments.responses, answers, strict=True)
    ]
    if arguments.output:
        if len(found) == 1:
            write_report(arguments.output, found[0].report(arguments))
        else:
            named = [{"name": one.name} | one.report(arguments) for one in found]
            write_report(arguments.output, {"files": named})
    if not arguments.quiet:
        print("\n".join(_lines(found, arguments)))
    return 0


@dataclass(frozen=True)
class _Measured:
    """A file with what was measured of it."""

    name: str
    file: Path
    answers: list[Answers]
    figures: list[Figure]
    values: list[PromptValues]
    groups: list[groups.Group]

    def report(self, arguments: argparse.Namespace) -> dict:
        head = {
            "responses_file": str(self.file),
            "prompts": len(self.answers),
            "responses": sum(len(prompt.responses) for prompt in self.answers),
            "metrics": list(arguments.metrics),
        }
        if arguments.by:
            head[f"by_{arguments.by}"] = [group.json(arguments.by) for group in self.groups]
        if arguments.values:
            head["values"] = [prompt.json() for prompt in self.values]
        return report(head, self.figures)


def _measure(name: str, file: Path, answers: list[Answers], arguments: argparse.Namespace) -> _Measured:
    # Metrics see one file: judges keep their answers beside it.
    own = {**vars(arguments), "responses": file}

    def metrics(whole_file: bool) -> list:
        options = argparse.Namespace(**own, whole_file=whole_file)
        return [functools.partial(_figures, metric, options) for metric in arguments.metrics]

    return _Measured(
        name,
        file,
        answers,
        [figure for metric in metrics(True) for figure in metric(answers)],
        values_of(answers, arguments.targets) if arguments.values else [],
        groups.groups_of(answers, arguments.by, metrics(False)) if arguments.by else [],
    )


def _figures(metric: str, arguments: argparse.Namespace, answers: list[Answers]) -> list[Figure]:
    return importlib.import_module(METRICS[metric][0]).figures(answers, arguments)


def _lines(found: list[_Measured], arguments: argparse.Namespace) -> list[str]:
    several = len(found) > 1
    lines = (
        table_of_files([one.name for one in found], [one.figures for one in found])
        if several
        else table(found[0].figures)
    )
    for one in found:
        for more in (
            groups.group_lines(one.groups, arguments.by) if one.groups else [],
            value_lines(one.values, arguments.values) if one.values else [],
        ):
            if more:
                lines += ["", *([one.name] if several else []), *more]
    return lines


def _file_names(arguments: argparse.Namespace) -> list[str]:
    """Of the columns. Errors: UsageError."""
    files = arguments.responses
    names = arguments.names or [str(file) for file in files]
    if len(names) != len(files):
        raise UsageError(f"--names has {len(names)} names for {len(files)} files; give one name per file")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"two files are '{twice}'; give each file once, or tell them apart with --names")
    return names


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise argparse.ArgumentTypeError(f"'{text}' has an empty name")
    return words


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no number of values; it takes 1 or more")
    return int(text)


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

"""All figures of what was read, in the order of the page.

Owns: the order, unique names, which runs get a picture of their tree. Does not own: figures. Thread rule:
free of state.
"""

from __future__ import annotations

import difflib

from plural_text.common.errors import UsageError
from plural_text.report.comparison import sweep_figures, trade_offs
from plural_text.report.curves import curves
from plural_text.report.distributions import entropy_figure, latent_figure, target_figures
from plural_text.report.figure import Figure, safe
from plural_text.report.sources import Sources
from plural_text.report.step_time import time_figure
from plural_text.report.token_tree import NoTree, read_tree
from plural_text.report.tree_figure import tree_figure

# Each takes a process and is of interest once per method.
MAX_TREES = 6


def all_figures(sources: Sources) -> tuple[list[Figure], list[str]]:
    """The figures, and why some are not there."""
    compared, notes = trade_offs(sources.figures)
    trees, reasons = _trees(sources, MAX_TREES)
    found = [
        *(sweep_figures(sources.sweep) if sources.sweep else []),
        *compared,
        *curves(sources.runs),
        *target_figures(sources.answers, sources.targets),
        *entropy_figure(sources.prompts),
        *latent_figure(sources.answers),
        *time_figure(sources.runs),
        *trees,
    ]
    return [safe(figure) for figure in found], notes + reasons


def figure_named(sources: Sources, name: str) -> Figure:
    """The one figure; others are not made, as far as the name tells them apart. Errors: UsageError that tells
    which there are, and why some are not."""
    for figure in _candidates(sources, name):
        if figure.name == name:
            return safe(figure)
    figures, notes = all_figures(sources)
    names = [figure.name for figure in figures]
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    known = ", ".join(names) or "none"
    reasons = "".join(f"; {note}" for note in [*sources.notes, *notes])
    raise UsageError(
        f"no figure '{name}' can be drawn of these files; {hint}those that can: {known}{reasons}"
    )


def _candidates(sources: Sources, name: str) -> list[Figure]:
    """Figures among which the named one is, if it is there at all."""
    begin, _, last = name.partition("-")
    if begin == "sweep" or name.startswith("sweep."):
        return sweep_figures(sources.sweep) if sources.sweep else []
    if begin == "tree":  # each takes a process
        return _trees(sources, min(int(last), MAX_TREES))[0] if last.isdecimal() and len(last) < 3 else []
    if begin == "targets":
        return target_figures(sources.answers, sources.targets)
    if name == "profile":
        return time_figure(sources.runs)
    if name == "target-entropy":
        return entropy_figure(sources.prompts)
    if name == "latent-answers":
        return latent_figure(sources.answers)
    return curves(sources.runs, name) or trade_offs(sources.figures)[0]


def _trees(sources: Sources, most: int) -> tuple[list[Figure], list[str]]:
    """One tree for each method and corpus, the first `most`, and why others are not there."""
    found, notes, seen = [], [], set()
    for run in sources.runs:
        settings = tuple(str(run.setting(key)) for key in ("method", "data.train", "group.responses"))
        if settings in seen or len(found) >= most:
            continue
        seen.add(settings)
        try:
            found.append(tree_figure(f"tree-{len(found) + 1}", run.name, read_tree(run)))
        except NoTree as problem:
            notes.append(f"{run.name}: no picture of a token tree: {problem}")
    return found, notes

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
    trees, notes = _trees(sources)
    found = [
        *(sweep_figures(sources.sweep) if sources.sweep else []),
        *trade_offs(sources.figures),
        *curves(sources.runs),
        *target_figures(sources.answers, sources.targets),
        *entropy_figure(sources.prompts),
        *latent_figure(sources.answers),
        *time_figure(sources.runs),
        *trees,
    ]
    return [safe(figure) for figure in found], notes


def named(figures: list[Figure], name: str) -> Figure:
    """Errors: UsageError that tells which there are."""
    for figure in figures:
        if figure.name == name:
            return figure
    names = [figure.name for figure in figures]
    near = difflib.get_close_matches(name, names, 1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'? " if near else ""
    known = ", ".join(names) or "none"
    raise UsageError(f"no figure '{name}' can be drawn of these files; {hint}those that can: {known}")


def _trees(sources: Sources) -> tuple[list[Figure], list[str]]:
    """One tree for each method and corpus."""
    found, notes, seen = [], [], set()
    for run in sources.runs:
        settings = tuple(str(run.setting(key)) for key in ("method", "data.train", "group.responses"))
        if settings in seen or len(found) == MAX_TREES:
            continue
        seen.add(settings)
        try:
            found.append(tree_figure(f"tree-{len(found) + 1}", run.name, read_tree(run)))
        except NoTree as problem:
            notes.append(f"{run.name}: no picture of a token tree: {problem}")
    return found, notes

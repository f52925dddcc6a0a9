"""What a figure was measured on: figures of different corpora or settings are not compared.

Owns: the key of a figure, its words, the groups of what may stand side by side. Does not own: figures. Thread
rule: free of state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from plural_text.report.runs import Run
from plural_text.report.token_tree import NoTree, corpus_of

# (what, value) in the order of the words, such as (("corpus", "test.h5"), ("groups", 64)).
Key = tuple[tuple[str, object], ...]
Item = TypeVar("Item")

# Figures of a validation line that depend on how responses were sampled.
_SAMPLED = {"different_responses", "token_distinct_1", "token_distinct_2", "finished_share"}


def validated_on(run: Run, figure: str = "") -> Key:
    """Of a figure of the run's validation lines: corpus and groups, of figures of sampled responses also how
    many and at which temperature. Without a name: all of it. () of a run that was not validated."""
    line = run.events.get("validation", [{}])[-1]
    if not line:
        return ()
    names = ["groups"] + ["responses", "temperature"] * (not figure or figure in _SAMPLED)
    try:
        corpus = str(corpus_of(run, "data.validation"))
    except NoTree:  # what the recipe says is all there is
        corpus = str(run.setting("data.validation"))
    return (("corpus", corpus), *((name, _plain(line[name])) for name in names if name in line))


def words(key: Key) -> str:
    """Such as "test.h5, groups 64, temperature 1"."""
    parts = [str(value).rpartition("/")[2] if name == "corpus" else f"{name} {value}" for name, value in key]
    return ", ".join(parts) or "unknown data"


def told_apart(keys: Iterable[Key]) -> Callable[[Key], str]:
    """Words by which different keys differ: paths are whole where names of files are equal."""
    shown = [words(key) for key in set(keys)]
    if len(set(shown)) == len(shown):
        return words
    return lambda key: ", ".join(str(v) if name == "corpus" else f"{name} {v}" for name, v in key)


def alike(items: Iterable[Item], key_of: Callable[[Item], object]) -> list[list[Item]]:
    """The items in groups of one key, the largest group first, else in the order in which they come."""
    groups: dict[object, list[Item]] = {}
    for item in items:
        groups.setdefault(key_of(item), []).append(item)
    return sorted(groups.values(), key=lambda group: -len(group))


def _plain(value: object) -> object:
    """Something that can be compared, whatever a file holds."""
    return value if isinstance(value, (int, float, str)) else str(value)

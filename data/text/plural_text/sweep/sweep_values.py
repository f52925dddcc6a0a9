"""The values of a sweep file.

Owns: their types, when two values are the same. Does not own: reading and checking them (sweep_file.py).
Thread rule: values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Evaluation:
    """What is done with a trained model: options of commands, without what the sweep itself gives them."""

    name: str  # "" for a single one
    steps: Mapping[str, Mapping[str, Any]]  # generate, metrics, evaluate -> option -> value
    where: Mapping[str, Any] = field(default_factory=dict)  # which settings are measured so


@dataclass(frozen=True)
class When:
    where: Mapping[str, Any]
    values: Mapping[str, Any]
    drop: tuple[str, ...]


@dataclass(frozen=True)
class Pareto:
    x: str
    y: str
    x_better: str = "higher"
    y_better: str = "higher"


@dataclass(frozen=True)
class Search:
    trials: int
    sampler: str
    seed: int
    objectives: Mapping[str, str]
    space: Mapping[str, Any]


@dataclass(frozen=True)
class SweepFile:
    """`folder`: of the sweep. `bases`: recipe files, {seed} in them is a run's seed. Mappings of recipe keys
    have dotted keys."""

    file: Path
    name: str
    folder: Path
    bases: tuple[Path, ...]
    common: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, list] = field(default_factory=dict)
    zips: tuple[Mapping[str, list], ...] = ()
    include: tuple[Mapping[str, Any], ...] = ()
    untrained: bool = False
    exclude: tuple[Mapping[str, Any], ...] = ()
    when: tuple[When, ...] = ()
    seeds: tuple[int, ...] = ()  # none: the recipe's own
    baseline: Mapping[str, Any] | None = None
    evaluations: tuple[Evaluation, ...] = ()
    figures: tuple[str, ...] = ()
    pareto: Pareto | None = None
    stop_on_failure: bool = False
    ranks: int = 1
    threads: int = 1
    search: Search | None = None

    def bases_of(self, overrides: Mapping[str, Any], seed: int | None) -> list[Path]:
        """What a run inherits: the sweep's bases, then that of its setting. Without a seed, as written."""
        own = [self.file.parent / overrides["base"]] if "base" in overrides else []
        files = [*self.bases, *own]
        return files if seed is None else [Path(str(one).replace("{seed}", str(seed))) for one in files]


def same(a: Any, b: Any) -> bool:
    """Equality of values as YAML has them: 1 is 1.0, but not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b

"""What a sweep file says, checked.

Owns: reading the file, every check that needs no program and no corpus. Does not own: the settings that
follow from it (expand.py), whether recipes are valid (identity.py). Thread rule: values.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadRecipe, MissingInput
from plural_text.sweep.located_yaml import Located, read_located
from plural_text.sweep.schema import PARTS

_RUN_KEYS = {"name": "the sweep names its runs", "run.dir": "runs lie in the sweep's folder"}
_STEP_OPTIONS = {"model", "adapter", "output", "o", "force", "quiet", "threads", "stream", "responses_file"}


@dataclass(frozen=True)
class Evaluation:
    """What is done with a trained model: options of commands, without what the sweep itself gives them."""

    name: str  # "" for a single one
    steps: Mapping[str, Mapping[str, Any]]  # generate, metrics, evaluate -> option -> value


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
    """`folder`: of the sweep. `bases`: recipe files. Mappings of recipe keys have dotted keys."""

    file: Path
    name: str
    folder: Path
    bases: tuple[Path, ...]
    common: Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, list] = field(default_factory=dict)
    zips: tuple[Mapping[str, list], ...] = ()
    include: tuple[Mapping[str, Any], ...] = ()
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


def read_sweep(file: Path) -> SweepFile:
    """Errors: MissingInput, BadRecipe that names file, line and key."""
    return _Reader(read_located(file)).sweep()


class _Reader:
    def __init__(self, source: Located):
        self.source = source

    def sweep(self) -> SweepFile:
        values = self.source.values
        self.known((), values, "")
        name = self.text("name", self.source.file.stem)
        if "/" in name or name in ("", ".", ".."):
            self.refuse(("name",), f"name is '{name}'; it is the name of a folder")
        zips = values.get("zip", {})
        sweep = SweepFile(
            file=self.source.file,
            name=name,
            folder=Path(self.text("dir", "runs/sweeps")) / name,
            bases=self.bases(),
            common=self.recipe_keys(("set",), values.get("set", {})),
            grid=self.lists(("grid",), values.get("grid", {})),
            zips=tuple(
                self.equal_lists(("zip", i) if isinstance(zips, list) else ("zip",), one)
                for i, one in enumerate(zips if isinstance(zips, list) else [zips])
                if one
            ),
            include=self.mappings("include"),
            exclude=self.mappings("exclude"),
            when=tuple(self.condition(i, one) for i, one in enumerate(self.list_of("when"))),
            seeds=self.seeds(),
            baseline=self.recipe_keys(("baseline",), values["baseline"]) if "baseline" in values else None,
            evaluations=self.evaluations(),
            figures=self.names("figures"),
            pareto=self.pareto(),
            stop_on_failure=self.choice(("on_failure",), "continue", ("continue", "stop")) == "stop",
            ranks=self.whole(("ranks",), 1, 1),
            threads=self.whole(("threads",), 1, 1),
            search=self.search(),
        )
        if sweep.search and (sweep.grid or sweep.zips or sweep.include):
            self.refuse(("search",), "search stands beside grid, zip or include; leave one of them")
        return sweep

    # Errors and plain types.

    def refuse(self, path: Iterable[Hashable], message: str) -> None:
        raise BadRecipe(f"{self.source.where(*path)}: {message}")

    def at(self, path: tuple[Hashable, ...], default: Any = None) -> Any:
        value: Any = self.source.values
        for part in path:
            if not isinstance(value, dict) or part not in value:
                return default
            value = value[part]
        return value

    def known(self, path: tuple[Hashable, ...], values: Any, part: str) -> None:
        """Only the keys of this part, and all that it needs."""
        names = [key.name for key in PARTS[part]]
        if not isinstance(values, dict):
            self.refuse(path, f"{part or 'a sweep file'} is a mapping of {', '.join(names)}")
        for key in values:
            if key not in names:
                near = difflib.get_close_matches(key, names, 1, cutoff=0.5)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"
                inside = f" in {part}" if part else ""
                self.refuse((*path, key), f"unknown key '{key}'{inside}; {hint}")
        for key in PARTS[part]:
            if not key.default and key.name not in values:
                self.refuse(path, f"{part + '.' if part else ''}{key.name} is missing: {key.takes}")

    def text(self, key: str, default: str) -> str:
        value = self.at((key,), default)
        if not isinstance(value, str):
            self.refuse((key,), f"{key} is {value!r}; it takes a text")
        return value

    def whole(self, path: tuple[Hashable, ...], default: int, least: int) -> int:
        value = self.at(path, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            self.refuse(path, f"{'.'.join(map(str, path))} is {value!r}; a whole number, at least {least}")
        return value

    def choice(self, path: tuple[Hashable, ...], default: str, allowed: tuple[str, ...]) -> str:
        value = self.at(path, default)
        if value not in allowed:
            self.refuse(path, f"{'.'.join(map(str, path))} is {value!r}; allowed are {', '.join(allowed)}")
        return value

    def list_of(self, key: str) -> list:
        value = self.at((key,), [])
        if not isinstance(value, list):
            self.refuse((key,), f"{key} is a list")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        found = self.list_of(key)
        for i, name in enumerate(found):
            if not isinstance(name, str):
                self.refuse((key, i), f"{key} is a list of names, here is {name!r}")
        return tuple(found)

    # Parts.

    def bases(self) -> tuple[Path, ...]:
        value = self.at(("base",))
        files = value if isinstance(value, list) else [value]
        for i, file in enumerate(files):
            if not isinstance(file, str):
                self.refuse(("base", i), f"base is a recipe file or a list of them, here is {file!r}")
            if not (self.source.file.parent / file).is_file():
                found = self.source.file.parent / file
                where = self.source.where("base", i)
                raise MissingInput(
                    f"{where}: base: no recipe at '{found}'; a path starts in the sweep's folder"
                )
        return tuple(self.source.file.parent / file for file in files)

    def recipe_keys(self, path: tuple[Hashable, ...], values: Any) -> dict[str, Any]:
        """Dotted keys; a section may also be written as a mapping. Not those that the sweep itself sets."""
        if not isinstance(values, dict):
            self.refuse(path, f"{path[0]} is a mapping of recipe keys such as optimizer.lr")
        flat: dict[str, Any] = {}
        for key, value in values.items():
            if isinstance(value, dict):
                inner = self.recipe_keys((*path, key), value)
                flat.update({f"{key}.{name}": one for name, one in inner.items()})
            else:
                flat[key] = value
        for key in flat:
            if key in _RUN_KEYS:
                self.refuse((*path, key), f"{key} cannot be set in a sweep: {_RUN_KEYS[key]}")
            if key == "seed":
                self.refuse((*path, key), "a sweep takes its seeds from the key seeds: [1, 2, 3]")
        return flat

    def lists(self, path: tuple[Hashable, ...], values: Any) -> dict[str, list]:
        found = self.recipe_keys(path, values)
        for key, items in found.items():
            if not isinstance(items, list) or not items:
                self.refuse((*path, key), f"{key} is {items!r}; {path[0]} takes a list of values per key")
            for i, item in enumerate(items):
                if any(same(item, other) for other in items[:i]) and path[0] == "grid":
                    self.refuse((*path, key, i), f"{key} has {item!r} twice; leave one")
        return found

    def equal_lists(self, path: tuple[Hashable, ...], values: Any) -> dict[str, list]:
        found = self.lists(path, values)
        counts = {key: len(items) for key, items in found.items()}
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{key} has {count}" for key, count in counts.items())
            self.refuse(path, f"values of zip go together, so lists are of one length: {told}")
        return found

    def mappings(self, key: str) -> tuple[dict[str, Any], ...]:
        return tuple(self.recipe_keys((key, i), one) for i, one in enumerate(self.list_of(key)))

    def condition(self, i: int, values: Any) -> When:
        path = ("when", i)
        self.known(path, values, "when")
        drop = values.get("drop", [])
        if not isinstance(drop, list) or not all(isinstance(key, str) for key in drop):
            self.refuse((*path, "drop"), "drop is a list of recipe keys")
        return When(
            self.recipe_keys((*path, "if"), values["if"]),
            self.recipe_keys((*path, "set"), values.get("set", {})),
            tuple(drop),
        )

    def seeds(self) -> tuple[int, ...]:
        found = self.list_of("seeds")
        for i, seed in enumerate(found):
            if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
                self.refuse(("seeds", i), f"seeds has {seed!r}; a seed is a whole number, at least 0")
            if seed in found[:i]:
                self.refuse(("seeds", i), f"seed {seed} stands there twice; leave one")
        return tuple(found)

    def evaluations(self) -> tuple[Evaluation, ...]:
        value = self.at(("evaluate",), {})
        found = []
        several = isinstance(value, list)
        for i, one in enumerate(value if several else [value]):
            path = ("evaluate", i) if several else ("evaluate",)
            self.known(path, one, "evaluate")
            name = one.get("name", "")
            if several and (not isinstance(name, str) or not name or "." in name or "/" in name):
                self.refuse(path, "each of several evaluations has a name, a text without '.' and '/'")
            if any(name == other.name for other in found):
                self.refuse((*path, "name"), f"the name '{name}' stands there twice")
            steps = {key: options or {} for key, options in one.items() if key != "name"}
            for step, options in steps.items():
                if step != "program":
                    self.step((*path, step), options)
            if "program" in steps:
                steps["program"] = {"words": self.words((*path, "program"), steps["program"])}
            if "metrics" in steps and "generate" not in steps:
                self.refuse((*path, "metrics"), "metrics measures what generate answers; add generate")
            if steps:
                found.append(Evaluation(name, steps))
        return tuple(found)

    def step(self, path: tuple[Hashable, ...], options: Any) -> None:
        if not isinstance(options, dict):
            self.refuse(path, f"{path[-1]} is a mapping of the options of plural {path[-1]}")
        for option in options:
            if option.replace("-", "_") in _STEP_OPTIONS:
                self.refuse((*path, option), f"{option} is given by the sweep itself; leave it out")

    def words(self, path: tuple[Hashable, ...], value: Any) -> list[str]:
        """Of the user's own program."""
        words = shlex.split(value) if isinstance(value, str) else value
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            self.refuse(path, "program is a text or a list of texts: a program and its arguments")
        if not any("{output}" in word for word in words):
            self.refuse(path, "program names no {output}, the file that it writes its figures to")
        return words

    def pareto(self) -> Pareto | None:
        values = self.at(("pareto",))
        if values is None:
            return None
        self.known(("pareto",), values, "pareto")
        better = [self.choice(("pareto", f"{axis}_better"), "higher", ("higher", "lower")) for axis in "xy"]
        for axis in "xy":
            if not isinstance(values[axis], str):
                self.refuse(("pareto", axis), f"{axis} is the name of a figure")
        return Pareto(values["x"], values["y"], *better)

    def search(self) -> Search | None:
        values = self.at(("search",))
        if values is None:
            return None
        self.known(("search",), values, "search")
        objectives = values["objectives"]
        if not isinstance(objectives, dict) or not objectives:
            self.refuse(
                ("search", "objectives"), "objectives is a mapping of figures to maximize or minimize"
            )
        for name in objectives:
            self.choice(("search", "objectives", name), "", ("maximize", "minimize"))
        space = values["space"]
        if not isinstance(space, dict) or not space:
            self.refuse(
                ("search", "space"), "space is a mapping of recipe keys to the values that may be chosen"
            )
        for key, one in space.items():
            self.choices(("search", "space", key), one)
        return Search(
            self.whole(("search", "trials"), 0, 1),
            self.choice(("search", "sampler"), "tpe", ("tpe", "random", "nsga2", "gp")),
            self.whole(("search", "seed"), 42, 0),
            objectives,
            space,
        )

    def choices(self, path: tuple[Hashable, ...], value: Any) -> None:
        """One key of search.space."""
        key = path[-1]
        if isinstance(value, list) and value:
            return
        numbers = isinstance(value, dict) and all(
            isinstance(value.get(end), (int, float)) and not isinstance(value.get(end), bool)
            for end in ("low", "high")
        )
        if not numbers or not set(value) <= {"low", "high", "step", "log"} or value["low"] > value["high"]:
            self.refuse(
                path,
                f"{key} takes a list of values, or {{low: NUMBER, high: NUMBER, step: NUMBER or log: true}}",
            )
        if "log" in value and (not isinstance(value["log"], bool) or "step" in value or value["low"] <= 0):
            self.refuse(path, f"{key}: log is true or false, for numbers above 0 and without step")


def same(a: Any, b: Any) -> bool:
    """Equality of values as YAML has them: 1 is 1.0, but not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b

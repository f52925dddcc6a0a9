"""What a sweep file says, checked.

Owns: reading the file, every check that needs no program and no corpus. Does not own: the types
of its values (sweep_values.py), the settings that follow from them (expand.py), whether recipes are valid
(identity.py). Thread rule: values.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from plural_text.common.errors import BadRecipe, MissingInput
from plural_text.sweep.figures import is_finite
from plural_text.sweep.located_yaml import Located, read_located
from plural_text.sweep.schema import PARTS
from plural_text.sweep.sweep_values import Evaluation, Pareto, Search, SweepFile, When, same

_RUN_KEYS = {
    "name": "the sweep names its runs",
    "run.dir": "runs lie in the sweep's folder",
    "run.threads": "the key threads gives them",
    "seed": "the key seeds gives them: [1, 2, 3]",
}
_STEP_OPTIONS = {
    "model",
    "adapter",
    "output",
    "o",
    "force",
    "quiet",
    "threads",
    "stream",
    "responses_file",
    "figures",
}


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
        zips = values.get("zip") or []
        if "zip" in values and not isinstance(values["zip"], (dict, list)):
            self.refuse(("zip",), f"zip is {values['zip']!r}; it takes a mapping of lists, or a list of them")
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
            ),
            include=self.mappings("include"),
            untrained=self.flag("untrained"),
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
        if sweep.search:
            for key in ("grid", "zip", "include", "untrained", "exclude", "baseline"):
                if values.get(key):
                    self.refuse(
                        (key,), f"{key} stands beside search, which chooses settings; leave one of them"
                    )
            for i, one in enumerate(sweep.when):
                if one.drop:
                    self.refuse(("when", i, "drop"), "drop stands beside search; leave one of them")
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
        if not isinstance(value, str) or not value.isprintable():
            self.refuse((key,), f"{key} is {value!r}; it takes a text of printable characters")
        return value

    def flag(self, key: str) -> bool:
        value = self.at((key,), False)
        if not isinstance(value, bool):
            self.refuse((key,), f"{key} is {value!r}; it takes true or false")
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
        flat = self.flat(path, values)
        for key in flat:
            self.not_of_runs((*path, key))
        return flat

    def flat(self, path: tuple[Hashable, ...], values: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            inner = {key: value}
            if isinstance(value, dict):
                inner = {f"{key}.{name}": one for name, one in self.flat((*path, key), value).items()}
            for name, one in inner.items():
                if name in found:
                    self.refuse((*path, key), f"{name} stands there twice, also within a section; leave one")
                found[name] = one
        for name in found:
            whole = next((other for other in found if name.startswith(f"{other}.")), None)
            if whole:
                self.refuse((*path, whole), f"{whole} is set as a whole, and so is {name}; leave one")
        return found

    def not_of_runs(self, path: tuple[Hashable, ...]) -> None:
        """path: ends with a dotted recipe key."""
        if path[-1] in _RUN_KEYS:
            self.refuse(path, f"{path[-1]} cannot be set in a sweep: {_RUN_KEYS[path[-1]]}")

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
        where = self.recipe_keys((*path, "if"), values["if"])
        given = self.recipe_keys((*path, "set"), values.get("set", {}))
        for key in given:
            if key.startswith("evaluate."):
                self.option((*path, "set", key), key.rpartition(".")[2])
        return When(where, given, tuple(drop))

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
            named = isinstance(name, str) and name and not re.search(r"[./]", name)
            if not named and ("name" in one or several):
                self.refuse(
                    path, "an evaluation's name, which each of several has, is a text without . and /"
                )
            if any(name == other.name for other in found):
                self.refuse((*path, "name"), f"the name '{name}' stands there twice")
            where = self.recipe_keys((*path, "if"), one.get("if", {}))
            steps = {
                key: {} if given is None else given for key, given in one.items() if key not in ("name", "if")
            }
            for step, options in steps.items():
                if step != "program":
                    self.step((*path, step), options)
            if "program" in steps:
                steps["program"] = {"words": self.words((*path, "program"), steps["program"])}
            if "metrics" in steps and "generate" not in steps:
                self.refuse((*path, "metrics"), "metrics measures what generate answers; add generate")
            reads = any("{responses}" in word for word in steps.get("program", {}).get("words", ()))
            if reads and "generate" not in steps:
                self.refuse(
                    (*path, "program"), "program reads {responses}, what generate answers; add generate"
                )
            if steps:
                found.append(Evaluation(name, steps, where))
        return tuple(found)

    def step(self, path: tuple[Hashable, ...], options: Any) -> None:
        if not isinstance(options, dict):
            self.refuse(path, f"{path[-1]} is a mapping of the options of plural {path[-1]}")
        for option in options:
            self.option((*path, option), option)

    def option(self, path: tuple[Hashable, ...], option: str) -> None:
        if option.replace("-", "_") in _STEP_OPTIONS:
            self.refuse(path, f"{option} is given by the sweep itself; leave it out")

    def words(self, path: tuple[Hashable, ...], value: Any) -> list[str]:
        """Of the user's own program."""
        try:
            words = shlex.split(value) if isinstance(value, str) else value
        except ValueError as error:
            self.refuse(path, f"program cannot be split into words: {str(error).lower()}")
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
        self.not_of_runs(path)
        if isinstance(value, list) and value:
            for i, item in enumerate(value):
                if any(same(item, other) for other in value[:i]):
                    self.refuse((*path, i), f"{key} has {item!r} twice; leave one")
            return
        numbers = isinstance(value, dict) and all(is_finite(value.get(end)) for end in ("low", "high"))
        if not numbers or not set(value) <= {"low", "high", "step", "log"} or value["low"] > value["high"]:
            self.refuse(
                path,
                f"{key} takes a list of values, or {{low: NUMBER, high: NUMBER, step: NUMBER or log: true}}",
            )
        if "step" in value and (not is_finite(value["step"]) or value["step"] <= 0):
            self.refuse(path, f"{key}: step is {value['step']!r}; it takes a number above 0")
        if "log" in value and (not isinstance(value["log"], bool) or "step" in value or value["low"] <= 0):
            self.refuse(path, f"{key}: log is true or false, for numbers above 0 and without step")

"""A sweep's table: table.json of its folder.

Owns: reading and checking it. Does not own: how it is made. Thread rule: values. Numbers that are null are
None; paths are relative to the table's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import finite, kind, read_object

TABLE = "table.json"
STATES = ("finished", "failed", "running", "waiting")
NUMBERS = ("mean", "ci_low", "ci_high", "difference", "difference_low", "difference_high", "p", "p_holm")


@dataclass(frozen=True)
class Row:
    """One run of a sweep. `failure`: (exit code, step, message) as texts."""

    label: str
    arm: str
    settings: dict
    seed: object
    state: str
    figures: dict[str, float | None]
    failure: tuple[str, str, str] | None
    run: Path | None
    responses: Path | None


@dataclass(frozen=True)
class Arm:
    """All seeds of one setting. `figures`: name -> the NUMBERS and "seeds_needed"."""

    arm: str
    settings: dict
    seeds: int
    failed: int
    figures: dict[str, dict[str, float | None]]


@dataclass(frozen=True)
class Pareto:
    x: str
    y: str
    x_better: str
    y_better: str
    front: list[str]


@dataclass(frozen=True)
class Sweep:
    name: str
    folder: Path
    baseline: str
    axes: list[str]
    figures: list[str]
    pareto: Pareto | None
    rows: list[Row]
    arms: list[Arm]


def read_sweep(folder: Path) -> Sweep:
    """Errors: MissingInput, BadData naming the key."""
    path = folder / TABLE
    table = read_object(path)
    rows = [
        _row(fields, f"{path}: rows[{i}]", folder)
        for i, fields in enumerate(_get(table, "rows", list, f"{path}"))
    ]
    arms = [
        _arm(fields, f"{path}: arms[{i}]") for i, fields in enumerate(_get(table, "arms", list, f"{path}"))
    ]
    return Sweep(
        _get(table, "name", str, f"{path}"),
        folder,
        table["baseline"] if isinstance(table.get("baseline"), str) else "",
        [str(axis) for axis in _get(table, "axes", list, f"{path}")],
        [str(name) for name in _get(table, "figures", list, f"{path}")],
        None if table.get("pareto") is None else _pareto(table["pareto"], f"{path}: key 'pareto'"),
        rows,
        arms,
    )


def _row(fields, where: str, folder: Path) -> Row:
    state = _get(fields, "state", str, where)
    if state not in STATES:
        raise BadData(f"{where}: key 'state' holds '{state}', must hold one of {', '.join(STATES)}")
    failure = fields.get("failure")
    if failure is not None and not isinstance(failure, dict):
        raise BadData(f"{where}: key 'failure' holds {kind(failure)}, must hold an object or null")
    return Row(
        _get(fields, "label", str, where),
        _get(fields, "arm", str, where),
        _get(fields, "settings", dict, where),
        fields.get("seed"),
        state,
        {name: finite(value) for name, value in _get(fields, "figures", dict, where).items()},
        failure and tuple(str(failure.get(key, "")) for key in ("exit_code", "step", "message")),
        *(folder / fields[key] if isinstance(fields.get(key), str) else None for key in ("run", "responses")),
    )


def _arm(fields, where: str) -> Arm:
    figures = {}
    for name, numbers in _get(fields, "figures", dict, where).items():
        if not isinstance(numbers, dict):
            raise BadData(f"{where}: key 'figures.{name}' holds {kind(numbers)}, must hold an object")
        figures[name] = {key: finite(numbers.get(key)) for key in (*NUMBERS, "seeds_needed")}
    return Arm(
        _get(fields, "arm", str, where),
        _get(fields, "settings", dict, where),
        _get(fields, "seeds", int, where),
        _get(fields, "failed", int, where),
        figures,
    )


def _pareto(fields, where: str) -> Pareto:
    better = [_get(fields, key, str, where) for key in ("x_better", "y_better")]
    for key, word in zip(("x_better", "y_better"), better):
        if word not in ("higher", "lower"):
            raise BadData(f"{where}: '{key}' holds '{word}', must hold higher or lower")
    x, y = (_get(fields, key, str, where) for key in ("x", "y"))
    return Pareto(x, y, *better, [str(label) for label in _get(fields, "front", list, where)])


def _get(fields, key: str, type_: type, where: str):
    if not isinstance(fields, dict):
        raise BadData(f"{where} holds {kind(fields)}, must hold an object")
    if not isinstance(fields.get(key), type_) or isinstance(fields.get(key), bool):
        found = f"holds {kind(fields[key])}" if key in fields else "is missing"
        raise BadData(f"{where}: key '{key}' {found}, must hold {kind(type_())}; see docs/report.md")
    return fields[key]

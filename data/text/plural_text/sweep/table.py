"""What came out of a sweep: its rows, its settings over seeds, comparisons, winners.

Owns: table.json and "table.md" in the sweep's folder. Does not own: figures (work.py), their statistics
(statistics.py), the page (report/). Thread rule: values.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from plural_text.sweep import statistics
from plural_text.sweep.expand import Setting
from plural_text.sweep.files import write_whole
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run
from plural_text.sweep.sweep_values import SweepFile

# Words in a figure's name that say which way is better.
_LOWER = ("incoheren", "perplexity", "loss", "kl_", "self_bleu", "invalid", "cross_entropy", "nats_per_token")
_HIGHER = ("distinct", "diversity", "coverage", "entropy", "mass")


def make_table(
    sweep: SweepFile,
    folder: SweepFolder,
    settings: Sequence[Setting],
    runs: Sequence[Run],
    baseline: Setting | None,
) -> dict[str, Any]:
    """The whole of table.json."""
    rows = [_row(folder, run) for run in runs]
    names = _figures(sweep, rows)
    arms = [
        _arm(setting, [row for row in rows if row["arm"] == setting.label], names) for setting in settings
    ]
    if baseline:
        _compare(arms, rows, names, baseline.label)
    return {
        "name": sweep.name,
        "baseline": baseline.label if baseline else None,
        "axes": list(dict.fromkeys(key for setting in settings for key in setting.chosen)),
        "figures": names,
        "pareto": _pareto(sweep, arms),
        "winners": [found for name in names if (found := _winner(sweep, name, arms))],
        "rows": rows,
        "arms": arms,
    }


def keep_table(folder: SweepFolder, table: Mapping[str, Any]) -> tuple[Path, Path]:
    """Both files in the sweep's folder. Errors: WriteFailed."""
    values, text = folder.root / "table.json", folder.root / "table.md"
    write_whole(values, json.dumps(table, indent=1) + "\n")
    write_whole(text, markdown(table))
    return values, text


def markdown(table: Mapping[str, Any]) -> str:
    """Failures, a line per setting, comparisons with the baseline, winners."""
    lines = [f"# {table['name']}", ""]
    states = [row["state"] for row in table["rows"]]
    counts = ", ".join(
        f"{states.count(s)} {s}" for s in ("finished", "failed", "running", "waiting") if s in states
    )
    lines += [f"{len(states)} runs: {counts}.", ""]
    failed = [row for row in table["rows"] if row["failure"]]
    if failed:
        lines += ["## Failed runs", "", "| run | step | exit code | error |", "|---|---|---|---|"]
        for row in failed:
            failure = row["failure"]
            message = failure["message"].replace("|", "\\|")
            lines.append(f"| {row['label']} | {failure['step']} | {failure['exit_code']} | {message} |")
        lines.append("")
    lines += ["## Settings", "", "Mean over seeds, with the 95 % t interval.", ""]
    lines += _arm_lines(table)
    if table["baseline"]:
        lines += _comparison_lines(table)
    if table["winners"]:
        lines += [
            "",
            "## Best settings",
            "",
            "| figure | best | setting | told from all others |",
            "|---|---|---|---|",
        ]
        for one in table["winners"]:
            clear = (
                "yes: no interval overlaps" if one["clear"] else f"no: {', '.join(one['overlaps'])} overlap"
            )
            lines.append(
                f"| {one['figure']} | {_number(one['mean'])} ({one['better']}) | {one['arm']} | {clear} |"
            )
    if table["pareto"]:
        pareto = table["pareto"]
        lines += ["", f"Pareto front of {pareto['x']} ({pareto['x_better']} is better) and {pareto['y']} "]
        lines[-1] += (
            f"({pareto['y_better']} is better): {', '.join(pareto['front']) or 'no setting has both'}."
        )
    return "\n".join(lines) + "\n"


def _row(folder: SweepFolder, run: Run) -> dict[str, Any]:
    row = folder.row(run)
    measured = folder.measured(run)
    answers = sorted(measured.glob("**/responses.jsonl"))
    return {
        "id": run.id,
        "label": run.label,
        "arm": run.setting.label,
        "settings": dict(run.setting.chosen),
        "seed": run.seed,
        "state": folder.state(run),
        "figures": row["figures"] if row else {},
        "undefined": row.get("undefined", {}) if row else {},
        "failure": None if row else folder.failure(run),
        "run": None if run.untrained else os.path.relpath(folder.run_folder(run), folder.root),
        "responses": os.path.relpath(answers[0], folder.root) if answers else None,
    }


def _figures(sweep: SweepFile, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = dict.fromkeys(name for row in rows for name in (*row["figures"], *row["undefined"]))
    return list(sweep.figures or found)


def _arm(setting: Setting, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    figures = {}
    for name in names:
        values = [row["figures"][name] for row in rows if name in row["figures"]]
        if values:
            mean = statistics.mean_of(values)
            figures[name] = {
                "seeds": len(values),
                "mean": mean.mean,
                "ci_low": mean.low,
                "ci_high": mean.high,
            }
    undefined = {name: sum(name in row["undefined"] for row in rows) for name in names}
    return {
        "arm": setting.label,
        "settings": dict(setting.chosen),
        "seeds": sum(row["state"] == "finished" for row in rows),
        "failed": sum(row["state"] == "failed" for row in rows),
        "figures": figures,
        "undefined": {name: seeds for name, seeds in undefined.items() if seeds},
    }


def _compare(
    arms: list[dict], rows: Sequence[Mapping[str, Any]], names: Sequence[str], baseline: str
) -> None:
    """Adds the differences to the baseline, corrected over the settings per figure."""
    for name in names:
        base = _by_seed(rows, baseline, name)
        compared = []
        for arm in arms:
            if arm["arm"] == baseline or name not in arm["figures"]:
                continue
            difference = statistics.paired(_by_seed(rows, arm["arm"], name), base)
            if difference:
                compared.append((arm["figures"][name], difference))
        corrected = statistics.holm([difference.p for _, difference in compared])
        for (figure, difference), p_holm in zip(compared, corrected):
            figure |= {
                "paired_seeds": difference.seeds,
                "difference": difference.interval.mean,
                "difference_low": difference.interval.low,
                "difference_high": difference.interval.high,
                "p": difference.p,
                "p_holm": p_holm,
                "seeds_needed": difference.seeds_needed,
            }


def _by_seed(rows: Sequence[Mapping[str, Any]], arm: str, name: str) -> dict[int, float]:
    return {row["seed"]: row["figures"][name] for row in rows if row["arm"] == arm and name in row["figures"]}


def _pareto(sweep: SweepFile, arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    pareto = sweep.pareto
    if pareto is None:
        return None
    both = [arm for arm in arms if pareto.x in arm["figures"] and pareto.y in arm["figures"]]
    points = [(arm["figures"][pareto.x]["mean"], arm["figures"][pareto.y]["mean"]) for arm in both]
    front = statistics.pareto_front(points, pareto.x_better == "higher", pareto.y_better == "higher")
    return {
        "x": pareto.x,
        "y": pareto.y,
        "x_better": pareto.x_better,
        "y_better": pareto.y_better,
        "front": [both[i]["arm"] for i in front],
    }


def better_way(sweep: SweepFile, name: str) -> str | None:
    """higher or lower: what the sweep says, else what the figure's name says."""
    if sweep.pareto and name in (sweep.pareto.x, sweep.pareto.y):
        return sweep.pareto.x_better if name == sweep.pareto.x else sweep.pareto.y_better
    if sweep.search and name in sweep.search.objectives:
        return "higher" if sweep.search.objectives[name] == "maximize" else "lower"
    if any(word in name for word in _LOWER):
        return "lower"
    return "higher" if any(word in name for word in _HIGHER) else None


def _winner(sweep: SweepFile, name: str, arms: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The best mean, and the settings whose intervals overlap with it; None where neither way is better."""
    better = better_way(sweep, name)
    found = [(arm["arm"], arm["figures"][name]) for arm in arms if name in arm["figures"]]
    if better is None or len(found) < 2:
        return None
    best, figure = (max if better == "higher" else min)(found, key=lambda one: one[1]["mean"])
    overlaps = [arm for arm, other in found if arm != best and _overlap(figure, other)]
    return {
        "figure": name,
        "better": better,
        "arm": best,
        "mean": figure["mean"],
        "clear": not overlaps,
        "overlaps": overlaps,
    }


def _overlap(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Without an interval, as of one seed, nothing is told apart."""
    if None in (a["ci_low"], b["ci_low"]):
        return True
    return a["ci_low"] <= b["ci_high"] and b["ci_low"] <= a["ci_high"]


def _arm_lines(table: Mapping[str, Any]) -> list[str]:
    names = table["figures"]
    lines = [f"| setting | seeds | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for arm in table["arms"]:
        cells = [_mean(arm["figures"].get(name), arm["undefined"].get(name, 0)) for name in names]
        seeds = f"{arm['seeds']}" + (f", {arm['failed']} failed" if arm["failed"] else "")
        lines.append(f"| {arm['arm']} | {seeds} | {' | '.join(cells)} |")
    return lines


def _comparison_lines(table: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        f"## Against {table['baseline']}",
        "",
        "Differences over the seeds that both have, with the 95 % interval of the paired t test; p corrected "
        "(Holm) over the settings of a figure; the seeds that would tell such a difference from zero in 80 % "
        "of studies.",
        "",
        "| setting | figure | difference | p | p, corrected | seeds | seeds needed |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in table["arms"]:
        for name in table["figures"]:
            figure = arm["figures"].get(name, {})
            if "difference" not in figure:
                continue
            span = _span(figure["difference"], figure["difference_low"], figure["difference_high"])
            lines.append(
                f"| {arm['arm']} | {name} | {span} | {_number(figure['p'])} | {_number(figure['p_holm'])} "
                f"| {figure['paired_seeds']} | {_number(figure['seeds_needed'])} |"
            )
    return lines


def _mean(figure: Mapping[str, Any] | None, undefined: int) -> str:
    """undefined: the seeds that the mean is without."""
    if figure is None:
        return "undefined" if undefined else "-"
    span = _span(figure["mean"], figure["ci_low"], figure["ci_high"])
    return span + (f", undefined for {undefined} seed(s)" if undefined else "")


def _span(mean: float, low: float | None, high: float | None) -> str:
    return _number(mean) + (f" [{_number(low)}, {_number(high)}]" if low is not None else "")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"

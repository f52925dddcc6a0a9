"""Tables of a sweep: failures first, then arms with their intervals and comparisons, then every run.

Owns: which fields are shown. Does not own: reading the table (sweep.py). Thread rule: free of state.
"""

from __future__ import annotations

from plural_text.report.html_parts import folded, interval, paragraph, table
from plural_text.report.sweep import STATES, Arm, Sweep


def sweep_section(sweep: Sweep) -> str:
    return failures(sweep) + arms(sweep) + runs(sweep)


def failures(sweep: Sweep) -> str:
    counts = {state: sum(row.state == state for row in sweep.rows) for state in STATES}
    counted = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count or state == "failed")
    found = paragraph(f"{sweep.name}: {len(sweep.rows):,} runs: {counted}.")
    failed = [row for row in sweep.rows if row.failure is not None or row.state == "failed"]
    if not failed:
        return found
    rows = [(row.label, row.arm, row.seed, *(row.failure or (None, None, None))) for row in failed]
    head = ("run", "arm", "seed", "exit code", "step", "message")
    warning = f"{len(failed):,} of {len(sweep.rows):,} runs failed; figures of their arms are of the others."
    return found + paragraph(warning, "warning") + table("Failures", head, rows)


def arms(sweep: Sweep) -> str:
    """What arms are, then one table for each figure, narrow enough to be read as a whole."""
    front = sweep.pareto.front if sweep.pareto else []
    settings = [
        (
            arm.arm,
            *(arm.settings.get(axis) for axis in sweep.axes),
            arm.seeds,
            arm.failed,
            "yes" if arm.arm in front else None,
        )
        for arm in sweep.arms
    ]
    head = ["arm", "mean", "interval", f"difference from {sweep.baseline or 'the baseline'}"]
    head += ["interval of it", "p", "p (Holm)", "seeds needed"]
    found = table("Arms", ("arm", *sweep.axes, "seeds", "failed", "Pareto front"), settings)
    return found + "".join(
        table(f"{name} of each arm", head, [_arm_row(arm, name) for arm in sweep.arms])
        for name in sweep.figures
    )


def _arm_row(arm: Arm, name: str) -> tuple:
    numbers = arm.figures.get(name, {})
    get = numbers.get
    return (
        arm.arm,
        get("mean"),
        interval(get("ci_low"), get("ci_high")),
        get("difference"),
        interval(get("difference_low"), get("difference_high")),
        get("p"),
        get("p_holm"),
        get("seeds_needed"),
    )


def runs(sweep: Sweep) -> str:
    head = ("run", "arm", "state", *sweep.axes, "seed", *sweep.figures)
    rows = [
        (
            row.label,
            row.arm,
            row.state,
            *(row.settings.get(axis) for axis in sweep.axes),
            row.seed,
            *(row.figures.get(name) for name in sweep.figures),
        )
        for row in sorted(sweep.rows, key=lambda row: row.state != "failed")
    ]
    return folded("All runs of the sweep", table("Runs of the sweep, failed ones first", head, rows), True)

"""The lines in which a run is shown: the same ones on a terminal and in a file.

Owns: which figures, their order, what is left out where there is little room. Does not own: figures
(run_view.py), the terminal (command.py). Thread rule: pure functions.
"""

from __future__ import annotations

from rich.text import Text

from plural_text.watch.run_view import RunView, number

_COLOURS = {
    "running": "green",
    "starting": "green",
    "finished": "blue",
    "stopped": "yellow",
    "elsewhere": "yellow",
    "failed": "red",
    "ended": "red",
    "unreadable": "red",
}
# Of a step: shown elsewhere, or of no interest beside the others.
_NOT_SHOWN = {
    "event",
    "step",
    "epoch",
    "groups",
    "rows",
    "sequence_tokens",
    "seconds",
    "data_wait_seconds",
    "unpenalised_groups",
    "recomputed_passes",
    "slowest_rank",
    "slowest_rank_seconds",
    "mean_rank_seconds",
    "host_memory_bytes",
    "responses",
    "temperature",
}
# Where there is little room, these stand and others go.
_FIRST = ("loss", "perplexity", "different_responses", "kl_nats", "likelihood", "unlikelihood")
_BAR_COLUMNS = 24
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
_QUIET_SECONDS = 30.0  # without a line, after which this is said


def lines_of(run: RunView, columns: int) -> list[Text]:
    """At most `columns` wide each."""
    state = run.state
    head = [state.word.ljust(8)]
    begin = run.last.get("begin", {})
    if ranks := int(number(begin, "ranks")):
        head.append(f"{ranks} rank{'s' * (ranks > 1)}")
    quiet = run.seconds_since_last_line()
    if state.word in ("running", "elsewhere") and quiet > _QUIET_SECONDS and run.last:
        head.append(f"no line for {duration(quiet)}")
    name = clean(run.name)
    room = max(columns - len(state.word) - 4, 8)
    first = Text(name if len(name) <= room else name[: room - 1] + "…", style="bold")
    first.append("  " + _fitting(head, columns - len(first.plain) - 2), style=_COLOURS[state.word])
    lines = [first]
    if run.last:
        lines.append(_progress(run, columns))
    if step := run.last.get("step"):
        lines.append(_figures("", step, columns))
    if validation := run.last.get("validation"):
        before = f"validation of step {int(number(validation, 'step')):,}"
        lines.append(_figures(before, validation, columns))
    if memory := _memory(run):
        lines.append(_plain(memory, columns))
    if state.detail:
        lines += _wrapped(state.detail, columns, _COLOURS[state.word])
    if run.tracking_error:
        lines += _wrapped(f"tracker: {run.tracking_error}", columns, "yellow")
    if run.unreadable_lines:
        lines.append(_plain([f"{run.unreadable_lines} lines of metrics.jsonl cannot be read"], columns))
    return lines


def _progress(run: RunView, columns: int) -> Text:
    step, last = run.step, run.last_step
    parts = [f"step {step:,} of {last:,}"]
    if last > 0:
        parts.append(f"{100 * step // last} %")
    left = run.seconds_left()
    if run.state.word in ("running", "elsewhere") and left is not None and step < last:
        parts.append(f"{duration(left)} left")
    if rate := run.groups_per_second():
        parts.append(f"{four_digits(rate)} groups/s")
    if "epoch" in run.last.get("step", {}):
        parts.append(f"epoch {int(number(run.last['step'], 'epoch')) + 1}")
    if (share := run.data_wait_share()) >= 0.05:
        parts.append(f"{100 * share:.0f} % waiting for data")
    full = min(step / last, 1.0) if last > 0 else 0.0
    bar = min(_BAR_COLUMNS, max(columns - 60, 8))
    done = round(full * bar)
    line = Text("  " + "━" * done, style="green")
    line.append("─" * (bar - done), style="dim")
    line.append("  " + _fitting(parts, columns - bar - 4), style="default")
    return line


def _figures(before: str, line: dict, columns: int) -> Text:
    parts = [before] if before else []
    order = sorted(line.items(), key=lambda item: _FIRST.index(item[0]) if item[0] in _FIRST else len(_FIRST))
    for key, value in order:
        if key in _NOT_SHOWN or (key == "unlikelihood" and value == 0):
            continue
        if type(value) in (int, float):
            parts.append(f"{clean(key)} {four_digits(value)}")
        elif value in ("nan", "inf", "-inf"):
            parts.append(f"{clean(key)} {value}")
    return _plain(parts, columns)


def _memory(run: RunView) -> list[str]:
    parts = []
    step = run.last.get("step", {})
    if slowest := number(step, "slowest_rank_seconds"):
        mean = number(step, "mean_rank_seconds") or slowest
        rank = int(number(step, "slowest_rank") or 0)
        parts.append(f"slowest rank {rank}: {four_digits(slowest)} s, mean {four_digits(mean)} s")
    if (resident := number(step, "host_memory_bytes")) and not run.last.get("end"):
        parts.append(f"memory of rank 0 {resident / 2**30:.2f} GiB")
    if peak := number(run.last.get("end", {}), "peak_host_memory_bytes"):
        parts.append(f"peak memory of rank 0 {peak / 2**30:.2f} GiB")
    if recomputed := number(run.last.get("step", {}), "recomputed_passes"):
        parts.append(f"{int(recomputed)} passes computed twice for lack of memory")
    if seconds := number(run.last.get("end", {}), "seconds"):
        parts.append(f"{duration(seconds)} since its last start")
    return parts


def _plain(parts: list[str], columns: int) -> Text:
    return Text("  " + _fitting(parts, columns - 2))


def _fitting(parts: list[str], columns: int) -> str:
    """The first parts that fit, between them two spaces; the very first is cut where it does not."""
    text = "".join(parts[:1])[: max(columns, 0)]
    for part in parts[1:]:
        if len(text) + 2 + len(part) > columns:
            break
        text += "  " + part
    return text


def _wrapped(text: str, columns: int, colour: str) -> list[Text]:
    lines, line = [], ""
    for word in clean(text).split(" "):
        if line and len(line) + 1 + len(word) > columns - 2:
            lines.append(line)
            line = ""
        line += (" " if line else "") + word
    return [Text("  " + line[: columns - 2], style=colour) for line in [*lines, line]]


def duration(seconds: float) -> str:
    """In two units at most: 1.5 s, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, small, small_name in _UNITS:
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def four_digits(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def clean(text: str) -> str:
    """Without characters that a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)

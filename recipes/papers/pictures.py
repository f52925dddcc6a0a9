"""The pictures of a study.

    scatter  {x, y}: two figures of each row of the first table against each other, ours filled and with
             intervals, the paper's open
    ranked   {title, rows: [titles], prompt: id}: shares of all answers to a prompt, most frequent first
    shares   {title, rows: [titles], top: N}: of each attribute of personas the most frequent values
    lines    {title, x, y, rows: [titles], points: {X: figure}}: a figure over what differs between figures'
             names, numbers or words, means over seeds with intervals; limit: entropy, with the entropy of
             X equal values beside them
    map      {title, rows: [titles]}: where the people of biographies were born

Owns: which points and bars, their labels. Does not own: the look of a page (plural_text.report), files.
Answers of all seeds are counted together. Thread rule: free of state.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import report
from definition import Definition, Row
from gazetteer import Gazetteer
from measured import Measured
from plural_text.common.errors import NotInstalled
from plural_text.metrics.biography import COUNTRY, parse
from plural_text.metrics.coverage import answer_key
from plural_text.report.figure import COLOURS, SYMBOLS, Figure, axes, colour, dash

_REST = "#bbbbbb"  # all values behind the most frequent ones
_LABEL_CHARACTERS = 22
_ROW_PIXELS = 26
_LARGEST_PIXELS = 60
_MAP_PIXELS, _LAND_CITIES = 440, 4000
_FEW = 30  # values that are points of their own


def pictures(definition: Definition, found: report.Report, measured: Measured) -> list[Figure]:
    """Those that have something to show. Errors: BadData."""
    drawn = []
    for place, one in enumerate(definition.pictures):
        name = definition.name if place == 0 else f"{definition.name}-{place + 1}"
        if one["kind"] == "scatter":
            drawn.append(_scatter(definition, found, name, one["x"], one["y"]))
        elif one["kind"] == "lines":
            drawn.append(_lines(found, name, one))
        else:
            try:
                drawn.append(_DRAW[one["kind"]](name, one, measured))
            except NotInstalled as missing:  # a picture less
                print(f"plural: warning: {missing}", file=sys.stderr)
    return [figure for figure in drawn if figure.traces]


def _scatter(definition: Definition, found: report.Report, name: str, x: str, y: str) -> Figure:
    traces: list[dict[str, Any]] = []
    table = definition.tables[0]
    rows = [row for row in table.rows if row.setting is not None]
    for place, row in enumerate(rows):
        look = {"color": COLOURS[place % len(COLOURS)], "size": 11}
        symbol = SYMBOLS[place % len(SYMBOLS)]
        traces += _measured_point(found, row, x, y, {**look, "symbol": symbol})
        if x in row.published and y in row.published:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{row.title} (published)",
                    "x": [row.published[x]],
                    "y": [row.published[y]],
                    "marker": {**look, "symbol": f"{symbol}-open"},
                }
            )
    titles = {column.figure: column.title for column in table.columns}
    return Figure(name, "papers", definition.title, traces, axes(titles[x], titles[y]))


def _measured_point(
    found: report.Report, row: Row, x: str, y: str, marker: Mapping[str, Any]
) -> list[dict[str, Any]]:
    ours = [found.values(row.key, figure) for figure in (x, y)]
    if not all(ours):
        return []
    means = [report.summarize(list(one.values())) for one in ours]
    errors = [{"type": "data", "array": [one.half_width or 0.0], "color": marker["color"]} for one in means]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": row.title,
            "x": [means[0].mean],
            "y": [means[1].mean],
            "error_x": errors[0],
            "error_y": errors[1],
            "marker": marker,
        }
    ]


def _lines(found: report.Report, name: str, one: Mapping[str, Any]) -> Figure:
    numbers = all(at.isdecimal() for at in one["points"])
    points = {int(at) if numbers else at: figure for at, figure in one["points"].items()}
    traces: list[dict[str, Any]] = []
    for place, title in enumerate(one["rows"]):
        values = {at: found.values(title, figure) for at, figure in points.items()}
        means = {at: report.summarize(list(own.values())) for at, own in values.items() if own}
        if means:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if numbers else "markers",
                    "name": title,
                    "x": list(means),
                    "y": [one.mean for one in means.values()],
                    "error_y": {"type": "data", "array": [one.half_width or 0.0 for one in means.values()]},
                    "line": {"color": colour(place), "dash": dash(place), "width": 2},
                    "marker": {"color": colour(place), "symbol": SYMBOLS[place % len(SYMBOLS)], "size": 9},
                }
            )
    if traces and one.get("limit") == "entropy":
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": "all values alike",
                "x": list(points),
                "y": [math.log(at) for at in points],
                "line": {"color": _REST, "width": 2},
            }
        )
    layout = axes(one["x"], one["y"])
    if numbers:
        layout["xaxis"]["type"] = "log"
        layout["xaxis"] |= {"tickvals": list(points), "ticktext": [f"{at:,}" for at in points]}
    layout["yaxis"]["rangemode"] = "tozero"
    return Figure(name, "papers", one["title"], traces, layout)


def _ranked(name: str, one: Mapping[str, Any], measured: Measured) -> Figure:
    traces = []
    for place, title in enumerate(one["rows"]):
        counts: Counter[str] = Counter()
        for answers in measured.answers(measured.row(title)):
            counts.update(
                answer_key(text) for each in answers if each.id == one["prompt"] for text in each.texts
            )
        ranked = sorted(counts.values(), reverse=True)
        if ranked:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(ranked) < _FEW else "lines",
                    "name": title,
                    "x": list(range(1, len(ranked) + 1)),
                    "y": [count / counts.total() for count in ranked],
                    "line": {"color": colour(place), "dash": dash(place), "width": 2},
                }
            )
    layout = axes("place of the value, most frequent first", "share of all answers")
    layout["yaxis"] |= {"tickformat": "~%", "rangemode": "tozero"}
    if any(len(trace["x"]) >= _FEW for trace in traces):
        layout["xaxis"]["type"] = layout["yaxis"]["type"] = "log"
    return Figure(name, "papers", one["title"], traces, layout)


def _shares(name: str, one: Mapping[str, Any], measured: Measured) -> Figure:
    """A bar per attribute and row, cut into the most frequent values and the rest."""
    counted: dict[str, dict[str, Counter[str]]] = {}
    for title in one["rows"]:
        for values in measured.persona_values(measured.row(title)):
            for attribute, counts in values.items():
                counted.setdefault(attribute, {}).setdefault(title, Counter()).update(counts)
    bars = [
        (f"{attribute}, {title}", counts)
        for attribute, by_row in counted.items()
        for title, counts in by_row.items()
        if counts.total()
    ]
    traces = []
    for place in range(one["top"]):
        parts = [(bar, counts, counts.most_common(place + 1)) for bar, counts in bars if len(counts) > place]
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"value {place + 1}",
                "y": [bar for bar, _, _ in parts],
                "x": [ranked[place][1] / counts.total() for _, counts, ranked in parts],
                "text": [_short(ranked[place][0]) for _, _, ranked in parts],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "marker": {"color": colour(place), "line": {"color": "#ffffff", "width": 1}},
            }
        )
    rest = [
        (bar, 1 - sum(count for _, count in counts.most_common(one["top"])) / counts.total())
        for bar, counts in bars
    ]
    traces.append(
        {
            "type": "bar",
            "orientation": "h",
            "name": "all others",
            "y": [bar for bar, _ in rest],
            "x": [share for _, share in rest],
            "marker": {"color": _REST, "line": {"color": "#ffffff", "width": 1}},
        }
    )
    layout = axes(
        "share of the personas",
        "",
        barmode="stack",
        uniformtext={"minsize": 10, "mode": "hide"},
        height=140 + _ROW_PIXELS * len(bars),
    )
    layout["yaxis"] |= {
        "autorange": "reversed",
        "categoryorder": "array",
        "categoryarray": [b for b, _ in bars],
    }
    layout["xaxis"] |= {"tickformat": ".0%", "range": [0, 1]}
    return Figure(name, "papers", one["title"], traces if bars else [], layout)


def _map(name: str, one: Mapping[str, Any], measured: Measured) -> Figure:
    """A map per row: circles whose area is the share of its people; large cities behind them, which show the
    land."""
    gazetteer = Gazetteer()
    land = gazetteer.cities[:_LAND_CITIES]
    traces: list[dict[str, Any]] = []
    told = []
    for title in one["rows"]:
        texts = [
            text
            for answers in measured.answers(measured.row(title))
            for each in answers
            for text in each.texts
        ]
        born = [
            (fields.get("birth_place", ""), fields.get(COUNTRY, ""))
            for text in texts
            if (fields := parse(text))
        ]
        points = Counter(point for where in born if (point := gazetteer.find(*where)))
        if not points:
            continue
        told.append(f"{title}: {points.total():,} of {len(born):,} people, {len(points):,} places")
        panel = {"xaxis": f"x{len(told)}", "yaxis": f"y{len(told)}"} if len(told) > 1 else {}
        grey = {"color": _REST, "size": 2}
        traces.append(_dots("cities", land, grey) | panel | {"hoverinfo": "skip", "showlegend": False})
        circles = {
            "color": colour(len(told) - 1),
            "opacity": 0.7,
            "size": [count / points.total() for count in points.values()],
            "sizemode": "area",
            "sizemin": 2,
            "sizeref": 2 / _LARGEST_PIXELS**2,  # all people in one place
            "line": {"width": 0},
        }
        counts = {"text": [f"{count:,}" for count in points.values()]}
        traces.append(_dots(title, list(points), circles) | panel | counts)
    return Figure(name, "papers", one["title"], traces, _panels(len(told)), note="; ".join(told))


def _dots(name: str, points: Sequence[tuple[float, float]], marker: Mapping[str, Any]) -> dict[str, Any]:
    x, y = [east for east, _ in points], [north for _, north in points]
    return {"type": "scatter", "mode": "markers", "name": name, "x": x, "y": y, "marker": marker}


def _panels(count: int) -> dict[str, Any]:
    """Axes of maps below each other."""
    layout: dict[str, Any] = {"height": _MAP_PIXELS * max(count, 1), "legend": {"itemsizing": "constant"}}
    plain = {"showgrid": False, "zeroline": False}
    for place in range(count):
        end = "" if place == 0 else str(place + 1)
        top = 1 - place / count
        axes_of_panel = axes("longitude, degrees east", "latitude, degrees north")
        layout[f"xaxis{end}"] = {**axes_of_panel["xaxis"], **plain, "range": [-180, 180], "anchor": f"y{end}"}
        layout[f"yaxis{end}"] = {
            **axes_of_panel["yaxis"],
            **plain,
            "range": [-60, 80],
            "domain": [top - 0.8 / count, top],
        }
    return layout


def _short(text: str) -> str:
    return text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"


_DRAW: Mapping[str, Callable[[str, Mapping[str, Any], Measured], Figure]] = {
    "ranked": _ranked,
    "shares": _shares,
    "map": _map,
}

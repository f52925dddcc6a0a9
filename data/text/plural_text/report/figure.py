"""A figure as plotly reads it, and what figures have in common: colours, dashes, titles of axes.

Owns: the value type, the palette, units. Does not own: which figures there are, how they are drawn
(page.js, images.py). Thread rule: values.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field, replace

# Okabe and Ito's colours that stay apart for colour-blind readers, without yellow and black, which one of the
# two backgrounds swallows. More runs than colours get another dash.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "hexagon")

# Keys of metrics.jsonl whose name does not end with the unit -> title of the axis.
_TITLES = {
    "loss": "loss (nats)",
    "likelihood": "likelihood part of the loss (nats)",
    "unlikelihood": "unlikelihood part of the loss (nats)",
    "bow": "bag-of-words part of the loss (nats)",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
    "groups_per_second": "groups per second",
    "nats_per_token": "nats per response token",
    "perplexity": "perplexity",
    "different_responses": "different responses per prompt",
    "finished_share": "share of finished responses",
    "used_latents": "latents in use, exp(H(mean q))",
    "target_mass": "probability mass on the targets",
    "expected_coverage_1000": "targets expected among 1,000 draws",
    "slowest_rank_seconds": "seconds of the slowest rank",
    "mean_rank_seconds": "seconds, mean of the ranks",
    "rows": "rows per step",
    "sequence_tokens": "tokens of one row per sequence, per step",
    "possibility_information_nats": "information of the possibility numbers (nats)",
    "token_distinct_1": "Distinct-1 over token ids",
    "token_distinct_2": "Distinct-2 over token ids",
}
_UNITS = {"nats": "nats", "bits": "bits", "seconds": "seconds", "share": "share", "bytes": "bytes"}


# Of one line of an axis's title, which a narrow screen still shows.
_TITLE_CHARACTERS = 34


@dataclass(frozen=True)
class Figure:
    """`name`: the word for `plural plot`. `traces`, `layout`: plotly's, without colours of the background. A
    trace's `meta` may have "columns": name -> a value per point, which its CSV file has beside x and y."""

    name: str
    section: str
    title: str
    traces: list[dict]
    layout: dict
    note: str = ""
    wide: bool = field(default=False)  # scrolls sideways on a narrow screen


def axis_title(key: str) -> str:
    """The title of the axis of a figure's or a field's name, with its unit."""
    if key in _TITLES:
        return _TITLES[key]
    words, _, last = key.rpartition("_")
    if words and last in _UNITS:
        return f"{words.replace('_', ' ')} ({_UNITS[last]})"
    return key.replace("_", " ")


def colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def dash(place: int) -> str:
    return DASHES[place // len(COLOURS) % len(DASHES)]


def axes(x: str, y: str, **layout) -> dict:
    """A layout with titles of both axes."""
    return {
        "xaxis": {"title": {"text": x}, "automargin": True, "exponentformat": "e"},
        "yaxis": {"title": {"text": y}, "automargin": True, "exponentformat": "e"},
        **layout,
    }


def plain_text(value):
    """Texts as plotly shows them unchanged, also in lists: it would read tags and entities in them."""
    if isinstance(value, str):
        return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if isinstance(value, list):
        return [plain_text(item) for item in value]
    return value


def safe(figure: Figure) -> Figure:
    """The figure with every text that came from a file as plain text."""
    keys = {"name", "x", "y", "text", "customdata"}
    traces = [
        {key: plain_text(value) if key in keys else value for key, value in trace.items()}
        for trace in figure.traces
    ]
    layout = dict(figure.layout)
    for axis in ("xaxis", "yaxis"):
        if axis in layout:
            layout[axis] = dict(layout[axis])
            if "title" in layout[axis]:
                lines = textwrap.wrap(layout[axis]["title"]["text"], _TITLE_CHARACTERS)
                layout[axis]["title"] = {"text": "<br>".join(map(plain_text, lines))}
            if "ticktext" in layout[axis]:
                layout[axis]["ticktext"] = plain_text(layout[axis]["ticktext"])
    return replace(figure, traces=traces, layout=layout)

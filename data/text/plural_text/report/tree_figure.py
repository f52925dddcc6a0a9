"""The picture of a token tree.

Owns: where branches lie, what is written on them. Does not own: the tree (token_tree.py). Thread rule: free
of state.
"""

from __future__ import annotations

from plural_text.report.figure import Figure
from plural_text.report.token_tree import Node, Tree

_SHARED, _POSITIVE, _NEGATIVE = "#888888", "#0072b2", "#d55e00"
_KINDS = (
    (_SHARED, "solid", "shared by several sequences"),
    (_POSITIVE, "solid", "likelihood"),
    (_NEGATIVE, "dot", "unlikelihood"),
)
# A branch is as wide as its tokens, within limits; the page says so.
_WIDTHS = (2, 14)
_CHARACTERS_PER_TOKEN = 4.5
# Of a text above its branch, in leaves.
_RAISED = 0.14
_PIXELS_PER_LEAF = 30


def tree_figure(name: str, run: str, tree: Tree) -> Figure:
    segments: list[tuple[float, float, float, Node]] = []  # begin, end, y, node
    links: list[tuple[float, float, float]] = []  # x, y of both ends
    leaves = _place(tree.root, 0, 0, segments, links)
    traces = []
    for shade, dashes, title in _KINDS:
        own = [segment for segment in segments if _shade(segment[3]) == shade]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": title,
                "x": [x for begin, end, _, _ in own for x in (begin, end, None)],
                "y": [y for _, _, height, _ in own for y in (height, height, None)],
                "line": {"color": shade, "width": 3, "dash": dashes},
                "hoverinfo": "skip",
            }
        )
    traces.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": [value for x, _, _ in links for value in (x, x, None)],
            "y": [value for _, low, high in links for value in (low, high, None)],
            "line": {"color": _SHARED, "width": 1},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    )
    traces.append(
        {
            "type": "scatter",
            "mode": "text",
            "x": [begin + 0.15 for begin, _, _, _ in segments],
            "y": [height - _RAISED for _, _, height, _ in segments],
            "text": [_short(_text(node, tree), end - begin) for begin, end, _, node in segments],
            "textposition": "top right",
            "textfont": {"size": 11},
            "customdata": [_told(node, tree) for _, _, _, node in segments],
            "hovertemplate": "%{customdata[0]}<br>%{customdata[1]}",
            "showlegend": False,
        }
    )
    hidden = {"visible": False, "fixedrange": True}
    layout = {
        "xaxis": {**hidden, "autorange": False, "range": [-0.3, max(end for _, end, _, _ in segments) + 0.3]},
        "yaxis": {**hidden, "autorange": False, "range": [leaves - 0.3, -1]},
        "showlegend": True,
        "height": 140 + _PIXELS_PER_LEAF * leaves,
    }
    saved = 1 - tree.tree_rows / tree.plain_rows if tree.plain_rows else 0
    note = (
        f"{len(tree.sequences):,} sequences fed one by one have {tree.plain_rows:,} rows, one per token; "
        f"the tree has {tree.tree_rows:,}, {saved:.0%} fewer. A last token is predicted, never a row. A "
        f"branch is drawn {_WIDTHS[0]} to {_WIDTHS[1]} tokens wide."
    )
    if any(not sequence.positive for sequence in tree.sequences):
        note += (
            " A sequence that is made unlikely ends at its last penalised token. The possibility numbers "
            "are 1 to the number of responses here; training draws them."
        )
    return Figure(name, "tree", f"Token tree of group {tree.group}, {run}", traces, layout, note, wide=True)


def _place(node: Node, begin: float, first: int, segments: list, links: list) -> int:
    """Lays out a node and what is below it from leaf `first` on; returns the number of its leaves."""
    end = begin + (min(max(len(node.tokens), _WIDTHS[0]), _WIDTHS[1]) if node.tokens else 0)
    if not node.children:
        segments.append((begin, end, float(first), node))
        return 1
    leaves, heights = 0, []
    for child in node.children:
        own = _place(child, end, first + leaves, segments, links)
        heights.append(segments[-1][2])  # a node is appended behind all below it
        leaves += own
    height = (heights[0] + heights[-1]) / 2
    links.append((end, heights[0], heights[-1]))
    segments.append((begin, end, height, node))
    return leaves


def _shade(node: Node) -> str:
    kinds = {sequence.positive for sequence in node.sequences}
    if len(kinds) == 2 or len(node.sequences) > 1:
        return _SHARED
    return _POSITIVE if kinds == {True} else _NEGATIVE


def _text(node: Node, tree: Tree) -> str:
    return "".join(tree.pieces.get(token, "?") for token in node.tokens).replace("\n", "\\n")


def _short(text: str, width: float) -> str:
    most = int(width * _CHARACTERS_PER_TOKEN)
    return text if len(text) <= most else text[: most - 1] + "…"


def _told(node: Node, tree: Tree) -> list[str]:
    counts = (len(node.tokens), "token"), (len(node.sequences), "sequence")
    return [_text(node, tree), ", ".join(f"{count:,} {word}{'s' * (count != 1)}" for count, word in counts)]

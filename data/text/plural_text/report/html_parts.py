"""Pieces of HTML: tables, numbers, texts.

Owns: escaping, how a number is rounded; the whole number stays in the page. Does not own: what a table shows.
Thread rule: free of state.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence


class Markup(str):
    """A text that is HTML already."""


def text(value) -> str:
    """HTML of a value: a number rounded to four digits with all of it in <data>, None as a dash."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return "&ndash;"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f'<data value="{value!r}">{rounded(value)}</data>'
    return html.escape(str(value))


def rounded(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 10000 <= abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def interval(low: float | None, high: float | None) -> Markup | None:
    return None if low is None or high is None else Markup(f"{text(low)} to {text(high)}")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence], first_is_name: bool = True) -> str:
    """A table that scrolls sideways by itself, also by keyboard."""
    columns = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    lines = []
    for row in rows:
        cells = [
            f'<th scope="row">{text(value)}</th>'
            if first_is_name and place == 0
            else f"<td>{text(value)}</td>"
            for place, value in enumerate(row)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>\n")
    name = html.escape(caption, quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table><caption>{name}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>\n{''.join(lines)}</tbody></table></div>\n"
    )


def paragraph(value: str, kind: str = "") -> str:
    return f'<p class="{kind}">{text(value)}</p>\n' if kind else f"<p>{text(value)}</p>\n"


def folded(title: str, inside: str, open_: bool = False) -> str:
    return f"<details{' open' * open_}><summary>{html.escape(title)}</summary>\n{inside}</details>\n"


def embedded_json(value) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element or begin a comment."""
    found = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return found.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

"""Figures as pictures: PNG, PDF, SVG.

Owns: the look on paper (white, black text), the program that draws, which is kaleido with Chromium. Does not
own: figures. Thread rule: one thread at a time. No request leaves the machine: plotly.js is that of the
package plotly.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import NotInstalled, WriteFailed
from plural_text.report.figure import Figure, plain_text

FORMATS = ("png", "pdf", "svg")
_ADVICE = (
    "pictures need the packages of data/text/requirements-plot.txt (.venv/bin/pip install --no-deps -r "
    "data/text/requirements-plot.txt) and Chromium: the Debian package chromium, or a Chrome that the "
    "variable BROWSER_PATH names"
)
_SECONDS_PER_PICTURE = 120
_GRID = {"gridcolor": "#dddddd", "linecolor": "#444444", "zerolinecolor": "#bbbbbb", "ticks": "outside"}


def for_paper(figure: Figure, title: str, width: int, height: int) -> dict:
    """What plotly draws: `width` and `height` in pixels; of a tree the height is its own where it needs "
    "more."""
    layout = {
        **figure.layout,
        "width": width,
        "height": max(height, figure.layout.get("height", 0)),
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "font": {"family": "DejaVu Sans, Arial, sans-serif", "size": 14, "color": "black"},
        "title": {"text": plain_text(title), "font": {"size": 16}},
        "legend": {"bgcolor": "rgba(255,255,255,0.8)"},
        "margin": {"l": 70, "r": 20, "t": 50 if title else 20, "b": 60},
    }
    for axis in ("xaxis", "yaxis"):
        layout[axis] = {**_GRID, **layout.get(axis, {})}
    return {"data": figure.traces, "layout": layout}


def draw(pictures: Sequence[dict], format_: str, scale: float, progress) -> list[bytes]:
    """The content of a file for each of the pictures, in their order, drawn by one browser. `scale`: pixels
    of a PNG per pixel of the layout. Errors: NotInstalled where a package or the browser is missing."""
    try:
        import kaleido
        import plotly
        from choreographer.errors import BrowserClosedError, BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise NotInstalled(f"{error}; {_ADVICE}") from None
    library = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"

    async def all_of_them() -> list[bytes]:
        browser = kaleido.Kaleido(n=1, timeout=_SECONDS_PER_PICTURE, plotlyjs=library, mathjax=False)
        async with browser:
            found = []
            for done, picture in enumerate(pictures, 1):
                found.append(await browser.calc_fig(picture, opts={"format": format_, "scale": scale}))
                progress.update(done, done)
            return found

    try:
        return asyncio.run(all_of_them())
    except ChromeNotFoundError:
        named = os.environ.get("BROWSER_PATH")
        where = f"at '{named}', which BROWSER_PATH names" if named else "in PATH"
        raise NotInstalled(f"no Chromium {where}; {_ADVICE}") from None
    except (BrowserClosedError, BrowserFailedError, TimeoutError) as error:
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise NotInstalled(f"the browser does not draw ({what}); {_ADVICE}") from None


def write_whole(path: Path, content: bytes) -> None:
    """The file appears whole. Errors: WriteFailed."""
    try:
        handle, partial = tempfile.mkstemp(prefix=f"{path.name}.partial-", dir=path.parent)
        try:
            with open(handle, "wb") as stream:
                stream.write(content)
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(partial, 0o666 & ~mask)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    except OSError as error:
        raise WriteFailed(f"{path}: cannot be written: {error.strerror}") from None

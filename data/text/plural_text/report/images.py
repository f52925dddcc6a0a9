"""Figures as pictures: PNG, PDF, SVG.

Owns: the look on paper (white, black text), starting and ending the process that draws. Does not own:
figures, drawing (draw_program.py). Thread rule: one thread at a time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import NotInstalled
from plural_text.report.figure import Figure, plain_text

FORMATS = ("png", "pdf", "svg")
_ADVICE = (
    "pictures need the packages of data/text/requirements-plot.txt (.venv/bin/pip install --no-deps -r "
    "data/text/requirements-plot.txt) and Chromium: the Debian package chromium, or a Chrome that the "
    "variable BROWSER_PATH names"
)
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
    with tempfile.TemporaryDirectory(prefix="plural-pictures-") as name:
        folder = Path(name)
        (folder / "pictures.json").write_text(json.dumps(list(pictures)), encoding="utf-8")
        # A process of its own, because a browser that is interrupted within this one may never end.
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "plural_text.report.draw_program", name, format_, str(scale)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        try:
            for done, _ in enumerate(process.stdout or (), 1):
                progress.update(done, done)
            code = process.wait()
        finally:
            process.kill()  # the browser ends when nobody holds its pipe
            process.wait()
        if code:
            told = (folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise NotInstalled(f"{told[-1] if told else 'the browser does not draw'}; {_ADVICE}")
        return [(folder / str(place)).read_bytes() for place in range(len(pictures))]

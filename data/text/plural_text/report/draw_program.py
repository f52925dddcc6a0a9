"""Draws pictures with kaleido and Chromium: python -m plural_text.report.draw_program FOLDER FORMAT SCALE

Owns: the browser. Does not own: what is drawn: FOLDER holds pictures.json, a list of plotly figures, and gets
the files 0, 1, ...; a line is printed for each. Thread rule: a process of its own. No request leaves the
machine: plotly.js is that of the package plotly.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

_SECONDS_PER_PICTURE = 120


async def _draw(folder: Path, format_: str, scale: float) -> None:
    import kaleido
    import plotly

    library = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    pictures = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    options = {"format": format_, "scale": scale}
    async with kaleido.Kaleido(n=1, timeout=_SECONDS_PER_PICTURE, plotlyjs=library, mathjax=False) as browser:
        for place, picture in enumerate(pictures):
            (folder / str(place)).write_bytes(await browser.calc_fig(picture, opts=options))
            print(place, flush=True)


def main(folder: str, format_: str, scale: str) -> int:
    """1 with a last line on standard error that tells what is missing."""
    try:
        asyncio.run(_draw(Path(folder), format_, float(scale)))
    except ImportError as error:
        print(error, file=sys.stderr)
    except Exception as error:  # of several libraries; the reader needs one line
        named = os.environ.get("BROWSER_PATH")
        if type(error).__name__ == "ChromeNotFoundError":
            where = f"at '{named}', which BROWSER_PATH names" if named else "in PATH"
            print(f"no Chromium {where}", file=sys.stderr)
        else:
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            print(f"the browser does not draw ({told})", file=sys.stderr)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

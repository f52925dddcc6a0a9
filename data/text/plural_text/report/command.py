"""One HTML page of runs, a sweep, answers and figures.

The page holds all it needs: it can be sent, kept and opened without a network.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import CannotCreate
from plural_text.common.new_output import add_force, require_new, write_whole
from plural_text.common.progress import Progress
from plural_text.report import images, sources
from plural_text.report.figure import Figure
from plural_text.report.figures import all_figures
from plural_text.report.page import page

_WIDTH, _HEIGHT, _SCALE = 1000, 560, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources.add_arguments(parser)
    add = parser.add_argument
    add("-o", "--output", type=Path, required=True, metavar="PAGE.html", help="the page")
    add("--png", type=Path, metavar="FOLDER", help="also each figure as a picture, which needs Chromium")
    add_force(add)


def run(arguments: argparse.Namespace) -> int:
    require_new(arguments.output, arguments.force)
    if arguments.png is not None:
        _require_folder(arguments.png, arguments.force)
    found = sources.read_sources(arguments)
    figures, notes = all_figures(found)
    title = arguments.title or (found.sweep.name if found.sweep else "plural report")
    text = page(title, found, figures, notes)
    if arguments.png is not None:  # first: without a browser nothing is written
        _write_pictures(figures, arguments.png)
    write_whole(arguments.output, text.encode("utf-8", "backslashreplace"))
    print(f"{arguments.output}: {len(figures):,} figures, {len(text) / 1e6:.1f} MB")
    return 0


def write_page(folders: Sequence[Path], output: Path) -> None:
    """The page of these runs, or of a sweep, in place of an older one. Errors: those of the command."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([*map(str, folders), "--output", str(output), "--force"]))


def _require_folder(folder: Path, force: bool) -> None:
    if not folder.parent.is_dir():
        raise CannotCreate(f"{folder}: folder {folder.parent} does not exist; create it first")
    if folder.exists() and not folder.is_dir():
        raise CannotCreate(f"{folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise CannotCreate(f"{folder}: is not empty; give --force to write into it, or name another folder")


def _write_pictures(figures: Sequence[Figure], folder: Path) -> None:
    pictures = [images.for_paper(figure, figure.title, _WIDTH, _HEIGHT) for figure in figures]
    with Progress("drawing", len(pictures), "pictures", sys.stderr) as progress:
        contents = images.draw(pictures, "png", _SCALE, progress)
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise CannotCreate(f"{folder}: cannot be created: {error.strerror}") from None
    for figure, content in zip(figures, contents):
        write_whole(folder / f"{figure.name.replace('/', '-')}.png", content)

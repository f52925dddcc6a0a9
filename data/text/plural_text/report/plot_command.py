"""One figure of runs, a sweep, answers and figures, as PNG, PDF or SVG.

FIGURE is a name such as loss or validation.perplexity; one that is not there gets the list of those that are.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plural_text.common.errors import UsageError
from plural_text.common.new_output import add_force, require_new, write_whole
from plural_text.common.options import number, whole_number
from plural_text.common.progress import Progress
from plural_text.report import images, sources
from plural_text.report.figures import figure_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("figure", metavar="FIGURE", help="which figure; its file in the folder of `plural report --png`")
    sources.add_arguments(parser)
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="ends with .png, .pdf or .svg")
    add("--width", type=whole_number(100, 10000), default=800, metavar="N", help="pixels (default: 800)")
    add("--height", type=whole_number(100, 10000), default=500, metavar="N", help="pixels (default: 500)")
    add("--scale", type=number(0.1, 20), default=2, metavar="X", help="dots of a PNG per pixel (default: 2)")
    add_force(add)


def run(arguments: argparse.Namespace) -> int:
    format_ = arguments.output.suffix.lower().removeprefix(".")
    if format_ not in images.FORMATS:
        raise UsageError(f"{arguments.output}: must end with .png, .pdf or .svg")
    require_new(arguments.output, arguments.force)
    figure = figure_named(sources.read_sources(arguments), arguments.figure)
    picture = images.for_paper(figure, arguments.title or "", arguments.width, arguments.height)
    with Progress("drawing", 1, "pictures", sys.stderr) as progress:
        (content,) = images.draw([picture], format_, arguments.scale, progress)
    write_whole(arguments.output, content)
    return 0

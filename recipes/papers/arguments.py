"""A study of one of the two papers: the tables of its file, with a model and data of your own, or on toys.

Makes material and corpora, trains and measures every row with every seed, prints our tables beside the
published ones. What is done already is kept: the same command goes on where it stopped.

    FOLDER/material/     what the study's own program wrote, where it has one
    FOLDER/corpora/      the corpora
    FOLDER/sweep.yaml    the sweep: launch/plural sweep status FOLDER/sweep.yaml; of several stages
                         FOLDER/STAGE.yaml each
    FOLDER/runs/         its folder, or those of the stages
    FOLDER/table.md      ours beside the paper's; results.json has every figure by seed
    FOLDER/picture.html  its pictures, where the study has some (--png: also picture.png, picture-2.png, ...)
"""

# Owns: the command line, and what a study needs of it. Does not own: what is done (reproduce.py), what a
# study is (definition_file.py). Imports what Python brings along and nothing else: it is read before set-up.

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import CommandError, MissingInput, UsageError
from plural_text.common.options import number, whole_number

STUDIES = Path(__file__).resolve().parent


def study_names() -> list[str]:
    return sorted(file.stem for file in STUDIES.glob("*.yaml"))


def placeholders_of(study: Path) -> set[str]:
    """Which of model and data it needs of the user; by its text, since no YAML is at hand before set-up."""
    text = re.sub(r"(?m)(^|\s)#.*$", "", study.read_text(encoding="utf-8", errors="replace"))
    found = {name for name in ("model", "data") if f"{{{name}}}" in text}
    inputs = re.findall(r"\binput:\s*(\[[^\]]*\]|[^\n,]+)", text)
    return found | ({"data"} if any("{material}" not in given for given in inputs) else set())


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Errors: UsageError."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str):
            raise UsageError(f"{message} (see launch/reproduce NAME --help)")

    parser = Parser(
        prog="launch/reproduce NAME",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("study", type=_study, metavar="NAME", help=f"{', '.join(study_names())}; or a file of your own, "
        "NAME.yaml (docs/reproduction.md)")  # fmt: skip
    add(
        "folder",
        type=Path,
        nargs="?",
        help="where results stay (default: runs/papers/NAME, of toys runs/reproduce/NAME)",
    )
    add("--model", type=Path, metavar="DIR", help="folder of the model, or its name on the Hub")
    add("--data", type=Path, metavar="DIR", help="the released files (docs/data.md)")
    add(
        "--family",
        metavar="NAME",
        help="whose figures stand beside ours (default: by the model's config.json)",
    )
    add("--seeds", type=seed_numbers, default=[1, 2, 3], metavar="1,2,3", help="(default: 1,2,3)")
    add("--small", action="store_true", help="of toys: smaller models and fewer texts, for a first look")
    add("--only", metavar="TEXT", help="only runs with this in their name, and the models that they need")
    add("--judge", action="append", default=[], metavar="BASE_URL", help="an OpenAI-compatible endpoint that "
        "rates coherence and talks with personas; twice for two judges of coherence, as the possibility "
        "exploration paper has them")  # fmt: skip
    add("--judge-model", action="append", default=[], metavar="NAME", help="its model, one for each --judge")
    add("--judge-key-variable", action="append", default=[], metavar="NAME",
        help="environment variable with its key")  # fmt: skip
    add(
        "--plan",
        action="store_true",
        help="only says what it would take; needs no weights, config.json alone",
    )
    add("--tflops", type=number(0.001, 1e6), metavar="N",
        help="plan: TFLOP per second that a card really reaches, for hours on one and on eight")  # fmt: skip
    add("--submit", action="store_true", help="as Slurm arrays; the same command makes the table afterwards")
    add("--sbatch", action="append", default=[], metavar="OPTION", help="submit: an option of sbatch")
    add("--jobs", type=whole_number(1), metavar="N", help="runs side by side (default: as many as fit)")
    add(
        "--threads", type=whole_number(1), default=1, metavar="N", help="compute threads per run (default: 1)"
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe key of all runs, such as "
        "model.device=cuda or loss.normalize=sequence_sum")  # fmt: skip
    add("--generate", action="append", default=[], metavar="OPTION=VALUE",
        help="an option of plural generate for all rows, such as limit=20")  # fmt: skip
    add("--persona", action="append", default=[], metavar="OPTION=VALUE",
        help="an option of plural persona for all rows, such as conversations=20")  # fmt: skip
    add("--released-code", type=Path, metavar="DIR", help="a clone of the possibility exploration paper's "
        "code: its prompts instead of ours")  # fmt: skip
    add("--png", action="store_true", help="also the picture as PNG, which needs Chromium")
    parser.set_defaults(prompts=None)
    options = parser.parse_args(words)
    if len(options.judge_model) != len(options.judge):
        raise UsageError(
            f"{len(options.judge)} --judge and {len(options.judge_model)} --judge-model; give one each"
        )
    return options


def seed_numbers(text: str) -> list[int]:
    """Of an option such as 1,2,3."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different seeds such as 1,2,3")
    return seeds


def check_given(options: argparse.Namespace) -> None:
    """Model and data are given where the study uses them. Errors: UsageError, MissingInput."""
    wanted = placeholders_of(options.study)
    for name in ("model", "data"):
        given = getattr(options, name)
        if name in wanted and given is None:
            raise UsageError(f"{options.study.stem} needs --{name} DIR (docs/reproduction.md)")
        if name not in wanted and given is not None:
            raise UsageError(f"{options.study.stem} takes no --{name}: it makes its own; leave it out")
    if options.data and not options.data.is_dir():
        raise MissingInput(
            f"--data '{options.data}': no such folder; docs/data.md says where the files come from"
        )


def _study(text: str) -> Path:
    if text.endswith(".yaml"):
        if not Path(text).is_file():
            raise MissingInput(f"{text}: not there; name a study or the file of one of your own")
        return Path(text).resolve()
    if text not in study_names():
        raise argparse.ArgumentTypeError(f"'{text}' is no study; there are {', '.join(study_names())}")
    return STUDIES / f"{text}.yaml"


if __name__ == "__main__":
    try:
        check_given(parse(sys.argv[1:]))
    except CommandError as error:
        print(f"launch/reproduce: error: {error} [exit {error.exit_code}]", file=sys.stderr)
        sys.exit(error.exit_code)

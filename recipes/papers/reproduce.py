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

# Owns: the command line, the order of work. Does not own: what a study is (definition.py), its corpora
# (corpora.py), its sweeps (stages.py), runs and figures (plural_text.sweep), what came out (outcome.py,
# extracts.py, pictures.py).

from __future__ import annotations

import argparse
import html
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.io

import outcome
from corpora import Corpora
from cost import cost_lines
from definition_file import FULL, SMALL, families_of, placeholders_of, read_definition
from extracts import extracts
from measured import Measured
from pictures import pictures
from plural_text.common.errors import CommandError, MissingInput, UsageError
from plural_text.common.hub import hub_folder
from plural_text.common.options import number, whole_number
from plural_text.common.places import PROJECT
from plural_text.common.progress import Progress
from plural_text.report import images
from plural_text.report.figure import Figure
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.planned import plan
from plural_text.sweep.showing import plan_lines
from released_prompts import write_released_prompts
from stages import (
    changes,
    link_models,
    measures,
    needed,
    run_stage,
    starts_from_models,
    table_of,
    write_sweep,
)

STUDIES = Path(__file__).resolve().parent
JUDGES = STUDIES.parents[1] / "data" / "text" / "judges"
STOPPED = 75
_WIDTH, _HEIGHT = 1000, 640  # of a picture, pixels
# model_type of config.json -> family of the papers' models
_FAMILIES = {"mistral": "mistral", "llama": "llama2", "gemma": "gemma"}


def study_names() -> list[str]:
    return sorted(file.stem for file in STUDIES.glob("*.yaml"))


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


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, 1 where a check does not hold, or that of what failed."""
    file: Path = options.study
    model, data = _given(options, placeholders_of(file))
    families = families_of(file)
    folder = (options.folder or Path("runs/papers" if families else "runs/reproduce") / file.stem).resolve()
    family = (options.family or _family(model, families)) if families else ""
    definition = read_definition(file, family, SMALL if options.small else FULL, places(model, data, folder))
    jobs = options.jobs or os.cpu_count() or 1
    if options.released_code:
        options.prompts = folder / "prompts"
        names = write_released_prompts(options.released_code, options.prompts)
        if not any(corpus.template in names for corpus in definition.corpora):
            raise UsageError(f"{file.stem} asks in none of the forms of --released-code: {', '.join(names)}")
    corpora = Corpora(definition, model, data, folder, options.prompts)
    files = {stage.name: write_sweep(stage, folder, options) for stage in definition.stages}
    corpora.make_material(options.seeds, jobs)
    wanted = needed(definition, folder, options.only)
    corpora.make_corpora(wanted, options.seeds, jobs)
    swept: dict[str, Any] = {}
    folders: dict[str, Path] = {}
    for stage in wanted:
        title = stage.name or definition.name
        planned = plan(files[stage.name])
        if options.plan:
            print("\n".join([f"{title}:" if stage.name else "", *plan_lines(planned)]).strip())
            if model:
                print("\n".join(cost_lines(planned, model, options.tflops)))
            if stage.models and not _all_finished(planned):
                later = wanted[wanted.index(stage) + 1 :]
                if any(starts_from_models(one, folder) for one in later):
                    print(f"later stages start from what {title} makes, and can be planned when it is there")
                    return 0
                continue
        else:
            if stage.name:
                print(f"== {title}", flush=True)
            code = run_stage(planned, stage, folder, options)
            if code or code is None:
                return code or 0
        link_models(stage, planned, folder)
        swept[stage.name] = table_of(planned)
        folders[stage.name] = planned.folder.root
    return 0 if options.plan else finish(Measured(definition, folders, swept), folder, options)


def places(model: Path | None, data: Path | None, folder: Path) -> dict[str, str]:
    """The placeholders of every definition."""
    recipes = STUDIES.parent
    return {
        "model": str(model or ""),
        "data": str(data or ""),
        "corpora": str(folder / "corpora"),
        "material": str(folder / "material"),
        "models": str(folder / "models"),
        "recipes": str(recipes),
        "toys": str(recipes / "reproduction"),
        "python": sys.executable,
        "judges": str(JUDGES),
    }


def finish(measured: Measured, folder: Path, options: argparse.Namespace) -> int:
    """Tables, results, pictures."""
    definition = measured.definition
    found = outcome.fill(definition, measured.swept, options.seeds, options.only)
    if changed := changes(definition, options):
        found.note(f"Not as in the paper: {', '.join(changed)}.")
    columns = [column.figure for table in definition.tables for column in table.columns]
    if options.released_code:
        found.note("Prompts and the judge's question are those of the released code.")
    if not options.judge and any("incoherence" in name for name in columns):
        found.note("Incoherence needs --judge.")
    if not options.judge and any(measures(stage, "persona") for stage in definition.stages):
        found.note("Asked by the script recipes/papers/persona-questions.jsonl, since there was no --judge.")
    about = {"seeds": options.seeds}
    about |= {"model": str(options.model)} if options.model else {}
    about |= {"size": SMALL} if options.small else {}
    sections = extracts(measured)
    file = outcome.keep(found, sections, folder, about)
    print(f"\n{found.text()}\n{file}, {folder / 'results.json'}")
    if sections:
        print(f"{len(sections)} more sections in {file.name}: values and answers")
    _draw(pictures(definition, found, measured), folder, options.png)
    return 0 if found.all_hold else 1


def _draw(figures: Sequence[Figure], folder: Path, png: bool) -> None:
    """picture.html with all of them; picture.png, picture-2.png and so on."""
    if not figures:
        return
    drawings = [images.for_paper(one, one.title, _WIDTH, _HEIGHT) for one in figures]
    parts = [
        plotly.io.to_html(
            one, validate=False, full_html=False, include_plotlyjs=place == 0, div_id=f"picture-{place + 1}"
        )
        for place, one in enumerate(drawings)
    ]
    notes = [f"<p>{html.escape(one.note)}</p>" if one.note else "" for one in figures]
    body = "\n".join(part + note for part, note in zip(parts, notes))
    write_whole(folder / "picture.html", f'<!doctype html><meta charset="utf-8">\n{body}\n')
    print(folder / "picture.html")
    if png:
        with Progress("drawing", len(drawings), "pictures", sys.stderr) as progress:
            contents = images.draw(drawings, "png", 2, progress)
        for place, content in enumerate(contents, 1):
            (folder / f"picture{'' if place == 1 else f'-{place}'}.png").write_bytes(content)


def seed_numbers(text: str) -> list[int]:
    """Of an option such as 1,2,3."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different seeds such as 1,2,3")
    return seeds


def _study(text: str) -> Path:
    if text.endswith(".yaml"):
        return Path(text).resolve()
    if text not in study_names():
        raise argparse.ArgumentTypeError(f"'{text}' is no study; there are {', '.join(study_names())}")
    return STUDIES / f"{text}.yaml"


def _given(options: argparse.Namespace, wanted: set[str]) -> tuple[Path | None, Path | None]:
    """The model and the data, where the study uses them. Errors: UsageError, MissingInput."""
    for name in ("model", "data"):
        given = getattr(options, name)
        if name in wanted and given is None:
            raise UsageError(f"{options.study.stem} needs --{name} DIR (docs/reproduction.md)")
        if name not in wanted and given is not None:
            raise UsageError(f"{options.study.stem} takes no --{name}: it makes its own; leave it out")
    model = hub_folder(options.model, "--model", "folder of a model").resolve() if options.model else None
    if options.data and not options.data.is_dir():
        raise MissingInput(
            f"--data '{options.data}': no such folder; docs/data.md says where the files come from"
        )
    return model, options.data.resolve() if options.data else None


def _all_finished(planned) -> bool:
    return all(planned.folder.state(run) == "finished" for run in planned.runs)


def _family(model: Path | None, known: Sequence[str]) -> str:
    assert model is not None
    config = read_json(model / "config.json")
    if config is None:
        raise MissingInput(f"{model / 'config.json'}: not there; --model takes the folder of a model")
    family = _FAMILIES.get(str(config.get("model_type")), "")
    if family in known:
        return family
    raise UsageError(
        f"{model / 'config.json'}: model_type is '{config.get('model_type')}', and the table is about "
        f"{', '.join(known)}; --family names the one whose prompts and figures are meant"
    )


def main(words: Sequence[str]) -> int:
    def stop(_number, _frame):
        raise KeyboardInterrupt

    for one in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(one, stop)
    try:
        return run(parse(words))
    except CommandError as error:
        print(f"launch/reproduce: error: {error} [exit {error.exit_code}]", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "launch/reproduce: stopped on request: what is done is kept; start again to go on",
            file=sys.stderr,
        )
        return STOPPED


if __name__ == "__main__":
    assert PROJECT is not None
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(sys.argv[1:]))

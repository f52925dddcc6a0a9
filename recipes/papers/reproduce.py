"""The papers' studies: the order of their work, from a command line to tables.

Owns: that order. Does not own: the command line and what lies where (arguments.py), what a study is
(definition.py), its corpora (corpora.py), its sweeps (stages.py), runs and figures (plural_text.sweep), what
came out (outcome.py, extracts.py, pictures.py). Thread rule: the main thread alone.
"""

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
from arguments import STUDIES, check_given, parse
from corpora import Corpora
from cost import cost_lines
from definition_file import FULL, SMALL, families_of, read_definition
from extracts import extracts
from measured import Measured
from pictures import pictures
from plural_text.common.errors import CommandError, MissingInput, UsageError
from plural_text.common.hub import hub_folder
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
    plan_file,
    run_stage,
    stand_in_models,
    sweep_file,
    table_of,
    write_sweep,
)

JUDGES = STUDIES.parents[1] / "data" / "text" / "judges"
STOPPED = 75
_WIDTH, _HEIGHT = 1000, 640  # of a picture, pixels
# model_type of config.json -> family of the papers' models
_FAMILIES = {"mistral": "mistral", "llama": "llama2", "gemma": "gemma"}


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, 1 where a check does not hold, or that of what failed."""
    check_given(options)
    file: Path = options.study
    model = hub_folder(options.model, "--model", "folder of a model").resolve() if options.model else None
    data = options.data.resolve() if options.data else None
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
    for stage in definition.stages:
        write_sweep(stage, folder, options)
    corpora.make_material(options.seeds, jobs)
    wanted = needed(definition, folder, options.only)
    corpora.make_corpora(wanted, options.seeds, jobs)
    swept: dict[str, Any] = {}
    folders: dict[str, Path] = {}
    for stage in wanted:
        title = stage.name or definition.name
        planned = plan(plan_file(stage, folder) if options.plan else sweep_file(folder, stage))
        if options.plan:
            print("\n".join([f"{title}:" if stage.name else "", *plan_lines(planned)]).strip())
            print("\n".join(cost_lines(planned, options.tflops)), flush=True)
            if stage.models and not _all_finished(planned):
                stand_in_models(stage, planned, folder)
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

"""A table of one of the two papers with a model and data of your own.

Prepares the corpora, trains and measures every row with every seed, prints our table beside the published
one. What is done already is kept: the same command goes on where it stopped.

    FOLDER/corpora/      corpora of the released data
    FOLDER/sweep.yaml    the sweep: launch/plural sweep status FOLDER/sweep.yaml
    FOLDER/runs/         its folder
    FOLDER/table.md      ours beside the paper's; results.json has every figure by seed
    FOLDER/picture.html  two of the figures against each other (--png: also picture.png)
"""

# Owns: the command line, the order of work. Does not own: what a table is (definition.py), runs and figures
# (plural_text.sweep), what came out (outcome.py).

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.io
import yaml

import outcome
from cost import cost_lines
from definition import Corpus, Table, families_of, read_table
from judges import put_judges
from plural_text.common.errors import BadData, CommandError, MissingInput, UsageError
from plural_text.common.hub import hub_folder
from plural_text.common.options import number, whole_number
from plural_text.common.places import PROJECT
from plural_text.common.progress import Progress
from plural_text.report import images
from plural_text.sweep import command as sweep_command
from plural_text.sweep.contents import Contents
from plural_text.sweep.files import read_json, write_whole
from plural_text.sweep.located_yaml import plain_value
from plural_text.sweep.planned import plan
from plural_text.sweep.processes import Processes
from plural_text.sweep.showing import plan_lines
from plural_text.sweep.step_options import environment
from plural_text.sweep.steps import make_once
from study import seed_numbers

TABLES = Path(__file__).resolve().parent
JUDGES = TABLES.parents[1] / "data" / "text" / "judges"
STOPPED = 75
# model_type of config.json -> family of the papers' models
_FAMILIES = {"mistral": "mistral", "llama": "llama2", "gemma": "gemma"}


def table_names() -> list[str]:
    return sorted(file.stem for file in TABLES.glob("*.yaml"))


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Errors: UsageError."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str):
            raise UsageError(f"{message} (see launch/reproduce TABLE --help)")

    parser = Parser(
        prog="launch/reproduce TABLE",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("table", choices=table_names(), metavar="TABLE", help=", ".join(table_names()))
    add("folder", type=Path, nargs="?", help="where results stay (default: runs/papers/TABLE)")
    add(
        "--model", type=Path, required=True, metavar="DIR", help="folder of the model, or its name on the Hub"
    )
    add("--data", type=Path, required=True, metavar="DIR", help="the released files (docs/data.md)")
    add(
        "--family",
        metavar="NAME",
        help="whose figures stand beside ours (default: by the model's config.json)",
    )
    add("--seeds", type=seed_numbers, default=[1, 2, 3], metavar="1,2,3", help="(default: 1,2,3)")
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
    add("--png", action="store_true", help="also the picture as PNG, which needs Chromium")
    options = parser.parse_args(words)
    if len(options.judge_model) != len(options.judge):
        raise UsageError(
            f"{len(options.judge)} --judge and {len(options.judge_model)} --judge-model; give one each"
        )
    return options


def run(options: argparse.Namespace) -> int:
    """Exit code: 0, 1 where a check does not hold, or that of what failed."""
    folder = (options.folder or Path("runs/papers") / options.table).resolve()
    model = hub_folder(options.model, "--model", "folder of a model").resolve()
    if not options.data.is_dir():
        raise MissingInput(
            f"--data '{options.data}': no such folder; docs/data.md says where the files come from"
        )
    file = TABLES / f"{options.table}.yaml"
    places = {
        "model": str(model),
        "data": str(options.data.resolve()),
        "corpora": str(folder / "corpora"),
        "recipes": str(TABLES.parent),
        "judges": str(JUDGES),
    }
    table = read_table(file, options.family or _family(model, families_of(file)), places)
    prepare_all(table, model, options.data.resolve(), folder)
    changed = write_sweep(table, folder, options)
    planned = plan(folder / "sweep.yaml")
    if options.plan:
        print("\n".join([*plan_lines(planned), *cost_lines(planned, model, options.tflops)]))
        return 0
    words = ["submit", str(folder / "sweep.yaml"), *(f"--sbatch={option}" for option in options.sbatch)]
    if not options.submit:
        words = ["run", str(folder / "sweep.yaml"), *(["--jobs", str(options.jobs)] if options.jobs else [])]
    unfinished = any(planned.folder.state(one) != "finished" for one in planned.runs)
    code = 0
    if unfinished or not (planned.folder.root / "table.json").exists():
        code = _sweep(words)
    if options.submit and unfinished:
        return code
    return code or finish(table, planned.folder.root, folder, options, changed)


def prepare_all(table: Table, model: Path, data: Path, folder: Path) -> None:
    """The corpora that are not there yet from these files. Errors: MissingInput, those of plural prepare."""
    (folder / "corpora").mkdir(parents=True, exist_ok=True)
    contents = Contents(folder / "corpora" / "inputs.json")
    with Progress("preparing", len(table.corpora), "corpora", sys.stderr) as progress:
        for done, corpus in enumerate(table.corpora, 1):
            _prepare(corpus, model, data, folder / "corpora", contents)
            progress.update(done, done)
    contents.keep()


def _prepare(corpus: Corpus, model: Path, data: Path, folder: Path, contents: Contents) -> None:
    inputs = [data / name for name in corpus.inputs]
    for file in inputs:
        if not file.exists():
            raise MissingInput(
                f"{file}: not there; docs/data.md says where it comes from, --data names its folder"
            )
    made = folder / f"{corpus.name}.h5"
    read = [_together(inputs, folder / corpus.name)] if all(file.is_dir() for file in inputs) else inputs
    words = ["prepare", *map(str, read), "--tokenizer", str(model), "--format", corpus.format]
    words += ["--template", corpus.template, "--quiet", "-o", str(made), "--force"]
    words += ["--prompts-only"] if corpus.prompts_only else []
    log = folder / f"{corpus.name}.log"

    def work() -> None:
        log.unlink(missing_ok=True)
        command = [sys.executable, "-P", "-m", "plural_text", *words]
        code = Processes().run(command, environment(), log)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"]
            error = CommandError(
                lines[-1].removeprefix("plural: error: ").rpartition(" [exit")[0] or lines[-1]
            )
            error.exit_code = code if code > 0 else CommandError.exit_code
            raise error

    make_once(folder / f"{corpus.name}.made.json", words, inputs, [made], contents, work)


def _together(folders: Sequence[Path], view: Path) -> Path:
    """A folder of these folders: ids of prompts then begin with the name of theirs, the task."""
    view.mkdir(exist_ok=True)
    for folder in folders:
        link = view / folder.name
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
    return view


def write_sweep(table: Table, folder: Path, options: argparse.Namespace) -> list[str]:
    """FOLDER/sweep.yaml; what is not as the table says, for its foot. Errors: UsageError."""
    sweep: dict[str, Any] = json.loads(json.dumps(table.sweep))
    sweep |= {"name": "runs", "dir": str(folder), "seeds": options.seeds, "threads": options.threads}
    recipe = dict(map(_pair, options.set))
    steps = {"generate": dict(map(_pair, options.generate)), "persona": dict(map(_pair, options.persona))}
    # Last and of all settings: what the table sets for some of them gives way, too.
    asked = {
        f"evaluate.{one['name']}.{step}.{option}": value
        for one in sweep["evaluate"]
        for step, given in steps.items()
        for option, value in given.items()
        if step in one
    }
    sweep.setdefault("when", []).append({"if": {}, "set": {**recipe, **asked}})
    for one in sweep["evaluate"]:
        put_judges(one, options)
    write_whole(folder / "sweep.yaml", yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True))
    for step, given in steps.items():
        if any(step in one for one in sweep["evaluate"]):
            recipe |= given
    return [f"{key} = {value}" for key, value in recipe.items()]


def finish(
    table: Table, swept: Path, folder: Path, options: argparse.Namespace, changed: Sequence[str]
) -> int:
    """Table, results, picture. Errors: BadData."""
    read = read_json(swept / "table.json")
    if read is None:
        raise BadData(
            f"{swept / 'table.json'}: holds no table; launch/plural sweep report {folder / 'sweep.yaml'}"
        )
    found = outcome.fill(table, read)
    if changed:
        found.note(f"Not as in the paper: {', '.join(changed)}.")
    if not options.judge and any("incoherence" in column.figure for column in table.columns):
        found.note("Incoherence needs --judge.")
    if not options.judge and any("persona" in one for one in table.sweep["evaluate"]):
        found.note("Asked by the script recipes/papers/persona-questions.jsonl, since there was no --judge.")
    file = outcome.keep(found, folder, {"model": str(options.model), "seeds": options.seeds})
    print(f"\n{found.text()}\n{file}, {folder / 'results.json'}")
    drawn = outcome.picture(table, found)
    if drawn:
        drawing = images.for_paper(drawn, drawn.title, 1000, 640)
        write_whole(folder / "picture.html", plotly.io.to_html(drawing, validate=False))
        print(folder / "picture.html")
        if options.png:
            with Progress("drawing", 1, "pictures", sys.stderr) as progress:
                (content,) = images.draw([drawing], "png", 2, progress)
            (folder / "picture.png").write_bytes(content)
    return 0 if found.all_hold else 1


def _sweep(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    sweep_command.add_arguments(parser)
    return sweep_command.run(parser.parse_args(list(words)))


def _family(model: Path, known: Sequence[str]) -> str:
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


def _pair(text: str) -> tuple[str, Any]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"'{text}' is no KEY=VALUE")
    return key, plain_value(value)


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

"""`plural track RUN`: sends a run's figures to TensorBoard, Weights & Biases and trackio.

The figures are those of metrics.jsonl, with its names: `train/loss`, `validation/perplexity`; the recipe is
the config. Each line is sent once, by however many starts; a tracker that is new gets all lines. Without
options the keys `log.tensorboard`, `log.wandb` and `log.trackio` of the run's recipe say where to. A training
that has these keys starts `plural track RUN --follow` by itself.

Owns: options, what the recipe asks for, the loop of --follow. Does not own: lines (sending.py), trackers.
Thread rule: one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from plural_text.common import recipe_yaml
from plural_text.common.errors import BadData, CannotCreate, CommandError, MissingInput, UsageError
from plural_text.common.progress import Progress
from plural_text.common.run_state import RunFolder, require_run
from plural_text.track.sending import Sending
from plural_text.track.sent import SentFile, only_tracker
from plural_text.track.tensorboard import TensorBoard
from plural_text.track.trackio_store import Trackio
from plural_text.track.weights_and_biases import WeightsAndBiases

_SECONDS_BETWEEN_LOOKS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of a run, such as runs/mine")
    add("--tensorboard", action="store_true", help="event files in log/tensorboard of the run's folder")
    add("--wandb", metavar="PROJECT", help="project of Weights & Biases")
    add(
        "--wandb-mode",
        choices=["online", "offline"],
        help="offline: into log/wandb of the run's folder, for `wandb sync` (default: as the recipe says)",
    )
    add("--trackio", action="store_true", help="trackio's store of this user, or of the variable TRACKIO_DIR")
    add("--follow", action="store_true", help="go on until the training ends, on the machine of its rank 0")


def run(arguments: argparse.Namespace) -> int:
    run_folder = require_run(arguments.run)
    if arguments.follow:
        _step_aside()
    while True:
        with only_tracker(run_folder.logs) as alone:
            if not alone and arguments.follow:
                return 0  # the other process looks again when it has let go of the lock
            if not alone:
                lock = run_folder.logs / "track.lock"
                raise CannotCreate(f"{lock}: another process sends the figures of this run; wait for it")
            recipe_text, recipe = _recipe(run_folder)
            sendings = _sendings(run_folder, _wanted(arguments, recipe), recipe_text, recipe)
            _send(sendings, run_folder, arguments.follow)
        # The tracker of a training that started while this process had the lock has left it to us.
        left = run_folder.is_held() or any(sending.has_new() for sending in sendings)
        if not arguments.follow or not left:
            return 0


def _sendings(run_folder: RunFolder, settings: _Settings, recipe_text: str, recipe: dict) -> list[Sending]:
    file, logs = SentFile(run_folder.logs), run_folder.logs
    sendings = []
    if settings.tensorboard:
        make = lambda own: TensorBoard(logs / "tensorboard", recipe_text, own)
        sendings.append(Sending("tensorboard", run_folder, file, make))
    if wandb := settings.wandb:
        make = lambda own: WeightsAndBiases(logs, wandb, recipe, own)
        # Another project has got nothing yet.
        place = "/".join(part for part in ("wandb", wandb["entity"], wandb["project"]) if part)
        sendings.append(Sending(place, run_folder, file, make))
    if settings.trackio:
        make = lambda own: Trackio(settings.name, recipe, own)
        sendings.append(Sending("trackio", run_folder, file, make))
    return sendings


@dataclass(frozen=True)
class _Settings:
    tensorboard: bool
    wandb: dict | None  # project, mode, entity, name; None: not this tracker
    trackio: bool
    name: str  # of the run


def _recipe(run_folder: RunFolder) -> tuple[str, dict]:
    """Text and values of the resolved recipe. Errors: MissingInput, BadData."""
    path = run_folder.recipe
    try:
        text = path.read_text(encoding="utf-8")
        values = recipe_yaml.load(text)
    except OSError as error:
        raise MissingInput(f"{path}: cannot be read: {error.strerror}; it is the recipe of the run") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadData(f"{path}: is no YAML: {error}; restore it") from None
    if not isinstance(values, dict):
        raise BadData(f"{path}: is no recipe; restore it")
    return text, values


def _wanted(arguments: argparse.Namespace, recipe: dict) -> _Settings:
    """Options decide alone where they name one, else the recipe. Errors: UsageError where neither does;
    BadData."""
    try:
        log = recipe.get("log") or {}
        theirs = log.get("wandb") or {}
        project, tensorboard = theirs.get("project"), log.get("tensorboard", False)
        mode, entity = theirs.get("mode", "online"), theirs.get("entity")
        trackio = log.get("trackio", False)
        own_name = str(recipe.get("name") or arguments.run.resolve().name)
        name = theirs.get("name") or own_name
    except AttributeError:
        raise BadData(
            f"{arguments.run / 'recipe.yaml'}: 'log' is no section of a recipe; restore it"
        ) from None
    mode = arguments.wandb_mode or mode
    if arguments.tensorboard or arguments.wandb or arguments.trackio:
        project, tensorboard, trackio = arguments.wandb, arguments.tensorboard, arguments.trackio
        mode = mode if arguments.wandb_mode or mode != "disabled" else "online"
    wandb = {"project": project, "mode": mode, "entity": entity, "name": name}
    wandb = wandb if project and mode != "disabled" else None
    settings = _Settings(bool(tensorboard), wandb, bool(trackio), own_name)
    if not (settings.tensorboard or settings.wandb or settings.trackio):
        raise UsageError(
            "nothing to send to: the run's recipe has none of log.tensorboard, log.wandb.project and "
            "log.trackio; give --tensorboard, --wandb PROJECT or --trackio"
        )
    return settings


def _step_aside() -> None:
    """A rank may be bound to the core that this process has from it; every other core is free for us, too."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _send(sendings: list[Sending], run_folder: RunFolder, follow: bool) -> None:
    """Until there is nothing new; with `follow` until the training has ended, too. A tracker that fails
    leaves the others at work; its error is raised at the end."""
    working, failed = list(sendings), []
    total = run_folder.metrics.stat().st_size if run_folder.metrics.exists() else 0
    with contextlib.ExitStack() as closing:
        progress = closing.enter_context(
            Progress("track", total * len(sendings), "lines", sys.stderr, quiet=follow)
        )
        for sending in sendings:
            closing.callback(sending.close)
        while working:
            ends = not follow or not run_folder.is_held()  # looked at first: what it wrote is read below
            more = False
            for sending in list(working):
                try:
                    more |= sending.send_new()
                except CommandError as error:
                    failed.append(error)
                    working.remove(sending)
                    if len(sendings) > 1:
                        print(f"plural: warning: {error}", file=sys.stderr, flush=True)
            progress.update(sum(each.bytes_read for each in sendings), sum(each.count for each in sendings))
            if ends and not more:
                break
            if not more:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    for sending in working if not follow else []:
        print(f"{sending.name}: {sending.count:,} lines sent{sending.where}")
    if failed:
        raise failed[0]

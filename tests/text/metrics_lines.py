"""The common part of the tests of `plural track` and `plural watch`: folders of runs, as the trainer leaves
them."""

import fcntl
import json
import os
import socket
from pathlib import Path

RECIPE = """name: mine
seed: 7
optimizer:
  lr: 0.01
log:
  tensorboard: {tensorboard}
  wandb:
    project: {project}
    mode: offline
    entity: null
    name: null
"""


def step(number, loss=None):
    loss = 5.0 / number if loss is None else loss
    return {
        "event": "step",
        "step": number,
        "epoch": (number - 1) // 5,
        "loss": loss,
        "likelihood": loss,
        "unlikelihood": 0.25,
        "grad_norm": "nan" if number == 3 else 0.1,
        "lr": 1e-3,
        "groups": 2,
        "rows": 40,
        "sequence_tokens": 90,
        "seconds": 0.5,
        "data_wait_seconds": 0.0,
        "unpenalised_groups": 0,
    }


def validation(number):
    return {"event": "validation", "step": number, "loss": 2.0, "perplexity": 7.5, "different_responses": 3.5}


def start(last_step=10, event="start", at=0):
    return {
        "event": event,
        "step": at,
        "last_step": last_step,
        "ranks": 2,
        "time_unix_seconds": 1_700_000_000,
    }


def content(lines):
    return "".join(json.dumps(line) + "\n" for line in lines)


class Run:
    """A run's folder below `parent`, whose trainer is this process where hold() was called."""

    def __init__(self, parent: Path, name="mine", lines=(), tensorboard="false", project="null"):
        self.root = parent / name
        (self.root / "log").mkdir(parents=True)
        (self.root / "recipe.yaml").write_text(RECIPE.format(tensorboard=tensorboard, project=project))
        self.metrics = self.root / "metrics.jsonl"
        self.metrics.write_text(content(lines))
        self._lock = None

    def append(self, *lines):
        with open(self.metrics, "a") as stream:
            stream.write(content(lines))

    def hold(self):
        self._lock = open(self.root / "run.lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._lock.flush()

    def let_go(self):
        self._lock.close()

    def log(self, *messages, rank=0):
        with open(self.root / f"log/rank-{rank:05d}.log", "a") as stream:
            for second, (level, message) in enumerate(messages):
                stream.write(f"2026-05-01T12:00:{second + rank:02d}.000Z {level} {message}\n")

    def finish(self):
        (self.root / "adapter").mkdir()

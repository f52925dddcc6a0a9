"""Kills at random instants, flipped bits and full disks, for every method: the bytes of an undisturbed run.

    PYTHONPATH=tests .venv/bin/python tests/soak/kills.py WORK [--methods otoft,cvf] [--kills 100]
        [--flips 60] [--disks 8] [--steps 300] [--seed 1]

A tiny model of each method is trained with sums in one order, over many epochs. Each start is on one to four
ranks and is killed: while it loads, at any time behind, within a save, or while the result is written.
Between starts a bit of the newest checkpoint is flipped: the next start has to set it aside and go on from an
older one. Then a run on a disk of its own finds it full, or read-only, as often as --disks says: root alone
may mount one, best in mounts of its own (unshare -m). A run that is done is followed by another one until all
has struck. Each must end with the adapter and the losses of the run that was left alone on one rank, and with
nothing else in its folder. Prints a line per run and a table as JSON; exit code 1 where something is
otherwise. The slice that CTest runs is tests/e2e/kills_test.py.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import training
from processes import children, working_in

GROUPS, GROUPS_PER_STEP, EVERY = 13, 4, 3  # an epoch is 4 steps, the last one of one group
CORPUS = {"distribution_matching": "targets.h5"}
EXTRA = {"cvf": "cvf: {latents: 4}\n"}
METHODS = ("otoft", "otmft", "peft", "gem", "cvf", "distribution_matching", "pretrain")
RANKS = (1, 1, 2, 2, 2, 3, 4)
WHEN = ("loading", "training", "training", "saving", "saving")
NEAR_THE_END = (*WHEN, "result", "result")
SECONDS = 60.0  # no start of such a model takes as long


def has_entry(folder, beginnings):
    try:
        return any(name.startswith(beginnings) for name in os.listdir(folder))
    except OSError:
        return False


def mount(*words):
    """What a process that has just ended held open is let go a little later."""
    for _ in range(100):
        done = subprocess.run(["mount", *words], capture_output=True, text=True)
        if done.returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError(done.stderr)


class Method:
    """Its recipe, the run that nothing disturbs, and those that are."""

    def __init__(self, folder, method, steps, draw):
        self.folder, self.method, self.steps, self.draw = folder, method, steps, draw
        self.counts = collections.Counter()
        self.worlds = collections.Counter()
        self.wrong = []
        self.adapter = method != "pretrain"
        training.write_recipe(
            folder / f"{method}.yaml",
            method,
            method,
            CORPUS.get(method, "corpus.h5"),
            adapter=self.adapter,
            dtype="fp32",
            dropout=0.1 if method == "peft" else 0.0,
            extra=f"""{EXTRA.get(method, "")}
train: {{epochs: 100000, steps: {steps}, groups_per_step: {GROUPS_PER_STEP}, reduction: canonical}}
checkpoint: {{every_steps: {EVERY}, keep: 4}}
""",
        )

    def begin(self, name, runs="runs"):
        self.name, self.run = name, self.folder / runs / name
        self.overrides = [f"name={name}", f"run.dir={runs}"]
        self.flipped = None  # the step whose checkpoint is damaged, until a start has found it
        self.ranks_before = 0

    def start(self, ranks):
        command = [training.PLURAL, "train", f"{self.method}.yaml", *self.overrides]
        self.said = open(self.folder / "said", "w+", errors="replace")
        return subprocess.Popen(
            command if ranks == 1 else training.mpirun(ranks) + command,
            cwd=self.folder,
            stdout=self.said,
            stderr=subprocess.STDOUT,
        )

    def checkpoints(self):
        return sorted(self.run.glob("checkpoints/step-" + "[0-9]" * 8))

    def ended(self, process, ranks, expected, what):
        """Looks at what the start has said and how it ended."""
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = f"no end within {SECONDS:.0f} s"
        self.counts["starts"] += 1
        self.said.seek(0)
        said = self.said.read()
        self.said.close()
        if code not in expected:
            self.wrong.append(f"{self.name}: {code} after {what}: {said[-300:]}")
        resumed = re.search(r"resumed after step (\d+) of", said)
        if resumed:
            step = int(resumed[1])
            self.counts["resumes"] += 1
            self.counts["at an epoch's edge"] += step % -(-GROUPS // GROUPS_PER_STEP) == 0
            if self.ranks_before != ranks and self.ranks_before:
                self.worlds[f"{self.ranks_before}->{ranks}"] += 1
            self.ranks_before = ranks
        elif not self.ranks_before and self.checkpoints():
            self.ranks_before = ranks
        if self.flipped is not None:
            aside = list(self.run.glob(f"checkpoints/step-{self.flipped:08}.bad-*"))
            if resumed and (int(resumed[1]) >= self.flipped or not aside):
                self.wrong.append(f"{self.name}: went on from the damaged step {self.flipped}")
            if aside:
                self.counts["flips found"] += 1
                for folder in aside:
                    shutil.rmtree(folder)
            if aside or resumed:
                self.flipped = None
        return code

    def is_finished(self):
        return (self.run / ("adapter" if self.adapter else "model")).exists()

    def flip(self):
        steps = self.checkpoints()
        if len(steps) < 2 or self.flipped is not None or self.is_finished():
            return
        file = self.draw.choice(sorted(steps[-1].iterdir()))
        content = bytearray(file.read_bytes())
        content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        file.write_bytes(content)
        self.flipped = int(steps[-1].name[5:])
        self.counts["flips"] += 1

    def await_instant(self, process, when):
        """Returns at a random instant of that kind, or when the process has ended."""

        def until(is_there, beat=0.001):
            while process.poll() is None and not is_there():
                time.sleep(beat)

        if when == "loading":
            until_then = time.monotonic() + self.draw.uniform(0.0, 1.2)
            return until(lambda: time.monotonic() > until_then)
        metrics = self.run / "metrics.jsonl"
        try:
            before = metrics.stat().st_mtime_ns
        except OSError:
            before = 0
        until(lambda: metrics.exists() and metrics.stat().st_mtime_ns != before)
        if when == "result":
            return until(lambda: has_entry(self.run, (".tmp-adapter", ".tmp-model", "adapter", "model")))
        begun = time.monotonic()
        later = begun + self.draw.uniform(0.0, 0.6)
        until(lambda: time.monotonic() > later)
        if when == "saving":
            until(lambda: has_entry(self.run / "checkpoints", ".tmp-"))
            later = time.monotonic() + self.draw.uniform(0.0, 0.02)
            until(lambda: time.monotonic() > later)

    def kill(self, process, ranks):
        """One rank, all of them, or the launcher. Returns the code that must come of it."""
        victims = children(process.pid) if ranks > 1 else [process.pid]
        whom = self.draw.choice(("one", "one", "all", "launcher")) if ranks > 1 else "one"
        code = -signal.SIGKILL if ranks == 1 or whom == "launcher" else 128 + signal.SIGKILL
        if whom == "launcher":
            victims = [process.pid]
        elif whom == "one" and victims:
            victims = [self.draw.choice(victims)]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait()
        deadline = time.monotonic() + 30
        while working_in(self.folder) and time.monotonic() < deadline:
            time.sleep(0.02)
        if working_in(self.folder):
            self.wrong.append(f"{self.name}: ranks live on after their launcher")
        return code

    def killed_start(self):
        """False: the run has come to its end before."""
        ranks, steps = self.draw.choice(RANKS), self.checkpoints()
        near_the_end = steps and int(steps[-1].name[5:]) > 0.8 * self.steps
        when = self.draw.choice(NEAR_THE_END if near_the_end else WHEN)
        process = self.start(ranks)
        self.await_instant(process, when)
        if process.poll() is not None:
            return self.ended(process, ranks, (0,), "nothing") != 0
        code = self.kill(process, ranks)
        # A kill may come when the rank has just ended by itself.
        if self.ended(process, ranks, (code, 0), f"a kill while {when}") == 0:
            return False
        self.counts["kills"] += 1
        self.counts[f"while {when}"] += 1
        return True

    def finish(self):
        ranks = self.draw.choice(RANKS)
        self.ended(self.start(ranks), ranks, (0,), "nothing")
        self.compare()

    def result(self, run):
        return (
            run / ("adapter/adapter_model.safetensors" if self.adapter else "model/model.safetensors")
        ).read_bytes()

    def compare(self):
        calm = self.folder / "runs" / self.method
        if not calm.exists():
            name, run = self.name, self.run
            self.begin(self.method)
            self.ended(self.start(1), 1, (0,), "nothing")
            self.name, self.run = name, run
            self.counts["starts"] -= 1
        try:
            equal = self.result(self.run) == self.result(calm)
        except OSError:
            equal = False
        losses = [
            [
                json.loads(line)["loss"]
                for line in (run / "metrics.jsonl").read_text().splitlines()
                if '"event":"step"' in line
            ]
            for run in (self.run, calm)
        ]
        self.counts["runs"] += 1
        self.counts["equal"] += equal and losses[0] == losses[1]
        if not equal or losses[0] != losses[1]:
            self.wrong.append(f"{self.name}: other bytes than the run that was left alone")
        if leftovers := [str(path) for path in self.run.rglob(".*")]:
            self.wrong.append(f"{self.name}: left behind: {leftovers}")
        done = subprocess.run(
            [training.PLURAL, "verify", str(self.run)], cwd=self.folder, capture_output=True, text=True
        )
        if done.returncode != 0:
            self.wrong.append(f"{self.name}: verify says {done.stderr}")
        print(f"{self.name}: {'equal' if equal else 'OTHER BYTES'}, {dict(self.counts)}", flush=True)
        if not self.wrong:
            shutil.rmtree(self.run)

    def kills_and_flips(self, kills, flips):
        number = 0
        while self.counts["kills"] < kills or self.counts["flips"] < flips:
            self.begin(f"{self.method}-{number}")
            number += 1
            while self.counts["kills"] < kills or self.counts["flips"] < flips:
                if not self.killed_start():
                    break
                if self.counts["flips"] < flips and self.draw.random() < 0.8:
                    self.flip()
            self.finish()

    def disks(self, times):
        """On a file system of its own, which is full or read-only for a start."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        if times == 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk]).returncode:
            return
        ballast, number = disk / "ballast", 0
        try:
            while self.counts["full"] + self.counts["read-only"] < times:
                self.begin(f"{self.method}-disk-{number}", "disk")
                number += 1
                while self.counts["full"] + self.counts["read-only"] < times:
                    if not (self.read_only(disk) if self.draw.random() < 0.4 else self.full(disk, ballast)):
                        break
                    if not self.killed_start():  # so that the run moves on
                        break
                self.finish()
        finally:
            subprocess.run(["umount", "-l", disk], check=True)

    def full(self, disk, ballast):
        free = self.draw.randrange(0, 400_000)
        space = os.statvfs(disk)
        ballast.write_bytes(bytes(max(0, space.f_bavail * space.f_frsize - free)))
        ranks = self.draw.choice(RANKS)
        code = self.ended(self.start(ranks), ranks, (0, 73, 74), f"a disk with {free} free bytes")
        ballast.unlink()
        self.counts["full"] += code in (73, 74)
        return code != 0

    def read_only(self, disk):
        """At the start, or from some time on for checkpoints alone: what is open for writing stays so."""
        ranks = self.draw.choice(RANKS)
        if self.draw.random() < 0.5 or not self.checkpoints():
            mount("-o", "remount,ro", disk)
            code = self.ended(
                self.start(ranks), ranks, (0,) if self.is_finished() else (73,), "a read-only disk"
            )
            mount("-o", "remount,rw", disk)
        else:
            folder = self.run / "checkpoints"
            mount("--bind", folder, folder)
            process = self.start(ranks)
            self.await_instant(process, "training")
            mount("-o", "remount,bind,ro", folder)
            code = self.ended(process, ranks, (0, 74), "checkpoints that became read-only")
            subprocess.run(["umount", "-l", folder], check=True)
        self.counts["read-only"] += code in (73, 74)
        return code != 0


def disturb(folder, methods, kills, flips, disks, steps, seed):
    """The figures of each method, and what was otherwise than it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    training.write_corpus(folder / "corpus.h5", training.random_groups(GROUPS))
    training.write_corpus(
        folder / "targets.h5", training.random_groups(GROUPS, targets=True), source_format="targets"
    )
    table, wrong = {}, []
    for name in methods:
        begun = time.monotonic()
        method = Method(folder, name, steps, random.Random(f"{seed} {name}"))
        method.kills_and_flips(kills, flips)
        method.disks(disks)
        table[name] = {
            **dict(sorted(method.counts.items())),
            "worlds": dict(sorted(method.worlds.items())),
            "minutes": round((time.monotonic() - begun) / 60, 1),
        }
        wrong += method.wrong
    return table, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--kills", type=int, default=100, help="of each method")
    parser.add_argument("--flips", type=int, default=60)
    parser.add_argument("--disks", type=int, default=8, help="starts on a full or read-only disk")
    parser.add_argument("--steps", type=int, default=300, help="of each run")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    table, wrong = disturb(
        given.work.resolve(),
        given.methods.split(","),
        given.kills,
        given.flips,
        given.disks,
        given.steps,
        given.seed,
    )
    print(json.dumps({"methods": table, "wrong": wrong}, indent=1))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

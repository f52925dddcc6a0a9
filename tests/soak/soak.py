"""A run that is disturbed for half an hour ends with the bytes of one that is not.

    PYTHONPATH=tests .venv/bin/python tests/soak/soak.py WORK [--minutes 30] [--every 15] [--steps 60000]
        [--seed 1]

A tiny model is trained on one to three ranks, with sums in one order. Every so many seconds one fault of
the menu strikes; the run is started again, on another number of ranks. Then the same run is made
undisturbed on one rank, and the adapters are compared. Prints a line per fault and a summary as JSON; exit
code 1 where the bytes differ, a start did not end as documented, or something was left behind.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import training

# What the end of a start may be, by fault. 75 and 0 are always right: a fault may come too late.
CODES = {
    "kill a rank": {137},
    "kill mpirun": {-9},
    "stop a rank": {76},
    "USR1 to all": {75},
    "USR1 twice": {75},
    "HUP to a rank": {75},
    "TERM to a rank": {75},
    "TERM to mpirun": {1},
    "abort a rank": {134},
    "flip a bit": {137},
    "cut a file": {137},
    "lose a manifest": {137},
}
DAMAGE = ("flip a bit", "cut a file", "lose a manifest")


def children(pid):
    """Ranks below a process: plural's, without their guards."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = file.read_text().partition("(")[2].rpartition(") ")
        except OSError:
            continue
        if name == "plural" and int(rest.split()[1]) == pid:
            found.append(int(file.parent.name))
    return found


def ours(folder):
    """Processes that work in `folder`."""
    found = []
    for link in pathlib.Path("/proc").glob("[0-9]*/cwd"):
        try:
            if os.readlink(link) == str(folder) and int(link.parent.name) != os.getpid():
                found.append(int(link.parent.name))
        except OSError:
            continue
    return found


class Soak:
    def __init__(self, arguments):
        self.folder = arguments.work.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.draw = random.Random(arguments.seed)
        self.arguments = arguments
        self.struck = collections.Counter()
        self.codes = collections.Counter()
        self.wrong = []
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(13))
        self.recipe = self.folder / "recipe.yaml"
        training.write_recipe(
            self.recipe,
            "disturbed",
            dtype="fp32",
            extra=f"train: {{epochs: 1000000, steps: {arguments.steps}, groups_per_step: 4, "
            "reduction: canonical, log_every_steps: 100}\ncheckpoint: {every_steps: 50}",
        )

    @property
    def run(self):
        return self.folder / "runs/disturbed"

    def start(self, ranks, *overrides):
        return subprocess.Popen(
            [*training.mpirun(ranks), training.PLURAL, "train", str(self.recipe), *overrides],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=open(self.folder / "stderr.log", "a"),
        )

    def strike(self, fault, launcher):
        ranks = children(launcher.pid)
        if not ranks:
            return
        victim = self.draw.choice(ranks)
        signals = {
            "kill a rank": (victim, signal.SIGKILL),
            "kill mpirun": (launcher.pid, signal.SIGKILL),
            "stop a rank": (victim, signal.SIGSTOP),
            "USR1 to all": (launcher.pid, signal.SIGUSR1),
            "USR1 twice": (launcher.pid, signal.SIGUSR1),
            "HUP to a rank": (victim, signal.SIGHUP),
            "TERM to a rank": (victim, signal.SIGTERM),
            "TERM to mpirun": (launcher.pid, signal.SIGTERM),
            "abort a rank": (victim, signal.SIGABRT),
        }
        whom, what = signals.get(fault, (victim, signal.SIGKILL))
        try:
            os.kill(whom, what)
            if fault == "USR1 twice":
                time.sleep(0.02)
                os.kill(whom, what)
        except ProcessLookupError:
            return
        self.struck[fault] += 1

    def damage(self, fault):
        """The newest checkpoint, where there are two."""
        steps = sorted(self.run.glob("checkpoints/step-" + "[0-9]" * 8))
        if len(steps) < 2:
            return
        if fault == "lose a manifest":
            (steps[-1] / "manifest.json").unlink()
            return
        file = self.draw.choice(sorted(steps[-1].glob("*")))
        content = bytearray(file.read_bytes())
        if fault == "cut a file":
            del content[-1]
        else:
            content[self.draw.randrange(len(content))] ^= 1 << self.draw.randrange(8)
        file.write_bytes(content)

    def disturb(self):
        until = time.monotonic() + 60 * self.arguments.minutes
        while True:
            ranks = self.draw.choice((1, 2, 2, 3))
            launcher = self.start(ranks)
            fault = self.draw.choice(sorted(CODES)) if time.monotonic() < until else None
            try:
                launcher.wait(self.draw.uniform(0.2, 2.0) * self.arguments.every if fault else None)
            except subprocess.TimeoutExpired:
                self.strike(fault, launcher)
                try:
                    launcher.wait(60)
                except subprocess.TimeoutExpired:
                    self.wrong.append(f"a start hung for 60 s after: {fault}")
                    launcher.kill()
                    launcher.wait()
            code = launcher.returncode
            self.codes[code] += 1
            print(f"{ranks} ranks, {fault or 'undisturbed'}: {code}, {self.newest()}", flush=True)
            if code == 0:
                return
            if code != 75 and code not in CODES.get(fault, ()):
                self.wrong.append(f"code {code} after: {fault}")
                if fault is None:
                    return
            if fault in DAMAGE:
                self.damage(fault)

    def newest(self):
        return max(
            (file.name for file in self.run.glob("checkpoints/step-" + "[0-9]" * 8)), default="no checkpoint"
        )

    def check(self):
        code = self.start(1, "name=undisturbed").wait()
        if code != 0:
            self.wrong.append(f"the undisturbed run ended with {code}")
        adapters = [
            (self.folder / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()
            for name in ("disturbed", "undisturbed")
        ]
        if adapters[0] != adapters[1]:
            self.wrong.append("the adapters differ")
        steps = [
            line["step"]
            for line in map(json.loads, (self.run / "metrics.jsonl").read_text().splitlines())
            if line["event"] == "step"
        ]
        if steps != list(range(100, self.arguments.steps + 1, 100)):
            self.wrong.append("metrics.jsonl does not have every hundredth step once")
        leftovers = [str(file) for file in self.run.rglob(".*") if file.name not in (".", "..")]
        if leftovers:
            self.wrong.append(f"left behind: {leftovers}")
        if processes := ours(self.folder):
            self.wrong.append(f"processes left: {processes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=15, help="seconds between faults, about")
    parser.add_argument("--steps", type=int, default=60000, help="a multiple of 100")
    parser.add_argument("--seed", type=int, default=1)
    soak = Soak(parser.parse_args())
    started = time.monotonic()
    soak.disturb()
    soak.check()
    print(
        json.dumps(
            {
                "minutes": round((time.monotonic() - started) / 60, 1),
                "faults": dict(soak.struck),
                "codes": dict(soak.codes),
                "bad_checkpoints": len(list(soak.run.glob("checkpoints/*.bad-*"))),
                "wrong": soak.wrong,
            },
            indent=1,
        )
    )
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()

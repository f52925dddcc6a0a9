"""A run that is disturbed for half an hour ends with the bytes of one that is not.

    PYTHONPATH=tests .venv/bin/python tests/soak/soak.py WORK [--minutes 30] [--every 15] [--steps 60000]
        [--seed 1]

A tiny model is trained on one to three ranks, with sums in one order, validations and second copies of
checkpoints. Every so many seconds one fault of the menu strikes; the run is started again, on another
number of ranks. Then the same run is made undisturbed on one rank, and the adapters are compared. Prints a
line per fault and a summary as JSON; exit code 1 where the bytes differ, a start did not end as documented,
or something was left behind. The program is one that is built with tests (trainer/run/fault.h).
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
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
    "USR2, then USR1": {75},
    "flip a bit": {137},
    "cut a file": {137},
    "lose a manifest": {137},
    "lose all checkpoints": {137},
    "lose the run folder": {137},
    "damage the newest and its copy": {137},
    "throw": {70},
    "segv": {139},
    "exit": {3},
    "nan": {77},
    "bitflip": {79},
    "spin": {76},
    "enospc": {74},
    "torn": {137},
}
DAMAGE = (
    "flip a bit",
    "cut a file",
    "lose a manifest",
    "lose all checkpoints",
    "lose the run folder",
    "damage the newest and its copy",
)
HOOKS = ("throw", "segv", "exit", "nan", "bitflip", "spin", "enospc", "torn")  # PLURAL_FAULT
EVERY = 50  # steps between checkpoints


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


def heard(pid):
    """Whether the process has its handlers: before main a signal ends it, as it ends any program."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & (1 << (signal.SIGUSR1 - 1)))


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
        self.hours = []  # what ranks held when a fault came: [seconds, MiB, open files]
        self.segments = len(list(pathlib.Path("/dev/shm").iterdir()))
        self.struck = collections.Counter()
        self.codes = collections.Counter()
        self.wrong = []
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(13))
        training.write_corpus(self.folder / "held-out.h5", training.random_groups(4, seed=1))
        self.recipe = self.folder / "recipe.yaml"
        training.write_recipe(
            self.recipe,
            "disturbed",
            corpus="corpus.h5, validation: held-out.h5",
            dtype="fp32",
            extra=f"""train:
  epochs: 1000000
  steps: {arguments.steps}
  groups_per_step: 4
  reduction: canonical
  log_every_steps: 100
checkpoint: {{every_steps: {EVERY}, keep_best: loss, mirror: copies}}
validation: {{every_steps: 500, responses: 1, max_new_tokens: 4}}
guard: {{collapse: warn, replicas_every_steps: 20}}
watchdog: {{start_seconds: 30, step_seconds: 10}}
""",
        )

    @property
    def run(self):
        return self.folder / "runs/disturbed"

    def start(self, ranks, *overrides, hook=""):
        return subprocess.Popen(
            [*training.mpirun(ranks), training.PLURAL, "train", str(self.recipe), *overrides],
            cwd=self.folder,
            env={**os.environ, "PLURAL_FAULT": hook},
            stdout=subprocess.DEVNULL,
            stderr=open(self.folder / "stderr.log", "a"),
        )

    def hook(self, fault, ranks):
        """PLURAL_FAULT for a step that the next start comes to; with it the fault strikes by itself."""
        if fault not in HOOKS:
            return ""
        # Behind the first five steps of the start, which the watchdog gives more time.
        step = self.newest_step() + self.draw.randint(8, 40 * int(self.arguments.every))
        if fault in ("enospc", "torn"):
            return f"{fault}@0:{(step // EVERY + 1) * EVERY}"
        return f"{fault}@{self.draw.randrange(ranks)}:{step}"

    def strike(self, fault, launcher):
        ranks = children(launcher.pid)
        until = time.monotonic() + 30
        while not (ranks and all(map(heard, ranks))):
            if launcher.poll() is not None or time.monotonic() > until:
                return
            time.sleep(0.1)
            ranks = children(launcher.pid)
        victim = self.draw.choice(ranks)
        try:
            status = pathlib.Path(f"/proc/{victim}/status").read_text()
            files = len(os.listdir(f"/proc/{victim}/fd"))
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            self.hours.append(
                [round(time.monotonic() - self.started), int(resident.split()[1]) // 1024, files]
            )
        except (OSError, StopIteration):  # it has ended by itself
            return
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
            "USR2, then USR1": (victim, signal.SIGUSR2),
        }
        whom, what = signals.get(fault, (victim, signal.SIGKILL))
        try:
            os.kill(whom, what)
            if fault == "USR1 twice":
                time.sleep(0.02)
                os.kill(whom, what)
            if fault == "USR2, then USR1":
                time.sleep(1)
                os.kill(launcher.pid, signal.SIGUSR1)
        except ProcessLookupError:
            return
        self.struck[fault] += 1

    def damage(self, fault):
        """The newest checkpoint, where there are two; or all of them, of which there are copies."""
        steps = sorted(self.run.glob("checkpoints/step-" + "[0-9]" * 8))
        copies = sorted((self.folder / "copies/disturbed").glob("step-" + "[0-9]" * 8))
        if fault.startswith("lose") and fault != "lose a manifest":
            if len(copies) > 1:
                shutil.rmtree(self.run / "checkpoints" if fault == "lose all checkpoints" else self.run)
            return
        if fault == "damage the newest and its copy" and len(copies) > 1:
            (copies[-1] / "state.json").write_text("{")
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
        self.started = time.monotonic()
        until = self.started + 60 * self.arguments.minutes
        while True:
            ranks = self.draw.choice((1, 2, 2, 3))
            fault = self.draw.choice(sorted(CODES)) if time.monotonic() < until else None
            if fault == "bitflip" and ranks == 1:
                ranks = 2  # one rank has nobody to compare with
            launcher = self.start(ranks, hook=self.hook(fault, ranks))
            hooked = fault in HOOKS
            try:
                patience = self.draw.uniform(0.2, 2.0) * self.arguments.every + (120 if hooked else 0)
                launcher.wait(patience if fault else None)
                if hooked and launcher.returncode in CODES[fault]:
                    self.struck[fault] += 1
            except subprocess.TimeoutExpired:
                self.strike("USR1 to all" if hooked else fault, launcher)
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

    def newest_step(self):
        """Of both places, as a start takes it."""
        places = (self.run / "checkpoints", self.folder / "copies/disturbed")
        return max(
            (int(file.name[5:]) for one in places for file in one.glob("step-" + "[0-9]" * 8)), default=0
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
        folders = (self.run, self.folder / "copies")
        leftovers = [str(file) for folder in folders for file in folder.rglob(".*")]
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
                "bad_checkpoints": len(list(soak.folder.rglob("step-*.bad-*"))),
                "seconds_mib_files_of_first_ranks": soak.hours[:3],
                "of_last_ranks": soak.hours[-3:],
                "largest_mib": max((mib for _, mib, _ in soak.hours), default=0),
                "shared_memory_segments": [soak.segments, len(list(pathlib.Path("/dev/shm").iterdir()))],
                "wrong": soak.wrong,
            },
            indent=1,
        )
    )
    sys.exit(1 if soak.wrong else 0)


if __name__ == "__main__":
    main()

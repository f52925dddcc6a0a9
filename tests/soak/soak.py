"""A run that is disturbed for half an hour ends with the bytes of one that is not.

    PYTHONPATH=tests .venv/bin/python tests/soak/soak.py WORK [--minutes 30] [--every 15] [--steps 60000]
        [--seed 1]

A tiny model is trained on one to three ranks, with sums in one order, validations and second copies of
checkpoints. Every so many seconds one fault of the menu strikes; the run is started again, on another
number of ranks. It is the job script (launch/slurm/job.sh) that starts mpirun, passes stops on and decides
whether a job of Slurm would be requeued; where it would not, this program is the person who starts it again.
Then the same run is made undisturbed on one rank, and the adapters are compared. Prints a line per fault and
a summary as JSON; exit code 1 where the bytes differ, a start did not end as documented, the job script
decided otherwise than it should, or something was left behind. The program is one that is built with tests
(trainer/run/fault.h).

Segments of shared memory are counted in /dev/shm: give the soak one of its own where others run MPI, too
(unshare -m, then mount -t tmpfs tmpfs /dev/shm).
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
from processes import children, working_in

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOB = ROOT / "launch/slurm/job.sh"
# scontrol in place of Slurm's: notes that the job would be requeued, and ends the script by failing.
SCONTROL = """#!/bin/sh
if [ "$1" = requeue ]; then touch requeued; exit 1; fi
echo "JobId=7 JobName=soak JobState=RUNNING Reason=None"
"""
REQUEUED = (75, 76, 137)
# What the end of a start may be, by fault. 75 and 0 are always right: a fault may come too late.
CODES = {
    "kill a rank": {137},
    "kill mpirun": {137},
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


def listens(pid):
    """Whether a signal finds a handler, or waits for one: in bash, before launch/plural holds it back, it
    ends the process."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return bool((int(fields["SigCgt"], 16) | int(fields["SigBlk"], 16)) & (1 << (signal.SIGUSR1 - 1)))


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
        self.step_before = 0  # of the newest checkpoint when the last start ended
        self.by_hand = 0  # starts that the job script leaves to a person
        scontrol = self.folder / "bin/scontrol"
        scontrol.parent.mkdir(exist_ok=True)
        scontrol.write_text(SCONTROL)
        scontrol.chmod(0o755)
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
        (self.folder / "requeued").unlink(missing_ok=True)
        script = f'run_folder=runs/disturbed; startup_seconds=1; source "{JOB}"; run_and_requeue soak "$@"'
        plural = [str(ROOT / "launch/plural"), "train", str(self.recipe), *overrides]
        return subprocess.Popen(
            ["bash", "-c", script, "soak", *training.mpirun(ranks), *plural],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "PLURAL_FAULT": hook,
                "PLURAL_MAX_RESTARTS": "1000000",
                "SLURM_JOB_ID": "7",
            },
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

    def strike(self, fault, job):
        """At any time from the first instant at which every rank is there."""
        until = time.monotonic() + 30
        while True:
            (launcher, *_) = children(job.pid, named="mpirun") or [0]
            ranks = children(launcher, named="plural") if launcher else []
            if ranks and all(map(listens, ranks)):
                break
            if job.poll() is not None or time.monotonic() > until:
                return
            time.sleep(0.02)
        if fault == "stop a rank" and len(ranks) == 1:
            # Nobody sees to a rank that is alone and has no guard yet.
            while job.poll() is None and not children(ranks[0], named="plural-guard"):
                time.sleep(0.02)
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
            "kill mpirun": (launcher, signal.SIGKILL),
            "stop a rank": (victim, signal.SIGSTOP),
            "USR1 to all": (job.pid, signal.SIGUSR1),  # as Slurm sends it: to the script
            "USR1 twice": (launcher, signal.SIGUSR1),
            "HUP to a rank": (victim, signal.SIGHUP),
            "TERM to a rank": (victim, signal.SIGTERM),
            "TERM to mpirun": (launcher, signal.SIGTERM),
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
                os.kill(job.pid, signal.SIGUSR1)
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
            job = self.start(ranks, hook=self.hook(fault, ranks))
            hooked = fault in HOOKS
            try:
                patience = self.draw.uniform(0.0, 2.0) * self.arguments.every + (120 if hooked else 0)
                job.wait(patience if fault else None)
                if hooked and job.returncode in CODES[fault]:
                    self.struck[fault] += 1
            except subprocess.TimeoutExpired:
                self.strike("USR1 to all" if hooked else fault, job)
                try:
                    job.wait(60)
                except subprocess.TimeoutExpired:
                    self.wrong.append(f"a start hung for 60 s after: {fault}")
                    for process in working_in(self.folder):
                        os.kill(process, signal.SIGKILL)
                    job.wait()
            code = job.returncode
            self.codes[code] += 1
            print(f"{ranks} ranks, {fault or 'undisturbed'}: {code}, {self.newest()}", flush=True)
            if code == 0:
                return
            if code != 75 and code not in CODES.get(fault, ()):
                self.wrong.append(f"code {code} after: {fault}")
                if fault is None:
                    return
            self.judge_requeue(code)
            if fault in DAMAGE:
                self.damage(fault)

    def judge_requeue(self, code):
        """By the rule of the job script: what a restart can mend, unless three did not move on."""
        requeued = (self.folder / "requeued").exists()
        self.by_hand += not requeued
        moves_on = self.newest_step() > self.step_before
        self.step_before = self.newest_step()
        if requeued != (code in REQUEUED) and not (code in REQUEUED and not moves_on):
            self.wrong.append(f"code {code} was {'' if requeued else 'not '}requeued")

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
        if processes := working_in(self.folder):
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
                "starts_by_hand": soak.by_hand,
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

"""What a machine grants: cores by affinity and OMP_NUM_THREADS, file systems without locks."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

# Locks answer NO_LOCKS_ERRNO, as on a file system that has none.
NO_LOCKS = """
#include <errno.h>
#include <stdlib.h>
#include <sys/file.h>

static int refuse(void) { errno = atoi(getenv("NO_LOCKS_ERRNO")); return -1; }
int flock(int descriptor, int operation) { (void)descriptor; (void)operation; return refuse(); }
"""
ENOLCK, ENOSYS, EOPNOTSUPP = 37, 38, 95


def granted():
    """Cores that the affinity and the quota of the control group leave this process."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # none, or "max"
        return cores


class GrantedTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(4))
        (cls.folder / "no_locks.c").write_text(NO_LOCKS)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", "no_locks.so", "no_locks.c"], cwd=cls.folder, check=True
        )

    def recipe(self, name, threads):
        path = self.folder / f"{name}.yaml"
        extra = "train: {steps: 1, groups_per_step: 2}\ncheckpoint: {every_steps: 0}"
        training.write_recipe(path, name, method="otmft", extra=extra)
        path.write_text(path.read_text().replace("threads: 1", f"threads: {threads}"))
        return path.name

    def plural(self, *arguments, launcher=(), **variables):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        return subprocess.run(
            [*launcher, training.PLURAL, *arguments],
            cwd=self.folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def threads_of(self, name, launcher=(), **variables):
        """(what train says, what doctor says)"""
        done = self.plural("train", self.recipe(name, 0), launcher=launcher, **variables)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = (self.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        trained = next(json.loads(line)["threads_per_rank"] for line in lines if "threads_per_rank" in line)
        doctor = self.plural("doctor", launcher=launcher, **variables)
        return trained, int(re.search(r"uses (\d+) of them", doctor.stdout)[1])

    def test_threads_follow_the_affinity(self):
        core = str(min(os.sched_getaffinity(0)))
        self.assertEqual(self.threads_of("bound", ["taskset", "-c", core]), (1, 1))
        self.assertEqual(self.threads_of("free"), (granted(), granted()))

    def test_threads_follow_omp_num_threads(self):
        self.assertEqual(self.threads_of("omp", OMP_NUM_THREADS="3"), (3, 3))
        self.assertEqual(self.threads_of("nested", OMP_NUM_THREADS="5,2"), (5, 5))
        for name, text in (("word", "many"), ("empty", "")):  # set, but to no number
            self.assertEqual(self.threads_of(name, OMP_NUM_THREADS=text), (1, 1))

    def test_a_file_system_without_locks_is_trained_on(self):
        for number in (ENOLCK, ENOSYS, EOPNOTSUPP):
            grants = {"LD_PRELOAD": str(self.folder / "no_locks.so"), "NO_LOCKS_ERRNO": str(number)}
            inspected = self.plural("inspect", "corpus.h5", **grants)
            self.assertEqual(inspected.returncode, 0, inspected.stderr)
            name = f"unlocked-{number}"
            trained = self.plural("train", self.recipe(name, 1), **grants)
            self.assertEqual(trained.returncode, 0, trained.stderr)
            self.assertFalse((self.folder / "runs" / name / "run.lock.held").exists())

    def test_without_locks_a_live_run_is_still_held_and_a_dead_one_is_not(self):
        grants = {"LD_PRELOAD": str(self.folder / "no_locks.so"), "NO_LOCKS_ERRNO": str(ENOLCK)}
        recipe = self.recipe("held", 1)
        held = self.folder / "runs" / "held" / "run.lock.held"
        held.parent.mkdir(parents=True)
        host = os.uname().nodename
        held.write_text(f"process {os.getpid()} on {host}")
        refused = self.plural("train", recipe, **grants)
        self.assertEqual(refused.returncode, 73, refused.stderr)
        self.assertIn(f"is being trained by process {os.getpid()} on {host}", refused.stderr)
        self.assertIn("has no locks", refused.stderr)
        held.write_text("process 12 on elsewhere")  # whether it runs cannot be known from here
        self.assertEqual(self.plural("train", recipe, **grants).returncode, 73)
        gone = subprocess.Popen(["true"])
        gone.wait()
        held.write_text(f"process {gone.pid} on {host}")
        self.assertEqual(self.plural("train", recipe, **grants).returncode, 0)
        self.assertFalse(held.exists())


if __name__ == "__main__":
    unittest.main()

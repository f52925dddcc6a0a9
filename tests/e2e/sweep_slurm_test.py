"""A sweep as arrays of a real Slurm: its rows are those of a local run, and nothing is done twice."""

import json
import shutil
import subprocess
import time
import unittest

from e2e.sweep_test import PLURAL, SWEEP, write_inputs
from slurm_cluster import SlurmCluster


class SweepSlurmTest(SlurmCluster):
    def plural(self, *words):
        done = subprocess.run(
            [PLURAL, "sweep", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertIn(done.returncode, (0, 77), done.stdout + done.stderr)
        return done.stdout

    def table(self, folder):
        rows = json.loads((self.folder / folder / "trial/table.json").read_text())["rows"]
        keys = ("label", "state", "figures", "failure")
        return [{key: row[key] for key in keys} for row in rows]

    def wait_until_empty(self, seconds):
        deadline = time.monotonic() + seconds
        while self.slurm("squeue", "--noheader"):
            self.assertLess(time.monotonic(), deadline, self.slurm("squeue"))
            time.sleep(0.5)

    def test_a_cancelled_array_saves_and_does_not_come_back(self):
        write_inputs(self.folder, "name: long\nbase: base.yaml\nseeds: [1, 2, 3]\n", steps=100_000)
        self.plural("submit", "sweep.yaml", "--max-parallel", "1", "--sbatch=--time=5")
        deadline = time.monotonic() + 120
        runs = self.folder / "runs/sweeps/long/runs"
        while not list(runs.glob("*/checkpoints/step-*")):
            self.assertLess(time.monotonic(), deadline, self.slurm("squeue"))
            time.sleep(0.2)
        self.assertRegex(self.plural("cancel", "sweep.yaml"), r"asked to save and stop: \d jobs")
        self.wait_until_empty(60)
        status = self.plural("status", "sweep.yaml")
        self.assertRegex(status, r"run-s1 +waiting +step \d+ of 100000")
        self.assertEqual(len(list(runs.iterdir())), 1)

    def test_arrays_give_the_rows_of_a_local_run(self):
        write_inputs(self.folder)
        printed = self.plural("submit", "sweep.yaml", "--max-parallel", "2", "--sbatch=--time=5")
        self.assertRegex(printed, r"submitted 6 of 6 runs: jobs train \d+, measure \d+, report \d+")
        self.assertRegex(self.plural("status", "sweep.yaml"), r"otmft-s1 .*train (pending|running)")
        self.assertIn("nothing to submit", self.plural("submit", "sweep.yaml"))
        self.wait_until_empty(400)
        array = self.table("runs/sweeps")
        self.assertEqual([row["state"] for row in array], ["finished"] * 4 + ["failed"] * 2)
        status = self.plural("status", "sweep.yaml")
        self.assertIn("failures (plural sweep retry tries them again):", status)
        self.plural("retry", "sweep.yaml")
        self.assertIn("submitted 2 of 4 runs", self.plural("submit", "sweep.yaml", "--only", "otmft"))
        self.plural("cancel", "sweep.yaml")
        self.wait_until_empty(100)
        # The same sweep in another folder, on this machine.
        (self.folder / "sweep.yaml").write_text(SWEEP + "dir: local\n")
        self.plural("run", "sweep.yaml")
        for here, there in zip(self.table("local"), array, strict=True):
            if there["failure"]:
                for failure in (here["failure"], there["failure"]):
                    del failure["at"], failure["attempts"]
            self.assertEqual(here, there)
        shutil.rmtree(self.folder / "local")


if __name__ == "__main__":
    unittest.main()

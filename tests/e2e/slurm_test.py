"""launch/slurm/train.sbatch on a real Slurm."""

import os
import signal
import subprocess
import time
import unittest
from pathlib import Path

import training
from slurm_cluster import ROOT, SlurmCluster

ADAPTER = "adapter/adapter_model.safetensors"
ENDLESS = 10**9  # steps of a run that only a signal ends


class SlurmTest(SlurmCluster):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(16, responses=4))

    def recipe(self, name, steps):
        extra = f"train: {{steps: {steps}, groups_per_step: 16}}\ncheckpoint: {{every_steps: 0}}"
        training.write_recipe(self.folder / f"{name}.yaml", name, dtype="fp32", extra=extra)
        return f"{name}.yaml"

    def submit(self, name, *arguments, nodes=2, ranks_per_node=1):
        job = self.slurm(
            "sbatch",
            "--parsable",
            f"--nodes={nodes}",
            f"--ntasks-per-node={ranks_per_node}",
            "--time=1",
            "--signal=B:USR1@40",
            f"--output={name}.log",
            str(ROOT / "launch/slurm/train.sbatch"),
            *arguments,
        )
        self.addCleanup(subprocess.run, ["scancel", job], env=self.environment, capture_output=True)
        return job

    def log(self, name):
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_for_log(self, name, text, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if text in self.log(name):
                return
            time.sleep(0.1)
        self.fail(f"no '{text}' within {seconds} s in: {self.log(name)}")

    def adapter_of_calm_run(self, name, steps):
        done = training.train(self.folder, self.recipe(name, steps), ranks=2, timeout=600)
        self.assertEqual(done.returncode, 0, done.stderr)
        return (self.folder / "runs" / name / ADAPTER).read_bytes()

    def test_goes_on_after_the_time_limit_as_if_there_were_none(self):
        # Machines differ: a run that ends within its time limit proves nothing and is tried again, longer.
        for steps in (4000, 20000, 100000):
            name = f"limited-{steps}"
            job = self.submit(name, self.recipe(name, steps))
            state = self.wait(job, 500)
            self.assertEqual((state["JobState"], state["ExitCode"]), ("COMPLETED", "0:0"), self.log(name))
            if int(state["Restarts"]) > 0:
                break
        else:
            self.fail("no run was long enough to reach its time limit")
        log = self.log(name)
        self.assertEqual(log.count("train.sbatch: ended with 75"), int(state["Restarts"]), log)
        self.assertRegex(log, rf"resumed after step \d+ of {steps}")
        self.assertEqual(
            (self.folder / "runs" / name / ADAPTER).read_bytes(), self.adapter_of_calm_run("calm", steps)
        )
        done = [line["step"] for line in training.metrics(self.folder, name) if line["event"] == "step"]
        self.assertEqual(done, list(range(1, steps + 1)))

    def test_one_node_gives_what_two_give(self):
        two = self.submit("two", self.recipe("two", 20))
        one = self.submit("one", self.recipe("one", 20), nodes=1, ranks_per_node=2)
        for name, job in (("two", two), ("one", one)):
            self.assertEqual(self.wait(job, 180)["JobState"], "COMPLETED", self.log(name))
            self.assertIn("2 ranks", self.log(name))
        self.assertEqual(
            (self.folder / "runs/one" / ADAPTER).read_bytes(),
            (self.folder / "runs/two" / ADAPTER).read_bytes(),
        )

    def test_what_a_restart_cannot_mend_is_not_requeued(self):
        recipe = self.recipe("refused", 20)
        for name, arguments, code in (
            ("bad-recipe", (recipe, "optimizer.rl=1"), 78),
            ("missing", ("none.yaml",), 66),
            ("no-recipe", (), 64),
        ):
            state = self.wait(self.submit(name, *arguments), 180)
            self.assertEqual(
                (state["JobState"], state["ExitCode"], state["Restarts"]),
                ("FAILED", f"{code}:0", "0"),
                self.log(name),
            )
            self.assertIn("error: ", self.log(name))

    def test_a_killed_rank_ends_the_job(self):
        job = self.submit("killed", self.recipe("killed", ENDLESS))
        self.wait_for_log("killed", "train 1/")
        ranks = [path for path in Path("/proc").glob("[0-9]*") if self.is_rank(path)]
        self.assertEqual(len(ranks), 2)
        os.kill(int(ranks[0].name), signal.SIGKILL)
        state = self.wait(job, 60)
        self.assertEqual((state["JobState"], state["ExitCode"], state["Restarts"]), ("FAILED", "137:0", "0"))

    def is_rank(self, process):
        try:
            return (
                os.path.samefile(process / "exe", training.PLURAL)
                and os.path.samefile(process / "cwd", self.folder)
                and (process / "comm").read_text() != "plural-guard\n"  # the process beside each rank
            )
        except OSError:  # it has ended
            return False

    def test_a_stop_during_the_start_is_not_lost(self):
        job = self.submit("early", self.recipe("early", ENDLESS))
        self.wait_for_log("early", "train.sbatch: job")  # the launcher starts now, ranks come later
        self.slurm("scancel", "--batch", "--signal=USR1", job)
        self.wait(job, 90, until=lambda state: state["Restarts"] == "1")
        self.assertIn("train.sbatch: ended with 75", self.log("early"))

    def test_a_cancelled_job_stays_cancelled(self):
        job = self.submit("cancelled", self.recipe("cancelled", ENDLESS))
        self.wait_for_log("cancelled", "train 1/")
        self.slurm("scancel", job)
        state = self.wait(job, 90)
        time.sleep(2)  # what the script does after its launcher has ended
        self.assertEqual(
            (self.show(job)["JobState"], state["Restarts"]), ("CANCELLED", "0"), self.log("cancelled")
        )


if __name__ == "__main__":
    unittest.main()

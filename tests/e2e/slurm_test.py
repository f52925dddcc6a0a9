"""launch/slurm/train.sbatch on a real Slurm."""

import subprocess
import time
import unittest

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

    def submit(self, name, *arguments, nodes=2, ranks_per_node=1, **variables):
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
            **variables,
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
        words = ["--nodes=1", "--ntasks-per-node=2", "--time=1", "--sbatch=--output=one.log"]
        said = self.slurm(str(ROOT / "launch/plural"), "launch", self.recipe("one", 20), "--slurm", *words)
        self.assertRegex(said, r"^submitted one\.yaml: job \d+$")
        one = said.split()[-1]
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

    def test_a_stopped_rank_is_found_and_the_job_goes_on(self):
        # Stopped at its first start alone, by what a site sets up; the rank of the other node inherits it.
        site = self.folder / "site.sh"
        site.write_text('if [ "${SLURM_RESTART_COUNT:-0}" = 0 ]; then export PLURAL_FAULT=stop@1:30; fi\n')
        recipe = self.recipe("stopped", 100)
        job = self.submit("stopped", recipe, "checkpoint.every_steps=10", PLURAL_SITE_ENV=str(site))
        state = self.wait(job, 180)
        log = self.log("stopped")
        self.assertEqual(
            (state["JobState"], state["ExitCode"], state["Restarts"]), ("COMPLETED", "0:0", "1"), log
        )
        self.assertIn("train.sbatch: ended with 76", log)
        self.assertRegex(log, r"rank 1 on \S+ has been stopped by a signal")
        # The 20th, or a later one that both wrote between the guard's waking the rank and its end.
        self.assertRegex(log, r"resumed after step [2-9]0 of 100")
        self.assertEqual(
            (self.folder / "runs/stopped" / ADAPTER).read_bytes(), self.adapter_of_calm_run("unstopped", 100)
        )

    def test_a_rank_that_is_killed_at_each_start_ends_the_job_after_three(self):
        job = self.submit("killed", self.recipe("killed", 20), PLURAL_FAULT="kill@1:5")
        state = self.wait(job, 180)
        log = self.log("killed")
        self.assertEqual(
            (state["JobState"], state["ExitCode"], state["Restarts"]), ("FAILED", "137:0", "2"), log
        )
        self.assertEqual(log.count("train.sbatch: ended with 137"), 3)
        self.assertIn("ended three times without a newer checkpoint than that of step 0, not again", log)
        self.assertEqual(list(self.folder.glob("*.requeues")), [])

    def test_a_job_whose_node_goes_down_goes_on(self):
        # Machines differ: a run that ends before its node is down proves nothing and is tried again, longer.
        for steps in (4000, 40000):
            name = f"down-{steps}"
            checkpoints = self.folder / "runs" / name / "checkpoints"
            job = self.submit(
                name, self.recipe(name, steps), "checkpoint.every_steps=200", nodes=1, ranks_per_node=2
            )
            self.wait(job, 90, until=lambda _, saved=checkpoints: list(saved.glob("step-*")))
            node = self.show(job)["NodeList"]
            for wanted in ("down", "drain"):  # drained, it does not come back by itself
                self.slurm("scontrol", "update", f"nodename={node}", f"state={wanted}", "reason=test")
            self.addCleanup(
                subprocess.run,
                ["scontrol", "update", f"nodename={node}", "state=resume"],
                env=self.environment,
                capture_output=True,
            )
            state = self.wait(job, 300)
            self.assertEqual((state["JobState"], state["ExitCode"]), ("COMPLETED", "0:0"), self.log(name))
            if int(state["Restarts"]) > 0:
                break
        else:
            self.fail("no run was long enough to lose its node")
        self.assertNotEqual(state["NodeList"], node)
        self.assertRegex(self.log(name), rf"resumed after step \d+ of {steps}")
        self.assertEqual(
            (self.folder / "runs" / name / ADAPTER).read_bytes(), self.adapter_of_calm_run("up", steps)
        )

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

    def test_a_cancelled_job_that_ends_in_order_stays_cancelled(self):
        """Its code says nothing of it: Slurm's TERM asks for the same as a stop that a requeue follows."""
        script = self.folder / "in-order.sh"
        command = (
            "trap 'exit 75' TERM USR1; echo at work; while [ \\$((n += 1)) -lt 600 ]; do sleep 0.1; done"
        )
        script.write_text(
            f'#!/bin/bash\nrun_folder=none\nstartup_seconds=0\nsource "{ROOT}/launch/slurm/job.sh"\n'
            f'run_and_requeue job sh -c "{command}"\n'
        )
        job = self.slurm("sbatch", "--parsable", "--requeue", "--output=in-order.log", str(script))
        self.wait_for_log("in-order", "at work")
        self.slurm("scancel", job)
        self.wait_for_log("in-order", "ended with 75")
        state = self.wait(job, 60)
        self.assertEqual((state["JobState"], state["Restarts"]), ("CANCELLED", "0"), self.log("in-order"))
        self.assertIn("cancelled, not again", self.log("in-order"))


if __name__ == "__main__":
    unittest.main()

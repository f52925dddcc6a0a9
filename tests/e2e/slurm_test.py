"""launch/slurm/train.sbatch on a real Slurm of two nodes, which this test starts on this machine.

A requeued job is told to start at once (Slurm would let it wait for two minutes) and to take its time: one
stop is what is tested. MPI talks TCP only, since the two nodes share one memory.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = Path(os.environ.get("PLURAL_SHARED_DIR", "/nonexistent")) / "slurm/one-machine-cluster"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "mpirun")
SLURMCTLD_PORT = 6817
MUNGED_PID = Path("/run/munge/munged.pid")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")
ADAPTER = "adapter/adapter_model.safetensors"
ENDLESS = 10**9  # steps of a run that only a signal ends


def why_not():
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"Slurm is not installed: no {', '.join(missing)}"
    if os.geteuid() != 0:
        return "a Slurm of one's own needs root"
    if not CLUSTER.exists():
        return "PLURAL_SHARED_DIR has no slurm/one-machine-cluster"
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", SLURMCTLD_PORT)) == 0:
            return "a slurmctld runs on this machine already"
    return None


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = why_not()
        if reason:
            raise unittest.SkipTest(reason)
        folder = tempfile.TemporaryDirectory(prefix="plural slurm ")  # paths with spaces must work
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cluster = tempfile.TemporaryDirectory(prefix="plural-cluster-")  # slurm.conf cannot hold spaces
        cls.addClassCleanup(cluster.cleanup)
        cls.environment = dict(
            os.environ,
            SLURM_TEST_ROOT=cluster.name,
            SLURM_CONF=f"{cluster.name}/slurm.conf",
            PLURAL_ROOT=str(ROOT),
            OMPI_MCA_btl="self,tcp",
        )
        cls.environment.pop("OMP_NUM_THREADS", None)  # nproc would give the nodes so many CPUs
        had_munged = subprocess.run(["munge", "-n"], capture_output=True).returncode == 0
        cls.addClassCleanup(cls.down, had_munged)
        up = subprocess.run(
            [CLUSTER, "up", "2"], env=cls.environment, capture_output=True, text=True, timeout=90
        )
        if up.returncode != 0:
            raise AssertionError(f"the cluster did not start: {up.stdout}{up.stderr}")
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(16, responses=4))

    @classmethod
    def down(cls, had_munged):
        subprocess.run([CLUSTER, "down"], env=cls.environment, check=True, timeout=30)
        if not had_munged and MUNGED_PID.exists():
            os.kill(int(MUNGED_PID.read_text()), signal.SIGTERM)
        deadline = time.monotonic() + 30  # daemons still write into their folder, which is deleted next
        while time.monotonic() < deadline and list(
            Path(cls.environment["SLURM_TEST_ROOT"]).glob("run/*.pid")
        ):
            time.sleep(0.1)

    def slurm(self, *command):
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
        return done.stdout.strip()

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

    def show(self, job):
        words = self.slurm("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, job, seconds, until=lambda state: state["JobState"] in ENDED):
        """The job once `until` holds. A requeued job need not wait, and gets the time it needs to end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            state = self.show(job)
            if until(state):
                return state
            if state["JobState"] == "PENDING" and state["Reason"] == "BeginTime":
                # Slurm kills a job that starts in the second in which it was requeued ("credential revoked").
                time.sleep(2.5)
                subprocess.run(
                    ["scontrol", "update", f"jobid={job}", "StartTime=now", "TimeLimit=15"],
                    env=self.environment,
                    check=True,
                )
            time.sleep(0.3)
        self.fail(f"not within {seconds} s: {state}")

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
        self.assertEqual(log.count("plural train ended with 75"), int(state["Restarts"]), log)
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
            self.assertEqual(self.wait(job, 60)["JobState"], "COMPLETED", self.log(name))
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
            state = self.wait(self.submit(name, *arguments), 60)
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
        state = self.wait(job, 20)
        self.assertEqual((state["JobState"], state["ExitCode"], state["Restarts"]), ("FAILED", "137:0", "0"))

    def is_rank(self, process):
        try:
            return os.path.samefile(process / "exe", training.PLURAL) and os.path.samefile(
                process / "cwd", self.folder
            )
        except OSError:  # it has ended
            return False

    def test_a_stop_during_the_start_is_not_lost(self):
        job = self.submit("early", self.recipe("early", ENDLESS))
        self.wait_for_log("early", "train.sbatch: job")  # the launcher starts now, ranks come later
        self.slurm("scancel", "--batch", "--signal=USR1", job)
        self.wait(job, 30, until=lambda state: state["Restarts"] == "1")
        self.assertIn("plural train ended with 75", self.log("early"))

    def test_a_cancelled_job_stays_cancelled(self):
        job = self.submit("cancelled", self.recipe("cancelled", ENDLESS))
        self.wait_for_log("cancelled", "train 1/")
        self.slurm("scancel", job)
        state = self.wait(job, 30)
        time.sleep(2)  # what the script does after its launcher has ended
        self.assertEqual(
            (self.show(job)["JobState"], state["Restarts"]), ("CANCELLED", "0"), self.log("cancelled")
        )


if __name__ == "__main__":
    unittest.main()

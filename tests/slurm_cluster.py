"""A real Slurm of two nodes on this machine, which a class of tests starts and stops.

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

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = Path(os.environ.get("PLURAL_SHARED_DIR", "/nonexistent")) / "slurm/one-machine-cluster"
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "mpirun")
SLURMCTLD_PORT = 6817
MUNGED_PID = Path("/run/munge/munged.pid")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


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


class SlurmCluster(unittest.TestCase):
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

    def slurm(self, *command, **variables):
        environment = {**self.environment, **variables}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, 0, f"{command}: {done.stderr}")
        return done.stdout.strip()

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

"""launch/slurm/job.sh without Slurm: what is requeued, and for how long."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

JOB = Path(__file__).resolve().parents[2] / "launch/slurm/job.sh"


class JobScriptTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        # In place of Slurm's scontrol and of the wait for Slurm, which ends the script.
        scontrol = 'if [ "$1" = requeue ]; then echo "$@" >>requeued; else cat state; fi'
        (self.folder / "state").write_text("JobId=7 JobName=plural JobState=RUNNING Reason=None\n")
        for name, line in (("scontrol", scontrol), ("sleep", "true")):
            program = self.folder / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{line}\n")
            program.chmod(0o755)

    def end(self, command, run_folder="runs/r", **environment):
        """One start of the job. Returns whether it was requeued, its exit code and what it says."""
        done = self.folder / "requeued"
        done.unlink(missing_ok=True)
        result = subprocess.run(
            ["bash", "-c", f'run_folder={run_folder}; source "{JOB}"; run_and_requeue job sh -c "{command}"'],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "SLURM_JOB_ID": "7",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.exists(), result.returncode, result.stdout + result.stderr

    def test_a_cancelled_job_is_not_requeued(self):
        mark = self.folder / "one mark"
        cancelled = {"cancelled": str(mark)}
        self.assertEqual(self.end("exit 75", **cancelled)[:2], (True, 75))
        for code in (75, 76):
            mark.touch()
            requeued, ended, output = self.end(f"exit {code}", **cancelled)
            self.assertEqual((requeued, ended), (False, code))
            self.assertIn("cancelled, not again", output)
            self.assertEqual(list(self.folder.glob("*.requeues")), [])
        # A mark that comes while the job is at work counts, too.
        mark.unlink()
        self.assertEqual(self.end(f"touch '{mark}'; exit 75", **cancelled)[:2], (False, 75))

    def test_a_job_that_slurm_cancels_is_not_requeued(self):
        state = self.folder / "state"
        for code in (75, 76, 137):
            for word in ("CANCELLED", "COMPLETING"):
                state.write_text(f"JobId=7 JobName=plural JobState={word} Reason=None Dependency=(null)\n")
                requeued, ended, output = self.end(f"exit {code}")
                self.assertEqual((requeued, ended), (False, code))
                self.assertIn("cancelled, not again", output)
        # It saved its state after the time limit, in the seconds that Slurm leaves it.
        state.write_text("JobId=7 JobName=plural JobState=COMPLETING Reason=TimeLimit Dependency=(null)\n")
        self.assertEqual(self.end("exit 75")[:2], (True, 75))
        state.unlink()  # as where nothing can be learned of the job
        self.assertEqual(self.end("exit 76")[:2], (True, 76))

    def test_a_member_of_a_cancelled_sweep_does_not_begin(self):
        (self.folder / "one.cancelled").touch()
        member = JOB.with_name("sweep.sbatch")
        for submission, code in (("one.json", 75), ("two.json", 66)):
            done = subprocess.run(
                ["bash", member, submission, "train"],
                cwd=self.folder,
                env={**os.environ, "PLURAL_ROOT": str(JOB.parents[2]), "SLURM_JOB_ID": "7"},
                capture_output=True,
                text=True,
                timeout=60,
            )
            self.assertEqual("cancelled; plural sweep submit" in done.stderr, code == 75)
            self.assertEqual(done.returncode == 75, code == 75)

    def train(self, **variables):
        """What train.sbatch gives mpirun: its arguments, and the transports it sets."""
        launcher = self.folder / "bin/mpirun"
        launcher.write_text('#!/bin/sh\nprintf "%s\\n" "$OMPI_MCA_btl" "$@" >passed\n')
        launcher.chmod(0o755)
        mine = {key: value for key, value in os.environ.items() if key != "OMPI_MCA_btl"}
        done = subprocess.run(
            ["bash", JOB.with_name("train.sbatch"), "recipe.yaml", "train.steps=2"],
            cwd=self.folder,
            env={
                **mine,
                **variables,
                "PLURAL_ROOT": str(JOB.parents[2]),
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        transports, *words = (self.folder / "passed").read_text().splitlines()
        return words, transports

    def test_ranks_of_one_node_listen_at_no_port(self):
        self.assertEqual(self.train(SLURM_JOB_NUM_NODES="1")[1], "^tcp,ofi")
        self.assertEqual(self.train(SLURM_JOB_NUM_NODES="2")[1], "")
        self.assertEqual(self.train(SLURM_JOB_NUM_NODES="1", OMPI_MCA_btl="self,tcp")[1], "self,tcp")

    def test_variables_of_gpus_and_their_network_reach_all_nodes(self):
        settings = {
            "NCCL_SOCKET_IFNAME": "ib0",
            "CUDA_DEVICE_MAX_CONNECTIONS": "1",
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "OMP_NUM_THREADS": "3",
        }
        # Slurm's own word on which GPUs a node gives is right on that node alone.
        words, _ = self.train(**settings, CUDA_VISIBLE_DEVICES="1", UNRELATED="1")
        passed = {words[i + 1] for i, word in enumerate(words) if word == "-x"}
        self.assertLessEqual(set(settings) | {"PATH"}, passed)
        self.assertFalse(passed & {"CUDA_VISIBLE_DEVICES", "UNRELATED"})
        self.assertEqual(words[-3:], ["train", "recipe.yaml", "train.steps=2"])

    def test_three_ends_without_a_newer_checkpoint_are_enough(self):
        for code in (76, 75, 137):
            (self.folder / "runs/r/checkpoints/step-00000005").mkdir(parents=True, exist_ok=True)
            (self.folder / "runs/r/checkpoints/step-00000009.bad-1").mkdir(exist_ok=True)
            self.assertEqual([self.end(f"exit {code}")[:2] for _ in range(2)], [(True, code)] * 2)
            requeued, ended, output = self.end(f"exit {code}")
            self.assertEqual((requeued, ended), (False, code))
            self.assertIn("without a newer checkpoint than that of step 5", output)
            self.assertEqual(list(self.folder.glob("*.requeues")), [])

    def test_a_job_that_moves_on_is_requeued_for_ever(self):
        for step in range(1, 8):
            self.assertTrue(self.end(f"mkdir -p runs/r/checkpoints/step-0000000{step}; exit 75")[0], step)
            # Two ends in between count for nothing.
            self.assertTrue(self.end("exit 76")[0], step)
            self.assertTrue(self.end("exit 137")[0], step)
        self.assertEqual(self.end("exit 0")[:2], (False, 0))
        self.assertEqual(list(self.folder.glob("*.requeues")), [])

    def test_other_ends_and_the_bound_of_restarts(self):
        for code in (0, 1, 65, 77, 134, 139):
            self.assertEqual(self.end(f"exit {code}")[:2], (False, code))
        most = {"PLURAL_MAX_RESTARTS": "4"}
        for code in (75, 76, 137):
            self.assertEqual(self.end(f"exit {code}", SLURM_RESTART_COUNT="3", **most)[:2], (True, code))
            requeued, ended, output = self.end(f"exit {code}", SLURM_RESTART_COUNT="4", **most)
            self.assertEqual((requeued, ended), (False, code))
            self.assertIn("restarted 4 times (PLURAL_MAX_RESTARTS), not again", output)
        self.assertEqual(self.end("exit 75", SLURM_RESTART_COUNT="99")[0], True)
        self.assertEqual(self.end("exit 75", SLURM_RESTART_COUNT="100")[0], False)
        requeued, ended, output = self.end("touch started; exit 75", PLURAL_MAX_RESTARTS="few")
        self.assertEqual((requeued, ended), (False, 64))
        self.assertIn("PLURAL_MAX_RESTARTS is 'few'", output)
        self.assertFalse((self.folder / "started").exists())
        # Of a job without a run folder nobody knows what it has done.
        self.assertEqual([self.end("exit 75", run_folder="")[0] for _ in range(5)], [True] * 5)
        self.assertEqual(self.end("exit 137", run_folder="")[:2], (False, 137))


if __name__ == "__main__":
    unittest.main()

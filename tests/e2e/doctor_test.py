"""`plural doctor` as a user calls it."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

BINARY = os.environ["PLURAL_BINARY"]


def doctor(*, ranks=0, cwd=None, env=None):
    command = [BINARY, "doctor"]
    if ranks:
        command = ["mpirun", "-np", str(ranks), "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none", *command]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, timeout=120
    )


class Doctor(unittest.TestCase):
    def test_reports_versions_and_succeeds(self):
        result = doctor()
        self.assertEqual(result.returncode, 0, result.stderr)
        for word in (
            "plural ",
            "libtorch ",
            "MPI ",
            "MPI_THREAD_",
            "HDF5 ",
            "yaml-cpp ",
            "NCCL ",
            "CUDA ",
            "GPU kernels ",
            "GPU driver",
        ):
            self.assertIn(word, result.stdout)
        self.assertGreater(float(re.search(r", ([\d.]+) GFLOP/s in fp32; ", result.stdout)[1]), 0.1)

    def test_without_a_gpu_nothing_is_said_of_training_on_one(self):
        last = doctor(env={"CUDA_VISIBLE_DEVICES": ""}).stdout.splitlines()[-1]
        self.assertEqual(last, "Training on CPUs can work here.")

    def test_counts_ranks_and_prints_once(self):
        result = doctor(ranks=3)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("rank 0-2 (local 0-2)", result.stdout)
        self.assertEqual(result.stdout.count("libtorch "), 1)

    def test_says_what_a_missing_tool_is_needed_for(self):
        result = doctor(env={"PATH": "/nonexistent"})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"note: no mpirun in PATH: several ranks need it; install ")
        self.assertRegex(result.stdout, r"note: no Slurm .*: only launch/slurm/ needs it")

    def test_says_whether_the_kernels_for_gpus_load_and_what_it_costs_where_not(self):
        if not (pathlib.Path(BINARY).parent / "trainer/libplural_kernels.so").exists():
            self.assertRegex(doctor().stdout, r"GPU kernels +none\n")
            return
        self.assertRegex(doctor().stdout, r"GPU kernels +load\n")
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "libplural_kernels.so").touch()  # as a full disk leaves it
            result = doctor(env={"LD_LIBRARY_PATH": folder})
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout, r"GPU kernels +none\n")
        if "NCCL        not compiled" not in result.stdout:
            self.assertRegex(result.stdout, r"note: rank 0 lacks the kernels .*too short.*square of rows")

    def test_notes_more_threads_than_cores(self):
        ranks = len(os.sched_getaffinity(0)) + 1
        result = doctor(ranks=ranks, env={"OMP_NUM_THREADS": "1"})
        self.assertRegex(result.stdout, rf"note: .* {ranks} threads in {ranks} ranks .*OMP_NUM_THREADS")

    def test_fails_where_no_run_can_be_saved(self):
        for ranks in (0, 2):
            result = doctor(cwd="/proc", ranks=ranks)  # nobody can make a file here, not even root
            self.assertEqual(result.returncode, 69)
            self.assertIn("cannot write to the current folder", result.stdout)


if __name__ == "__main__":
    unittest.main()

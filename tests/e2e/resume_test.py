"""A run that is killed, stopped or damaged ends like one that was left alone, byte for byte."""

import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

STEPS = 200  # some hundred milliseconds stand between a step that the test waits for and the end
EXTRA = f"train: {{steps: {STEPS}, groups_per_step: 3}}\ncheckpoint: {{every_steps: 50}}"
ADAPTER = "adapter/adapter_model.safetensors"


class ResumeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(8, responses=4))
        training.write_corpus(
            cls.folder / "targets.h5",
            training.random_groups(8, responses=9, possibilities=0, targets=True),
            "targets",
        )

    def recipe(self, name, method="peft", dtype="fp32"):
        corpus = "corpus.h5" if method == "peft" else "targets.h5"
        training.write_recipe(self.folder / f"{name}.yaml", name, method, corpus, dtype=dtype, extra=EXTRA)
        return f"{name}.yaml"

    def calm(self, ranks, method="peft", dtype="fp32"):
        """The name of a run that nothing disturbed, one for all tests."""
        name = f"calm-{method}-{dtype}-{ranks}"
        if not (self.folder / "runs" / name).exists():
            self.run_to_the_end(self.recipe(name, method, dtype), ranks)
        return name

    def run_to_the_end(self, recipe, ranks):
        result = training.train(self.folder, recipe, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def start(self, recipe, ranks):
        return subprocess.Popen(
            training.command(recipe, ranks=ranks),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_for_step(self, name, step, process):
        """Until metrics.jsonl has a line of that step. Fails when the process ends before."""
        path = self.folder / "runs" / name / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if path.exists() and f'"event":"step","step":{step},' in path.read_text():
                return
            self.assertIsNone(process.poll(), "the run ended before it could be disturbed")
            time.sleep(0.005)
        self.fail(f"step {step} was never reached")

    def wait_for_checkpoint(self, name, step, process):
        path = self.folder / "runs" / name / "checkpoints" / f"step-{step:08}"
        deadline = time.monotonic() + 60
        while not path.is_dir():
            self.assertIsNone(process.poll(), "the run ended before it could be disturbed")
            self.assertLess(time.monotonic(), deadline, f"{path.name} was never there")
            time.sleep(0.005)

    def assert_same_end(self, left, right):
        for name in (ADAPTER, "adapter/adapter_config.json"):
            self.assertEqual(
                (self.folder / "runs" / left / name).read_bytes(),
                (self.folder / "runs" / right / name).read_bytes(),
                name,
            )
        steps = [
            [line["step"] for line in training.metrics(self.folder, name) if line["event"] == "step"]
            for name in (left, right)
        ]
        self.assertEqual(steps[0], list(range(1, STEPS + 1)))
        self.assertEqual(steps[0], steps[1])
        self.assertEqual(training.losses(self.folder, left), training.losses(self.folder, right))
        passes = [
            [line for line in training.metrics(self.folder, name) if line["event"] == "pass"]
            for name in (left, right)
        ]
        self.assertEqual(passes[0], passes[1])

    def killed(self, method, dtype="fp32"):
        calm, name = self.calm(2, method, dtype), f"killed-{method}-{dtype}"
        recipe = self.recipe(name, method, dtype)
        for step, saved in ((60, 50), (110, 100)):  # between checkpoints
            process = self.start(recipe, 2)
            self.wait_for_step(name, step, process)
            self.wait_for_checkpoint(name, saved, process)  # which a thread writes meanwhile
            # The ranks are children of mpirun, which ends when they are gone.
            for rank in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(rank), signal.SIGKILL)
            process.communicate()
            self.assertEqual(process.returncode, 128 + signal.SIGKILL)
        result = self.run_to_the_end(recipe, 2)
        self.assertRegex(result.stdout, rf"resumed after step 1[05]0 of {STEPS}")
        self.assert_same_end(calm, name)

    def test_killed_peft(self):
        self.killed("peft")

    def test_killed_in_bf16(self):
        self.killed("peft", "bf16")

    def test_killed_distribution_matching(self):
        self.killed("distribution_matching")

    def test_stopped_by_usr1(self):
        calm, recipe = self.calm(2), self.recipe("stopped")
        process = self.start(recipe, 2)
        self.wait_for_step("stopped", 13, process)
        process.send_signal(signal.SIGUSR1)  # mpirun forwards it
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 75, output)
        self.assertIn("stopped on request", output)
        self.assertFalse((self.folder / "runs/stopped/adapter").exists())
        self.run_to_the_end(recipe, 2)
        self.assert_same_end(calm, "stopped")

    def test_damaged_newest_checkpoint(self):
        calm, recipe = self.calm(1), self.recipe("damaged")
        process = self.start(recipe, 1)
        self.wait_for_step("damaged", 110, process)
        self.wait_for_checkpoint("damaged", 100, process)  # which a thread writes meanwhile
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        checkpoints = self.folder / "runs/damaged/checkpoints"
        newest = max(path for path in checkpoints.iterdir() if re.fullmatch(r"step-\d+", path.name))
        weights = newest / "trainable.safetensors"
        damaged = bytearray(weights.read_bytes())
        damaged[-5] ^= 1
        weights.write_bytes(damaged)
        result = self.run_to_the_end(recipe, 1)
        warnings = [line for line in result.stderr.splitlines() if "not whole" in line]
        self.assertEqual(len(warnings), 1, result.stderr)
        self.assertIn(newest.name + ".bad-", warnings[0])
        self.assert_same_end(calm, "damaged")

    def test_other_number_of_ranks(self):
        calm, recipe = self.calm(1), self.recipe("moved")
        process = self.start(recipe, 3)
        self.wait_for_step("moved", 25, process)
        process.send_signal(signal.SIGUSR1)
        process.communicate(timeout=120)
        self.assertEqual(process.returncode, 75)
        result = self.run_to_the_end(recipe, 1)
        self.assertIn("made with 3 ranks", result.stderr)
        for one, other in zip(training.losses(self.folder, calm), training.losses(self.folder, "moved")):
            self.assertAlmostEqual(one, other, delta=1e-4 * abs(one))

    def test_finished_run_is_left_alone(self):
        name = self.calm(1)
        run = self.folder / "runs" / name
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        result = self.run_to_the_end(f"{name}.yaml", 1)
        self.assertIn("is finished", result.stdout)
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in run.rglob("*")})


if __name__ == "__main__":
    unittest.main()

"""What goes wrong in a night on a cluster, and that nothing is lost by it or silently another thing."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

WEIGHTS = "adapter/adapter_model.safetensors"


class FaultsTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(6))

    def recipe(self, name, steps=3, **given):
        given.setdefault("dtype", "fp32")
        training.write_recipe(
            self.folder / f"{name}.yaml",
            name,
            extra=f"train: {{steps: {steps}, groups_per_step: 3}}",
            **given,
        )
        return f"{name}.yaml"

    def train(self, recipe, *overrides, ranks=1, code=0):
        result = training.train(self.folder, recipe, *overrides, ranks=ranks)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    # Numbers that are not finite.

    def test_a_last_step_that_overflows_is_no_result(self):
        recipe = self.recipe("overflow")
        result = self.train(recipe, "train.steps=1", "optimizer.lr=1.0e39", ranks=2, code=77)
        self.assertIn("step 1: ", result.stderr)
        self.assertFalse((self.folder / "runs/overflow/adapter").exists())
        self.assertEqual(list(self.folder.glob("runs/overflow/checkpoints/step-*")), [])

    def test_a_step_that_overflows_is_no_checkpoint(self):
        recipe = self.recipe("rising")
        self.train(recipe, "optimizer.lr=1.0e39", "checkpoint.every_steps=1", code=77)
        self.assertEqual(list(self.folder.glob("runs/rising/checkpoints/step-*")), [])

    # Signals.

    def heard(self, process):
        """Waits until the process has its handlers."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
            if int(caught.split()[1], 16) & (1 << (signal.SIGUSR1 - 1)):
                return
            self.assertIsNone(process.poll(), "ended before it heard anything")
        self.fail("no handler")

    def test_requests_that_come_all_the_time_save_once(self):
        recipe = self.recipe("storm", steps=100000)
        for number in (signal.SIGUSR1, signal.SIGHUP):  # all: tests/unit/base/signals_test.cc
            process = subprocess.Popen(
                training.command(recipe, f"name=storm-{number.name}"),
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.heard(process)
            while process.poll() is None:
                process.send_signal(number)
                time.sleep(0.005)
            output = process.communicate()[0].decode()
            self.assertEqual(process.returncode, 75, output)
            self.assertIn("step 1 of 100000 is saved", output)

    def test_requests_after_the_last_step_change_nothing(self):
        recipe = self.recipe("late")
        process = subprocess.Popen(
            training.command(recipe), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        metrics = self.folder / "runs/late/metrics.jsonl"
        while process.poll() is None:
            if metrics.exists() and b'"event":"end"' in metrics.read_bytes():
                process.send_signal(signal.SIGUSR1)
            time.sleep(0.002)
        self.assertEqual(process.returncode, 0, process.communicate()[1])
        self.assertTrue((self.folder / "runs/late" / WEIGHTS).exists())

    def test_a_reader_that_leaves_ends_no_run(self):
        recipe = self.recipe("piped", steps=20)
        process = subprocess.Popen(
            training.command(recipe), cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        process.stdout.close()
        self.assertEqual(process.wait(timeout=120), 0)

    # Validation.

    def test_a_stop_does_not_lose_the_validation_of_its_step(self):
        training.write_corpus(self.folder / "held-out.h5", training.random_groups(3, seed=1))
        recipe = self.recipe("stopped", steps=100000)
        given = ("data.validation=held-out.h5", "validation.every_steps=1", "validation.responses=0")
        process = subprocess.Popen(
            training.command(recipe, *given), cwd=self.folder, stdout=subprocess.DEVNULL
        )
        self.heard(process)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=120), 75)
        process = subprocess.Popen(
            training.command(recipe, *given), cwd=self.folder, stdout=subprocess.DEVNULL
        )
        self.heard(process)
        process.send_signal(signal.SIGUSR1)
        self.assertEqual(process.wait(timeout=120), 75)
        lines = training.metrics(self.folder, "stopped")
        steps = [line["step"] for line in lines if line["event"] == "step"]
        validated = [line["step"] for line in lines if line["event"] == "validation"]
        self.assertEqual(validated, steps[:-1])  # the last one's comes with the next start

    # Results.

    def test_a_result_that_is_not_whole_is_no_result(self):
        recipe = self.recipe("done")
        self.train(recipe)
        folder = self.folder / "runs/done"
        whole = (folder / WEIGHTS).read_bytes()
        for damage in ("flipped", "empty folder", "gone"):
            with self.subTest(damage):
                if damage == "flipped":
                    (folder / WEIGHTS).write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
                else:
                    shutil.rmtree(folder / "adapter")
                if damage == "empty folder":
                    (folder / "adapter").mkdir()
                (folder / ".tmp-adapter-0123").mkdir()
                result = self.train(recipe)
                self.assertNotIn("is finished", result.stdout)
                self.assertEqual((folder / WEIGHTS).read_bytes(), whole)
                self.assertEqual(list(folder.glob(".tmp-*")), [])
        self.assertIn("is finished", self.train(recipe).stdout)
        (folder / WEIGHTS).write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
        shutil.rmtree(folder / "checkpoints")
        result = self.train(recipe, code=65)
        self.assertIn("no checkpoint is left", result.stderr)
        self.assertNotEqual((folder / WEIGHTS).read_bytes(), whole)

    def test_generate_refuses_an_adapter_with_a_flipped_bit(self):
        self.train(self.recipe("base", adapter=False))
        shutil.copytree(self.folder / "runs/base/model", self.folder / "model")
        recipe = self.recipe("tuned")
        text = (self.folder / recipe).read_text()
        begin = text.index("model: {")
        end = text.index("\n", begin)
        (self.folder / recipe).write_text(
            text[:begin] + "model: {path: model, dtype: fp32, device: cpu}" + text[end:]
        )
        self.train(recipe)
        weights = self.folder / "runs/tuned" / WEIGHTS
        command = [training.PLURAL, "generate", "--model", "model", "--corpus", "corpus.h5"]
        command += ["--adapter", "runs/tuned/adapter", "--max-new-tokens", "2", "-o"]
        run = {"cwd": self.folder, "capture_output": True, "text": True, "timeout": 120}
        self.assertEqual(subprocess.run([*command, "whole.jsonl"], **run).returncode, 0)
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
        result = subprocess.run([*command, "flipped.jsonl"], **run)
        self.assertEqual(result.returncode, 65, result.stderr)
        self.assertIn("not as it was written", result.stderr)
        self.assertFalse((self.folder / "flipped.jsonl").exists())

        # The base's config decides, too, what a run computes.
        weights.write_bytes(whole)
        config = self.folder / "model/config.json"
        config.write_text(config.read_text().replace("10000.0", "20000.0"))
        self.assertIn("config.json", self.train(recipe, code=78).stderr)
        shutil.rmtree(self.folder / "runs/tuned/adapter")
        self.assertIn("config.json", self.train(recipe, code=65).stderr)

    # Paths.

    def test_another_spelling_of_a_path(self):
        recipe = self.recipe("spelled", steps=100000)
        (self.folder / "link.h5").symlink_to("corpus.h5")
        process = subprocess.Popen(
            training.command(recipe), cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        with contextlib.ExitStack() as stack:
            stack.callback(process.wait)
            stack.callback(process.kill)
            metrics = self.folder / "runs/spelled/metrics.jsonl"
            while not metrics.exists():
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            for path in (f"../{self.folder.name}/corpus.h5", "link.h5"):
                result = self.train(recipe, f"data.train={path}", code=73)
                self.assertIn("is being trained by", result.stderr)
            process.send_signal(signal.SIGUSR1)
            self.assertEqual(process.wait(timeout=120), 75)
        self.train(recipe, "data.train=link.h5", "train.steps=100000", "optimizer.lr=0.5", code=78)

    # Ranks.

    def two_ranks(self, recipe, *overrides, programs=(training.PLURAL, training.PLURAL)):
        """Rank 0 in the folder a, rank 1 in b; they write to one place."""
        runs = f"run.dir={self.folder / 'runs'}"
        words = []
        for place, program in zip("ab", programs):
            words += [":"] * (place == "b") + ["-np", "1", "-wdir", str(self.folder / place)]
            words += [program, "train", str(self.folder / recipe), runs, *overrides]
        mpirun = training.mpirun(2)
        return subprocess.run(
            [mpirun[0], *mpirun[3:], *words], cwd=self.folder, capture_output=True, text=True, timeout=120
        )

    def test_ranks_with_other_data_or_another_program_are_refused(self):
        recipe = self.recipe("ranks")
        for place in "ab":
            (self.folder / place).mkdir()
            for suffix in ("", ".sha256"):
                shutil.copy2(self.folder / f"corpus.h5{suffix}", self.folder / place)
        other = self.folder / "b/corpus.h5"
        sidecar = other.with_name("corpus.h5.sha256")
        self.assertEqual(self.two_ranks(recipe, "name=same").returncode, 0)

        program = self.folder / "plural"
        program.write_bytes(Path(training.PLURAL).read_bytes() + b"x")
        program.chmod(0o755)
        result = self.two_ranks(recipe, programs=(training.PLURAL, str(program)))
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("the program", result.stderr)

        # Another corpus: beside the sidecar of the right one, and without any, of the same size and age.
        right = sidecar.read_text()
        before = other.stat()
        changed = bytearray(other.read_bytes())
        with training.h5py.File(other, "r") as file:
            place = file["response_weights"].id.get_chunk_info(0).byte_offset
        changed[place] ^= 1
        other.write_bytes(changed)
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        training.write_sidecar(other)
        self.assertNotEqual(sidecar.read_text(), right)
        sidecar.write_text(right)
        self.assertEqual(self.two_ranks(recipe).returncode, 65)
        self.assertFalse((self.folder / "runs/ranks/metrics.jsonl").exists())

    def test_ranks_with_corpora_without_sidecars_compare_their_bytes(self):
        recipe = self.recipe("bare")
        for place in "ab":
            (self.folder / place).mkdir()
        training.write_corpus(self.folder / "a/corpus.h5", training.random_groups(6))
        shutil.copy(self.folder / "a/corpus.h5", self.folder / "b/corpus.h5")
        for place in "ab":
            (self.folder / place / "corpus.h5.sha256").unlink(missing_ok=True)
        os.utime(self.folder / "b/corpus.h5", (1, 1))
        self.assertEqual(self.two_ranks(recipe, "name=copies").returncode, 0)  # a copy's age is its own
        training.write_corpus(self.folder / "b/corpus.h5", training.random_groups(6, seed=3))
        (self.folder / "b/corpus.h5.sha256").unlink()
        result = self.two_ranks(recipe)
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("data.train", result.stderr)
        result = self.two_ranks(
            recipe, f"data.train={self.folder / 'corpus.h5'}", "data.validation=corpus.h5"
        )
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("data.validation", result.stderr)

    # Outputs and lengths.

    def test_evaluate_refuses_outputs_that_are_no_files_and_long_corpora(self):
        self.train(self.recipe("base", adapter=False))
        os.mkfifo(self.folder / "pipe")
        (self.folder / "dangling").symlink_to("nowhere")
        (self.folder / "device").symlink_to("/dev/null")
        command = [training.PLURAL, "evaluate", "--force", "--model", "runs/base/model"]
        command += ["--corpus", "corpus.h5"]
        run = {"cwd": self.folder, "capture_output": True, "text": True, "timeout": 60}
        for output in ("pipe", "dangling", "device"):
            result = subprocess.run([*command, "-o", output], **run)
            self.assertEqual(result.returncode, 73, result.stderr)
            self.assertIn("no regular file", result.stderr)
        self.assertTrue((self.folder / "pipe").is_fifo())
        self.assertTrue((self.folder / "dangling").is_symlink())

        # A corpus that is longer than the model's context, of which evaluate once gave figures.
        groups = training.random_groups(2)
        prompt, tails, answers = groups[1]
        groups[1] = (prompt + [10] * 130, tails, answers)
        training.write_corpus(self.folder / "long.h5", groups)
        command = [training.PLURAL, "evaluate", "--model", "runs/base/model", "--corpus", "long.h5"]
        result = subprocess.run(command, **run)
        self.assertEqual(result.returncode, 65, result.stdout)
        self.assertIn("the model takes 128", result.stderr)
        self.assertEqual(subprocess.run([*command, "--limit", "1"], **run).returncode, 0)


if __name__ == "__main__":
    unittest.main()

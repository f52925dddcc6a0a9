"""Starts: stops before the program's own code runs, disks that cannot be read, other inputs, new names."""

import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

ROOT = Path(__file__).resolve().parents[2]
STEPS = 6
EXTRA = f"train: {{steps: {STEPS}, groups_per_step: 3}}\ncheckpoint: {{every_steps: 2, asynchronous: off}}"
# In place of the C library's functions: the first READS_FAIL openings of a checkpoint's state.json fail, and
# the names of what is synced are noted.
DISK = r"""#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
static int opened(const char* name, const char* path, int flags, mode_t mode) {
  static int failed = 0;
  const char* times = getenv("READS_FAIL");
  if (times != NULL && strstr(path, "step-00000004/state.json") != NULL && failed < atoi(times)) {
    ++failed;
    errno = EIO;
    return -1;
  }
  return reinterpret_cast<int (*)(const char*, int, ...)>(dlsym(RTLD_NEXT, name))(path, flags, mode);
}
static mode_t mode_of(va_list more) { return static_cast<mode_t>(va_arg(more, int)); }
extern "C" int open(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  return opened("open", path, flags, flags & O_CREAT ? mode_of(more) : 0);
}
extern "C" int open64(const char* path, int flags, ...) {
  va_list more;
  va_start(more, flags);
  return opened("open64", path, flags, flags & O_CREAT ? mode_of(more) : 0);
}
extern "C" int fsync(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, sizeof(path));
  FILE* out = getenv("SYNCED") == NULL ? NULL : fopen(getenv("SYNCED"), "a");
  if (out != NULL) {
    fprintf(out, "%.*s\n", static_cast<int>(length), path);
    fclose(out);
  }
  return static_cast<int>(syscall(SYS_fsync, file));
}
"""


USR1 = 1 << (signal.SIGUSR1 - 1)


def signals_of(status, field):
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1], 16)


class Starts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(6))
        training.write_recipe(cls.folder / "r.yaml", "whole", dtype="fp32", extra=EXTRA)
        cls.disk = cls.folder / "disk.so"
        (cls.folder / "disk.cc").write_text(DISK)
        subprocess.run(["g++", "-shared", "-fPIC", "-o", cls.disk, cls.folder / "disk.cc"], check=True)

    def start(self, name, *overrides, code=0, recipe="r.yaml", **variables):
        done = training.train(self.folder, recipe, f"name={name}", *overrides, environment=variables or None)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def weights(self, name):
        return (self.folder / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()

    def steps(self, name):
        return sorted(path.name for path in (self.folder / "runs" / name / "checkpoints").iterdir())

    # Signals.

    def held(self, name):
        """A start through launch/plural that holds signals back; None: it was looked at too late."""
        process = subprocess.Popen(
            [ROOT / "launch/plural", "train", "r.yaml", f"name={name}", "train.steps=100000"],
            cwd=self.folder,
            env={**os.environ, "PLURAL_BINARY": training.PLURAL},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if signals_of(status, "SigCgt") & USR1:
                break
            if signals_of(status, "SigBlk") & USR1:
                return process
        process.kill()
        process.communicate()
        return None

    def test_a_request_that_comes_while_the_program_is_loaded_is_heard(self):
        """launch/plural holds it back: without that it would end the process by the signal."""
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                tries = (self.held(f"early-{number.name}-{i}") for i in range(5))
                process = next((found for found in tries if found), None)
                self.assertIsNotNone(process, "nothing holds the signal back")
                process.send_signal(number)
                said = process.communicate(timeout=120)[0]
                self.assertEqual(process.returncode, 75, said)
                self.assertIn("step 1 of 100000 is saved", said)

    # Disks.

    def test_a_checkpoint_that_cannot_be_read_is_read_again_and_stays(self):
        self.start("whole")
        given = {"LD_PRELOAD": str(self.disk)}
        for fails, step in ((1, 4), (99, 2)):
            name = f"reads-{fails}"
            self.start(name, code=-signal.SIGKILL, PLURAL_FAULT="kill@0:6")
            done = self.start(name, READS_FAIL=str(fails), **given)
            self.assertIn(f"resumed after step {step} of {STEPS}", done.stdout)
            self.assertEqual("passed over and left as it is" in done.stderr, step == 2, done.stderr)
            self.assertEqual(self.steps(name), [f"step-{kept:08}" for kept in (2, 4, 6)])
            self.assertEqual(self.weights(name), self.weights("whole"))

    def test_the_names_of_a_new_run_are_durable(self):
        synced = self.folder / "synced"
        self.start("deep", "run.dir=new/runs", "train.steps=2", LD_PRELOAD=str(self.disk), SYNCED=str(synced))
        names = [Path(line) for line in synced.read_text().splitlines()]
        for folder in (".", "new", "new/runs", "new/runs/deep", "new/runs/deep/checkpoints"):
            self.assertIn(self.folder.resolve() / folder, names)
        # metrics.jsonl has its name before a checkpoint counts on its lines.
        checkpoint = next(i for i, name in enumerate(names) if ".tmp-step-" in name.name)
        run = self.folder.resolve() / "new/runs/deep"
        self.assertGreaterEqual(names[:checkpoint].count(run), 2)  # of recipe.yaml, of metrics.jsonl

    # Other inputs.

    def model(self, name, layers):
        """A folder with a base model of random weights."""
        recipe = self.folder / f"{name}.yaml"
        training.write_recipe(recipe, name, adapter=False, dtype="fp32", extra="train: {steps: 1}")
        recipe.write_text(recipe.read_text().replace("num_hidden_layers: 2", f"num_hidden_layers: {layers}"))
        self.start(name, recipe=recipe.name)
        return self.folder / "runs" / name / "model"

    def test_another_base_under_the_same_path_sets_no_checkpoint_aside(self):
        base, other = self.model("two-layers", 2), self.model("one-layer", 1)
        recipe = self.folder / "tuned.yaml"
        text = (self.folder / "r.yaml").read_text()
        begin = text.index("model: {")
        recipe.write_text(
            text[:begin] + "model: {path: base, dtype: fp32, device: cpu}" + text[text.index("\n", begin) :]
        )
        shutil.copytree(base, self.folder / "base")
        self.start("tuned", recipe="tuned.yaml", code=-signal.SIGKILL, PLURAL_FAULT="kill@0:6")
        before = self.steps("tuned")
        shutil.rmtree(self.folder / "base")
        shutil.copytree(other, self.folder / "base")
        done = self.start("tuned", recipe="tuned.yaml", code=65)
        self.assertIn("another base model", done.stderr)
        self.assertEqual(self.steps("tuned"), before)
        shutil.rmtree(self.folder / "base")
        shutil.copytree(base, self.folder / "base")
        self.assertIn("resumed after step 4", self.start("tuned", recipe="tuned.yaml").stdout)

        # One rank that sees another config.json beside the same weights.
        for place in "ab":
            shutil.copytree(base, self.folder / place / "base")
        config = self.folder / "b/base/config.json"
        config.write_text(config.read_text().replace("10000.0", "20000.0"))
        words = []
        for place in "ab":
            words += [":"] * (place == "b") + ["-np", "1", "-wdir", str(self.folder / place), training.PLURAL]
            words += ["train", str(recipe), "name=ranks", f"data.train={self.folder / 'corpus.h5'}"]
            words += [f"run.dir={self.folder / 'runs'}"]
        mpirun = training.mpirun(2)
        done = subprocess.run(
            [mpirun[0], *mpirun[3:], *words], cwd=self.folder, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, 69, done.stderr)
        self.assertIn("config.json of the base model", done.stderr)


if __name__ == "__main__":
    unittest.main()

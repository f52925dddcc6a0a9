"""A job that hangs ends, soon and with the reason, and goes on to the same bytes.

PLURAL_FAULT makes one rank fail in one step (trainer/run/fault.h).
"""

import os
import re
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

STEPS = 12


class Watchdog(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(8))
        cls.recipe = cls.folder / "recipe.yaml"
        training.write_recipe(
            cls.recipe, "any", extra=f"train: {{epochs: {STEPS // 4}}}\ncheckpoint: {{every_steps: 2}}"
        )

    def start(self, name, *overrides, fault="", ranks=2, **variables):
        return subprocess.Popen(
            training.command(self.recipe, f"name={name}", *overrides, ranks=ranks),
            cwd=self.folder,
            env={**os.environ, "PLURAL_FAULT": fault, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end_of(self, process):
        """Its code, what it said, and the line of the error."""
        _, said = process.communicate(timeout=120)
        errors = [line for line in said.splitlines() if line.startswith("plural: error: ")]
        return process.returncode, said, errors[0] if errors else ""

    def log(self, name, file):
        return (self.folder / "runs" / name / "log" / file).read_text()

    def adapter(self, name):
        return (self.folder / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()

    def assert_goes_on(self, name):
        code, said, _ = self.end_of(self.start(name))
        self.assertEqual(code, 0, said)
        if not hasattr(self, "whole"):
            code, said, _ = self.end_of(self.start("whole"))
            self.assertEqual(code, 0, said)
            type(self).whole = self.adapter("whole")
        self.assertEqual(self.adapter(name), self.whole)

    def test_a_stopped_rank(self):
        for rank in (0, 1):
            with self.subTest(rank=rank):
                code, said, error = self.end_of(self.start(f"stop{rank}", fault=f"stop@{rank}:5"))
                self.assertEqual(code, 76, said)
                self.assertIn(f"rank {rank} on ", error)
                self.assertIn("stopped by a signal", error)
                self.assertIn("step 5", error)
        self.assert_goes_on("stop0")

    def test_a_rank_that_stays_at_one_thing(self):
        for kind in ("sleep", "spin"):
            with self.subTest(kind=kind):
                code, said, error = self.end_of(
                    self.start(kind, "watchdog.step_seconds=2", fault=f"{kind}@1:5")
                )
                self.assertEqual(code, 76, said)
                self.assertRegex(error, r"rank 1 on \S+ has been at one thing for 2(\.\d)? s")
                self.assertIn("forward and backward, step 5", error)
                self.assertIn("Fault::Before", self.log(kind, "stacks-00001.txt"))
                self.assertIn("waiting for other ranks", self.log(kind, "stacks-00000.txt"))

    def test_a_rank_whose_watchdog_cannot_report_is_named_by_the_others(self):
        """Held by a debugger, say: neither its thread nor its guard ends it, and it keeps its last status."""
        process = self.start("gone", "watchdog.step_seconds=3", fault="sleep@1:5")
        rank = self.wait_for_rank(process, 1, "gone")
        status = self.folder / "runs/gone/log/status-00001"
        until = time.monotonic() + 60
        while not status.exists() and time.monotonic() < until:
            time.sleep(0.1)
        guards = [pid for pid in self.children(rank) if self.name_of(pid) == "plural-guard"]
        self.assertEqual(len(guards), 1)
        os.kill(guards[0], signal.SIGKILL)
        os.kill(rank, signal.SIGSTOP)
        code, said, error = self.end_of(process)
        self.assertEqual(code, 76, said)
        self.assertRegex(error, r"rank 0 on \S+ has been waiting for other ranks")
        self.assertRegex(error, r"by their last status these are behind: rank 1 on \S+ \(")

    def test_a_file_system_that_stands_still(self):
        source, library = self.folder / "still.cc", self.folder / "still.so"
        source.write_text(
            """#include <sys/syscall.h>
#include <unistd.h>
// From the first checkpoint on.
extern "C" int fsync(int file) {
  while (access("runs/still/checkpoints", F_OK) == 0) sleep(1000);
  return static_cast<int>(syscall(SYS_fsync, file));
}
"""
        )
        subprocess.run(["g++", "-shared", "-fPIC", "-o", library, source], check=True)
        process = self.start("still", "watchdog.checkpoint_seconds=2", LD_PRELOAD=str(library))
        code, said, error = self.end_of(process)
        self.assertEqual(code, 76, said)
        self.assertRegex(error, r"rank 0 on \S+ has been at one thing for 2(\.\d)? s \(checkpoint, step")
        self.assertIn("fsync", self.log("still", "stacks-00000.txt"))

    def start_beside(self, name, other, *overrides):
        """Rank 0 trains, rank 1 is another program."""
        train = training.command(self.recipe, f"name={name}", *overrides)
        return subprocess.Popen(
            [*training.mpirun(1), *train, ":", "-np", "1", *other],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_a_rank_that_never_starts(self):
        process = self.start_beside("alone", ["sleep", "100"], "watchdog.start_seconds=2")
        code, said, error = self.end_of(process)
        self.assertEqual(code, 76, said)
        self.assertRegex(error, r"waiting for the 2 ranks of the job to start.*watchdog\.start_seconds")

    def test_a_rank_that_is_stopped_before_its_own_code_runs(self):
        """It has no guard yet: those that wait for it end the job."""
        process = self.start("early", "watchdog.start_seconds=2")
        until = time.monotonic() + 60
        while len(self.children(process.pid)) < 2:
            self.assertLess(time.monotonic(), until)
        os.kill(self.children(process.pid)[0], signal.SIGSTOP)
        code, said, error = self.end_of(process)
        self.assertEqual(code, 76, said)
        self.assertIn("waiting for the 2 ranks of the job to start", error)

    def test_a_rank_that_runs_another_command(self):
        code, said, error = self.end_of(self.start_beside("mixed", [training.PLURAL, "doctor"]))
        self.assertEqual(code, 69, said)
        self.assertIn("the command is doctor on rank 1", error)

    def test_faults_that_end_a_rank(self):
        for kind, expected in (("kill", 137), ("exit", 3), ("throw", 70)):
            with self.subTest(kind=kind):
                code, said, _ = self.end_of(self.start(f"end-{kind}", fault=f"{kind}@1:5"))
                self.assertEqual(code, expected, said)
        self.assert_goes_on("end-kill")

    def test_faults_of_numbers(self):
        code, said, error = self.end_of(self.start("nan", fault="nan@1:5"))
        self.assertEqual(code, 77, said)
        self.assertRegex(error, "step 5: the loss of rank 1 is not finite; its groups: [0-9]")
        code, said, error = self.end_of(self.start("bitflip", fault="bitflip@2:5", ranks=3))
        self.assertEqual(code, 79, said)
        self.assertIn("of rank 2 differ from the other ranks'", error)
        code, said, error = self.end_of(self.start("bitflip-of-two", fault="bitflip@0:5"))
        self.assertEqual(code, 79, said)
        self.assertIn("too few are alike to tell whose are wrong", error)
        self.assert_goes_on("bitflip")

    def test_usr2_shows_where_a_rank_is(self):
        process = self.start("asked", fault="sleep@1:5")
        rank = self.wait_for_rank(process, 1, "asked")
        os.kill(rank, signal.SIGUSR2)
        file = self.folder / "runs/asked/log/stacks-00001.txt"
        until = time.monotonic() + 60
        while time.monotonic() < until and not (file.exists() and "Fault::Before" in file.read_text()):
            time.sleep(0.1)
        self.assertIn("asked by a signal; forward and backward, step 5", file.read_text())
        self.assertIsNone(process.poll())
        process.kill()
        process.communicate()

    def test_none_of_it_leaves_a_process(self):
        code, said, _ = self.end_of(self.start("clean"))
        self.assertEqual(code, 0, said)
        self.assertEqual(self.guards(), [])

    # Processes.

    def wait_for_rank(self, process, rank, name):
        """The process of a rank, when it is in step 5."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.2)
            for pid in self.children(process.pid):
                try:
                    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                except OSError:
                    continue
                if f"OMPI_COMM_WORLD_RANK={rank}".encode() not in variables:
                    continue
                if self.steps_done(name):
                    return pid
        raise AssertionError("the rank did not come to its fault")

    def steps_done(self, name):
        """Whether the run has written four steps."""
        file = self.folder / "runs" / name / "metrics.jsonl"
        return file.exists() and len(re.findall(r'"event":"step"', file.read_text())) >= 4

    @staticmethod
    def children(pid):
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(file.read_text().rpartition(") ")[2].split()[1])
            except (OSError, IndexError):
                continue
            if parent == pid:
                found.append(int(file.parent.name))
        return found

    @staticmethod
    def name_of(pid):
        return Path(f"/proc/{pid}/comm").read_text().strip()

    def guards(self):
        names = []
        for file in Path("/proc").glob("[0-9]*/comm"):
            try:
                if file.read_text().strip() == "plural-guard" and str(self.folder) in os.readlink(
                    file.parent / "cwd"
                ):
                    names.append(file.parent.name)
            except OSError:
                continue
        return names


if __name__ == "__main__":
    unittest.main()

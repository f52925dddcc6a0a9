"""The GPU's checklist, where there is no GPU: it refuses, its list runs through on the CPU, and what goes
wrong in one part of it leaves the others."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHECKLIST = ROOT / "tests/gpu/checklist"
PLURAL = os.environ["PLURAL_BINARY"]
KERNELS = 40
CHECKS = {
    "kernels": KERNELS,
    "exactness": 10,
    "resume": 2,
    "methods": 16,
    "families": 16,
    "commands": 3,
    "generation": 4,
    "sanitizer": 0,
    "speed": 5,
    "budgets": 4,
    "replies": 2,
}
ON_THE_CPU = ("--device", "cpu", "--tiny")


def script(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def has_ended(process, patience_seconds=10):
    """Also where nobody has asked for its exit code yet."""
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


class GpuChecklistTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.output = self.folder / "output"

    def command(self, *arguments):
        return [CHECKLIST, "-o", self.output, *arguments]

    def run_checklist(self, *arguments, code, binary=PLURAL):
        result = subprocess.run(
            self.command(*arguments),
            env={**os.environ, "PLURAL_BINARY": str(binary)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result

    def written(self):
        return json.loads((self.output / "checklist.json").read_text())

    def sections(self):
        return self.written()["sections"]

    def other_plural(self, train, kernels="exit 0"):
        """A program whose `train` is another; of kernels it has one, and says `kernels` of it."""
        binary = self.folder / "other/plural"
        script(binary, f'if [ "$1" = train ]; then {train}; fi\nexec {PLURAL} "$@"')
        script(
            binary.parent / "tests/kernel_check",
            f"""if [ $1 = --look ]; then exit 0; fi\necho '{{"check": "one", "passed": true}}'\n{kernels}""",
        )
        return binary

    @unittest.skipIf(shutil.which("nvidia-smi"), "this machine may have a GPU")
    def test_refuses_without_a_gpu(self):
        result = self.run_checklist(code=69)
        self.assertIn("no CUDA device", result.stderr)
        self.assertFalse(self.output.exists())

    def test_the_list_itself(self):
        self.run_checklist(*ON_THE_CPU, code=0)
        sections = self.sections()
        self.assertEqual({name: len(section["checks"]) for name, section in sections.items()}, CHECKS)
        for section in sections.values():
            self.assertTrue(all(check["passed"] for check in section["checks"]))
            self.assertGreater(section["seconds"], 0)
        # One order of sums on the CPU.
        for check in sections["resume"]["checks"]:
            self.assertEqual((check["largest relative difference"], check["allowed"]), (0, 0))
            self.assertTrue(check["the same adapter"])
        self.assertRegex(sections["sanitizer"]["skipped"][0]["reason"], "on the CPU")
        measured = {}
        for check in sections["speed"]["checks"] + sections["replies"]["checks"]:
            measured |= check
        for key in ("sequence tokens per second", "utilisation %", "host peak MiB", "predicted peak MiB"):
            self.assertGreater(measured[key], 0, key)
        self.assertGreater(measured["tokens per second"], 0)
        self.assertEqual(measured["different replies"], 20)  # equal ones would be computed once

    def test_what_fails_is_in_the_list_and_the_others_are_too(self):
        # 69, as where attention is wrong, on a machine whose GPU is found.
        binary = self.other_plural(
            "echo 'plural: error: attention on cuda:0 differs' >&2; exit 69", "echo boom >&2\nexit 134"
        )
        self.run_checklist("--tiny", code=1, binary=binary)
        sections = self.sections()
        self.assertEqual(list(sections), list(CHECKS))
        for name, section in sections.items():
            self.assertIsNotNone(section["seconds"], name)
            failed = [check for check in section["checks"] if not check["passed"]]
            if name == "kernels":
                self.assertEqual([check["passed"] for check in section["checks"]], [True, False])
                self.assertIn("ended with 134: boom", failed[0]["error"])
            elif name not in ("sanitizer", "replies"):
                self.assertEqual(len(failed), len(section["checks"]), name)
                self.assertIn("ended with 69, not 0: plural: error: attention", failed[0]["error"])
        self.assertEqual(len(sections["exactness"]["checks"]), CHECKS["exactness"])

    def test_runs_that_differ_have_failed(self):
        binary = self.other_plural(
            f'case "$*" in *layout=plain*) exec {PLURAL} "$@" optimizer.lr=2e-2;; '
            f'*checkpointing=on*) exec {PLURAL} "$@" seed=43;; esac'
        )
        self.run_checklist(*ON_THE_CPU, "--only", "exactness", code=1, binary=binary)
        failed = {check["check"] for check in self.sections()["exactness"]["checks"] if not check["passed"]}
        self.assertEqual(
            failed, {"tree = plain, fp32", "tree = plain, bf16", "layers computed twice against once"}
        )

    def test_some_sections_keep_the_others_and_take_their_own_place(self):
        binary = self.other_plural("exit 3")
        self.run_checklist(*ON_THE_CPU, "--only", "kernels", code=0, binary=binary)
        self.run_checklist(*ON_THE_CPU, "--only", "commands,resume", code=1, binary=binary)
        sections = self.sections()
        self.assertEqual(set(sections), {"kernels", "resume", "commands"})
        self.assertEqual(len(sections["kernels"]["checks"]), 1)
        self.assertIn("ended with 3", sections["resume"]["checks"][0]["error"])
        self.run_checklist(*ON_THE_CPU, "--only", "resume", code=0)
        again = self.sections()
        self.assertTrue(all(check["passed"] for check in again["resume"]["checks"]))
        self.assertEqual((again["kernels"], again["commands"]), (sections["kernels"], sections["commands"]))
        # Those of large shapes are no neighbours of these.
        result = self.run_checklist("--device", "cpu", "--only", "sanitizer", code=0)
        self.assertIn("of another device or other shapes", result.stdout)
        self.assertEqual(set(self.sections()), {"sanitizer"})

    def test_only_takes_sections(self):
        result = self.run_checklist(*ON_THE_CPU, "--only", "kernels,sped", code=2)
        self.assertIn("'sped' is no section; allowed are kernels, exactness", result.stderr)
        self.assertFalse(self.output.exists())

    def test_a_program_that_hangs_is_a_check_that_failed(self):
        binary = self.other_plural("sleep 1000")
        self.run_checklist(*ON_THE_CPU, "--only", "resume", "--seconds", "0.5", code=1, binary=binary)
        for check in self.sections()["resume"]["checks"]:
            self.assertIn("stopped after 0.5 s", check["error"])

    def test_stopped_it_leaves_what_it_has(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                shutil.rmtree(self.folder / "other", ignore_errors=True)
                shutil.rmtree(self.output, ignore_errors=True)
                marker = self.folder / f"pid-{number}"
                binary = self.other_plural(
                    f"echo $$ > {marker}.new; mv {marker}.new {marker}; exec sleep 1000"
                )
                process = subprocess.Popen(
                    self.command(*ON_THE_CPU, "--only", "kernels,resume"),
                    env={**os.environ, "PLURAL_BINARY": str(binary)},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                while not marker.exists() and process.poll() is None:
                    time.sleep(0.01)
                process.send_signal(number)
                _, said = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 75, said)
                sections = self.sections()
                self.assertEqual(len(sections["kernels"]["checks"]), 1)
                self.assertIsNone(sections["resume"]["seconds"])
                self.assertTrue(has_ended(int(marker.read_text())), "its program goes on")


if __name__ == "__main__":
    unittest.main()

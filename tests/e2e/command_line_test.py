"""The command line as users and batch scripts see it: words, exit codes, one line on standard error."""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

BINARY = os.environ["PLURAL_BINARY"]
COMMANDS = [
    *("train", "verify", "generate", "score", "rate", "evaluate", "inspect", "validate", "dry-run", "doctor")
]
MPIRUN = ["mpirun", "-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]


def run(*arguments, launcher=(), cwd=None, env=None):
    return subprocess.run(
        [*launcher, BINARY, *arguments], capture_output=True, text=True, timeout=120, cwd=cwd, env=env
    )


class CommandLine(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.recipe = self.folder / "run.yaml"
        self.recipe.write_text("model: {path: no-model}\ndata: {train: no-corpus.h5}\n")

    def assert_fails(self, result, code, *words):
        self.assertEqual(result.returncode, code, result.stderr)
        self.assertEqual(result.stdout, "")
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("plural: error: "), lines[0])
        self.assertIn(f"[exit {code}", lines[0])
        for word in words:
            self.assertIn(word, lines[0])

    def test_help_and_version(self):
        self.assertEqual(run("--version").stdout, "plural 0.1.0\n")
        text = run("--help").stdout
        for command in COMMANDS:
            self.assertIn(command, text)
            result = run(command, "--help")
            self.assertEqual(result.returncode, 0)
            self.assertIn("Usage: plural " + command, result.stdout)
            self.assertEqual(result.stderr, "")

    def test_usage_errors(self):
        self.assert_fails(run(), 64, "a command is needed")
        self.assert_fails(run("trian"), 64, "did you mean train?")
        self.assert_fails(run("frobnicate"), 64, "unknown command")
        self.assert_fails(run("validate"), 64, "RECIPE")
        self.assert_fails(run("validate", "--frob", "x"), 64, "--frob", "plural validate --help")
        self.assert_fails(run("dry-run", str(self.recipe), "--ranks", "0"), 64, "--ranks")

    def test_recipe_errors(self):
        self.assert_fails(run("validate", "none.yaml"), 66, "none.yaml")
        self.assert_fails(run("validate", str(self.recipe), "lora_r=8"), 78, "adapter.rank")
        self.assert_fails(run("dry-run", str(self.recipe)), 66, "no-model")
        self.assert_fails(run("dry-run", str(self.recipe), "train.steps=0"), 78, "train.steps")

    def test_several_problems_are_a_line_each(self):
        result = run("validate", str(self.recipe), "lora_r=8", "seed=x")
        self.assertEqual(result.returncode, 78)
        first, *others = result.stderr.splitlines()
        self.assertIn("has 2 problems [exit 78, phase validate]", first)
        self.assertEqual(len(others), 2)

    def test_the_resolved_recipe_is_a_recipe(self):
        first = run("validate", str(self.recipe), "name=a", "optimizer.lr=1e-3")
        self.assertEqual(first.returncode, 0, first.stderr)
        self.assertRegex(first.stdout, r"(?m)^  lr: 0\.001 +# command line$")
        resolved = self.folder / "resolved.yaml"
        resolved.write_text(first.stdout)
        second = run("validate", str(resolved))
        self.assertEqual(second.returncode, 0, second.stderr)
        values = [
            [line.split("  #")[0] for line in text.splitlines()[1:]] for text in (first.stdout, second.stdout)
        ]
        self.assertEqual(*values)

    def test_commands_without_a_gpu(self):
        """Asked for, a GPU is told to be missing before anything is read or written; nothing falls back."""
        model = ["--model", str(self.folder)]
        output = str(self.folder / "output")
        commands = [
            ["generate", *model, "--corpus", "none.h5", "-o", output],
            ["generate", *model, "--stream"],
            ["evaluate", *model, "--corpus", "none.h5", "-o", output],
            ["score", *model, "--input", "none.jsonl", "-o", output],
            ["rate", *model, "--rating-corpus", "none.h5", "--input", "none.jsonl", "-o", output],
        ]
        for command in commands:
            exact = run(*command, "--device", "cuda", "--dtype", "fp64")
            self.assert_fails(exact, 64, "fp64 is computed on the CPU only")
            hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
            result = run(*command, "--device", "cuda", env=hidden)
            self.assert_fails(result, 69, "--device cpu", f"phase {command[0]}")
            self.assertEqual([file.name for file in self.folder.iterdir()], ["run.yaml"])
        self.assert_fails(run(*commands[1], "--device", "gpu"), 64, "--device")
        self.assert_fails(run(*commands[1], "--quantize", "int8"), 64, "--quantize")

    def test_one_rank_ends_the_job_with_its_code(self):
        result = run("train", str(self.recipe), "lora_r=8", launcher=MPIRUN)
        self.assertEqual(result.returncode, 78, result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("plural: error: ")]
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertRegex(errors[0], r"\[exit 78, rank \d, phase train\]$")


if __name__ == "__main__":
    unittest.main()

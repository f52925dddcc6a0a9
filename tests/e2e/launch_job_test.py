"""`plural launch RECIPE --slurm|--mpirun` without Slurm: what sbatch and mpirun are given, and refusals."""

import os
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "launch/slurm/train.sbatch")

SBATCH = """\
#!/bin/sh
printf '%s\\n' "$PLURAL_ROOT" "$@" >arguments
if [ "$3" = --partition=none ]; then
  printf 'sbatch: error: no such partition\\nsbatch: error: refused\\n' >&2
  exit 1
fi
echo 'sbatch: a note' >&2
echo '12;cluster'
"""


class LaunchJobTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="a job ")))
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(8))
        training.write_recipe(
            self.folder / "my run.yaml", "run", extra="train: {steps: 2, groups_per_step: 2}"
        )
        sbatch = self.folder / "bin" / "sbatch"
        sbatch.parent.mkdir()
        sbatch.write_text(SBATCH)
        sbatch.chmod(0o755)
        self.path = f"{sbatch.parent}:{os.environ['PATH']}"

    def launch(self, *arguments, path=None):
        return subprocess.run(
            [ROOT / "launch/plural", "launch", *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": path or self.path},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def given(self):
        """PLURAL_ROOT and the arguments of the last call of sbatch; none without one."""
        file = self.folder / "arguments"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines

    def test_what_sbatch_is_given(self):
        recipe = "my run.yaml"
        some = ["--nodes", "2", "--ntasks-per-node=8", "--time", "1-04:00", "--sbatch=--gpus-per-node=8"]
        options = ["--nodes=2", "--ntasks-per-node=8", "--time=1-04:00", "--gpus-per-node=8"]
        for arguments, expected in (
            ([recipe, "--slurm"], [JOB, recipe]),
            (["--slurm", *some, recipe, "seed=3"], [*options, JOB, recipe, "seed=3"]),
        ):
            done = self.launch(*arguments)
            self.assertEqual(
                (done.returncode, done.stdout), (0, f"submitted {recipe}: job 12, log plural-12.log\n")
            )
            self.assertEqual(done.stderr, "sbatch: a note\n")
            self.assertEqual(self.given(), [str(ROOT), "--parsable", *expected])
            # What is printed is the same command, for a shell.
            done = self.launch(*arguments, "--print")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.given(), [])
            words = shlex.split(done.stdout)
            self.assertEqual(words, ["env", f"PLURAL_ROOT={ROOT}", "sbatch", "--parsable", *expected])
        done = self.launch(recipe, "--slurm", "--sbatch=--output=my.log")
        self.assertEqual(done.stdout, f"submitted {recipe}: job 12\n")

    def refused(self, code, words, *arguments, **options):
        done = self.launch(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        self.assertTrue(done.stderr.startswith("plural: error: "), done.stderr)
        self.assertIn(words, done.stderr)
        self.assertIn(f"[exit {code}, ", done.stderr)

    def test_what_is_refused(self):
        recipe = "my run.yaml"
        for words, arguments in (
            ("say where: plural launch my run.yaml --slurm", [recipe]),
            ("a recipe is needed first", ["--slurm"]),
            ("a recipe is needed first", ["--mpirun", "seed=3"]),
            ("give --slurm or --mpirun, not both", [recipe, "--slurm", "--mpirun"]),
            ("--nodes is '0'", [recipe, "--slurm", "--nodes", "0"]),
            ("--ntasks-per-node is 'x'", [recipe, "--slurm", "--ntasks-per-node=x"]),
            ("--time is 'long'", [recipe, "--slurm", "--time", "long"]),
            ("--time needs a value", [recipe, "--slurm", "--time"]),
            (
                "unknown option '--gpus-per-node=8'; options of sbatch",
                [recipe, "--slurm", "--gpus-per-node=8"],
            ),
            ("--sbatch is 'x'", [recipe, "--slurm", "--sbatch=x"]),
            ("'seed' is no override", [recipe, "--slurm", "seed"]),
            ("on this machine alone", [recipe, "--mpirun", "--nodes=2"]),
            ("--time and --sbatch are for --slurm", [recipe, "--mpirun", "--time=3"]),
        ):
            self.refused(64, words, *arguments)
        # A recipe that train would refuse does not reach the queue, printed or not.
        self.refused(66, "no recipe at 'none.yaml'", "none.yaml", "--slurm")
        for more in ([], ["--print"]):
            self.refused(78, "unknown key 'optimizer.rl'", recipe, "optimizer.rl=1", "--slurm", *more)
        self.assertEqual(self.given(), [])
        self.refused(
            70,
            "sbatch: no such partition refused [exit",
            recipe,
            "--slurm",
            "--ntasks-per-node=1",
            "--sbatch=--partition=none",
        )
        tools = self.folder / "tools"  # all that the scripts call, but for sbatch
        tools.mkdir()
        for name in ("bash", "dirname", "readlink"):
            (tools / name).symlink_to(shutil.which(name))
        self.refused(69, "no sbatch in PATH", recipe, "--slurm", path=str(tools))

    def test_ranks_here(self):
        recipe = "my run.yaml"
        done = self.launch(recipe, "--mpirun", "--ntasks-per-node=2", "--print")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(" mpirun -np 2 ", done.stdout)
        self.assertEqual(shlex.split(done.stdout)[-3:], [str(ROOT / "launch/plural"), "train", recipe])
        self.assertFalse((self.folder / "runs").exists())
        done = self.launch(recipe, "--mpirun", "--ntasks-per-node=2", "train.steps=1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 ranks", done.stdout)
        self.assertTrue((self.folder / "runs/run/adapter").is_dir())


if __name__ == "__main__":
    unittest.main()

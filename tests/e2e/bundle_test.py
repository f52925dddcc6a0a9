"""An archive of `launch/bundle` at another place: its own programs, two ranks, and the same bytes.

It is the small one, whose torch is that of PLURAL_PYTHON; the large one differs by what is copied in.
"""

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from training import random_groups, train, write_corpus, write_recipe

ROOT = Path(__file__).resolve().parents[2]
TWO_RANKS = ("mpirun", "-np", "2", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none")
ENVIRONMENT = {**os.environ, "PLURAL_PYTHON": str(ROOT / ".venv/bin/python")}
ENVIRONMENT.pop("PLURAL_BINARY")  # the checkout's


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(work.cleanup)
        cls.work = Path(work.name)
        made = subprocess.run(
            [ROOT / "launch/bundle", cls.work / "made", "--without-torch"], capture_output=True, text=True
        )
        assert made.returncode == 0, made.stderr
        (archive,) = (cls.work / "made").iterdir()  # nothing else is left there
        subprocess.run(["tar", "xzf", archive, "-C", cls.work], check=True)
        archive.unlink()
        cls.bundle = cls.work / archive.name.removesuffix(".tar.gz")

    def run_in(self, folder, *command, **environment):
        return subprocess.run(
            [self.bundle / "run", *command],
            cwd=folder,
            env={**ENVIRONMENT, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def test_names_a_command(self):
        self.assertEqual(self.run_in(self.bundle).returncode, 64)
        self.assertEqual(self.run_in(self.bundle, "plural", "trian").returncode, 64)

    def test_doctor_and_the_bundles_own_launcher(self):
        found = self.run_in(self.work, "bash", "-c", "command -v plural mpirun")
        self.assertEqual(found.stdout.split(), [f"{self.bundle}/bin/{name}" for name in ("plural", "mpirun")])
        result = self.run_in(self.work, *TWO_RANKS, "plural", "doctor")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("rank 0-1 (local 0-1)", result.stdout)

    def test_refuses_a_python_without_torch(self):
        bare = self.work / "bare"
        subprocess.run([ENVIRONMENT["PLURAL_PYTHON"], "-m", "venv", "--without-pip", bare], check=True)
        result = self.run_in(self.work, "plural", "doctor", PLURAL_PYTHON=str(bare / "bin/python"))
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertRegex(result.stderr, r"^plural: error: the Python of PLURAL_PYTHON has no torch; .*\n$")

    def test_two_ranks_train_to_the_same_bytes(self):
        adapters = []
        for name in ("bundle", "checkout"):
            folder = self.work / name
            folder.mkdir()
            write_corpus(folder / "corpus.h5", random_groups(6))
            write_recipe(folder / "recipe.yaml", "mine", extra="train: {steps: 3, groups_per_step: 2}")
            if name == "bundle":
                result = self.run_in(folder, *TWO_RANKS, "plural", "train", "recipe.yaml")
            else:
                result = train(folder, "recipe.yaml", ranks=2)
            self.assertEqual(result.returncode, 0, result.stderr)
            adapters.append((folder / "runs/mine/adapter/adapter_model.safetensors").read_bytes())
        self.assertEqual(adapters[0], adapters[1])


if __name__ == "__main__":
    unittest.main()

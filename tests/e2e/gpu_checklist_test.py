"""The GPU's checklist, where there is no GPU: it refuses, and its list runs through on the CPU."""

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

CHECKLIST = Path(__file__).resolve().parents[1] / "gpu/checklist"


class GpuChecklistTest(unittest.TestCase):
    def run_checklist(self, *arguments):
        with tempfile.TemporaryDirectory() as folder:
            result = subprocess.run(
                [CHECKLIST, "-o", folder, *arguments], capture_output=True, text=True, timeout=600
            )
            path = Path(folder) / "checklist.json"
            return result, json.loads(path.read_text()) if path.exists() else None

    @unittest.skipIf(shutil.which("nvidia-smi"), "this machine may have a GPU")
    def test_refuses_without_a_gpu(self):
        result, written = self.run_checklist()
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("no CUDA device", result.stderr)
        self.assertIsNone(written)

    def test_the_list_itself(self):
        result, written = self.run_checklist("--device", "cpu", "--tiny")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        names = [check["check"] for check in written["checks"]]
        kernels = [name for name in names if name.startswith("kernel: ")]
        self.assertEqual((len(kernels), len(names) - len(kernels)), (40, 17))
        self.assertTrue(all(check["passed"] for check in written["checks"]))
        speed = next(check for check in written["checks"] if check["check"] == "7B shape, tree")
        for key in ("sequence tokens per second", "utilisation %", "host peak MiB", "predicted peak MiB"):
            self.assertGreater(speed[key], 0, key)


if __name__ == "__main__":
    unittest.main()

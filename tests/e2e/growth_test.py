"""A run holds as much memory after many steps as after a few.

300 steps here; PLURAL_GROWTH_STEPS=2000 makes the run whose figure is in docs/performance.md.
"""

import contextlib
import os
import statistics
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

STEPS = int(os.environ.get("PLURAL_GROWTH_STEPS", "300"))
# The corpus is one epoch of 10 steps, so every step's shapes come back after ten: from step 100 on nothing
# new is allocated. What is left is the allocator's own: whether a page it has freed is given back at once.
SETTLED = 100
NOISE_BYTES = 1 << 20


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class GrowthTest(unittest.TestCase):
    def test_memory_is_steady(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            training.write_corpus(folder / "corpus.h5", training.random_groups(20))
            training.write_recipe(
                folder / "r.yaml",
                "run",
                dtype="fp32",
                extra=f"train: {{steps: {STEPS}}}\ncheckpoint: {{every_steps: 25, keep: 2}}",
            )
            metrics = folder / "runs/run/metrics.jsonl"
            samples = []  # (lines of metrics, bytes)
            process = subprocess.Popen(
                training.command("r.yaml"),
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            while process.poll() is None:
                time.sleep(0.005)
                with contextlib.suppress(FileNotFoundError, ProcessLookupError, IndexError):
                    samples.append(
                        (metrics.read_bytes().count(b'"event":"step"'), resident_bytes(process.pid))
                    )
            self.assertEqual(process.returncode, 0, process.stderr.read())
            process.stderr.close()
        quarter = (STEPS - SETTLED) // 4
        early = [size for step, size in samples if SETTLED <= step < SETTLED + quarter]
        late = [size for step, size in samples if STEPS - quarter <= step < STEPS]
        self.assertGreater(min(len(early), len(late)), 5, "too few samples to tell anything")
        growth = statistics.median(late) - statistics.median(early)
        print(
            f"{len(samples)} samples, {statistics.median(early) / 2**20:.1f} MiB after {SETTLED} steps, "
            f"growth {growth / 1024:.0f} KiB until step {STEPS}"
        )
        self.assertLess(growth, NOISE_BYTES)


if __name__ == "__main__":
    unittest.main()

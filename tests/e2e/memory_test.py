"""The dry run's predicted peak memory against the peak of the run, on a model large enough to show."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

BOUND = 0.15  # what the dry run promises
MODEL = (
    training.MODEL.replace("vocab_size: 40", "vocab_size: 8000")
    .replace("hidden_size: 16", "hidden_size: 256")
    .replace("intermediate_size: 32", "intermediate_size: 688")
    .replace("num_hidden_layers: 2", "num_hidden_layers: 12")
    .replace("max_position_embeddings: 128", "max_position_embeddings: 2048")
)
UNITS = {"MiB": 2**20, "GiB": 2**30}


def bytes_of(text):
    number, unit = re.fullmatch(r"([\d.]+) (\w+)", text).groups()
    return float(number) * UNITS[unit]


class MemoryTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        groups = training.random_groups(6, responses=4)
        # 100 times each token: prompts of 300 to 900, responses of 100 to 600.
        long = [
            (
                [1] + prompt[1:] * 100,
                tails,
                [(tokens[:-1] * 40 + [2], mask[:-1] * 40 + [0], weight) for tokens, mask, weight in answers],
            )
            for prompt, tails, answers in groups
        ]
        training.write_corpus(self.folder / "corpus.h5", long, vocabulary=[b"<%d>" % i for i in range(8000)])

    def compare(self, name, *overrides, **recipe):
        """Predicts and runs; returns the measured bytes."""
        training.write_recipe(self.folder / "r.yaml", name, dtype="fp32", **recipe)
        path = self.folder / "r.yaml"
        path.write_text(path.read_text().replace(training.MODEL, MODEL))
        arguments = [
            "r.yaml",
            "train.steps=1",
            "train.groups_per_step=1",
            "checkpoint.every_steps=0",
            *overrides,
        ]
        shown = subprocess.run(
            [training.PLURAL, "dry-run", *arguments], cwd=self.folder, capture_output=True, text=True
        )
        self.assertEqual(shown.returncode, 0, shown.stderr)
        predicted = bytes_of(re.search(r"together +([\d.]+ \w+),", shown.stdout).group(1))
        result = training.train(self.folder, *arguments)
        self.assertEqual(result.returncode, 0, result.stderr)
        measured = training.metrics(self.folder, name)[-1]["peak_host_memory_bytes"]
        print(f"predicted {predicted / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
        self.assertAlmostEqual(predicted / measured, 1.0, delta=BOUND, msg=shown.stdout)
        return measured

    def test_adapter(self):
        kept = self.compare("kept", "train.activation_checkpointing=off")
        twice = self.compare("twice", "train.activation_checkpointing=on")
        self.assertLess(twice, kept - (100 << 20))

    def test_all_weights(self):
        self.compare("whole", adapter=False)


if __name__ == "__main__":
    unittest.main()

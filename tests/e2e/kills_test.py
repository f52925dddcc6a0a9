"""The first of the kills and flips of tests/soak/kills.py."""

import tempfile
import unittest
from pathlib import Path

from soak import kills


class Kills(unittest.TestCase):
    def test_a_few(self):
        with tempfile.TemporaryDirectory() as folder:
            table, wrong = kills.disturb(
                Path(folder).resolve(),
                ["otmft"],
                kills=2,
                flips=1,
                disks=0,
                steps=40,
                seed=5,
            )
        self.assertEqual(wrong, [])
        for figures in table.values():
            self.assertGreaterEqual(figures["kills"], 2)
            self.assertEqual(figures["runs"], figures["equal"])
            self.assertEqual(figures["flips"], figures["flips found"])


if __name__ == "__main__":
    unittest.main()

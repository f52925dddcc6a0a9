"""docs/faults.md names tests that there are."""

import re
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMED = re.compile(r"`([\w/]+\.(?:py|cc)): ([\w.]+)`")


class FaultsPage(unittest.TestCase):
    def test_every_test_is_there(self):
        named = NAMED.findall((ROOT / "docs/faults.md").read_text())
        self.assertGreater(len(named), 60)
        for file, name in named:
            with self.subTest(f"{file}: {name}"):
                text = (ROOT / "tests" / file).read_text()
                if file.endswith(".py"):
                    self.assertIn(f"    def {name}(self", text)
                else:
                    self.assertRegex(text, rf"TEST(_F|_P)?\({name.replace('.', ', ')}\)")


if __name__ == "__main__":
    unittest.main()

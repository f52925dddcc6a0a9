"""Pages that are made of other files of the project say what those say: the words of other programs, the
recipes that are shown, the picture, exit codes."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import draw_diversity
import foreign_words

DOCS = ROOT / "docs"


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def validate(text, *overrides):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "recipes").symlink_to(ROOT / "recipes")
        (Path(folder) / "mine.yaml").write_text(text)
        command = [os.environ["PLURAL_BINARY"], "validate", "mine.yaml", *overrides]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)


class ForeignWords(unittest.TestCase):
    def test_the_page_has_the_readers_table(self):
        source, page = read("trainer/recipe/suggest.cc"), read("docs/coming-from.md")
        self.assertGreater(sum(map(len, foreign_words.foreign_words(source).values())), 80)
        self.assertEqual(
            page, foreign_words.with_table(page, source), "run .venv/bin/python docs/foreign_words.py"
        )

    def test_the_program_answers_what_the_page_says(self):
        rows = foreign_words.table(read("trainer/recipe/suggest.cc")).splitlines()[2:]
        words = {
            word: row.rstrip(" |").rsplit("| ", 1)[1].strip("`")
            for row in rows
            for word in re.findall(r"`(\w+)`", row.split(" | ")[0])
        }
        starter, left = read("recipes/starter.yaml"), list(words)
        while left:  # a report has fifty lines at most
            some, left = left[:40], left[40:]
            done = validate(starter + "".join(f"{word}: 1\n" for word in some))
            self.assertEqual(done.returncode, 78)
            for word in some:
                (line,) = (line for line in done.stderr.splitlines() if f"'{word}'" in line)
                self.assertIn(words[word], line)

    def test_recipes_on_the_page(self):
        blocks = re.findall(r"```yaml\n(.*?)```", read("docs/coming-from.md"), re.DOTALL)
        ours = [block for block in blocks if block.startswith("# plural\n")]
        self.assertEqual(len(ours), 2)
        for block in blocks:
            done = validate(block)
            self.assertEqual(done.returncode, 0 if block in ours else 78, done.stderr + block)


class Starter(unittest.TestCase):
    def test_every_key_has_a_comment(self):
        text = read("recipes/starter.yaml").split("\nname:")[1]
        for line in ("name:" + text).splitlines():
            opens_section = re.fullmatch(r" *\w+:", line)
            self.assertTrue(not line or opens_section or "#" in line, line)


class Picture(unittest.TestCase):
    def test_it_shows_the_table(self):
        text = read("docs/reproduction.md")
        self.assertEqual(
            read("docs/diversity.svg"),
            draw_diversity.draw(text),
            "run .venv/bin/python docs/draw_diversity.py",
        )

    def test_the_readme_has_the_tables_figures(self):
        temperatures, figures = draw_diversity.read_table(read("docs/reproduction.md"))
        self.assertEqual(temperatures[0], 0.5)
        readme = read("README.md")
        for row in draw_diversity.LINES:
            mean, half = figures[row][0]
            self.assertIn(f"| {mean:.2f} ± {half:.2f} |", readme)


class Troubleshooting(unittest.TestCase):
    def test_every_exit_code_has_a_section(self):
        codes = set(re.findall(r"k\w+ = (\d+),", read("trainer/base/error.h"))) - {"0"}
        self.assertGreater(len(codes), 10)
        page = read("docs/troubleshooting.md")
        for code in codes:
            self.assertRegex(page, rf"\n## (\d\d, )*{code}\b", f"exit code {code}")


if __name__ == "__main__":
    unittest.main()

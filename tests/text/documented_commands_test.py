"""Every prepare command that a recipe or a document shows makes prompts in the form of the model it names."""

import json
import re
import shlex
import unittest
from pathlib import Path

from plural_text.prepare.templates import FOLDER, template_names

ROOT = Path(__file__).resolve().parents[2]
# What marks a user's turn in the models of a family, as in the name of their folder.
MARKS = {"mistral": "[INST] ", "llama": "[INST] ", "gemma": "<start_of_turn>user\n"}
COMMAND = re.compile(r"(?:launch/|^\s*#?\s*)plural prepare\b")


def commands(file: Path) -> list[list[str]]:
    """The words of every prepare command of a file, its continued lines joined."""
    found, lines = [], iter(file.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if not COMMAND.search(line):
            continue
        text = line[COMMAND.search(line).end() :]
        while text.endswith("\\"):
            text = text[:-1] + next(lines).lstrip("# ")
        words = shlex.split(text, comments=True)
        if "-o" in words:  # a command, not a sentence about it
            found.append(words)
    return found


def option(words: list[str], name: str) -> str | None:
    return words[words.index(name) + 1] if name in words else None


class Documented(unittest.TestCase):
    FILES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("docs/*.md"), ROOT / "README.md"])

    def test_a_template_of_the_models_family(self):
        checked = []
        for file in self.FILES:
            for words in commands(file):
                if option(words, "--format") == "text":  # plain documents have no turns
                    continue
                name = option(words, "--template")
                self.assertIsNotNone(name, f"{file.name}: {words}: an instruct model on bare text")
                checked.append(file.name)
                if name not in template_names():  # a file of the reader's own
                    self.assertIn(name, file.read_text(encoding="utf-8"))
                    continue
                model = option(words, "--tokenizer").rsplit("/", 1)[-1]
                marks = {mark for family, mark in MARKS.items() if family in model}
                prompt = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["prompt"]
                self.assertTrue(all(prompt.startswith(mark) for mark in marks), f"{file.name}: {words}")
                if "llama" in model:
                    self.assertTrue(name.startswith("llama2-"), f"{file.name}: {words}")
        # All recipes that tune an instruct model show theirs, as do the documents that begin with one.
        tuned = {file.name for file in ROOT.glob("recipes/*.yaml")} - {"pretrain-tiny.yaml"}
        self.assertEqual(tuned - set(checked), set())
        self.assertLessEqual({"README.md", "preparing-data.md"}, set(checked))

    def test_commands_are_found(self):
        (words,) = commands(ROOT / "recipes" / "peft-mistral-7b-aligned.yaml")
        self.assertEqual(option(words, "--align"), "6")
        self.assertEqual(option(words, "-o"), "corpora/dialogues-aligned.h5")


if __name__ == "__main__":
    unittest.main()

"""Every command that a document or a recipe shows is one that the programs accept.

That is: options and their values, recipes and their keys, files of the project. Every prepare command makes
prompts in the form of the model that it names.
"""

import argparse
import functools
import importlib
import json
import os
import re
import subprocess
import unittest
from pathlib import Path

from documented import DOCUMENTS, ROOT, shown, words_of
from plural_text.__main__ import COMMANDS
from plural_text.prepare.templates import FOLDER, template_names

FILES = [*sorted(ROOT.glob("recipes/**/*.yaml")), *DOCUMENTS]
# What marks a user's turn in the models of a family, as in their names.
MARKS = {"mistral": "[INST] ", "llama-2": "[INST] ", "gemma": "<start_of_turn>user\n", "qwen": "<|im_start|>"}
PLURAL = re.compile(r"(?:^|\s|/)plural$")
# Words that stand for the reader's own.
RECIPES = {"RECIPE", "RECIPE.yaml", "x.yaml", "my.yaml"}
NUMBERS = {"M", "N", "K"}
OF_THE_PROJECT = re.compile(r"^(launch|tests|recipes)/[\w./-]+$")


def plural_commands(file: Path) -> list[list[str]]:
    """The words behind "plural" of every command; of one that ranks are started with, those behind
    "launch -np N"."""
    found = []
    for line in shown(file):
        words = words_of(line)
        at = next((i for i, word in enumerate(words) if PLURAL.search(word)), None)
        if at is not None and at + 2 < len(words) and re.fullmatch(r"[a-z-]+", words[at + 1]):
            started = words[at + 1] == "launch" and words[at + 2] == "-np"
            found.append(words[at + (4 if started else 1) :])
    return found


def option(words: list[str], name: str) -> str | None:
    return dict(zip(words, [*words[1:], ""])).get(name)


@functools.cache
def help_of(command: str) -> str:
    done = subprocess.run([ROOT / "launch/plural", command, "--help"], capture_output=True, text=True)
    text = done.stdout if done.returncode == 0 else ""
    return text + " --keys" if command == "validate" else text  # prints a table for docs/recipes.md


@functools.cache
def problems_of(recipe: str, *overrides: str) -> str:
    done = subprocess.run(
        [os.environ["PLURAL_BINARY"], "validate", recipe, *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    return done.stderr.strip() if done.returncode else ""


class Refused(Exception):
    pass


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


class Commands(unittest.TestCase):
    """Each test looks at all files, so that one run names every wrong line."""

    def setUp(self):
        self.wrong = []

    def refuse(self, file, words, why):
        self.wrong.append(f"{file.relative_to(ROOT)}: {' '.join(words)}\n    {why}")

    def tearDown(self):
        self.assertEqual(self.wrong, [], "\n" + "\n".join(self.wrong))

    def test_text_commands_parse(self):
        checked = set()
        for file in FILES:
            for words in plural_commands(file):
                if words[0] not in COMMANDS or "--help" in words:
                    continue
                parser = Parser(allow_abbrev=False, exit_on_error=False)
                module = importlib.import_module(COMMANDS[words[0]][0])
                module.add_arguments(parser)
                parse = parser.parse_known_args if getattr(module, "PASSES_ON", False) else parser.parse_args
                try:
                    parse(["3" if word in NUMBERS else word for word in words[1:]])
                except (Refused, argparse.ArgumentError) as error:
                    # A sentence may name a command with the one option that it speaks of.
                    if "required" not in str(error) or file in DOCUMENTS[:1]:
                        self.refuse(file, words, error)
                checked.add(words[0])
        self.assertEqual(checked, set(COMMANDS))

    def test_options_of_the_program_exist(self):
        checked = set()
        for file in FILES:
            for words in plural_commands(file):
                if words[0] in COMMANDS and words[0] != "score":  # whose options are the program's
                    continue
                text = help_of(words[0])
                if not text:
                    self.refuse(file, words, "there is no such command")
                    continue
                checked.add(words[0])
                for name in (word.partition("=")[0] for word in words if word.startswith("-")):
                    if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
                        self.refuse(file, words, f"no option {name}")
        self.assertLessEqual({"train", "generate", "evaluate", "export", "score", "rate"}, checked)

    def test_recipes_and_their_keys_are_valid(self):
        checked = set()
        for file in FILES:
            for words in plural_commands(file):
                if words[0] not in ("train", "dry-run", "validate") or words[1].startswith("-"):
                    continue
                recipe = "recipes/starter.yaml" if words[1] in RECIPES else words[1]
                overrides = [word for word in words[2:] if "=" in word and not word.startswith("-")]
                if not recipe.startswith("recipes/"):
                    self.refuse(file, words, f"{recipe} is no recipe of the project")
                    continue
                checked.add(recipe)
                if problems := problems_of(recipe, *overrides):
                    self.refuse(file, words, problems)
        self.assertGreater(len(checked), 20)

    def test_files_of_the_project_are_there(self):
        for file in FILES:
            for line in shown(file):
                for word in words_of(line):
                    word = word.removesuffix(",").removesuffix(".")
                    if OF_THE_PROJECT.match(word) and not (ROOT / word).exists():
                        self.refuse(file, [word], "there is no such file")

    def test_downloads_are_commands_of_the_hub(self):
        from huggingface_hub.utils import validate_repo_id

        done = subprocess.run([ROOT / ".venv/bin/hf", "download", "--help"], capture_output=True, text=True)
        options = set(re.findall(r"--[\w-]+", done.stdout))
        self.assertIn("--exclude", options)
        bases = sorted(ROOT.glob("recipes/base/*.yaml"))
        found = set()
        for file in [*FILES, *bases]:
            for line in shown(file):
                words = words_of(line)
                if len(words) < 3 or not re.search(r"(^|/)hf$", words[0]) or words[1] != "download":
                    continue
                validate_repo_id(words[2])
                found.add(words[2])
                for name in {word for word in words if word.startswith("--")} - options:
                    self.refuse(file, words, f"no option {name}")
        self.assertIn("Qwen/Qwen2.5-0.5B-Instruct", found)

    def test_a_template_of_the_models_family(self):
        checked = []
        for file in FILES:
            for words in plural_commands(file):
                tokenizer = option(words, "--tokenizer")
                kind = option(words, "--format")
                # Chats are written by the model's own template, plain documents have no turns.
                if words[0] != "prepare" or "-o" not in words or kind in ("text", "chat"):
                    checked += [file.name] if kind == "chat" else []
                    continue
                name = option(words, "--template")
                if name is None:
                    self.refuse(file, words, "an instruct model on bare text")
                    continue
                checked.append(file.name)
                if name not in template_names():  # a file of the reader's own
                    self.assertIn(name, file.read_text(encoding="utf-8"))
                    continue
                model = tokenizer.rsplit("/", 1)[-1].lower()
                prompt = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["prompt"]
                for family, mark in MARKS.items():
                    if family in model and not prompt.startswith(mark):
                        self.refuse(file, words, f"{name} is not of {model}")
                if "llama-2" in model and not name.startswith("llama2-"):
                    self.refuse(file, words, f"{name} is not of {model}")
        # All recipes that tune an instruct model show theirs, as do the documents that begin with one.
        tuned = {file.name for file in ROOT.glob("recipes/*.yaml")} - {"pretrain-tiny.yaml"}
        self.assertEqual(tuned - set(checked), set())
        self.assertLessEqual({"README.md", "preparing-data.md"}, set(checked))

    def test_commands_are_found(self):
        (words,) = (
            words
            for words in plural_commands(ROOT / "recipes" / "poexft-mistral-7b-aligned.yaml")
            if words[0] == "prepare"
        )
        self.assertEqual(option(words, "--align"), "6")
        self.assertEqual(option(words, "-o"), "corpora/dialogues-aligned.h5")
        # In a sentence, over a line end, with optional parts.
        found = plural_commands(ROOT / "docs" / "running.md")
        self.assertIn("--stream", next(words for words in found if "--stream" in words))


if __name__ == "__main__":
    unittest.main()

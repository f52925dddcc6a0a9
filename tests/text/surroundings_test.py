"""Where `launch/plural` is started from: files in the folder, PYTHONPATH and the terminal change nothing."""

import os
import subprocess
import unittest
from pathlib import Path

from text.support import FolderTest, byte_level_folder, read_corpus, run, write_lines

LAUNCH = Path(__file__).resolve().parents[2] / "launch" / "plural"
# A folder of the user's: modules of the standard library, of a package, and of ours.
SHADOWS = ("json.py", "numpy.py", "tokenizers.py", "encodings.py", "plural_text.py")


class Started(FolderTest):
    def setUp(self):
        super().setUp()
        self.input = write_lines(
            self.folder / "in.jsonl", [{"context": "Hi.", "candidates": ["One.", "Two."]}]
        )
        self.usual = (
            "prepare",
            self.input,
            "--tokenizer",
            byte_level_folder(self.folder / "model"),
            "--format",
            "dialogue",
        )

    def launch(self, *arguments, cwd=None, **variables) -> subprocess.CompletedProcess:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | variables
        return subprocess.run(
            [str(LAUNCH), *map(str, arguments)],
            cwd=cwd or self.folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="backslashreplace",  # of a Latin-1 terminal
            timeout=300,
        )


class Modules(Started):
    def test_no_module_of_the_user_stands_in_for_ours(self):
        shadows = self.folder / "shadows"
        shadows.mkdir()
        for name in SHADOWS:
            (shadows / name).write_text("raise SystemExit('the module of the user was imported')\n")
        for cwd, variables in (
            (shadows, {}),
            (self.folder, {"PYTHONPATH": str(shadows)}),
            (shadows, {"PYTHONPATH": ":."}),
            (shadows, {"PYTHONHOME": str(shadows)}),
        ):
            done = self.launch(*self.usual, "-o", self.folder / "c.h5", "--force", cwd=cwd, **variables)
            self.assertEqual((done.returncode, done.stderr), (0, ""), (cwd, variables))
        self.assertEqual(len(read_corpus(self.folder / "c.h5")[1]), 1)

    def test_packages_of_the_home_folder_are_not_used(self):
        done = subprocess.run(
            ["bash", "-x", str(LAUNCH), "prepare", "--help"],
            env=os.environ | {"PYTHONPATH": "elsewhere"},
            capture_output=True,
            text=True,
        )
        self.assertIn("PYTHONNOUSERSITE=1", done.stderr)


class Terminals(Started):
    def test_what_a_terminal_cannot_show_is_written_as_an_escape(self):
        strange = self.folder / "Zeilen-\u4f60.jsonl"
        strange.write_bytes(self.input.read_bytes())
        corpus = self.folder / "K\u00f6rper-\u4f60.h5"
        for variables in (
            {"PYTHONIOENCODING": "ascii"},
            {"LC_ALL": "C"},
            {"PYTHONIOENCODING": "latin-1:strict"},
        ):
            done = self.launch("prepare", strange, *self.usual[2:], "-o", corpus, "--force", **variables)
            self.assertEqual((done.returncode, done.stderr), (0, ""), variables)
            self.assertRegex(done.stdout, r"corpus +\S*K\S+rper-(\\u4f60|\u4f60)\.h5\n", variables)
            use = ("prepare", strange, *self.usual[2:-1], "chat", "-o", corpus, "--force")
            done = self.launch(*use, **variables)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (65, 1), done.stderr)

    def test_closed_streams(self):
        done = run(*self.usual, "-o", self.folder / "c.h5", preexec_fn=lambda: os.close(1))
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()

"""The Python packages that `prepare` and `report` load are those that `launch/setup` installs for everybody.

A machine that has the tests' and the encoder's packages, too, would not notice one that is missing from
data/text/requirements.txt.
"""

import json
import re
import subprocess
import sys
import unittest
from pathlib import Path

from text.support import FolderTest
from text.tiny_tokenizers import sentencepiece_folder

TEXT = Path(__file__).resolve().parents[2] / "data/text"
# Runs a module as a program, then prints the distributions of all that it loaded.
LOADED = """
import atexit, importlib.metadata, json, runpy, sys

def show():
    known = importlib.metadata.packages_distributions()
    tops = {name.partition(".")[0] for name, module in list(sys.modules.items()) if module is not None}
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    names = set()
    for top in tops - before:
        owners = set(known.get(top, []))
        if len(owners) > 1:  # such as "google": those of whose own files one was loaded
            owners = {name for name in owners
                      if any(str(file.locate()) in files for file in importlib.metadata.files(name) or [])}
        names |= owners
    print("loaded " + json.dumps(sorted(names)), file=sys.stderr)

before = {name.partition(".")[0] for name in sys.modules}  # by the interpreter's own start
atexit.register(show)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__")
"""


def named(*lists):
    """The packages of the lists, in the spelling of distributions."""
    files = ("requirements.txt", *lists)
    lines = [line for name in files for line in (TEXT / name).read_text().splitlines()]
    return {normal(line.partition("==")[0]) for line in lines if line and not line.startswith("#")}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


class Requirements(FolderTest):
    def loaded(self, module, *arguments):
        done = subprocess.run(
            [sys.executable, "-P", "-c", LOADED, module, *map(str, arguments)],
            env={"PYTHONPATH": str(TEXT), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("loaded ")]
        return {normal(name) for name in json.loads(line.partition(" ")[2])}, done.stdout

    def test_a_folder_that_transformers_opens(self):
        folder = sentencepiece_folder(self.folder, ["<|a|>"], {"tokenizer_class": "LlamaTokenizer"})
        used, printed = self.loaded("plural_text.prepare.folder_program", folder)
        self.assertIn("tokenizer", json.loads(printed))
        self.assertIn("transformers", used)
        self.assertEqual(used - named(), set())

    def test_a_chat_corpus(self):
        folder = sentencepiece_folder(self.folder, ["<|a|>"], {"tokenizer_class": "LlamaTokenizer"})
        (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
        (self.folder / "d.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
        arguments = ("--format", "chat", "--tokenizer", folder, "-o", self.folder / "d.h5", "--quiet")
        used, _ = self.loaded("plural_text", "prepare", self.folder / "d.jsonl", *arguments)
        self.assertIn("h5py", used)
        self.assertEqual(used - named(), set())

    def test_a_page_and_a_picture(self):
        line = {"event": "step", "step": 1, "loss": 1.0, "groups": 1, "seconds": 1.0}
        (self.folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        used, _ = self.loaded("plural_text", "report", self.folder, "-o", self.folder / "page.html")
        self.assertIn("plotly", used)
        self.assertEqual(used - named(), set())
        (self.folder / "pictures.json").write_text('[{"data": [{"y": [1, 2]}], "layout": {}}]')
        used, _ = self.loaded("plural_text.report.draw_program", self.folder, "svg", 1)
        self.assertIn("kaleido", used)
        self.assertEqual(used - named("requirements-plot.txt"), set())


if __name__ == "__main__":
    unittest.main()

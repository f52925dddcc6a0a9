"""The messages on the page of troubleshooting are what the programs say, with the exit codes that it says."""

import re
import shutil
import tempfile
import unittest
from pathlib import Path

import hub_models
import training
from reader import MODEL, ROOT, Reader

EVALUATE = "plural evaluate --corpus my.h5 --threads 1"
# Message on the page: exit code, a command that brings it about.
CAUSES = {
    "no .../.venv; run .../launch/setup first": (69, "bare/launch/plural prepare my.jsonl"),
    ".venv is there, but you cannot run its Python": (69, "gone/launch/plural prepare my.jsonl"),
    "no program at .../build/plural": (
        69,
        "env -u PLURAL_BINARY bare/launch/plural train recipes/starter.yaml",
    ),
    "There are not enough slots available in the system": (
        1,
        "OMPI_MCA_rmaps_base_oversubscribe=0 mpirun -np 999 launch/plural doctor",
    ),
    "works on one rank alone; start it without mpirun": (64, "mpirun -np 2 launch/plural prepare my.jsonl"),
    "prepared with another tokenizer": (65, "plural dry-run recipes/starter.yaml data.train=foreign.h5"),
    "group.responses asks for N": (65, "plural dry-run recipes/starter.yaml group.responses=5"),
    "have fewer": (65, "plural dry-run recipes/starter.yaml group.responses=5"),
    "supported are": (65, f"{EVALUATE} --model other-family"),
    "pickle formats ... are not accepted": (66, f"{EVALUATE} --model pickled"),
    "a git-lfs pointer": (65, f"{EVALUATE} --model pointer"),
    "the weights do not fit the configuration": (65, f"{EVALUATE} --model two-models"),
    "no such folder, and no model of that name in the Hub cache": (66, f"{EVALUATE} --model no/such"),
    "this copy in the Hub cache is not whole": (66, f"{EVALUATE} --model half/there"),
    "which is not there; make it with": (66, "plural dry-run recipes/starter.yaml data.train=none.h5"),
    "this run was made with another recipe": (78, "plural train recipes/starter.yaml seed=43"),
}
# What other tests bring about, or none can here.
ELSEWHERE = {
    "mpirun has detected an attempt to run as root": "who runs the test may not be root",
    "launch/setup: not root, so these Debian packages are not installed": "who runs the test may be root",
    "Read -1, expected ..., errno = 1": "a container with certain limits",
    "MPI_ABORT was invoked on rank": "what Open MPI says varies with its version",
    "made with another corpus, data.train": "resume_test.py",
    "lacks the kernels for GPUs": "doctor_test.py",
}


def messages(page):
    """What stands in the first columns of the page's tables as code, and in sentences before "means"."""
    cells = re.findall(r"(?m)^\| ([^|]+) \|", page.split("\n## Answers are not")[0])
    found = [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]
    found += re.findall(r"`([^`]+)`\s+means", page)
    return [text for text in found if " " in text]


class Troubleshooting(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.reader = reader = Reader(folder)
        reader.write_chats("my.jsonl")
        training.write_corpus(folder / "foreign.h5", training.random_groups(4, possibilities=9))
        for name in ("bare", "gone"):
            shutil.copytree(ROOT / "launch", folder / name / "launch")
        (folder / "gone/.venv").mkdir()
        for name in ("other-family", "pickled", "pointer", "two-models"):
            shutil.copytree(reader.model, folder / name)
        for name, old, new in (
            ("other-family", '"qwen2"', '"gpt9"'),
            ("two-models", '"hidden_size": 32', '"hidden_size": 64'),
        ):
            config = folder / name / "config.json"
            text = config.read_text()
            assert old in text, text
            config.write_text(text.replace(old, new))
        (folder / "pickled/model.safetensors").rename(folder / "pickled/pytorch_model.bin")
        (folder / "pointer/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
        half = hub_models.put_into_cache(reader.cache, "half/there", reader.model)
        (half / "model.safetensors").resolve().unlink()
        for command in (
            f"plural prepare my.jsonl --quiet --format chat --tokenizer {MODEL} -o my.h5",
            "plural train recipes/starter.yaml train.steps=1",
        ):
            done = reader.type(command)
            assert done.returncode == 0, done.stderr

    def test_every_message_is_said(self):
        for message, (code, command) in CAUSES.items():
            with self.subTest(message):
                done = self.reader.type(command)
                self.assertEqual(done.returncode, code, done.stderr)
                spelt = re.escape(message.replace(" N", " 5")).replace(r"\.\.\.", ".*")
                self.assertRegex(done.stderr, spelt)

    def test_the_page_has_these_messages(self):
        found = messages((ROOT / "docs/troubleshooting.md").read_text())
        self.assertEqual(sorted(set(found)), sorted({*CAUSES, *ELSEWHERE}))

    def test_messages_stand_under_their_exit_codes(self):
        page = (ROOT / "docs/troubleshooting.md").read_text()
        for section in re.split(r"\n## ", page):
            if codes := re.match(r"\d\d(, \d\d)*\n", section):
                for message in set(messages(section)) & set(CAUSES):
                    self.assertIn(str(CAUSES[message][0]), codes[0], message)


if __name__ == "__main__":
    unittest.main()

"""What ends an answer: the corpus's end tokens, those of the model's files, --eos; and what is saved."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

import training

OTHER_END = 7  # not in the model's config


def end_with(path, *ends):
    """Makes a corpus name its end tokens, and signs it anew."""
    with h5py.File(path, "r+") as file:
        file.attrs["end_token_ids"] = np.array(ends, dtype=np.int64)
    training.write_sidecar(path)


class EndTokensTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        groups = training.random_groups(6)
        training.write_corpus(cls.folder / "plain.h5", groups)
        training.write_corpus(cls.folder / "corpus.h5", groups)
        end_with(cls.folder / "corpus.h5", OTHER_END, training.END)
        extra = "train: {steps: 1, groups_per_step: 2}\ncheckpoint: {every_steps: 0}"
        for name, adapter in (("whole", False), ("adapter", True)):
            training.write_recipe(
                cls.folder / f"{name}.yaml", name, method="otmft", adapter=adapter, extra=extra
            )
            if adapter:
                text = (cls.folder / "adapter.yaml").read_text()
                model = text.replace(f"config: {training.MODEL}", "path: base")
                (cls.folder / "adapter.yaml").write_text(model)
            else:
                text = (cls.folder / "whole.yaml").read_text().replace("corpus.h5", "plain.h5")
                (cls.folder / "base.yaml").write_text(text.replace("name: whole", "name: base"))
                cls.train("base.yaml")
                (cls.folder / "runs/base/model").rename(cls.folder / "base")
            cls.train(f"{name}.yaml")

    @classmethod
    def train(cls, recipe):
        done = training.train(cls.folder, recipe)
        assert done.returncode == 0, done.stderr

    def answers(self, *arguments, corpus="plain.h5", model="base"):
        """Token ids of 40 drawn answers, with whether each is finished."""
        out = self.folder / "answers.jsonl"
        out.unlink(missing_ok=True)
        command = [training.PLURAL, "generate", "--model", model, "--corpus", corpus, "--responses", "40"]
        command += ["--max-new-tokens", "60", "--threads", "1", "-o", out.name, *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        return [(r["tokens"], r["finished"]) for line in lines for r in line["responses"]]

    def never_within(self, end, answers):
        self.assertTrue(any(finished for _, finished in answers))
        return not any(end in tokens for tokens, _ in answers)

    def test_the_corpus_names_them(self):
        plain, named = self.answers(), self.answers(corpus="corpus.h5")
        self.assertFalse(self.never_within(OTHER_END, plain), "else this test shows nothing")
        self.assertTrue(self.never_within(OTHER_END, named))
        self.assertTrue(self.never_within(training.END, named))

    def test_an_option_goes_before_all(self):
        for token in ("7", "<7>"):  # an id, or the text of a token of the corpus's tokenizer
            answers = self.answers("--eos", token)
            self.assertTrue(self.never_within(OTHER_END, answers))
            self.assertFalse(self.never_within(training.END, answers))
        both = self.answers("--eos", "7", "--eos", "2")
        self.assertTrue(self.never_within(OTHER_END, both) and self.never_within(training.END, both))

    def test_a_token_that_is_none_is_refused(self):
        for token in ("<end>", "40", "-1", "7x"):
            command = [training.PLURAL, "generate", "--model", "base", "--corpus", "plain.h5"]
            command += [f"--eos={token}", "-o", "refused.jsonl"]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)
            self.assertEqual(done.returncode, 64, done.stderr)
            self.assertIn(f"--eos '{token}'", done.stderr)

    def test_saved_models_carry_them(self):
        whole = self.folder / "runs/whole/model"
        for name in ("config.json", "generation_config.json"):
            self.assertEqual(
                json.loads((whole / name).read_text())["eos_token_id"], [OTHER_END, training.END]
            )
        adapter = self.folder / "runs/adapter/adapter"
        ends = json.loads((adapter / "generation_config.json").read_text())["eos_token_id"]
        self.assertEqual(ends, [OTHER_END, training.END])
        command = [training.PLURAL, "export", "--model", "base", "--adapter", str(adapter), "-o", "merged"]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("config.json", "generation_config.json"):
            saved = json.loads((self.folder / "merged" / name).read_text())
            self.assertEqual(saved["eos_token_id"], [OTHER_END, training.END])
        # The corpus does not name the token here: the adapter, and the merged model, do.
        self.assertTrue(self.never_within(OTHER_END, self.answers("--adapter", str(adapter))))
        self.assertTrue(self.never_within(OTHER_END, self.answers(model="merged")))

    def test_generation_config_counts(self):
        file = self.folder / "base" / "generation_config.json"
        before = file.read_text()
        try:
            file.write_text(json.dumps({"eos_token_id": [training.END, OTHER_END], "temperature": 0.5}))
            self.assertTrue(self.never_within(OTHER_END, self.answers()))
        finally:
            file.write_text(before)


if __name__ == "__main__":
    unittest.main()

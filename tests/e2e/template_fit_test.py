"""A corpus of another prompt template than an adapter was trained on, or than data.train, is warned of."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

LEARNED = {"name": "learned", "description": "As trained.", "format": "dialogue", "prompt": "{context}\nB:"}
# The same text under another name, another text, and another text under the same name.
RENAMED = {**LEARNED, "name": "renamed", "description": "Else."}
OTHER = {**LEARNED, "name": "other", "prompt": "{context} =>"}
NAMESAKE = {**OTHER, "name": "learned"}


class TrainedOn(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        groups = training.random_groups(3)
        for name, template in (
            ("learned", LEARNED),
            ("renamed", RENAMED),
            ("other", OTHER),
            ("namesake", NAMESAKE),
            ("unknown", None),
        ):
            training.write_corpus(cls.folder / f"{name}.h5", groups, template=template)
        extra = "train: {steps: 1, groups_per_step: 2}\ncheckpoint: {every_steps: 0}"
        training.write_recipe(
            cls.folder / "base.yaml", "base", "pretrain", corpus="learned.h5", adapter=False, extra=extra
        )
        assert cls.run_train("base.yaml") == []
        (cls.folder / "runs/base/model").rename(cls.folder / "base")
        for name, adapter in (("tuned", True), ("whole", False)):
            training.write_recipe(
                cls.folder / f"{name}.yaml", name, "otmft", "learned.h5", adapter=adapter, extra=extra
            )
            recipe = cls.folder / f"{name}.yaml"
            recipe.write_text(recipe.read_text().replace(f"config: {training.MODEL}", "path: base"))
            assert cls.run_train(recipe.name) == []

    @staticmethod
    def warnings(done):
        assert done.returncode == 0, done.stderr
        return [line for line in done.stderr.splitlines() if "template" in line]

    @classmethod
    def run_train(cls, *words):
        return cls.warnings(training.train(cls.folder, *words))

    def generate(self, corpus, *model):
        (self.folder / "answers.jsonl").unlink(missing_ok=True)
        command = [
            training.PLURAL,
            "generate",
            "--corpus",
            corpus,
            "--responses",
            "1",
            "--max-new-tokens",
            "2",
        ]
        command += ["--threads", "1", "-o", "answers.jsonl", *(model or self.TUNED)]
        return self.warnings(
            subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=120)
        )

    TUNED = ("--model", "base", "--adapter", "runs/tuned/adapter")

    def test_the_result_says_what_it_was_trained_on(self):
        for folder in ("runs/tuned/adapter", "runs/whole/model"):
            said = json.loads((self.folder / folder / "plural.json").read_text())
            self.assertEqual(said["template"]["name"], "learned")

    def test_generate_warns_of_another_template(self):
        (line,) = self.generate("other.h5")
        self.assertIn("warning: other.h5 has prompts of the template 'other'", line)
        self.assertIn("runs/tuned/adapter was trained on those of 'learned'", line)
        (line,) = self.generate("namesake.h5")
        self.assertIn("template 'learned', what runs/tuned/adapter was trained on those of another one", line)
        (line,) = self.generate("other.h5", "--model", "runs/whole/model")
        self.assertIn("runs/whole/model", line)

    def test_generate_says_nothing_where_the_text_is_the_same_or_not_known(self):
        for corpus in ("learned.h5", "renamed.h5", "unknown.h5"):
            self.assertEqual(self.generate(corpus), [], corpus)
        self.assertEqual(self.generate("other.h5", "--model", "base"), [])

    def test_train_warns_of_validation_with_another_template(self):
        extra = ("validation.responses=0", "validation.groups=1")
        (line,) = self.run_train("tuned.yaml", "name=validated", "data.validation=other.h5", *extra)
        self.assertIn("data.validation (", line)
        self.assertIn("other.h5) has prompts of the template 'other', data.train (", line)
        self.assertIn("those of 'learned'", line)
        same = self.run_train("tuned.yaml", "name=validated-same", "data.validation=renamed.h5", *extra)
        self.assertEqual(same, [])

    def test_train_warns_when_it_goes_on_from_an_adapter_of_another_template(self):
        go_on = "adapter.init_from=runs/tuned/adapter"
        (line,) = self.run_train("tuned.yaml", "name=further", "data.train=other.h5", go_on)
        self.assertIn("has prompts of the template 'other', what runs/tuned/adapter was trained on", line)
        self.assertEqual(self.run_train("tuned.yaml", "name=further-same", go_on), [])

    def test_a_damaged_record_is_one_line(self):
        path = self.folder / "runs/tuned/adapter/plural.json"
        text = path.read_text()
        self.addCleanup(path.write_text, text)
        path.write_text(text.replace('"template":', '"other":'))
        done = subprocess.run(
            [training.PLURAL, "generate", *self.TUNED, "--corpus", "other.h5", "-o", "damaged.jsonl"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 65, done.stderr)
        self.assertIn("plural.json': ", done.stderr)
        self.assertIn("'template' not found", done.stderr)


if __name__ == "__main__":
    unittest.main()

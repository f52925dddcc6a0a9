"""The Python package: the page, the notebook, errors, and what pip installs."""

import io
import json
import os
import re
import sys
import tempfile
import tomllib
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import hub_models
import plural

ROOT = Path(__file__).resolve().parents[2]
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


class PythonApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        hub_models.qwen2_in_cache(cls.folder / "hf/hub")
        (cls.folder / "recipes").symlink_to(ROOT / "recipes")
        record = {
            "messages": [{"role": "user", "content": "Any plans?"}],
            "responses": ["A film.", "Reading.", "A walk.", "None."],
        }
        (cls.folder / "my.jsonl").write_text(json.dumps(record) + "\n" + json.dumps(record) + "\n")
        # As in a shell: paths are relative to the folder in which it is.
        before = os.getcwd()
        cls.addClassCleanup(os.chdir, before)
        variables = {"HF_HOME": str(cls.folder / "hf"), "HF_HUB_CACHE": ""}
        cls.enterClassContext(mock.patch.dict(os.environ, variables))
        cls.enterClassContext(mock.patch.object(sys, "path", [os.path.join(before, p) for p in sys.path]))
        os.chdir(cls.folder)

    def test_the_page(self):
        (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
        names: dict = {}
        with redirect_stdout(io.StringIO()) as shown:
            exec(code, names)
        self.assertIn("Any plans?", shown.getvalue())
        run, metrics = names["run"], names["metrics"]
        self.assertEqual(run.folder, Path("runs/mine"))
        self.assertTrue((run.result / "adapter_model.safetensors").is_file())
        self.assertEqual(list(metrics["step"]), [1])
        self.assertEqual(metrics["lr"][0], 1e-4)
        self.assertEqual(len(plural.read_metrics("runs/mine", event="end")), 1)
        # Goes on, which is nothing to do.
        self.assertEqual(plural.train(names["recipe"], {"optimizer.lr": 1e-4}, ranks=2, quiet=True), run)

    def test_the_notebook(self):
        cells = json.loads((ROOT / "docs/notebook.ipynb").read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        self.assertTrue(all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code"))
        names: dict = {}
        with redirect_stdout(io.StringIO()) as shown:
            for cell in code:
                exec(compile(cell, "notebook", "exec"), names)
        self.assertIn("78", shown.getvalue())
        self.assertIn("use optimizer.lr", shown.getvalue())
        self.assertEqual(len(names["metrics"]), 6)
        self.assertEqual([len(answer.responses) for answer in names["answers"]], [5] * 4)
        numbers = [response.possibility for response in names["answers"][0].responses]
        self.assertEqual(len(set(numbers)), 5)

    def test_errors_are_those_of_the_commands(self):
        with self.assertRaisesRegex(plural.PluralError, "none.jsonl") as caught:
            plural.prepare("none.jsonl", "no.h5", format="chat", tokenizer=MODEL)
        self.assertEqual(caught.exception.code, 66)
        with self.assertRaisesRegex(plural.PluralError, "hf download some/model") as caught:
            plural.prepare("my.jsonl", "no.h5", format="chat", tokenizer="some/model")
        recipe = plural.Recipe(base="recipes/starter.yaml", adaptor={"rank": 4}, optimizer={"lr": -1})
        with self.assertRaises(plural.PluralError) as caught:
            recipe.resolved()
        self.assertEqual(caught.exception.code, 78)
        self.assertIn("adapter", str(caught.exception))
        self.assertIn("optimizer.lr", str(caught.exception))
        with self.assertRaisesRegex(plural.PluralError, "nowhere") as caught:
            plural.read_metrics("nowhere")
        self.assertEqual(caught.exception.code, 66)
        Path("bad.jsonl").write_text(
            '{"event": "step", "step": 1}\n{"event": \n{"event": "step", "step": 2}\n'
        )
        with self.assertRaisesRegex(plural.PluralError, "bad.jsonl:2"):
            plural.read_metrics("bad.jsonl")
        Path("half.jsonl").write_text('{"event": "step", "step": 1}\n{"event": ')
        self.assertEqual(list(plural.read_metrics("half.jsonl")["step"]), [1])
        Path("answers.jsonl").write_text('{"id": "a"}\n')
        with self.assertRaisesRegex(plural.PluralError, "answers.jsonl:1"):
            list(plural.read_answers("answers.jsonl"))
        with mock.patch.dict(os.environ, {"PLURAL_BINARY": "/none"}):
            with self.assertRaisesRegex(plural.PluralError, "launch/setup") as caught:
                plural.Recipe(base="recipes/starter.yaml").resolved()
            self.assertEqual(caught.exception.code, 69)

    def test_a_recipe_is_its_values(self):
        recipe = plural.Recipe(
            base=["recipes/starter.yaml"],
            name="x",
            data={"train": Path("a b.h5")},
            adapter={"targets": ("q_proj", "v_proj"), "init_from": None},
            optimizer={"lr": 1e-5, "betas": [0.9, 0.95]},
        )
        resolved = recipe.resolved()
        self.assertEqual(resolved["data"]["train"], "a b.h5")
        self.assertEqual(resolved["adapter"]["targets"], ["q_proj", "v_proj"])
        self.assertEqual(resolved["optimizer"]["lr"], 1e-5)
        self.assertEqual(resolved["model"]["path"], MODEL)


class Package(unittest.TestCase):
    def setUp(self):
        self.settings = tomllib.loads((ROOT / "pyproject.toml").read_text())

    def test_pip_installs_every_module_and_file(self):
        text = ROOT / "data/text"
        folders = {file.parent.relative_to(text) for file in text.rglob("*.py")}
        packages = {".".join(folder.parts) for folder in folders} | {"plural_text.files"}
        self.assertEqual(set(self.settings["tool"]["setuptools"]["packages"]), packages)
        data = {
            folder.name
            for folder in text.iterdir()
            if folder.is_dir() and not folder.name.startswith(("plural", "__"))
        }
        listed = self.settings["tool"]["setuptools"]["package-data"]["plural_text.files"]
        self.assertEqual({name.split("/")[0] for name in listed}, data)

    def test_the_version_is_the_programs(self):
        (version,) = re.findall(r"project\(plural VERSION ([\d.]+)", (ROOT / "CMakeLists.txt").read_text())
        self.assertEqual(self.settings["project"]["version"], version)

    def test_dependencies_are_pinned_for_the_tests(self):
        normal = lambda name: re.sub(r"[-_.]+", "-", re.split(r"[=><]", name)[0]).lower()
        pinned = (ROOT / "data/text/requirements.txt").read_text().splitlines()
        names = {normal(line) for line in pinned if not line.startswith("#")}
        self.assertLessEqual({normal(name) for name in self.settings["project"]["dependencies"]}, names)


if __name__ == "__main__":
    unittest.main()

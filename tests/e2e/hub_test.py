"""Models by name, in the local cache of the Hugging Face Hub: all commands find them, none downloads."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import hub_models
import training

ROOT = Path(__file__).resolve().parents[2]
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"


class HubTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.cache = cls.folder / "hf" / "hub"
        cls.snapshot = hub_models.qwen2_in_cache(cls.cache)
        (cls.folder / "recipes").symlink_to(ROOT / "recipes")
        lines = [
            {
                "messages": [{"role": "user", "content": f"Name fruit {n}."}],
                "responses": ["A plum.", "A quince.", "An apple.", "Fine."],
            }
            for n in range(6)
        ]
        (cls.folder / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def run_plural(self, *arguments, ranks=1, code=0, **environment):
        launcher = [] if ranks == 1 else training.mpirun(ranks)
        done = subprocess.run(
            [*launcher, str(ROOT / "launch/plural"), *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, "HF_HOME": str(self.folder / "hf"), "HF_HUB_CACHE": "", **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def prepare(self, tokenizer, output):
        return self.run_plural(
            "prepare", "my.jsonl", "--format", "chat", "--tokenizer", tokenizer, "-o", output, "--quiet"
        )

    def test_from_prepare_to_export_by_name(self):
        """The starter recipe as it stands, on a model that has the name and the shape of its own."""
        self.prepare(MODEL, "my.h5")
        self.prepare(self.snapshot, "same.h5")
        self.assertEqual((self.folder / "my.h5").read_bytes(), (self.folder / "same.h5").read_bytes())
        self.run_plural("train", "recipes/starter.yaml", ranks=2)
        adapter = self.folder / "runs/starter/adapter"
        config = json.loads((adapter / "adapter_config.json").read_text())
        self.assertEqual((config["base_model_name_or_path"], config["revision"]), (MODEL, None))
        ask = ("--corpus", "my.h5", "--responses", "2", "--possibilities", "sample", "--max-new-tokens", "4")
        hub_models.put_into_cache(self.cache, "me/adapter", adapter)
        self.run_plural("generate", "--model", MODEL, "--adapter", "me/adapter", *ask, "-o", "named.jsonl")
        self.run_plural(
            "generate", "--model", self.snapshot, "--adapter", adapter, *ask, "-o", "folder.jsonl"
        )
        named, folder = (
            [
                [r["tokens"] for r in json.loads(line)["responses"]]
                for line in (self.folder / name).read_text().splitlines()
            ]
            for name in ("named.jsonl", "folder.jsonl")
        )
        self.assertEqual(named, folder)
        self.run_plural("export", "--model", MODEL, "--adapter", "me/adapter", "-o", "merged")
        self.assertTrue((self.folder / "merged/tokenizer.json").is_file())
        self.assertFalse((self.folder / "merged/tokenizer.json").is_symlink())
        self.run_plural("evaluate", "--model", f"{MODEL}@main", "--corpus", "my.h5")

    def test_a_revision_goes_into_the_adapter(self):
        self.prepare(MODEL, "pinned.h5")
        self.run_plural(
            "train",
            "recipes/starter.yaml",
            "name=pinned",
            "data.train=pinned.h5",
            "train.steps=1",
            f"model.path={MODEL}@{hub_models.COMMIT}",
        )
        config = json.loads((self.folder / "runs/pinned/adapter/adapter_config.json").read_text())
        self.assertEqual(config["base_model_name_or_path"], MODEL)
        self.assertEqual(config["revision"], hub_models.COMMIT)

    def test_what_is_not_in_the_cache_is_one_line_with_the_download(self):
        self.prepare(MODEL, "here.h5")
        # The variable is passed on, so that both programs look in the same place.
        elsewhere = str(self.folder / "empty")
        for command in (
            ("prepare", "my.jsonl", "--format", "chat", "--tokenizer", "some/model", "-o", "no.h5"),
            ("dry-run", "recipes/starter.yaml", "data.train=here.h5", "model.path=some/model"),
            ("evaluate", "--model", "some/model", "--corpus", "here.h5"),
            ("rate", "--model", "some/model", "--rating-corpus", "a", "--input", "b", "-o", "c"),
            ("score", "--model", "some/model", "--input", "b", "-o", "c"),
            ("export", "--model", "some/model", "--adapter", "x", "-o", "c"),
        ):
            done = self.run_plural(*command, code=66, HF_HUB_CACHE=elsewhere)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn("hf download some/model", done.stderr)
            self.assertIn(elsewhere, done.stderr)
        done = self.run_plural(
            "train",
            "recipes/starter.yaml",
            "name=no",
            "data.train=here.h5",
            "model.path=some/model",
            ranks=2,
            code=66,
        )
        self.assertEqual(done.stderr.count("hf download some/model"), 1, done.stderr)
        done = self.run_plural(
            "prepare", "my.jsonl", "--format", "chat", "--tokenizer", "no such", "-o", "no.h5", code=66
        )
        self.assertIn("nor a name of the Hugging Face Hub", done.stderr)


if __name__ == "__main__":
    unittest.main()

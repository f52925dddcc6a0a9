"""A study of several stages, at a much reduced size: what comes out, and what a stop and a kill leave.

Three categories of the dialogue grammar, a model of 2 layers of 64 from nothing, one seed. The published
direction holds: tuned models are more diverse, aligned numbers most.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
READING = "replies=40,dictionary=30,counts=2"  # without what no test asks for
# Fewer prompts than the study has, so more passes over them; both kinds of numbers the same.
PASSES = 16


def reduced_study():
    """dialogue.yaml with less of it."""
    study = yaml.safe_load((ROOT / "recipes/papers/dialogue.yaml").read_text())
    stages = {stage["name"]: stage for stage in study["stages"]}
    study["material"]["program"].append(f"--reading={READING}")
    sweep = stages["tuned"]["sweep"]
    peft, aligned = "{toys}/peft.yaml", "{toys}/peft-aligned.yaml"
    kinds = "{corpora}/seed-{seed}/train-kinds.h5"
    sweep["include"] = [
        {"base": peft, "train.epochs": PASSES},
        {"base": aligned, "train.epochs": PASSES, "data.train": kinds},
    ]
    sweep["when"] = [when for when in sweep["when"] if when["if"]["base"] in (peft, aligned)]
    sweep["when"] = [when for when in sweep["when"] if "best9" not in str(when)]
    sweep["evaluate"] = [one for one in sweep["evaluate"] if one["name"] == "t050"]
    rows = [
        {"title": "base", "setting": {"untrained": True}},
        {"title": "random", "setting": {"base": peft}},
        {"title": "aligned", "setting": {"base": aligned}},
    ]
    columns = [
        {"figure": f"program.{name}", "title": name}
        for name in ("diversity", "different", "incoherent_percent", "decode_steps")
    ]
    study["tables"] = [
        {"title": "Reduced", "columns": columns, "rows": [{**row, "at": "t050"} for row in rows]}
    ]
    checks = (("diversity", ["base", "random"], 0.0), ("different", ["random", "aligned"], 0.5))
    study["checks"] = [
        {"says": f"{name} rises", "figure": f"program.{name}", "rising": rising, "by": by}
        for name, rising, by in checks
    ]
    return {**study, "stages": [stages["base"], stages["tuned"]]}


class Reproduction(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "reduced.yaml").write_text(yaml.safe_dump(reduced_study()))
        self.out = self.folder / "out"

    def start(self):
        words = [sys.executable, "-P", ROOT / "recipes/papers/reproduce.py", self.folder / "reduced.yaml"]
        path = os.pathsep.join(map(str, (ROOT / "recipes/papers", ROOT / "data/text")))
        return subprocess.Popen(
            [*words, self.out, "--small", "--seeds", "1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def start_until(self, pattern, number):
        """Sends the signal when a file like this is there."""
        process = self.start()
        while not list(self.out.glob(pattern)) and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
        return process.returncode, said

    def to_the_end(self):
        process = self.start()
        said, _ = process.communicate(timeout=400)
        self.assertEqual(process.returncode, 0, said)
        return said

    def times(self, pattern):
        return {file: file.stat().st_mtime_ns for file in self.out.glob(pattern)}

    def test_what_is_stopped_or_killed_goes_on_and_ends_as_published(self):
        code, said = self.start_until("runs/base/runs/*/metrics.jsonl", signal.SIGTERM)
        self.assertEqual(code, 75, said)
        self.assertIn("stopped on request", said)
        prepared = self.times("corpora/**/*.made.json")
        self.assertGreater(len(prepared), 4)
        code, said = self.start_until("runs/tuned/measured/*/t050/responses.jsonl.made.json", signal.SIGKILL)
        self.assertEqual(code, -signal.SIGKILL, said)
        self.assertEqual(prepared, self.times("corpora/**/*.made.json"))
        (trained,) = self.times("runs/base/runs/*/model/model.safetensors").items()
        said = self.to_the_end()
        self.assertEqual(self.times("runs/base/runs/*/model/model.safetensors"), dict([trained]))
        figures = {
            row: {name: one["mean"] for name, one in found.items()}
            for row, found in json.loads((self.out / "results.json").read_text())["rows"].items()
        }
        self.assertEqual(set(figures), {"base", "random", "aligned"})
        # Seven replies of ten are the favourite, by the grammar: at t = 0.5 hardly any other is drawn.
        self.assertLess(figures["base"]["program.different"], 2.5, figures)
        self.assertLess(figures["aligned"]["program.incoherent_percent"], 20, figures)
        self.assertIn("yes  diversity rises", said)
        self.assertIn("yes  different rises", said)
        link = self.out / "models/base-seed-1"
        self.assertEqual(link.resolve(), trained[0].parent)
        for stage in ("base", "tuned"):
            self.assertTrue((self.out / "runs" / stage / "report.html").is_file())
        # Started again, nothing is done.
        everything = self.times("**/*.made.json") | self.times("runs/*/runs/*/metrics.jsonl")
        self.assertGreater(len(everything), 14)
        again = self.to_the_end()
        self.assertEqual(again.split("**")[1:], said.split("**")[1:])
        self.assertEqual(everything, self.times("**/*.made.json") | self.times("runs/*/runs/*/metrics.jsonl"))


if __name__ == "__main__":
    unittest.main()

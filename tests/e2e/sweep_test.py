"""`plural sweep` with real runs: failures, a killed run, a killed planner, what is started again and what is
not; the same through real Slurm arrays where there is one is sweep_slurm_test.py."""

import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

PLURAL = Path(__file__).resolve().parents[2] / "launch" / "plural"
VOCABULARY = [b"", b"<s>", b"</s>"] + [b" w%d" % i for i in range(training.VOCAB - 3)]
SWEEP = """
name: trial
base: base.yaml
grid: {method: [otmft, poexft]}
when:
  - {if: {method: poexft}, set: {group.possibilities: 5, evaluate.generate.possibilities: sample}}
include: [{method: otmft, optimizer.lr: 1.0e+30}]
seeds: [1, 2]
baseline: {method: otmft}
evaluate:
  generate: {corpus: prompts.h5, responses: 4, max-new-tokens: 6}
  metrics: {metrics: [distinct, unigram]}
  evaluate: {corpus: "prompts.h5"}
  program: [python3, count.py, "{responses}", "{output}", "{seed}"]
pareto: {x: metrics.distinct_2, y: evaluate.perplexity, y_better: lower}
"""


# The reader's own figures.
COUNT = """import json, sys
answers = [json.loads(line) for line in open(sys.argv[1])]
figures = {"answers": sum(len(one["responses"]) for one in answers), "of_seed": int(sys.argv[3])}
json.dump(figures, open(sys.argv[2], "w"))
"""


def write_inputs(folder, sweep=SWEEP, steps=40):
    training.write_corpus(folder / "corpus.h5", training.random_groups(16), vocabulary=VOCABULARY)
    training.write_corpus(folder / "prompts.h5", training.random_groups(4, seed=5), vocabulary=VOCABULARY)
    extra = f"train: {{steps: {steps}, groups_per_step: 2}}\ncheckpoint: {{every_steps: 10}}"
    training.write_recipe(folder / "base.yaml", "base", "otmft", adapter=False, dtype="fp32", extra=extra)
    (folder / "sweep.yaml").write_text(sweep)
    (folder / "count.py").write_text(COUNT)


class SweepTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="plural sweep ")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.sweep_folder = self.folder / "runs/sweeps/trial"

    def plural(self, *words):
        return subprocess.run(
            [PLURAL, *map(str, words)], cwd=self.folder, capture_output=True, text=True, timeout=300
        )

    def start(self):
        process = subprocess.Popen(
            [PLURAL, "sweep", "run", "sweep.yaml"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.kill)
        return process

    def training_process(self):
        """The process of a run that has taken a step."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for lines in self.sweep_folder.glob("runs/*/metrics.jsonl"):
                if '"step":1,' in lines.read_text() and not (lines.parent / "model").exists():
                    for process in Path("/proc").glob("[0-9]*"):
                        try:
                            words = (process / "cmdline").read_bytes().split(b"\0")
                        except OSError:
                            continue
                        if words[0] == os.fsencode(training.PLURAL) and lines.parent.name in str(words):
                            return int(process.name)
            time.sleep(0.02)
        raise AssertionError("no run has begun")

    def rows(self):
        return json.loads((self.sweep_folder / "table.json").read_text())["rows"]

    def test_kills_failures_and_extension(self):
        one_seed = SWEEP.replace("[1, 2]", "[1]")
        write_inputs(self.folder, one_seed)
        planner = self.start()
        os.kill(self.training_process(), signal.SIGKILL)
        time.sleep(0.5)
        orphan = self.training_process()
        planner.kill()
        planner.communicate()
        # A killed planner leaves nothing at work.
        deadline = time.monotonic() + 60
        while Path(f"/proc/{orphan}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertFalse(Path(f"/proc/{orphan}").exists())
        done = self.plural("sweep", "run", "sweep.yaml")
        self.assertEqual(done.returncode, 77, done.stdout + done.stderr)
        self.assertIn("1 of 3 runs failed", done.stdout)
        rows = self.rows()
        self.assertEqual([row["state"] for row in rows], ["finished"] * 2 + ["failed"])
        self.assertEqual(rows[2]["failure"]["exit_code"], 77)
        # A row equals the run's own files.
        first = rows[0]
        figures = json.loads((self.sweep_folder / "measured" / first["run"][5:] / "metrics.json").read_text())
        self.assertEqual(first["figures"]["metrics.distinct_2"], figures["figures"]["distinct_2"]["value"])
        self.assertIn("metrics.unigram", " ".join(first["figures"]))  # every name of the list
        self.assertEqual([row["figures"]["program.of_seed"] for row in rows[:2]], [1, 1])
        self.assertEqual(first["figures"]["program.answers"], 16)
        # Nothing is done twice.
        before = self.changes()
        again = self.plural("sweep", "run", "sweep.yaml")
        self.assertEqual(again.returncode, 77)
        self.assertNotIn("[", again.stdout.partition("at a time")[2].partition("table.md")[0])
        self.assertEqual(self.changes(), before)
        # A further seed is the only work; what is measured otherwise is not trained again.
        text = SWEEP.replace("include: [{method: otmft, optimizer.lr: 1.0e+30}]", "")
        (self.folder / "sweep.yaml").write_text(text)
        extended = self.plural("sweep", "run", "sweep.yaml")
        self.assertEqual(extended.returncode, 0, extended.stdout + extended.stderr)
        self.assertEqual(extended.stdout.count(": finished"), 2)
        after = self.changes()
        self.assertEqual({name: after[name] for name in before}, before)
        self.assertEqual([row["seed"] for row in self.rows()], [1, 2] * 2)

    def changes(self):
        return {
            str(path): path.stat().st_mtime_ns
            for path in self.sweep_folder.glob("*/*/*")
            if path.parent.parent.name in ("runs", "measured") and path.is_file()
        }

    def test_a_stop_saves_and_says_so(self):
        write_inputs(self.folder, steps=4000)
        planner = self.start()
        self.training_process()
        planner.terminate()
        output, _ = planner.communicate(timeout=120)
        self.assertEqual(planner.returncode, 75, output)
        self.assertIn("0 of 6 runs are finished, the others are kept; start again to go on", output)
        self.assertTrue(list(self.sweep_folder.glob("runs/*/checkpoints/*")))
        status = self.plural("sweep", "status", "sweep.yaml")
        self.assertRegex(status.stdout, r"otmft-s1 +waiting +step \d+ of 4000")

    def test_mistakes_are_found_before_anything_starts(self):
        write_inputs(self.folder, SWEEP.replace("[otmft, poexft]", "[otmft, cvff]"))
        bad = self.plural("sweep", "run", "sweep.yaml")
        self.assertEqual(bad.returncode, 78)
        self.assertIn("setting cvff: ", bad.stderr)
        self.assertEqual(bad.stderr.count("\n"), 1)
        (self.folder / "sweep.yaml").write_text(SWEEP.replace("responses: 4", "resonses: 4", 1))
        bad = self.plural("sweep", "run", "sweep.yaml")
        self.assertEqual(bad.returncode, 78, bad.stderr)
        self.assertIn("no option resonses; did you mean responses?", bad.stderr)
        (self.folder / "sweep.yaml").write_text(SWEEP)
        plan = self.plural("sweep", "plan", "sweep.yaml")
        self.assertEqual(plan.returncode, 0, plan.stderr)
        self.assertIn("3 settings, 6 runs", plan.stdout)
        self.assertFalse(list(self.sweep_folder.glob("runs/*")))


if __name__ == "__main__":
    unittest.main()

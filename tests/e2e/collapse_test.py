"""What a run does when its validations say that the model collapses, and when its replicas differ."""

import json
import tempfile
import unittest
from pathlib import Path

import training

# Learned by heart: what is held out becomes unlikely, surely and more and more.
EXTRA = """train: {steps: 32, groups_per_step: 4, reduction: canonical}
optimizer: {lr: 0.05}
checkpoint: {every_steps: 6}
validation: {every_steps: 8, responses: 0}
"""


class Collapse(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(4))
        training.write_corpus(cls.folder / "held-out.h5", training.random_groups(4, seed=1))
        corpus = "corpus.h5, validation: held-out.h5"
        training.write_recipe(cls.folder / "c.yaml", "c", corpus=corpus, dtype="fp32", extra="")
        text = (cls.folder / "c.yaml").read_text().replace("optimizer: {lr: 1.0e-2}\n", EXTRA)
        (cls.folder / "c.yaml").write_text(text)

    def start(self, name, action, *overrides, code=0, **given):
        guard = [f"guard.collapse={action}"] + (["guard.collapse_factor=1.1"] if action != "off" else [])
        done = training.train(self.folder, "c.yaml", f"name={name}", *guard, *overrides, **given)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def adapter(self, name):
        return (self.folder / "runs" / name / "adapter/adapter_model.safetensors").read_bytes()

    def lines(self, name, event):
        return [line for line in training.metrics(self.folder, name) if line["event"] == event]

    def state(self, name, step):
        return json.loads((self.folder / f"runs/{name}/checkpoints/step-{step:08}/state.json").read_text())

    def lowered(self):
        """The run that no test disturbs, one for all."""
        if not hasattr(Collapse, "calm"):
            Collapse.calm = self.start("lower", "lower")
        return Collapse.calm

    def test_a_warning_changes_nothing(self):
        self.start("off", "off")
        done = self.start("warn", "warn")
        self.assertIn("perplexity is", done.stderr)
        self.assertEqual(self.adapter("off"), self.adapter("warn"))
        found = self.lines("warn", "collapse")
        figures = {line["step"]: line["perplexity"] for line in self.lines("warn", "validation")}
        best = min(figures, key=figures.get)
        worse = [step for step, value in figures.items() if step > best and value > 1.1 * figures[best]]
        self.assertEqual([line["step"] for line in found if line["best_step"] == best], worse)
        self.assertIn(32, worse)
        self.assertEqual((found[-1]["action"], found[-1]["figure"]), ("warn", "perplexity"))
        self.assertEqual((found[-1]["best"], found[-1]["value"]), (figures[best], figures[32]))
        self.assertEqual(self.lines("off", "collapse"), [])
        self.assertNotIn("validation", self.state("off", 32))
        self.assertEqual(self.state("warn", 32)["validation"]["best"]["perplexity"]["step"], best)

    def test_a_lower_weight_on_any_number_of_ranks_and_over_a_kill(self):
        self.lowered()
        found = self.lines("lower", "collapse")
        alphas = [line["unlikelihood_alpha"] for line in found]
        self.assertEqual(alphas, [0.5 ** (i + 2) for i in range(len(found))])
        self.assertLess(found[0]["step"], 32)
        self.start("lower-2", "lower", ranks=2)
        # Killed behind the checkpoint that has the lowered weight, with which it goes on.
        after = found[0]["step"] // 6 * 6 + 6
        kill = {"PLURAL_FAULT": f"kill@0:{after + 2}"}
        whole = "checkpoint.asynchronous=off"
        self.start("lower-kill", "lower", whole, ranks=2, environment=kill, code=137)
        self.assertLess(float.fromhex(self.state("lower-kill", after)["validation"]["unlikelihood_scale"]), 1)
        self.start("lower-kill", "lower")
        for other in ("lower-2", "lower-kill"):
            self.assertEqual(self.adapter(other), self.adapter("lower"), other)
            self.assertEqual(self.lines(other, "collapse"), found)
            self.assertEqual(training.losses(self.folder, other), training.losses(self.folder, "lower"))
        self.start("warn-1", "warn")
        losses = [training.losses(self.folder, name) for name in ("lower", "warn-1")]
        first = found[0]["step"]
        self.assertEqual(losses[0][:first], losses[1][:first])
        self.assertNotEqual(losses[0][first], losses[1][first])

    def test_a_stop_saves_and_comes_again_until_it_is_told_otherwise(self):
        self.start("warned", "warn")
        step = self.lines("warned", "collapse")[0]["step"]
        for ranks in (2, 1):
            done = self.start("stop", "stop", ranks=ranks, code=77)
            self.assertIn(f"validation after step {step}", done.stderr)
            self.assertIn("the state after this step is saved", done.stderr)
            self.assertEqual(self.lines("stop", "collapse")[-1]["action"], "stop")
            self.assertEqual([line["step"] for line in self.lines("stop", "collapse")], [step])
        self.assertIn(f"resumed after step {step}", self.start("stop", "warn").stdout)
        self.assertEqual(self.adapter("stop"), self.adapter("warned"))
        self.assertEqual(
            [line["step"] for line in self.lines("stop", "validation")],
            [line["step"] for line in self.lines("warned", "validation")],
        )

    def test_what_contradicts_itself(self):
        for action, override, word in (
            ("lower", "method=otmft", "no unlikelihood weight"),
            ("warn", "validation.every_steps=0", "needs validations"),
            ("off", "guard.collapse_factor=3", "has no effect"),
        ):
            self.assertIn(word, self.start("none", action, override, code=78).stderr)

    def test_replicas_that_differ_are_found_between_checkpoints(self):
        flip = {"PLURAL_FAULT": "bitflip@1:2"}
        often = ("guard.replicas_every_steps=3", "train.steps=5")
        for ranks, whose in ((2, "too few are alike to tell"), (3, "moments of rank 1 differ")):
            done = self.start("flip", "off", *often, ranks=ranks, environment=flip, code=79)
            self.assertIn("step 3: ", done.stderr)
            self.assertIn(whose, done.stderr)
            self.assertRegex(done.stderr, r"first in 'model\.layers\.0\.\S+'")
            self.assertEqual(list(self.folder.glob("runs/flip/checkpoints/step-*")), [])
        self.start("flip", "off", *often, ranks=2)


if __name__ == "__main__":
    unittest.main()

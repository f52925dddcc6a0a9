"""What a run leaves behind: the metrics of every method, early stop, checkpoints, adapter or model."""

import json
import math
import tempfile
import unittest
from pathlib import Path

import training

STEP_KEYS = [
    "event",
    "step",
    "epoch",
    "loss",
    "likelihood",
    "unlikelihood",
    "grad_norm",
    "lr",
    "groups",
    "rows",
    "sequence_tokens",
    "seconds",
]


class TrainTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def train(self, groups, *overrides, source_format="dialogue", **recipe):
        training.write_corpus(self.folder / "corpus.h5", groups, source_format)
        training.write_recipe(self.folder / "r.yaml", "run", **recipe)
        result = training.train(self.folder, "r.yaml", *overrides)
        self.assertEqual(result.returncode, 0, result.stderr)
        return training.metrics(self.folder, "run")

    def events(self, metrics, kind):
        return [line for line in metrics if line["event"] == kind]

    def test_metrics_of_peft(self):
        metrics = self.train(training.random_groups(5), extra="train: {epochs: 4, groups_per_step: 2}")
        self.assertEqual(metrics[0]["event"], "start")
        self.assertEqual(metrics[-1]["event"], "end")
        steps = self.events(metrics, "step")
        self.assertEqual([line["step"] for line in steps], list(range(1, 13)))
        self.assertEqual([line["epoch"] for line in steps], [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3)
        self.assertEqual([line["groups"] for line in steps], [2, 2, 1] * 4)
        for line in steps:
            self.assertEqual(list(line)[: len(STEP_KEYS)], STEP_KEYS)
            self.assertAlmostEqual(line["loss"], line["likelihood"] + line["unlikelihood"], delta=1e-12)
            self.assertGreater(line["unlikelihood"], 0)
            self.assertLess(line["rows"], line["sequence_tokens"])  # the tree shares
        passes = self.events(metrics, "pass")
        self.assertEqual([line["step"] for line in passes], [3, 6, 9, 12])
        for number, line in enumerate(passes):
            mine = steps[3 * number : 3 * number + 3]
            mean = sum(step["loss"] * step["groups"] for step in mine) / 5
            self.assertAlmostEqual(line["loss"], mean, delta=1e-12)
        self.assertLess(passes[-1]["loss"], passes[0]["loss"])

    def test_groups_without_penalised_tokens_add_nothing_and_are_counted(self):
        groups = training.random_groups(4)
        for _, _, answers in groups[:3]:
            for _, mask, _ in answers:
                mask[:] = [0] * len(mask)
        metrics = self.train(groups, extra="train: {epochs: 2, groups_per_step: 1}")
        for line in self.events(metrics, "step"):
            self.assertTrue(math.isfinite(line["loss"]))
            self.assertEqual(line["unpenalised_groups"], 1 if line["unlikelihood"] == 0.0 else 0)
        self.assertEqual([line["unpenalised_groups"] for line in self.events(metrics, "pass")], [3, 3])

    def test_distribution_matching_stops_early(self):
        groups = training.random_groups(2, responses=6, possibilities=0, targets=True)
        metrics = self.train(
            groups,
            source_format="targets",
            method="distribution_matching",
            extra="train: {epochs: 500, groups_per_step: 1}\nearly_stop: {enabled: true, gamma: 0.3}",
        )
        passes = self.events(metrics, "pass")
        for line in passes:
            self.assertAlmostEqual(
                line["kl_nats"], line["cross_entropy_nats"] - line["target_entropy_nats"], delta=1e-12
            )
            self.assertAlmostEqual(line["loss"], line["cross_entropy_nats"], delta=1e-9)
            self.assertLessEqual(line["entropy_nats"], math.log(6) + 1e-12)
            below = line["cross_entropy_nats"] <= 1.3 * line["target_entropy_nats"]
            self.assertEqual(line["stopped_early"], below)
        entropies = [
            -sum(w / sum(ws) * math.log(w / sum(ws)) for w in ws)
            for ws in ([weight for _, _, weight in answers] for _, _, answers in groups)
        ]
        self.assertAlmostEqual(passes[0]["target_entropy_nats"], sum(entropies) / 2, delta=1e-12)
        self.assertTrue(passes[-1]["stopped_early"])
        self.assertLess(len(passes), 500)
        self.assertEqual(metrics[-1]["event"], "end")
        self.assertEqual(metrics[-1]["step"], 2 * len(passes))
        newest = max((self.folder / "runs/run/checkpoints").iterdir())
        self.assertTrue(json.loads((newest / "state.json").read_text())["position"]["stopped_early"])

    def test_steps_end_a_run_later_than_epochs(self):
        metrics = self.train(
            training.random_groups(3), extra="train: {epochs: 1, steps: 7, groups_per_step: 3}"
        )
        self.assertEqual(len(self.events(metrics, "step")), 7)

    def test_checkpoints_are_kept_as_asked(self):
        self.train(
            training.random_groups(3),
            extra="train: {steps: 11, groups_per_step: 3}\ncheckpoint: {every_steps: 2, keep: 2}",
        )
        names = sorted(path.name for path in (self.folder / "runs/run/checkpoints").iterdir())
        self.assertEqual(names, ["step-00000010", "step-00000011"])

    def test_otoft_trains_on_the_first_response(self):
        groups = training.random_groups(3)
        more = [(prompt, tails, answers[:1]) for prompt, tails, answers in groups]
        first = self.train(groups, method="otoft", adapter=False, extra="train: {steps: 4}")
        self.assertTrue((self.folder / "runs/run/model/config.json").exists())
        self.train(more, "name=again", method="otoft", adapter=False, extra="train: {steps: 4}")
        second = training.metrics(self.folder, "again")
        self.assertEqual(
            [line["loss"] for line in self.events(first, "step")],
            [line["loss"] for line in self.events(second, "step")],
        )

    def test_schedule(self):
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(3))
        training.write_recipe(self.folder / "r.yaml", "run", extra="train: {steps: 6}")
        text = (self.folder / "r.yaml").read_text()
        (self.folder / "r.yaml").write_text(
            text.replace("{lr: 1.0e-2}", "{lr: 1.0e-2, schedule: linear, warmup_steps: 2}")
        )
        self.assertEqual(training.train(self.folder, "r.yaml").returncode, 0)
        rates = [line["lr"] for line in training.metrics(self.folder, "run") if line["event"] == "step"]
        for rate, expected in zip(rates, [0.0, 0.005, 0.01, 0.0075, 0.005, 0.0025]):
            self.assertAlmostEqual(rate, expected, delta=1e-15)


if __name__ == "__main__":
    unittest.main()

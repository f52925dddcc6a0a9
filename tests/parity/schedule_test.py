"""The learning rate of every step of a run is that of transformers' schedule of the same name."""

import tempfile
import unittest
from pathlib import Path

import torch
from transformers import get_scheduler

import training

STEPS, LR = 12, 1e-2


def expected(name, warmup, **more):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    schedule = get_scheduler(name, optimizer, warmup, STEPS, scheduler_specific_kwargs=more)
    rates = []
    for _ in range(STEPS):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


class ScheduleTest(unittest.TestCase):
    def test_every_schedule(self):
        cases = [
            ("constant", 0, {}, {}),
            ("linear", 3, {}, {"warmup_steps": 3}),
            ("cosine", 3, {}, {"warmup_ratio": 0.2}),  # 2.4 steps, rounded up
            ("cosine_with_min_lr", 3, {"min_lr_rate": 0.25}, {"warmup_steps": 3, "min_lr_rate": 0.25}),
            ("inverse_sqrt", 3, {}, {"warmup_steps": 3}),
            ("inverse_sqrt", 0, {}, {}),
        ]
        with tempfile.TemporaryDirectory() as folder:
            training.write_corpus(f"{folder}/corpus.h5", training.random_groups(8))
            for i, (name, warmup, theirs, ours) in enumerate(cases):
                with self.subTest(name, **ours):
                    recipe = Path(folder) / f"run{i}.yaml"
                    training.write_recipe(recipe, recipe.stem, "otmft", extra="train: {epochs: 3}")
                    keys = {"schedule": name, "lr": LR, **ours}
                    overrides = [f"optimizer.{key}={value}" for key, value in keys.items()]
                    result = training.train(folder, recipe, *overrides)
                    self.assertEqual(result.returncode, 0, result.stderr)
                    rates = [
                        line["lr"]
                        for line in training.metrics(folder, recipe.stem)
                        if line["event"] == "step"
                    ]
                    wanted = expected(name, warmup, **theirs)
                    self.assertEqual(len(rates), STEPS)
                    for rate, want in zip(rates, wanted):
                        self.assertAlmostEqual(rate, want, delta=1e-12)


if __name__ == "__main__":
    unittest.main()

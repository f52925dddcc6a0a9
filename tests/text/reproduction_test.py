"""The reproduction's grammars, figures over seeds and the step cache, without any model."""

import argparse
import contextlib
import json
import math
import pathlib
import random
import re
import sys
import tempfile
import unittest
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes/reproduction"))

import yaml

import dialogue
import distributions
import study as study_module
from persona_grammar import PersonaGrammar
from reply_grammar import ReplyGrammar
from report import Figure, Report, Row, summarize
from study import RECIPES, Seed, StepFailed, Study
from study import arguments as study_options
from words import write_lines

DIV = Figure("diversity", "diversity")


class OverSeeds(unittest.TestCase):
    def test_interval_is_students(self):
        # Mean 2, s = 1, n = 3: 4.303 * 1 / sqrt(3).
        summary = summarize([1.0, 2.0, 3.0])
        self.assertAlmostEqual(summary.mean, 2.0)
        self.assertAlmostEqual(summary.half_width, 4.303 / math.sqrt(3), places=9)
        self.assertIsNone(summarize([1.0]).half_width)

    def report(self):
        report = Report("test")
        for seed, (low, high) in enumerate(((0.1, 0.2), (0.2, 0.5), (0.6, 0.5)), 1):
            report.add("low", seed, {"diversity": low})
            report.add("high", seed, {"diversity": high})
        return report

    def test_a_check_is_about_means_and_counts_seeds(self):
        report = self.report()
        self.assertTrue(report.check_increasing("rises", DIV, ["low", "high"]))
        self.assertFalse(report.check_increasing("falls", DIV, ["high", "low"]))
        self.assertIn("yes  rises  (0.300 < 0.400; in 2 of 3 seeds)", report.text())
        self.assertIn("NO   falls  (0.400 < 0.300; in 1 of 3 seeds)", report.text())
        self.assertFalse(report.all_hold)

    def test_a_bound_says_in_how_many_seeds_it_is_kept(self):
        report = self.report()
        self.assertTrue(report.check_bound("low", DIV, "low", high=0.5))
        self.assertIn("yes  low  (0.300, wanted at most 0.500; in 2 of 3 seeds)", report.text())

    def test_a_row_that_no_option_left_out_but_has_no_figures_fails_its_checks(self):
        report = self.report()
        self.assertFalse(report.check_increasing("absent", DIV, ["absent", "high"]))
        self.assertFalse(report.check_bound("bound", DIV, "absent", low=-1))
        self.assertFalse(report.all_hold)
        self.assertIn("NO   absent  (no figures of absent)", report.text())
        self.assertNotIn("nan", report.text())

    def test_a_check_of_rows_that_an_option_left_out_is_not_run(self):
        report = self.report()
        report.run_in_part("--methods")
        report.check_increasing("rises", DIV, ["low", "high"])
        self.assertFalse(report.check_increasing("absent", DIV, ["absent", "high", "other"]))
        self.assertFalse(report.check_bound("bound", DIV, "absent", low=-1))
        self.assertTrue(report.all_hold)
        why = "no figures of absent, other, which --methods left out"
        self.assertIn(f"not run  absent  ({why})", report.text())
        self.assertNotRegex(report.text(), "nan|NO ")
        report.check_increasing("falls", DIV, ["high", "low"])
        self.assertFalse(report.all_hold)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "results.json"
            report.write(path)
            holds = {check["name"]: check["holds"] for check in json.loads(path.read_text())["checks"]}
        self.assertEqual(holds, {"rises": True, "absent": None, "bound": None, "falls": False})

    def test_tables_stand_beside_the_published_figures(self):
        report = self.report()
        report.table(
            "T",
            [Row("low", "Low", {"diversity": 0.383}), Row("high", "High"), Row("absent", "Absent")],
            [DIV],
        )
        text = report.text()
        self.assertRegex(text, r"\| Low +\| 0\.300 ± 0\.657 \| 0\.383 +\|")
        self.assertRegex(text, r"\| High +\| 0\.400 ± 0\.430 \| - +\|")
        self.assertNotIn("Absent", text)

    def test_results_keep_every_seed(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "results.json"
            self.report().write(path, seeds=[1, 2, 3])
            row = json.loads(path.read_text())["rows"]["low"]["diversity"]
        self.assertEqual(row["seeds"], {"1": 0.1, "2": 0.2, "3": 0.6})
        self.assertLess(row["interval"][0], row["mean"])


class StudiesInPart(unittest.TestCase):
    """What a study prints whose figures are only those of some methods or parts."""

    def printed(self, module, rows, *words):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            words = [module.__name__, folder, "--seeds", "1,2", *words]
            stack.enter_context(mock.patch.object(sys, "argv", words))
            stack.enter_context(mock.patch.object(Study, "each_seed", lambda *_: {}))
            options = study_options(module.__name__, "in part", module.add_options)
            study = Study(module.__name__, options)
            for row, figures in rows.items():
                for seed in (1, 2):
                    study.report.add(row, seed, figures)
            module.work(study)
            return study.report.text()

    def test_dialogue_names_the_methods_that_checks_need(self):
        figures = {"diversity": 0.5, "different": 3.5, "incoherent_percent": 0.1, "distinct_2": 0.1}
        text = self.printed(dialogue, {"peft@0.5": figures}, "--methods", "peft")
        self.assertIn("yes  random numbers, 1 pass: 3.1 to 3.6 different of 5", text)
        self.assertRegex(
            text,
            r"not run  diversity at t = 0.5: base < OTOFT < OTMFT < POEXFT  "
            r"\(no figures of base@0.5, otoft@0.5, otmft@0.5, which --methods left out\)",
        )
        self.assertRegex(text, "not run  diverse beam search .*no figures of base@0.0, dbs, which --meth")
        self.assertNotRegex(text, "nan|NO ")

    def test_harm_to_a_few_sentences_is_told_from_harm_to_all(self):
        """One sentence of twenty loses 2 nats a token, or each loses a little."""
        whole = {"base_logprob_nats": -20.0, "logprob_nats": -20.0, "response_tokens": 10}
        worse = whole | {"logprob_nats": -40.0}
        a_little = whole | {"logprob_nats": -20.9}  # 9.4 %
        self.assertEqual(distributions.harmed_percent([whole] * 19 + [worse]), 5.0)
        self.assertEqual(distributions.harmed_percent([a_little] * 20), 0.0)
        self.assertEqual(distributions.harmed_percent([whole | {"logprob_nats": -21.0}] * 2), 100.0)  # 10.5 %

    def test_one_row_of_an_order_is_no_order(self):
        figures = {"entropy_nats": 2.0, "exact_entropy_nats": 2.0}
        rows = {f"{task} id": figures for task in ("names", "fruits")}
        text = self.printed(distributions, rows, "--parts", "leave_one_in")
        self.assertIn("not run  names: exact entropy base < ood < id  (no figures of names base, ", text)
        self.assertNotRegex(text, "nan|NO |yes ")


class RecordedSeed(Seed):
    """Trains nothing: keeps what it was asked to, and answers with the first kinds of reply there are."""

    trained: ClassVar[list] = []  # (folder's name, run, recipe, overrides)

    def prepare(self, inputs, output, **_):
        return self.path(output)

    def train(self, name, recipe, overrides):
        self.trained.append((self.folder.name, name, recipe, overrides))
        settings = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
        passes = overrides.get("train.epochs", settings["train"]["epochs"])
        run = self.path("runs") / name
        run.mkdir(parents=True, exist_ok=True)
        write_lines(run / "metrics.jsonl", ({"event": "step", "epoch": epoch} for epoch in range(passes)))
        return run

    def generate(self, output, *, adapter=None, **_):
        """Different replies: two of the first model, three of the second, one more after several passes."""
        grammar, draw = ReplyGrammar("dialogue", categories=3), random.Random(1)
        kinds = (2 if self.folder.name == "seed-1" else 3) + (
            adapter is not None and "passes" in adapter.name
        )
        return [
            {
                "id": prompt.id,
                "decode_steps": 5,
                "responses": [{"text": grammar.reply(prompt.category, i % kinds, draw)} for i in range(5)],
            }
            for prompt in grammar.prompts_to_ask()
        ]


class DialogueStudy(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        RecordedSeed.trained.clear()
        with tempfile.TemporaryDirectory() as folder:
            words = ["dialogue", folder, "--seeds", "1", "--jobs", "1", "--small"]
            with (
                mock.patch.object(sys, "argv", words),
                mock.patch.object(study_module, "Seed", RecordedSeed),
                mock.patch.object(dialogue.reply_study, "write_texts", lambda *_: 500),
                mock.patch.object(dialogue.reply_study, "distinct_n", lambda *_: SimpleNamespace(value=0.1)),
            ):
                study = Study("dialogue", study_options("dialogue", "recorded", dialogue.add_options))
                dialogue.work(study)
        cls.text = study.report.text()
        cls.trained = RecordedSeed.trained

    def table(self, title):
        """Title of a row -> its cells."""
        _, _, rest = self.text.partition(f"**{title}")
        lines = rest.split("\n\n")[1].splitlines()
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        return {row[0]: dict(zip(rows[0][1:], row[1:])) for row in rows[2:]}

    def test_both_kinds_of_numbers_are_tuned_for_as_long(self):
        made = {recipe: set() for recipe in ("peft", "peft-aligned")}
        settings = {
            recipe: yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
            for recipe in made
        }
        for folder, _, recipe, overrides in self.trained:
            if recipe in made and folder == "seed-1":
                made[recipe].add(overrides.get("train.epochs", settings[recipe]["train"]["epochs"]))
        self.assertEqual(made, {"peft": {1, 2, 4, 8}, "peft-aligned": {1, 2, 4, 8}})
        for part in ("train", "optimizer", "loss"):
            self.assertEqual(settings["peft"][part], settings["peft-aligned"][part])

    def test_the_curve_over_passes_has_both_kinds_of_numbers(self):
        curve = self.table("Both kinds of numbers after the same training")
        self.assertEqual(
            list(curve),
            [
                f"{kind} numbers, {passes}"
                for passes in ("1 pass", "2 passes", "4 passes", "8 passes")
                for kind in ("random", "aligned")
            ],
        )
        self.assertEqual({row["different of 5"] for row in curve.values()}, {"2.00", "3.00"})

    def test_tables_show_aligned_numbers_beside_random_ones_of_as_many_passes(self):
        trained = self.table("Training that each method had")
        passes = {title: row["passes over the prompts"] for title, row in trained.items()}
        self.assertEqual(passes["POEXFT, aligned numbers, 8 passes"], "8")
        self.assertEqual(passes["CVF"], "12")  # not as long as the others: the table says it
        for title in ("Table 1", "Table 3", "Over temperatures: different of 5"):
            rows = [row.partition(", t =")[0] for row in self.table(title)]
            of = {
                kind: {
                    passes.get(row, passes.get(row.replace("POEXFT", "POEXFT, random numbers", 1)))
                    for row in rows
                    if kind(row)
                }
                for kind in (
                    lambda row: "aligned" in row,
                    lambda row: row.startswith("POEXFT") and "aligned" not in row and "best" not in row,
                )
            }
            aligned, random_numbers = of.values()
            self.assertEqual(aligned, random_numbers, title)

    def test_table_2_is_of_a_model_of_its_own(self):
        bases = {folder: overrides for folder, name, _, overrides in self.trained if name == "base"}
        self.assertEqual(set(bases), {"seed-1", "second"})
        shape = {key for key in bases["second"] if key.startswith("model.config.")} - {
            "model.config.vocab_size"
        }
        self.assertTrue(any(bases["second"][key] != bases["seed-1"].get(key) for key in shape), shape)
        tuned = {
            name: overrides["model.path"]
            for folder, name, _, overrides in self.trained
            if folder == "second" and name != "base"
        }
        self.assertEqual(set(tuned), {"otoft", "otmft", "peft"})
        self.assertEqual({path.parts[-3:] for path in tuned.values()}, {("second", "runs", "base")})
        self.assertEqual({row["different of 5"] for row in self.table("Table 2").values()}, {"3.00"})
        self.assertEqual(self.table("Table 1")["OTOFT, t = 1.00"]["different of 5"], "2.00")


class ReplyMeaning(unittest.TestCase):
    def setUp(self):
        self.grammar = ReplyGrammar("dialogue")

    def line(self, *texts):
        return {"id": "cities/Riga/0", "responses": [{"text": text} for text in texts]}

    def test_paraphrases_are_one_meaning_and_other_categories_are_invalid(self):
        tour, leave = "tour it", "avoid it"
        lines = [
            self.line(
                f"Please {tour}.",
                f" You should {tour} again.",
                f"Please {leave}.",
                "Please sell it.",
                "Please tour.",
            )
        ]
        figures = self.grammar.measure(lines)
        self.assertEqual(figures["different"], 2)  # valid ones alone
        self.assertAlmostEqual(figures["diversity"], 0.9)  # 1 of 10 pairs agrees
        self.assertAlmostEqual(figures["incoherent_percent"], 40.0)

    def test_empty_replies_are_incoherent_and_alike(self):
        figures = self.grammar.measure([self.line("", "")])
        self.assertEqual(figures, {"diversity": 0, "different": 0, "incoherent_percent": 100})

    def test_one_reply_a_prompt_has_no_diversity(self):
        with self.assertRaises(ValueError):
            self.grammar.measure([self.line("Please tour it.")])

    def test_no_two_openers_have_the_same_length(self):
        # Else diverse beam search would meet the deciding word at one step in several groups, and penalise
        # it.
        for name in ("dialogue", "story"):
            openers = json.loads((ROOT / f"recipes/reproduction/{name}.json").read_text())["openers"]
            lengths = [len(re.findall(r"\w+|[^\w\s]", opener)) for opener in openers]
            self.assertEqual(len(set(lengths)), len(lengths), openers)

    def test_every_story_and_reply_parses_and_is_unique(self):
        for name in ("dialogue", "story"):
            grammar, draw = ReplyGrammar(name), random.Random(1)
            for prompt in grammar.prompts_to_ask():
                replies, kinds = grammar.replies(prompt, 4, draw)
                self.assertEqual(
                    [grammar.meaning(reply) for reply in replies], [(prompt.category, kind) for kind in kinds]
                )
                self.assertEqual(len(set(kinds)), 4)

    def test_tuning_never_sees_a_prompt_that_is_asked(self):
        tuned_on, asked = self.grammar.prompts_to_tune_on(random.Random(1)), self.grammar.prompts_to_ask()
        self.assertEqual((len(tuned_on), len(asked)), (300, 90))
        self.assertFalse(
            {prompt.id.split("/")[1] for prompt in tuned_on} & {prompt.id.split("/")[1] for prompt in asked}
        )


class Persona(unittest.TestCase):
    def test_the_skew_is_as_said(self):
        grammar = PersonaGrammar()
        for slot in grammar.slots:
            self.assertAlmostEqual(sum(grammar.shares(slot).values()), 1.0)
        self.assertAlmostEqual(grammar.shares("gender")["male"], 0.2 * 0.8)

    def test_an_answer_to_another_question_reveals_nothing(self):
        grammar = PersonaGrammar()
        self.assertEqual(grammar.value("age", " I am in my twenties."), "twenties")
        self.assertIsNone(grammar.value("gender", "I am in my twenties."))
        counts, invalid = grammar.measure(
            {"age": ["I am in my twenties.", "Hm."], "gender": ["I am male."] * 2}
        )
        self.assertEqual((counts["age"], counts["gender"]), ({"twenties": 1}, {"male": 2}))
        self.assertAlmostEqual(invalid, 25.0)


class Steps(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        study = Study("test", argparse.Namespace(folder=pathlib.Path(self.folder.name), seeds=[1], jobs=1))
        study.say = lambda *_: None
        self.seed = Seed(study, 1)
        self.program = self.seed.path("program.py")
        self.program.write_text("import sys; open(sys.argv[2], 'a').write(open(sys.argv[1]).read())")

    def run_step(self):
        self.seed.python("copy", [self.program, self.seed.path("in"), self.seed.path("out")], ["out"])
        return self.seed.path("out").read_text()

    def test_a_step_runs_again_only_when_an_input_changed(self):
        self.seed.path("in").write_text("a")
        self.assertEqual(self.run_step(), "a")
        self.assertEqual(self.run_step(), "a")
        self.seed.path("in").write_text("b")
        self.assertEqual(self.run_step(), "ab")
        self.seed.path("out").unlink()
        self.assertEqual(self.run_step(), "b")

    def test_a_failed_step_is_told_and_run_again(self):
        with self.assertRaisesRegex(StepFailed, "seed 1: copy: exit 1"):
            self.run_step()
        self.seed.path("in").write_text("a")
        self.assertEqual(self.run_step(), "a")


if __name__ == "__main__":
    unittest.main()

"""The reproduction's grammars, figures over seeds and the step cache, without any model."""

import argparse
import json
import math
import pathlib
import random
import re
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes/reproduction"))

from persona_grammar import PersonaGrammar
from reply_grammar import ReplyGrammar
from report import Figure, Report, Row, summarize
from study import Seed, StepFailed, Study

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

    def test_a_row_that_was_not_measured_holds_nothing(self):
        report = self.report()
        self.assertFalse(report.check_increasing("absent", DIV, ["absent", "high"]))
        self.assertFalse(report.check_bound("absent", DIV, "absent", low=-1))

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

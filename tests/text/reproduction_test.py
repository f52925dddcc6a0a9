"""The toys: their grammars, figures over seeds, their studies' definitions, material; without any model."""

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
TOYS = ROOT / "recipes/reproduction"
for folder in ("reproduction", "papers"):
    sys.path.insert(0, str(ROOT / "recipes" / folder))

import yaml

import arguments
import harm_figures
import reproduce
import stages
import training_figures
from corpora import Corpora
from definition_file import FULL, SMALL, families_of, read_definition
from persona_grammar import PersonaGrammar
from plural_text.common.errors import BadRecipe, CommandError
from plural_text.sweep.expand import settings_of
from plural_text.sweep.sweep_file import read_sweep
from reply_grammar import ReplyGrammar
from report import Figure, Report, Row, summarize
from text.support import FolderTest
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


class StudiesTest(FolderTest):
    """Those of toys, as a run would find them, with empty parts of recipes in the place of material."""

    def study(self, name, size=FULL):
        places = reproduce.places(None, self.folder / "data", self.folder)
        found = read_definition(arguments.STUDIES / f"{name}.yaml", "", size, places)
        options = argparse.Namespace(
            seeds=[1], threads=1, plan=False, set=[], generate=[], persona=[], judge=[], judge_model=[]
        )
        for folder in ("", "seed-1", "seed-1001"):
            part = self.folder / "material" / folder / "model.yaml"
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_text("model: {config: {vocab_size: 9}}\n")
        for stage in found.stages:
            stages.write_sweep(stage, self.folder, options)
        return found

    def settings(self, study):
        """Stage -> its settings."""
        return {
            stage.name: settings_of(read_sweep(stages.sweep_file(self.folder, stage)))
            for stage in study.stages
        }

    def names(self):
        return [
            name for name in arguments.study_names() if not families_of(arguments.STUDIES / f"{name}.yaml")
        ]


class Studies(StudiesTest):
    def test_every_row_is_one_setting_and_every_figure_is_measured(self):
        self.assertEqual(
            self.names(),
            ["ablations", "dialogue", "distributions", "middle", "persona", "real-text", "story"],
        )
        for name in self.names():
            study = self.study(name)
            settings = self.settings(study)
            for table in study.tables:
                shown = set()
                for row in table.rows:
                    with self.subTest(study=name, table=table.title, row=row.key):
                        choices = settings[row.stage]
                        (chosen,) = stages.meant(row.setting, [one.chosen for one in choices])
                        steps = {
                            f"{one.name}.{step}" if one.name else step
                            for one in choices[chosen].evaluations
                            for step in one.steps
                        }
                        has = {
                            column.figure
                            for column in table.columns
                            if row.figure(column.figure).rpartition(".")[0] in steps
                        }
                        self.assertTrue(has)
                        shown |= has
                        beside = {
                            column.figure
                            for other in study.tables
                            for column in other.columns
                            if row in other.rows
                        }
                        self.assertLessEqual(set(row.published), beside)
                self.assertEqual(shown, {column.figure for column in table.columns}, table.title)

    def test_every_corpus_is_used_and_all_that_are_used_are_there(self):
        for name in self.names():
            study = self.study(name)
            text = " ".join(str(stage.sweep) for stage in study.stages)
            corpora = Corpora(study, None, self.folder / "data", self.folder)
            known = {str(self.folder / corpora.path(corpus)) for corpus in study.corpora}
            self.assertEqual(set(re.findall(r"[^'\s,=]+\.h5", text)), known, name)

    def test_small_ones_are_the_same_study(self):
        for name in self.names():
            sizes = yaml.safe_load((arguments.STUDIES / f"{name}.yaml").read_text()).get("sizes")
            if sizes:
                self.assertEqual(set(sizes), {FULL, SMALL})
                self.assertEqual(set(sizes[FULL]), set(sizes[SMALL]))
                self.assertEqual(len(self.study(name, SMALL).rows), len(self.study(name).rows))
            else:
                with self.assertRaisesRegex(BadRecipe, "has no 'small'"):
                    self.study(name, SMALL)

    def test_what_the_user_has_to_name(self):
        asked = {name: arguments.placeholders_of(arguments.STUDIES / f"{name}.yaml") for name in self.names()}
        self.assertEqual(asked.pop("real-text"), {"data"})
        self.assertEqual(asked.pop("middle"), {"model", "data"})
        self.assertEqual(set(map(tuple, asked.values())), {()})
        self.assertEqual(arguments.placeholders_of(arguments.STUDIES / "diffuse-4.yaml"), {"model", "data"})

    def test_only_takes_the_stages_that_its_runs_need(self):
        study = self.study("dialogue")
        needed = lambda only: [stage.name for stage in stages.needed(study, self.folder, only)]
        self.assertEqual(needed("cvf"), ["base", "tuned"])
        self.assertEqual(needed("s1001"), ["second-base", "second"])
        self.assertEqual(needed("epochs4"), ["base", "passes"])
        self.assertEqual(needed(None), ["base", "second-base", "second", "passes", "tuned"])


class DialogueStudy(StudiesTest):
    def setUp(self):
        super().setUp()
        self.found = self.study("dialogue")

    def passes(self, file, corpus):
        return {
            setting.chosen["train.epochs"]
            for settings in self.settings(self.found).values()
            for setting in settings
            if setting.overrides.get("base") == str(TOYS / file)
            and corpus in setting.overrides["data.train"]
            and "train.epochs" in setting.chosen
        }

    def test_both_kinds_of_numbers_are_tuned_for_as_long(self):
        self.assertEqual(self.passes("peft.yaml", "train.h5"), {1, 2, 4, 8})
        self.assertEqual(self.passes("peft-aligned.yaml", "train-kinds.h5"), {1, 2, 4, 8})
        random_numbers, aligned = (
            yaml.safe_load((TOYS / file).read_text()) for file in ("peft.yaml", "peft-aligned.yaml")
        )
        for part in ("train", "optimizer", "loss"):
            self.assertEqual(random_numbers[part], aligned[part])

    def test_tables_show_aligned_numbers_beside_random_ones_of_as_many_passes(self):
        """Also where a table shows several temperatures."""
        for table in self.found.tables:
            shown = {"peft.yaml": set(), "peft-aligned.yaml": set()}
            for row in table.rows:
                file = pathlib.Path(row.setting.get("base", "")).name
                if file in shown and "best" not in row.at:
                    shown[file].add((row.setting.get("train.epochs"), row.at))
            random_numbers, aligned = shown.values()
            self.assertLessEqual(aligned, random_numbers, table.title)

    def test_table_2_is_of_a_model_of_its_own(self):
        by_name = {stage.name: stage for stage in self.found.stages}
        (table,) = [table for table in self.found.tables if table.title.startswith("Table 2")]
        self.assertEqual({row.stage for row in table.rows}, {"second"})
        self.assertEqual(by_name["second"].seeds([4]), [1004])
        path = by_name["second"].sweep["set"]["model.path"]
        self.assertEqual(path, f"{self.folder}/models/second-seed-{{seed}}")
        shapes = []
        for stage in ("base", "second-base"):
            (recipe, _) = by_name[stage].sweep["base"]
            shapes.append(yaml.safe_load(pathlib.Path(recipe).read_text())["model"])
        self.assertNotEqual(*shapes)


class Training(FolderTest):
    def test_passes_steps_and_the_loss_of_the_last_pass(self):
        steps = [(0, 5.0), (0, 4.0), (1, 3.0), (1, 1.0)]
        write_lines(
            self.folder / "metrics.jsonl",
            [{"event": "step", "epoch": epoch, "loss": loss} for epoch, loss in steps] + [{"event": "end"}],
        )
        for responses, read in ((4, {"replies_per_prompt": 8}), (0, {})):
            (self.folder / "recipe.yaml").write_text(f"group: {{responses: {responses}}}\n")
            training_figures.main(self.folder, self.folder / "out.json")
            self.assertEqual(
                json.loads((self.folder / "out.json").read_text()),
                {"passes": 2, "steps": 4, "loss_nats": 2.0, **read},
            )

    def test_harm_to_a_few_sentences_is_told_from_harm_to_all(self):
        """One sentence of twenty loses 2 nats a token, or each loses a little."""
        whole = {"base_logprob_nats": -20.0, "logprob_nats": -20.0, "response_tokens": 10}
        worse = whole | {"logprob_nats": -40.0}
        a_little = whole | {"logprob_nats": -20.9}  # 9.4 %
        self.assertEqual(harm_figures.harmed_percent([whole] * 19 + [worse]), 5.0)
        self.assertEqual(harm_figures.harmed_percent([a_little] * 20), 0.0)
        self.assertEqual(harm_figures.harmed_percent([whole | {"logprob_nats": -21.0}] * 2), 100.0)  # 10.5 %


class Material(FolderTest):
    STUDY = """
title: t
source: ""
material: {program: ["{python}", PROGRAM, "{material}", "{seed}"], reads: [READ]}
sweep: {base: []}
columns: [{figure: x, title: x}]
rows: [{title: r, setting: {}}]
"""

    def make(self, *seeds):
        file = self.folder / "study.yaml"
        text = self.STUDY.replace("PROGRAM", str(self.folder / "program.py"))
        file.write_text(text.replace("READ", str(self.folder / "read")))
        study = read_definition(file, "", FULL, reproduce.places(None, None, self.folder / "out"))
        Corpora(study, None, None, self.folder / "out").make_material(seeds, 2)
        return {path.parent.name: path.read_text() for path in sorted((self.folder / "out").rglob("written"))}

    def test_it_is_made_once_per_seed_and_again_after_a_change(self):
        program, read = self.folder / "program.py", self.folder / "read"
        program.write_text(
            "import sys, pathlib\n"
            f"text = open('{read}').read() + sys.argv[2]\n"
            "pathlib.Path(sys.argv[1], 'written').write_text(text)\n"
        )
        with self.assertRaisesRegex(CommandError, "read: No such file"):
            self.make(1)
        read.write_text("a")
        self.assertEqual(self.make(1, 2), {"seed-1": "a1", "seed-2": "a2"})
        kept = self.folder / "out/material/seed-1/kept"
        kept.write_text("")
        self.make(1)
        self.assertTrue(kept.exists())
        read.write_text("b")
        self.assertEqual(self.make(1), {"seed-1": "b1", "seed-2": "a2"})
        self.assertFalse(kept.exists())

    def test_a_failure_is_one_line_and_made_again(self):
        program = self.folder / "program.py"
        (self.folder / "read").write_text("")
        program.write_text("import sys; sys.exit('no luck')")
        with self.assertRaisesRegex(CommandError, "no luck"):
            self.make(1)
        program.write_text("import sys; open(sys.argv[1] + '/written', 'w').write('well')")
        self.assertEqual(self.make(1), {"seed-1": "well"})


class ReplyMeaning(unittest.TestCase):
    def setUp(self):
        self.grammar = ReplyGrammar(TOYS / "dialogue.json")

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
            grammar, draw = ReplyGrammar(TOYS / f"{name}.json"), random.Random(1)
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


if __name__ == "__main__":
    unittest.main()

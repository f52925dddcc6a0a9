"""Tables of the papers: their definitions, what becomes of figures, what they would cost. No model."""

import io
import json
import re
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
for folder in ("reproduction", "papers"):
    sys.path.insert(0, str(ROOT / "recipes" / folder))

import yaml

import arguments
import cost
import definition
import judges
import outcome
import pictures
import reproduce
import stages
from definition_file import FULL, SMALL, families_of, read_definition
from measured import Measured
from plural_text.common.errors import BadData, BadRecipe, MissingInput, UsageError
from plural_text.common.program import program
from plural_text.metrics.judge import read_template as read_judge
from plural_text.prepare.templates import format_of
from plural_text.sweep.expand import matches, settings_of
from plural_text.sweep.sweep_file import read_sweep
from released_prompts import write_released_prompts
from text.support import FolderTest

PLACES = {
    "model": "MODEL",
    "data": "DATA",
    "corpora": "CORPORA",
    "recipes": str(ROOT / "recipes"),
    "judges": str(reproduce.JUDGES),
}
# Recipe keys that say where things are; all others of a table's run are the recipe's.
OWN_PLACES = ("name", "base", "model", "data", "run", "seed", "log")
MISTRAL_7B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 32000,
}


# The shape of the released code, in words of ours; what it imports is not there.
RELEASED = """
from nowhere import add_personAB
OPEN = "[INST] "
raise SystemExit("the file was run")
def dialog_prompt(context, option = None, tuning = False):
    end = "[/INST]" if tuning else "[/INST] B:"
    return OPEN + add_personAB(context) + (" " if type(option) != int else " as " + str(option)) + end
def dialog_listing(context, N):
    return add_personAB(context) + " " + str(N) + " times [/INST] 1:"
"""


def tables():
    """The studies of real weights, which have one table each."""
    for name in arguments.study_names():
        file = arguments.STUDIES / f"{name}.yaml"
        for family in families_of(file):
            yield read_definition(file, family, FULL, PLACES)


def first_stage(name, family="mistral"):
    return read_definition(arguments.STUDIES / f"{name}.yaml", family, FULL, PLACES).stages[0]


class Definitions(FolderTest):
    def settings(self, table, stage=0):
        file = self.folder / "sweep.yaml"
        file.write_text(yaml.safe_dump({**table.stages[stage].sweep, "dir": str(self.folder)}))
        sweep = read_sweep(file)
        return sweep, settings_of(sweep)

    def test_every_row_is_one_setting_that_is_measured_so(self):
        for table in tables():
            of_stage = {
                stage.name: self.settings(table, place)[1] for place, stage in enumerate(table.stages)
            }
            for row in table.rows.values():
                if row.setting is None:
                    self.assertTrue(row.published, row.title)
                    continue
                with self.subTest(table=table.name, family=table.family, row=row.title):
                    found = [one for one in of_stage[row.stage] if matches(row.setting, one.chosen)]
                    self.assertEqual(len(found), 1)
                    measured = {f"{one.name}.{step}" for one in found[0].evaluations for step in one.steps}
                    if not row.at:  # the columns name evaluation and step
                        figures = [column.figure for one in table.tables for column in one.columns]
                        own = [figure for figure in figures if not figure.startswith("moved.")]
                        self.assertLessEqual({".".join(name.split(".")[:2]) for name in own}, measured)
                        continue
                    name, step, *_ = row.at.split(".")
                    (evaluation,) = [one for one in found[0].evaluations if one.name == name]
                    self.assertIn(step, evaluation.steps)
                    if step == "persona":
                        continue
                    corpus = Path(evaluation.steps["generate"]["corpus"])
                    self.assertIn(corpus.stem, [one.name for one in table.corpora if one.prompts_only])

    def test_what_is_published_stands_in_a_column(self):
        for table in tables():
            for one in table.tables:
                columns = {column.figure for column in one.columns}
                for row in one.rows:
                    self.assertLessEqual(set(row.published), columns, f"{table.name}: {row.title}")
                titles = [row.title for row in one.rows]
                self.assertEqual(len(titles), len(set(titles)))

    def test_runs_have_the_settings_of_the_shipped_recipes(self):
        """Those that the papers and their code have (docs/methods.md); precision alone is the table's."""
        shipped = {
            ("possibility-1", "otoft"): "otoft-mistral-7b",
            ("possibility-1", "otmft"): "otmft-mistral-7b",
            ("possibility-1", "poexft"): "poexft-mistral-7b",
            ("possibility-2", "otmft"): "otmft-llama2-7b",
            ("possibility-3", "cvf"): "cvf-mistral-7b",
            ("possibility-3", "poexft"): "poexft-mistral-7b",
            ("possibility-4", "otoft"): "otoft-mistral-7b",
            ("possibility-4", "poexft"): "poexft-mistral-7b",
            ("possibility-5", "cvf"): "cvf-mistral-7b",
            ("possibility-5", "poexft"): "poexft-mistral-7b",
            ("possibility-2", "poexft"): "poexft-llama2-7b",
            ("diffuse-5-6", "all-tasks"): "distribution-matching-mistral-7b",
        }
        compared = 0
        for table in tables():
            if table.family == "gemma":
                continue
            sweep, settings = self.settings(table)
            for setting in settings:
                name = shipped.get((table.name, setting.label))
                if name is None or (table.name.startswith("diffuse") and table.family != "mistral"):
                    continue
                with self.subTest(table=table.name, setting=setting.label):
                    text = {
                        "base": [str(base) for base in sweep.bases],
                        "name": "x",
                        **_nested(setting.overrides),
                    }
                    ours, theirs = (
                        self.resolved(text),
                        self.resolved({"base": str(ROOT / f"recipes/{name}.yaml")}),
                    )
                    self.assertEqual(ours, theirs)
                    compared += 1
        self.assertEqual(compared, len(shipped))

    def resolved(self, recipe):
        file = self.folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe))
        done = subprocess.run([program(), "validate", str(file)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {key: value for key, value in yaml.safe_load(done.stdout).items() if key not in OWN_PLACES}

    def test_personas_are_asked_as_published(self):
        """P1, appendix A.4 (docs/methods.md): 300 conversations, 50 likeliest tokens, t = 1, nine numbers."""
        for table in (one for one in tables() if one.name == "possibility-4"):
            _, settings = self.settings(table)
            asked = {one.label: one.evaluations[0].steps["persona"] for one in settings}
            self.assertEqual(set(asked), {"otoft", "otmft", "poexft", "untrained"})
            for label, options in asked.items():
                found = [
                    options.get(name, 0)
                    for name in ("conversations", "top-k", "temperature", "possibilities")
                ]
                self.assertEqual(found, [300, 50, 1.0, 9 if label == "poexft" else 0])

    def test_mistakes_in_stages_and_checks(self):
        good = {
            "title": "t",
            "source": "",
            "stages": [{"name": "a", "sweep": {}, "once": True}, {"name": "b", "sweep": {}, "seeds_plus": 7}],
            "columns": [{"figure": "x", "title": "x"}],
            "rows": [{"title": "r", "setting": {}}, {"title": "s", "setting": {}, "stage": "a"}],
            "checks": [{"says": "c", "figure": "x", "rising": ["r", "s"]}],
        }
        file = self.folder / "study.yaml"

        def read(**changes):
            values = {key: one for key, one in {**good, **changes}.items() if one is not None}
            file.write_text(yaml.safe_dump(values))
            return read_definition(file, "", FULL, PLACES)

        study = read()
        self.assertEqual([stage.seeds([3, 4]) for stage in study.stages], [[3], [10, 11]])
        self.assertEqual([stage.link("m") for stage in study.stages], ["m", "m-seed-{seed}"])
        self.assertEqual([row.stage for row in study.tables[0].rows], ["b", "a"])
        row, check = good["rows"][0], good["checks"][0]
        for words, changes in (
            ("has either sweep or stages", {"sweep": {}}),
            ("has either rows or tables", {"tables": []}),
            ("has the name 'a', as an earlier stage", {"stages": [good["stages"][0]] * 2}),
            ("has no 'c', which row 'r' names", {"rows": [{**row, "stage": "c"}]}),
            ("has two rows 'r'; give one of them a name", {"rows": [row, {**row, "at": "t"}]}),
            ("rising takes two rows or more", {"checks": [{**check, "rising": ["r"]}]}),
            ("has one of rising, .*; or way", {"checks": [{**check, "row": "r"}]}),
            (
                "way takes three rows, and more_than",
                {"checks": [{"says": "c", "figure": "x", "way": ["r", "s"]}]},
            ),
            ("has no program", {"material": {"reads": []}}),
            ("has no 'small'; this study has no other size", None),
        ):
            with self.subTest(words), self.assertRaisesRegex(BadRecipe, words):
                if changes is None:
                    read()
                    read_definition(file, "", SMALL, PLACES)
                read(**(changes or {}))

    def test_mistakes_in_a_definition(self):
        good = (arguments.STUDIES / "diffuse-4.yaml").read_text()
        file = self.folder / "table.yaml"
        for old, new, words in (
            (
                "  mistral: {template",
                "  mistral7: {template",
                "has no 'mistral'; its models are of gemma, llama2",
            ),
            ('rising: ["RNG, base"', 'rising: ["RNG base"', "names 'RNG base', which is the title of no row"),
            ("pictures:", "picture:", "picture is no key; known are title, source"),
            ("kind: scatter", "kind: pie", "has kind 'pie'; kinds are scatter, ranked"),
            ("prompts: [rng-0]", "top_k: 1", "top_k is no key; known are kind, title"),
        ):
            self.assertEqual(good.count(old), 1, old)
            file.write_text(good.replace(old, new))
            with self.assertRaisesRegex(BadRecipe, words):
                read_definition(file, "mistral", FULL, PLACES)


def _nested(values):
    found = {}
    for key, value in values.items():
        inner = found
        *sections, last = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return found


class Outcome(unittest.TestCase):
    def study(self, *checks, stages=None):
        row, column = definition.Row, definition.Column
        base = row("base", {"untrained": True}, "hot.metrics", {"diversity": 0.3, "steps": 1})
        tables = (
            definition.Table(
                "Title",
                (column("diversity", "diversity", 2), column("steps", "x base", 1, base)),
                (
                    base,
                    row("tuned", {"method": "otmft"}, "cold.metrics", {"diversity": 0.5}),
                    row("natural", None, "", {"diversity": 0.9}),
                ),
            ),
        )
        checks = checks or (
            definition.Check("rises", ("diversity",), ("base", "tuned")),
            definition.Check("stays low", ("diversity",), ("tuned",), at_most=0.2),
        )
        return definition.Definition(
            "t",
            "Title",
            "a paper, Table 9",
            "mistral",
            None,
            (),
            stages or (definition.Stage("", {}),),
            tables,
            checks,
            (),
            ({"kind": "scatter", "x": "steps", "y": "diversity"},),
            ("A word of ours.",),
        )

    SWEPT = {
        "arms": [
            {"arm": "otmft", "settings": {"method": "otmft"}},
            {"arm": "untrained", "settings": {"untrained": True}},
        ],
        "rows": [
            {
                "arm": "otmft",
                "seed": seed,
                "figures": {"cold.metrics.diversity": 0.4, "cold.metrics.steps": 30},
            }
            for seed in (1, 2)
        ]
        + [
            {
                "arm": "untrained",
                "seed": 1,
                "figures": {"hot.metrics.diversity": 0.1, "hot.metrics.steps": 10},
            },
            {
                "arm": "untrained",
                "seed": 2,
                "figures": {"hot.metrics.diversity": 0.3, "hot.metrics.steps": 20},
            },
        ],
    }

    def test_rows_have_their_figures_beside_the_published_ones(self):
        found = outcome.fill(self.study(), {"": self.SWEPT}, [1, 2])
        # A multiple is of the same seed: 30 / 10 and 30 / 20.
        self.assertEqual(found.values("tuned", "steps"), {1: 3.0, 2: 1.5})
        lines = [
            [cell.strip() for cell in line.split("|")[1:-1]]
            for line in found.text().splitlines()
            if "|" in line
        ]
        by_title = {line[0]: line for line in lines}
        self.assertTrue(by_title["tuned"][1].startswith("0.40 ±"))
        self.assertEqual(by_title["tuned"][2], "0.50")
        self.assertEqual(by_title["natural"], ["natural", "-", "0.90", "-", "-"])
        self.assertIn("yes  rises", found.text())
        self.assertIn("NO   stays low", found.text())
        self.assertFalse(found.all_hold)
        self.assertIn("Published: a paper, Table 9.\nA word of ours.", found.text())

    def test_a_row_that_means_no_setting_or_several(self):
        for arms in ([], [*self.SWEPT["arms"], {"arm": "otmft+2", "settings": {"method": "otmft"}}]):
            with self.assertRaisesRegex(BadData, "row '.*' means (0|2) settings"):
                outcome.fill(self.study(), {"": {**self.SWEPT, "arms": arms}}, [1, 2])

    def test_a_setting_that_others_extend_is_meant_where_it_is_named_exactly(self):
        settings = [{"method": "otmft", "train.epochs": 8}, {"method": "otmft"}, {"untrained": True}]
        self.assertEqual(stages.meant({"method": "otmft"}, settings), [1])
        self.assertEqual(stages.meant({"train.epochs": 8}, settings), [0])
        self.assertEqual(stages.meant({"method": "cvf"}, settings), [])

    def test_a_row_of_a_stage_with_other_seeds_is_that_of_the_seed_asked_for(self):
        swept = {**self.SWEPT, "rows": [{**run, "seed": run["seed"] + 1000} for run in self.SWEPT["rows"]]}
        moved = self.study(stages=(definition.Stage("", {}, seeds_plus=1000),))
        self.assertEqual(outcome.fill(moved, {"": swept}, [1, 2]).values("tuned", "steps"), {1: 3.0, 2: 1.5})
        self.assertEqual(outcome.fill(moved, {"": swept}, [2]).values("tuned", "steps"), {2: 1.5})

    def test_what_only_left_out_is_not_run_and_no_failure(self):
        check = definition.Check("stays", ("diversity",), ("tuned",), at_least=0.1)
        found = outcome.fill(self.study(check), {}, [1, 2], "untrained")
        self.assertIn("not run  stays  (no figures of tuned, which --only left out)", found.text())
        self.assertTrue(found.all_hold)
        self.assertFalse(outcome.fill(self.study(check), {}, [1, 2]).all_hold)

    def test_rising_by_so_much_or_so_many_times_in_each_figure(self):
        # Means: 0.2 and 0.4, of steps over the base's 1 and 2.25.
        for holds, how in (
            (True, {"by": 0.19}),
            (False, {"by": 0.21}),
            (True, {"times": 1.9}),
            (False, {"times": 2.1}),
        ):
            check = definition.Check("rises", ("diversity", "steps"), ("base", "tuned"), **how)
            found = outcome.fill(self.study(check), {"": self.SWEPT}, [1, 2])
            self.assertEqual(found.all_hold, holds, how)
        check = definition.Check("rises", ("steps", "diversity"), ("tuned", "base"))
        self.assertFalse(outcome.fill(self.study(check), {"": self.SWEPT}, [1, 2]).all_hold)

    def test_figures_are_named_with_at_before_in_or_without(self):
        row = definition.Row("r", {}, "best-")
        self.assertEqual(row.figure("{at}t050.program.x"), "best-t050.program.x")
        self.assertEqual(row.figure("/training.program.steps"), "training.program.steps")
        self.assertEqual(definition.Row("r", {}, "t").figure("program.x"), "t.program.x")

    def test_the_picture_has_ours_filled_and_the_paper_open(self):
        study = self.study()
        swept = {"": self.SWEPT}
        measured = Measured(study, {}, swept)
        (drawn,) = pictures.pictures(study, outcome.fill(study, swept, [1, 2]), measured)
        by_name = {trace["name"]: trace for trace in drawn.traces}
        self.assertEqual(set(by_name), {"base", "base (published)", "tuned"})
        self.assertEqual((by_name["tuned"]["x"], by_name["tuned"]["y"]), ([2.25], [0.4]))
        self.assertGreater(by_name["tuned"]["error_x"]["array"][0], 0)
        self.assertEqual(by_name["base (published)"]["marker"]["symbol"], "circle-open")
        self.assertEqual(drawn.layout["yaxis"]["title"]["text"], "diversity")


class Cost(unittest.TestCase):
    def test_conversations_cost_what_each_turn_reads_and_says(self):
        # Behind openings of four turns the model says every second utterance, the 6th to the 30th; a turn has
        # at most 10 tokens here, and all before it are read.
        said = range(6, 31, 2)
        tokens = sum(10 * (utterance - 1) + 10 for utterance in said)
        asked = {"conversations": 2, "max-new-tokens": 10}
        self.assertAlmostEqual(cost.persona_gflop(10**9, asked), 2 * 2 * tokens)

    def test_weights_of_mistral_7b(self):
        # 7,241,732,096 in all, without the table of embeddings and the weights of norms.
        norms = (2 * 32 + 1) * 4096
        self.assertEqual(cost.matrix_parameters(MISTRAL_7B), 7_241_732_096 - 32000 * 4096 - norms)

    def test_answers_cost_their_prompts_once_and_their_tokens(self):
        import h5py

        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "prompts.h5"
            with h5py.File(corpus, "w") as file:
                file["prompt_offsets"] = [0, 10, 30, 60]
            asked = {"corpus": corpus, "preset": "dialogue"}
            self.assertAlmostEqual(cost.answer_gflop(10**9, asked, 20), 2 * (60 + 3 * 5 * 64))
            asked |= {"limit": 2, "responses": 3, "max-new-tokens": 7}
            self.assertAlmostEqual(cost.answer_gflop(10**9, asked, 20), 2 * (30 + 2 * 3 * 7))
            # Every latent answers, and the question about each answer is read with it.
            asked |= {"latents": "all", "rerank": 5, "rating-corpus": corpus}
            passed = 30 + 2 * 20 * 7 + 20 * (30 + 2 * 7)
            self.assertAlmostEqual(cost.answer_gflop(10**9, asked, 20), 2 * passed)


class CommandLine(FolderTest):
    def setUp(self):
        super().setUp()
        self.model = self.folder / "model"
        self.model.mkdir()
        self.config = {"model_type": "mistral"}
        (self.model / "config.json").write_text(json.dumps(self.config))
        (self.folder / "data").mkdir()

    def call(self, *words):
        usual = ("--model", str(self.model), "--data", str(self.folder / "data"))
        return reproduce.run(arguments.parse(["diffuse-4", str(self.folder / "out"), *usual, *words]))

    def test_mistakes(self):
        with self.assertRaisesRegex(
            MissingInput, "rng-0.json: not there; docs/data.md says where it comes from"
        ):
            self.call()
        with self.assertRaisesRegex(UsageError, "1 --judge and 0 --judge-model"):
            self.call("--judge", "http://localhost:1/v1")
        with self.assertRaisesRegex(BadRecipe, "has no 'qwen'; its models are of gemma, llama2, mistral"):
            self.call("--family", "qwen")
        with self.assertRaisesRegex(UsageError, "'diffuse-9' is no study; there are ablations, dialogue, "):
            arguments.parse(["diffuse-9", "--model", "m", "--data", "d"])
        with self.assertRaisesRegex(MissingInput, "own.yaml: not there; name a study or the file"):
            arguments.parse(["own.yaml"])
        (self.model / "config.json").write_text('{"model_type": "qwen2"}')
        with self.assertRaisesRegex(
            UsageError, "model_type is 'qwen2', and the table is about gemma, llama2"
        ):
            self.call()

        with self.assertRaisesRegex(UsageError, r"story takes no --model: it makes its own"):
            reproduce.run(arguments.parse(["story", "--model", str(self.model)]))
        with self.assertRaisesRegex(UsageError, r"diffuse-4 needs --data DIR"):
            reproduce.run(arguments.parse(["diffuse-4", "--model", str(self.model)]))

    def test_judges_are_asked_only_where_there_are_some(self):
        study = read_definition(arguments.STUDIES / "possibility-1.yaml", "mistral", FULL, PLACES)
        usual = [
            "possibility-1",
            "--model",
            "m",
            "--data",
            "d",
            "--generate",
            "limit=3",
            "--set",
            "optimizer.lr=1e-4",
        ]
        judges = [
            "--judge",
            "http://a/v1",
            "--judge-model",
            "a",
            "--judge",
            "http://b/v1",
            "--judge-model",
            "b",
        ]
        for words, asked in (([], False), (judges, True)):
            options = arguments.parse([*usual, *words])
            stages.write_sweep(study.stages[0], self.folder, options)
            sweep = yaml.safe_load((self.folder / "sweep.yaml").read_text())
            for one in sweep["evaluate"]:
                self.assertEqual("incoherence" in one["metrics"]["metrics"], asked)
                self.assertEqual(
                    one["metrics"].get("judge"), ["http://a/v1", "http://b/v1"] if asked else None
                )
            self.assertEqual(stages.changes(study, options), ["optimizer.lr = 0.0001", "limit = 3"])

    def test_the_first_judge_talks_with_personas_else_a_script_does(self):
        stage = first_stage("possibility-4")
        usual = ["possibility-4", "--model", "m", "--data", "d", "--persona", "conversations=7"]
        judge = ["--judge", "http://a/v1", "--judge-model", "a", "--judge-key-variable", "KEY"]
        for words in ([], judge):
            stages.write_sweep(stage, self.folder, arguments.parse([*usual, *words]))
            for setting in settings_of(read_sweep(self.folder / "sweep.yaml")):
                asked = setting.evaluations[0].steps["persona"]
                self.assertEqual(asked["conversations"], 7)
                self.assertEqual("questions" in asked, not words)
                self.assertEqual("openings" in asked, bool(words))
                for part in ("seeker", "extractor", "mapper"):
                    self.assertEqual(asked.get(part), "http://a/v1" if words else None)
                self.assertEqual(asked.get("key-variable"), "KEY" if words else None)

    def test_a_later_stage_is_planned_before_what_it_starts_from_is_there(self):
        places = {**PLACES, **reproduce.places(None, None, self.folder)}
        last = read_definition(arguments.STUDIES / "diffuse-7-8.yaml", "llama2", FULL, places).stages[-1]
        stages.write_sweep(last, self.folder, arguments.parse(["diffuse-7-8", "--seeds", "1,2"]))
        planned = yaml.safe_load(stages.plan_file(last, self.folder).read_text())
        self.assertNotIn("adapter.init_from", planned["set"])
        # What would be run starts from it all the same.
        self.assertIn("adapter.init_from", stages.sweep_file(self.folder, last).read_text())
        for seed in (1, 2):
            (self.folder / f"models/six-tasks-seed-{seed}").mkdir(parents=True)
        self.assertEqual(stages.plan_file(last, self.folder), stages.sweep_file(self.folder, last))

        # A model that a stage makes has a stand-in: a folder with its shape.
        first, second = read_definition(arguments.STUDIES / "middle.yaml", "", FULL, places).stages
        for stage in (first, second):
            stages.write_sweep(stage, self.folder, arguments.parse(["middle", "--seeds", "5"]))
        shape = {"hidden_size": 8}
        run = SimpleNamespace(
            seed=5,
            setting=SimpleNamespace(label="run", chosen={}),
            recipe={"model": {"config": shape}, "adapter": {"type": "none"}},
        )
        stages.stand_in_models(first, SimpleNamespace(settings=[run.setting], runs=[run]), self.folder)
        path = Path(yaml.safe_load(stages.plan_file(second, self.folder).read_text())["set"]["model.path"])
        self.assertEqual(json.loads((path / "config.json").read_text()), shape)
        self.assertNotEqual(path, self.folder / "models/pretrained")

    def test_a_failed_run_ends_a_submission_with_its_code(self):
        failure = {"exit_code": 65, "step": "train", "message": "a broken corpus"}
        options = arguments.parse(["middle", "--submit"])
        stage = definition.Stage("pretrained", {})
        for state, code in (("failed", 65), ("running", None)):
            folder = SimpleNamespace(
                state=lambda run, state=state: state,
                row=lambda run: None,
                failure=lambda run, state=state: failure if state == "failed" else None,
            )
            planned = SimpleNamespace(folder=folder, runs=[SimpleNamespace(label="run-s1")])
            with mock.patch.object(stages, "_sweep", return_value=0), redirect_stdout(io.StringIO()) as said:
                self.assertEqual(stages.run_stage(planned, stage, self.folder, options), code)
            self.assertIn("broken corpus" if code else "the same command goes on", said.getvalue())

    def test_what_the_user_sets_goes_before_what_the_table_sets_for_some(self):
        stage = first_stage("possibility-3")
        words = ["--set", "train.groups_per_step=5", "--generate", "responses=3", "--generate", "device=cuda"]
        usual = ["possibility-3", "--model", "m", "--data", "d"]
        stages.write_sweep(stage, self.folder, arguments.parse([*usual, *words]))
        settings = settings_of(read_sweep(self.folder / "sweep.yaml"))
        self.assertEqual([one.label for one in settings], ["cvf", "poexft", "untrained"])
        for setting in settings:
            self.assertEqual(setting.overrides["train.groups_per_step"], 5)
            for one in setting.evaluations:
                asked = one.steps["generate"]
                self.assertEqual((asked["responses"], asked["device"]), (3, "cuda"))

    def test_a_tokenizer_is_the_files_that_export_copies(self):
        source = (ROOT / "trainer/files/hf_folder.cc").read_text()
        names = re.search(r"kTokenizerFiles = \{(.*?)\};", source, re.DOTALL)[1]
        self.assertEqual(tuple(re.findall(r'"(.*?)"', names)), stages._TOKENIZER_FILES)

    def test_prompts_of_released_code(self):
        clone = self.folder / "clone"
        clone.mkdir()
        (clone / "prompt_generator.py").write_text(RELEASED)
        judge = 'def eval_dialog(context, response):\n    return context + " then " + response\n'
        (clone / "utils.py").write_text(f"import nowhere\n{judge}")
        names = write_released_prompts(clone, self.folder / "prompts")
        found = {name: json.loads((self.folder / f"prompts/{name}.json").read_text()) for name in names}
        names_of = ("llama2-dialogue", "llama2-dialogue-base", "mistral-list-dialogue")
        tuned, base, listed = (found[name] for name in names_of)
        self.assertEqual(tuned["prompt"], "[INST] {context} [/INST]")
        self.assertEqual(tuned["prompt_with_number"], "[INST] {context} as {k}[/INST]")
        self.assertEqual(base["prompt"], "[INST] {context} [/INST] B:")
        self.assertEqual(listed["prompt_with_count"], "{context} {k} times [/INST] 1:")
        self.assertEqual(found["coherence"]["prompt"], "{context} then {response}")
        # Each is a template in the place of one of ours; a judge asks in its words where a table has none.
        for name in names[:-1]:
            self.assertEqual(format_of(str(self.folder / f"prompts/{name}.json")), "dialogue")
            self.assertEqual(format_of(name), "dialogue")
        read_judge(self.folder / "prompts/coherence.json")
        options = reproduce.parse(["possibility-1", "--judge", "http://j", "--judge-model", "j"])
        options.prompts = self.folder / "prompts"
        asked = {"metrics": {"metrics": "incoherence"}}
        judges.put_judges(asked, options)
        self.assertEqual(asked["metrics"]["judge-template"], str(options.prompts / "coherence.json"))
        (clone / "utils.py").write_text("import nowhere\n")
        with self.assertRaisesRegex(BadData, "utils.py: has no function eval_dialog"):
            write_released_prompts(clone, self.folder / "prompts")
        with self.assertRaisesRegex(MissingInput, "prompt_generator.py: not there"):
            write_released_prompts(self.folder, self.folder / "prompts")


if __name__ == "__main__":
    unittest.main()

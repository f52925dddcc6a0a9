"""Sweep files, what they come to, and what seeds say: everything that needs no training."""

import json
import math
import os
import random
import subprocess
import threading
import time
from pathlib import Path
from unittest import TestCase, mock

import numpy
from scipy import stats

from plural_text.common.errors import BadRecipe, MissingInput, UsageError
from plural_text.sweep import schema, statistics
from plural_text.sweep.expand import baseline_of, settings_of
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.identity import Run
from plural_text.sweep.places import places
from plural_text.sweep.planned import plan
from plural_text.sweep.processes import Processes
from plural_text.sweep.search import SearchStudy
from plural_text.sweep.sweep_file import read_sweep
from plural_text.sweep.table import make_table, markdown
from text.support import FolderTest

ROOT = Path(__file__).resolve().parents[2]
GRID = """
base: base.yaml
grid:
  method: [otmft, poexft]
  loss.unlikelihood.alpha: [0.25, 1]
when:
  - {if: {method: otmft}, drop: [loss.unlikelihood.alpha]}
  - {if: {method: poexft}, set: {group: {possibilities: 5}, evaluate.generate.possibilities: sample}}
seeds: [1, 2]
baseline: {method: otmft}
evaluate: {generate: {corpus: p.h5}, metrics: {metrics: distinct}}
"""


class SweepTest(FolderTest):
    def read(self, text):
        (self.folder / "base.yaml").write_text("name: base\n")
        (self.folder / "sweep.yaml").write_text(text)
        return read_sweep(self.folder / "sweep.yaml")


class SweepFiles(SweepTest):
    def refused(self, words, text, kind=BadRecipe):
        with self.assertRaisesRegex(kind, words):
            sweep = self.read(text)
            baseline_of(sweep, settings_of(sweep))

    def test_a_grid_with_conditions(self):
        sweep = self.read(GRID)
        settings = settings_of(sweep)
        self.assertEqual([one.label for one in settings], ["otmft", "poexft-alpha0.25", "poexft-alpha1"])
        self.assertEqual(settings[0].overrides, {"method": "otmft"})
        self.assertEqual(settings[1].overrides["group.possibilities"], 5)
        self.assertEqual(settings[1].evaluations[0].steps["generate"]["possibilities"], "sample")
        self.assertNotIn("possibilities", settings[0].evaluations[0].steps["generate"])
        self.assertEqual(settings[1].evaluations[0].steps["generate"]["corpus"], "p.h5")
        self.assertIs(baseline_of(sweep, settings), settings[0])

    def test_zip_include_exclude(self):
        sweep = self.read(
            "base: base.yaml\n"
            "zip: {adapter.rank: [2, 4], adapter.alpha: [4, 8]}\n"
            "grid: {optimizer.lr: [1e-5, 1.0e-4]}\n"
            "include: [{adapter.rank: 64}]\n"
            "exclude: [{adapter.rank: 2, optimizer.lr: 0.0001}]\n"
        )
        self.assertEqual(
            [dict(one.chosen) for one in settings_of(sweep)],
            [
                {"optimizer.lr": 1e-5, "adapter.rank": 2, "adapter.alpha": 4},
                {"optimizer.lr": 1e-5, "adapter.rank": 4, "adapter.alpha": 8},
                {"optimizer.lr": 1e-4, "adapter.rank": 4, "adapter.alpha": 8},
                {"adapter.rank": 64},
            ],
        )

    def test_without_axes_there_is_one_setting(self):
        (one,) = settings_of(self.read("base: base.yaml\nset: {optimizer: {lr: 1.0}}\n"))
        self.assertEqual((one.label, one.overrides), ("run", {"optimizer.lr": 1.0}))

    def test_mistakes(self):
        base = "base: base.yaml\n"
        self.refused(r"sweep.yaml:2: unknown key 'gird'; did you mean 'grid'", base + "gird: {}")
        self.refused("base is missing", "seeds: [1]")
        self.refused("no recipe at", "base: other.yaml", MissingInput)
        self.refused(r"sweep.yaml:3: 'seeds' stands there twice", base + "seeds: [1]\nseeds: [2]")
        self.refused("seed 1 stands there twice", base + "seeds: [1, 1]")
        self.refused("seeds has True", base + "seeds: [true]")
        self.refused("seed cannot be set in a sweep: the key seeds gives them", base + "grid: {seed: [1, 2]}")
        self.refused("run.dir cannot be set", base + "set: {run: {dir: x}}")
        self.refused("method is 'otmft'; grid takes a list", base + "grid: {method: otmft}")
        self.refused("method has 'a' twice", base + "grid: {method: [a, a]}")
        self.refused("a has 2, b has 1", base + "zip: {a: [1, 2], b: [1]}")
        self.refused("stands in grid or zip twice", base + "grid: {a: [1]}\nzip: {a: [2]}")
        self.refused("exclude leaves no setting", base + "grid: {a: [1]}\nexclude: [{a: 1}]")
        self.refused("did you mean method", base + "grid: {method: [a]}\nexclude: [{methods: a}]")
        self.refused("baseline means no setting", base + "grid: {a: [1]}\nbaseline: {a: 2}")
        self.refused("baseline means 2: ", base + "grid: {a: [1], b: [1, 2]}\nbaseline: {a: 1}")
        self.refused("on_failure is 'retry'; allowed are continue, stop", base + "on_failure: retry")
        self.refused("ranks is 0; a whole number", base + "ranks: 0")
        self.refused("output is given by the sweep", base + "evaluate: {generate: {output: x}}")
        self.refused("program names no {output}", base + "evaluate: {program: measure.py}")
        self.refused("program is a text", base + "evaluate: {program: [1]}")
        self.refused("add generate", base + "evaluate: {metrics: {}}")
        self.refused(
            "when sets evaluate.generate.x, which is no",
            base + "when: [{if: {}, set: {evaluate.generate.x: 1}}]",
        )
        self.refused("pareto.y is missing", base + "pareto: {x: a}")
        self.refused(
            "leave one of them",
            base + "grid: {a: [1]}\nsearch: {trials: 1, objectives: {f: maximize}, space: {a: [1]}}",
        )
        self.refused(
            "low: NUMBER",
            base + "search: {trials: 1, objectives: {f: maximize}, space: {a: {low: 2, high: 1}}}",
        )
        self.refused("not valid YAML", base + "grid: {a: [")
        self.refused("no text, number or true/false", base + "set: {a: 2026-01-01}")
        self.refused("name is 'a/b'", base + "name: a/b")
        self.refused(r"name is 'a\\x00b'", base + 'name: "a\\0b"')
        self.refused(r"^[^\n]*sweep.yaml: unacceptable character #x0001[^\n]*$", base + "name: a\x01")

    def test_what_yaml_can_hold_beside_values(self):
        base = "base: base.yaml\n"
        self.refused("sweep.yaml:2: '2026-13-45' is no text", base + "set: {a: 2026-13-45}")
        self.refused("lie too deep", base + "set: " + "[" * 20000)
        self.refused("lie too deep within each other, or hold themselves", base + "set: &a {b: *a}")
        lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
        self.refused("more than 100,000 values", base + "a0: &a0 [1]\n" + "\n".join(lines))
        self.refused("zip is 0; it takes", base + "zip: 0")
        self.refused("generate is a mapping", base + "evaluate: {generate: 0}")
        self.refused("metrics is a mapping", base + "evaluate: {generate: {}, metrics: []}")
        self.refused("cannot be split into words", base + 'evaluate: {program: "it\'s {output}"}')
        self.refused("an evaluation's name", base + "evaluate: {name: a/b, generate: {}}")
        self.refused("an evaluation's name", base + "evaluate: {name: 3, generate: {}}")
        self.refused("add generate", base + "evaluate: {program: [x, '{output}', '--in={responses}']}")
        self.assertEqual(self.read(base + "zip: {}\n").zips, ())
        self.assertEqual(self.read(base + "evaluate: {generate: }\n").evaluations[0].steps, {"generate": {}})

    def test_keys_that_are_set_twice_or_not_here(self):
        base = "base: base.yaml\n"
        self.refused("optimizer.lr stands there twice", base + "set: {optimizer: {lr: 1}, optimizer.lr: 2}")
        self.refused("a is set as a whole, and so is a.b", base + "set: {a.b: 1, a: 2}")
        self.refused("run.threads cannot be set", base + "set: {run: {threads: 2}}")
        condition = base + "evaluate: {generate: {}, program: [x, '{output}']}\nwhen: [{if: {}, set: %s}]"
        for option in ("model", "responses-file"):
            self.refused(f"{option} is given by the sweep", condition % f"{{evaluate.generate.{option}: a}}")
        self.refused("is given by the sweep", condition % "{evaluate: {generate: {output: a}}}")
        self.refused("words of a program are the same", condition % "{evaluate.program.words: [a]}")
        self.refused("base of all runs is a key beside set", base + "set: {base: base.yaml}")

    def test_bases_of_some_settings_and_of_a_seed(self):
        base = "base: base.yaml\n"
        self.refused("there are no seeds; give seeds", "base: 's{seed}.yaml'\n")
        (self.folder / "s1.yaml").write_text("seed: 1\n")
        text = "base: [base.yaml, 's{seed}.yaml']\nseeds: [1]\ngrid: {base: [s1.yaml, base.yaml]}\n"
        sweep = self.read(text)
        settings = settings_of(sweep)
        self.assertEqual([one.label for one in settings], ["s1", "base"])
        files = sweep.bases_of(settings[0].overrides, 1)
        self.assertEqual([file.name for file in files], ["base.yaml", "s1.yaml", "s1.yaml"])
        self.refused("no recipe at '.*s2.yaml'", text.replace("[1]", "[1, 2]"), MissingInput)
        self.refused("no recipe at '.*none.yaml'", base + "include: [{base: none.yaml}]", MissingInput)
        self.refused("base is a recipe file, here is 3", base + "grid: {base: [3]}")

    def test_what_a_search_cannot_have(self):
        text = (
            "base: base.yaml\nsearch: {trials: 1, objectives: {f: maximize}, space: {a: %s}}\nset: {b: 1}\n"
        )
        for key, value in (("exclude", "[{b: 1}]"), ("baseline", "{b: 1}"), ("zip", "{c: [1]}")):
            self.refused(f"sweep.yaml:4: {key} stands beside search", text % "[1]" + f"{key}: {value}")
        self.refused("drop stands beside search", text % "[1]" + "when: [{if: {}, drop: [b]}]")
        for space, words in (
            ("{low: 0, high: 1, step: 0}", "step is 0; it takes a number above 0"),
            ("{low: 0, high: 1, step: .nan}", "step is '.nan'"),
            ("{low: 0, high: .inf}", "low: NUMBER"),
            ("{low: .nan, high: 1}", "low: NUMBER"),
            ("[1, 2, 1.0]", "a has 1.0 twice"),
        ):
            self.refused(words, text % space)
        for key in ("seed", "run.dir", "name"):
            self.refused(f"{key} cannot be set in a sweep", (text % "[1]").replace("a:", f"{key}:"))
        with self.assertRaisesRegex(BadRecipe, "when names c, which neither"):
            self.read(text % "[1]" + "when: [{if: {c: 1}, set: {b: 2}}]")
            plan(self.folder / "sweep.yaml")

    def test_every_key_is_described(self):
        for part, keys in schema.PARTS.items():
            for key in keys:
                with self.subTest(part=part, key=key.name):
                    self.assertTrue(key.description.endswith("."))
                    self.assertTrue(key.takes)
        self.assertIn(schema.reference(), (ROOT / "docs/sweeps.md").read_text())


class Statistics(TestCase):
    """scipy's own tests are what the figures must equal."""

    def setUp(self):
        self.draw = random.Random(3)

    def test_paired_differences(self):
        for seeds in (2, 3, 10):
            base = {seed: self.draw.gauss(0, 1) for seed in range(seeds)}
            other = {seed: value + self.draw.gauss(0.5, 0.3) for seed, value in base.items()}
            other[99] = 1e9  # a seed that the baseline lacks is in no pair
            found = statistics.paired(other, base)
            test = stats.ttest_rel([other[seed] for seed in base], list(base.values()))
            interval = test.confidence_interval(0.95)
            self.assertEqual(found.seeds, seeds)
            self.assertAlmostEqual(found.p, test.pvalue, delta=1e-12)
            self.assertAlmostEqual(found.interval.low, interval.low, delta=1e-9)
            self.assertAlmostEqual(found.interval.high, interval.high, delta=1e-9)
        self.assertIsNone(statistics.paired({1: 1.0}, {2: 1.0}))
        self.assertIsNone(statistics.paired({1: 2.0}, {1: 1.0}).p)
        self.assertIsNone(statistics.paired({1: 2.0, 2: 3.0}, {1: 1.0, 2: 2.0}).p)

    def test_seeds_needed_reach_the_power(self):
        """Drawn studies of that many seeds find the difference in 80 %; with a third fewer they do not."""
        differences = [0.1, 0.5, 0.3, 0.9, 0.2]
        needed = statistics.seeds_needed(differences)
        mean, spread = numpy.mean(differences), numpy.std(differences, ddof=1)
        draw = numpy.random.default_rng(1)

        def found(seeds):
            samples = draw.normal(mean, spread, (4000, seeds))
            return (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()

        # Three standard errors of a share of 0.8 among 4,000 draws: 0.019.
        self.assertGreater(found(needed), 0.8 - 0.019)
        self.assertLess(found(max(2, needed * 2 // 3)), 0.8 - 0.019)
        self.assertIsNone(statistics.seeds_needed([1.0, -1.0]))
        self.assertEqual(statistics.seeds_needed([1.0, 1.0]), 2)
        self.assertEqual(statistics.seeds_needed([1e6, 1e6 + 1e-6]), 2)

    def test_holm(self):
        self.assertEqual(statistics.holm([0.01, None, 0.04, 0.03]), [0.03, None, 0.06, 0.06])
        self.assertEqual(statistics.holm([0.9, 0.8]), [1.0, 1.0])
        for _ in range(50):
            p = [self.draw.random() ** 3 for _ in range(6)]
            # The definition: a hypothesis falls at level a when it and all smaller ones are below a / rank.
            for i, corrected in enumerate(statistics.holm(p)):
                order = sorted(range(6), key=p.__getitem__)
                bound = max(p[j] * (6 - order.index(j)) for j in order[: order.index(i) + 1])
                self.assertAlmostEqual(corrected, min(1.0, bound))

    def test_pareto_front_equals_brute_force(self):
        for trial in range(200):
            points = [(self.draw.randrange(6), self.draw.randrange(6)) for _ in range(trial % 12)]
            for x_higher in (True, False):
                for y_higher in (True, False):
                    sx, sy = (1 if x_higher else -1), (1 if y_higher else -1)
                    signed = [(sx * x, sy * y) for x, y in points]
                    expected = [
                        i
                        for i, (x, y) in enumerate(signed)
                        if not any(a >= x and b >= y and (a, b) != (x, y) for a, b in signed)
                    ]
                    self.assertEqual(statistics.pareto_front(points, x_higher, y_higher), expected)

    def test_one_seed_has_no_interval(self):
        self.assertEqual(statistics.mean_of([2.0]), statistics.Interval(2.0))
        low, high = stats.t.interval(0.95, 2, loc=2.0, scale=stats.sem([1.0, 2.0, 3.0]))
        found = statistics.mean_of([1.0, 2.0, 3.0])
        self.assertTrue(math.isclose(found.low, low) and math.isclose(found.high, high))


class Folders(SweepTest):
    def setUp(self):
        super().setUp()
        self.sweep = self.read(GRID)
        self.settings = settings_of(self.sweep)
        self.root = SweepFolder(self.folder / "sweep")
        self.runs = [
            Run(f"id{s.label}{seed}", f"m{s.label}{seed}", s, seed, {}, s.overrides, s.evaluations)
            for s in self.settings
            for seed in (1, 2)
        ]

    def test_states(self):
        run, other = self.runs[:2]
        self.assertEqual(self.root.state(run), "waiting")
        self.root.keep_failure(run, "train", 77, "not finite")
        self.root.keep_failure(run, "train", 77, "not finite")
        self.assertEqual((self.root.state(run), self.root.failure(run)["attempts"]), ("failed", 2))
        with self.root.claim(run) as mine:
            self.assertTrue(mine)
            self.assertEqual(self.root.state(run), "running")
            with self.root.claim(run) as second:
                self.assertFalse(second)
            self.assertEqual(self.root.state(run), "running")
        self.root.keep_row(run, {"measured_id": run.measured_id, "figures": {}})
        self.assertEqual((self.root.state(run), self.root.failure(run)), ("finished", None))
        # Measured otherwise than the sweep says now.
        self.root.keep_row(other, {"measured_id": "earlier", "figures": {}})
        self.assertEqual(self.root.state(other), "waiting")
        # The same run under another label has its folder still.
        self.root.run_folder(run).mkdir()
        renamed = Run(run.id, run.measured_id, self.settings[1], 1, {}, {}, ())
        self.assertEqual(self.root.run_folder(renamed), self.root.run_folder(run))

    def test_what_a_dead_process_claimed_is_free(self):
        run = self.runs[0]
        path = self.root.root / "claims" / f"{run.id}.json"
        with self.root.claim(run):
            claim = json.loads(path.read_text())
        ended = subprocess.Popen(["true"])
        ended.wait()
        path.write_text(json.dumps({**claim, "process": ended.pid}))
        self.assertEqual(self.root.state(run), "waiting")
        path.write_text(json.dumps({**claim, "since": "1"}))  # another process of that number
        self.assertEqual(self.root.state(run), "waiting")
        path.write_text(json.dumps({**claim, "machine": "other"}))
        self.assertEqual(self.root.state(run), "running")
        os.utime(path, (time.time() - 1000,) * 2)
        self.assertEqual(self.root.state(run), "waiting")

    def test_the_table_hides_nothing(self):
        for i, run in enumerate(self.runs[:5]):
            figures = {"metrics.distinct_2": 0.1 * i, "evaluate.perplexity": 10.0 + i}
            self.root.keep_row(run, {"measured_id": run.measured_id, "figures": figures, "undefined": {}})
        self.root.keep_failure(self.runs[5], "train", 77, "not finite | at all")
        table = make_table(self.sweep, self.root, self.settings, self.runs, self.settings[0])
        self.assertEqual([row["state"] for row in table["rows"]], ["finished"] * 5 + ["failed"])
        first, second, third = (arm["figures"]["metrics.distinct_2"] for arm in table["arms"])
        self.assertNotIn("difference", first)
        self.assertAlmostEqual(second["difference"], 0.2)
        self.assertEqual((third["seeds"], third["paired_seeds"], third["p"]), (1, 1, None))
        self.assertEqual(table["arms"][2]["failed"], 1)
        winners = {one["figure"]: one for one in table["winners"]}
        self.assertEqual(winners["metrics.distinct_2"]["arm"], "poexft-alpha1")
        self.assertFalse(winners["metrics.distinct_2"]["clear"])  # one seed tells nothing apart
        self.assertEqual(winners["evaluate.perplexity"]["arm"], "otmft")
        text = markdown(table)
        self.assertIn("6 runs: 5 finished, 1 failed.", text)
        self.assertIn("not finite \\| at all", text)
        self.assertIn("| poexft-alpha1 | 1, 1 failed |", text)


class Searches(SweepTest):
    TEXT = (
        "base: base.yaml\nsearch:\n  trials: 5\n  objectives: {f: minimize, g: maximize}\n"
        "  space: {optimizer.lr: {low: 1.0e-4, high: 1.0e-1, log: true}, method: [otmft, poexft]}\n"
    )

    def test_a_search_goes_on_where_it_stopped(self):
        sweep = self.read(self.TEXT)
        folder = SweepFolder(self.folder / "sweep")
        asked = []

        def measure(settings):
            if len(asked) == 2:
                asked.append(list(settings))
                raise KeyboardInterrupt
            asked.append(list(settings))
            # The first setting has no figures, as of a failed run.
            return [None if len(asked) == 1 else [one.chosen["optimizer.lr"], 1.0] for one in settings]

        with self.assertRaises(KeyboardInterrupt):
            SearchStudy(sweep, folder).run(1, measure)
        SearchStudy(sweep, folder).run(1, measure)
        self.assertEqual(asked[3], asked[2])  # what was interrupted is measured again
        self.assertEqual([len(settings) for settings in asked], [1] * 6)
        found = SearchStudy(sweep, folder).settings()
        self.assertEqual(len({one.label for one in found}), 5)  # none is drawn twice
        self.assertEqual(found[2].chosen, asked[2][0].chosen)
        SearchStudy(sweep, folder).run(1, measure)  # has all it was to try
        self.assertEqual(len(asked), 6)
        for one in found:
            self.assertTrue(1e-4 <= one.chosen["optimizer.lr"] <= 1e-1)
            self.assertIn(one.chosen["method"], ("otmft", "poexft"))


class Machines(TestCase):
    def test_cores_are_split_and_never_shared(self):
        cores = set(range(8))
        with mock.patch("os.sched_getaffinity", return_value=cores):
            for ranks, threads, count in ((1, 1, 8), (2, 1, 4), (1, 3, 2), (2, 8, 1)):
                with self.subTest(ranks=ranks, threads=threads):
                    with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": ""}):
                        found = places(ranks, threads, None)
                    self.assertEqual(len(found), count)
                    parts = [place.prefix[-1].split(",") for place in found if place.prefix]
                    used = [core for part in parts for core in part]
                    self.assertEqual(len(used), len(set(used)))
            with mock.patch.dict(os.environ, {"CUDA_VISIBLE_DEVICES": "0,1,2"}):
                found = places(1, 1, None)
            self.assertEqual([one.environment["CUDA_VISIBLE_DEVICES"] for one in found], ["0", "1", "2"])
            with self.assertRaises(UsageError):
                places(4, 2, 2)

    def test_nodes_are_srun_steps(self):
        several = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_CPUS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": ""}
        with mock.patch.dict(os.environ, several):
            found = places(2, 1, None)
        self.assertEqual(len(found), 4)
        self.assertIn("--cpus-per-task=2", found[0].prefix)


class Stops(FolderTest):
    def test_a_stop_reaches_every_process_and_nothing_starts_after_it(self):
        processes, codes = Processes(), []
        log = self.folder / "log"

        def work():
            codes.append(processes.run(["sleep", "60"], os.environ, log))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(processes._running) < 3:
            time.sleep(0.01)
        processes.stop()
        for thread in threads:
            thread.join(timeout=30)
        self.assertEqual(codes, [-15] * 3)
        self.assertEqual(processes.run(["sleep", "60"], os.environ, log), 75)

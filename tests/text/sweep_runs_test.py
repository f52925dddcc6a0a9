"""Whole sweeps with a program that looks like the compiled one and takes no time: who does which run, what
becomes of failures, what is measured again."""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import stat
import sys
import threading
from pathlib import Path
from unittest import mock

import yaml

from plural_text.common.errors import BadRecipe, MissingInput, UsageError
from plural_text.sweep import command, step_options
from plural_text.sweep.command import _cancel, _report
from plural_text.sweep.folder import SweepFolder
from plural_text.sweep.local import LocalRuns, outcome_code
from plural_text.sweep.places import Place
from plural_text.sweep.planned import plan
from plural_text.sweep.search import SearchStudy
from plural_text.sweep.searching import run_search
from plural_text.sweep.table import make_table
from text.support import FolderTest, run

# Reads recipes line by line: no key that it needs has a namesake in another section.
PROGRAM = """#!PYTHON -IS
import json, os, sys
command, *words = sys.argv[1:]
with open("CALLS", "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
if "--help" in words:
    print("--corpus --responses --seed --questions")
elif command == "persona":
    talks, figures = (words[words.index(option) + 1] for option in ("-o", "--figures"))
    open(talks, "a").write("a conversation\\n")
    json.dump({"figures": {"average_entropy_bits": {"value": 1.5}}}, open(figures, "w"))
elif command in ("generate", "evaluate"):
    output = words[words.index("-o") + 1]
    if command == "generate":
        open(output, "w").write('{"responses": []}\\n')
    else:
        json.dump({"summary": {"perplexity": 2.5}}, open(output, "w"))
else:
    recipe = dict(line.strip().split(": ", 1) for line in open(words[0]) if ": " in line)
    name, method, seed = (recipe.get(key, "x") for key in ("name", "method", "seed"))
    if command == "validate":
        lr = recipe.get("lr", "1")
        print(f"name: {name}\\nmethod: {method}\\nseed: 42\\noptimizer: {{lr: {lr}}}")
        print(f"model: {{path: {json.dumps(recipe.get('path'))}}}")
        print(f"adapter: {{type: {recipe.get('type', 'none')}, init_from: null}}")
        print("data: {train: CORPUS, validation: null}")
    elif command == "dry-run":
        with open("CALLS", "a") as calls:
            calls.write(json.dumps(["named", name]) + "\\n")
        sizes = ("steps", "gflop_per_group", "groups_per_step", "rank_memory_bytes", "disk_bytes")
        print(json.dumps(dict.fromkeys(sizes, 1)))
    elif method == "broken":
        print("plural: error: it broke [exit 77]")
        sys.exit(77)
    else:
        run = os.path.join(recipe["dir"].strip("'"), name)
        os.makedirs(os.path.join(run, "model"))
        open(os.path.join(run, "model", "weights"), "w").write(method + seed)
        with open(os.path.join(run, "metrics.jsonl"), "w") as metrics:
            metrics.write('{"event":"step","step":1,"loss":0.5,"seconds":1}\\n')
"""
SWEEP = "base: base.yaml\nthreads: 1\n"
COMPILED = os.environ.get("PLURAL_BINARY", "")


class SweepRunsTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.calls_file = self.folder / "calls"
        text = PROGRAM.replace("PYTHON", sys.executable).replace("CALLS", str(self.calls_file))
        program = self.folder / "program"
        program.write_text(text.replace("CORPUS", str(self.folder / "corpus.h5")))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        for name in ("corpus.h5", "base.yaml"):
            (self.folder / name).write_text("method: base\n")
        # Of a job that has nothing to do with the sweep.
        self.enterContext(mock.patch.dict(os.environ, {"PLURAL_BINARY": str(program), "SLURM_JOB_ID": "7"}))
        self.printed = io.StringIO()
        self.enterContext(contextlib.redirect_stdout(self.printed))
        self.enterContext(contextlib.redirect_stderr(self.printed))
        step_options._known.cache_clear()
        self.addCleanup(step_options._known.cache_clear)

    def plan(self, text):
        (self.folder / "sweep.yaml").write_text(f"{SWEEP}dir: {self.folder}/sweeps\n{text}")
        return plan(self.folder / "sweep.yaml")

    def run_all(self, planned, places=1, **options):
        LocalRuns(planned.sweep, planned.folder, planned.runs, [Place()] * places, **options).run_all()
        return [planned.folder.state(one) for one in planned.runs]

    def own_program(self, body):
        """A sweep's line for a shell script: $1 is {output}, $2 {responses} or {result}."""
        (self.folder / "own.sh").write_text(body)
        return f'["sh", "{self.folder}/own.sh", "{{output}}", "--read={{result}}"]'

    def calls(self, command):
        if not self.calls_file.exists():
            return []
        calls = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return [words[1:] for words in calls if words[0] == command]


class Names(SweepRunsTest):
    def test_labels_that_collide_are_names_of_runs(self):
        methods = ["a b", "a_b", "-x", ".x", "caf\u00e9", "\u65e5", "..", "y" * 200]
        planned = self.plan(f"grid: {{method: {json.dumps(methods)}}}\nseeds: [1]\n")
        labels = [one.label for one in planned.settings]
        self.assertEqual(labels, ["a_b", "a_b+2", "x", "x+2", "caf_", "_", "run", "y" * 80])
        planned.check()
        names = sorted(words[0] for words in self.calls("named"))
        self.assertEqual(names, sorted(planned.folder.name_of(one) for one in planned.runs))
        self.assertEqual(self.run_all(planned), ["finished"] * 8)

    def test_settings_of_one_run_that_are_measured_differently(self):
        with self.assertRaisesRegex(BadRecipe, "settings info and debug train the same run and measure it"):
            self.plan(
                "include: [{log.level: info}, {log.level: debug}]\n"
                "when: [{if: {log.level: debug}, set: {evaluate.evaluate.seed: 1}}]\n"
                "evaluate: {evaluate: {seed: 2}}\n"
            )

    def test_what_decides_no_result_makes_no_other_run(self):
        self.enterContext(mock.patch.dict(os.environ, {"PLURAL_BINARY": COMPILED}))
        (self.folder / "base.yaml").write_text(
            f"method: otmft\nmodel: {{path: {self.folder}}}\ndata: {{train: {self.folder}/corpus.h5}}\n"
        )
        same = (
            "{optimizer.sharding: 'on'}, {log.trackio: true}, {watchdog.enabled: false}, "
            "{checkpoint.keep: 7}, {guard.spike: 'off'}"
        )
        self.assertEqual(len(self.plan(f"include: [{same}]\n").runs), 1)
        self.assertEqual(len(self.plan(f"include: [{same}, {{guard.spike: skip}}]\n").runs), 2)
        with self.assertRaisesRegex(
            BadRecipe, "2 problems: line .*guard.spike must be.*; line .*guard.factor"
        ):
            self.plan("include: [{guard.spike: 'x', guard.factor: 0}]\n")

    def test_a_base_of_each_seed_and_a_seed_of_a_setting(self):
        for seed in (1, 2):
            (self.folder / f"s{seed}.yaml").write_text(f"width: {seed}\n")
            (self.folder / f"model-{seed}").mkdir()
            (self.folder / f"model-{seed}/weights").write_text(str(seed))
        text = f"seeds: [1, 2]\nset: {{model.path: '{self.folder}/model-{{seed}}'}}\n"
        planned = self.plan(text + "grid: {base: ['s{seed}.yaml']}\ninclude: [{base: base.yaml, seed: 7}]\n")
        self.assertEqual(self.run_all(planned), ["finished"] * 4)
        recipes = {one.label: self.recipe_of(planned, one) for one in planned.runs}
        self.assertEqual([Path(file).name for file in recipes["s-s2"]["base"]], ["base.yaml", "s2.yaml"])
        self.assertEqual({label: one["seed"] for label, one in recipes.items()},
            {"s-s1": 1, "s-s2": 2, "base-seed7-s1": 7, "base-seed7-s2": 7})  # fmt: skip
        with self.assertRaisesRegex(BadRecipe, "setting seed7 sets seed, and nothing else differs"):
            self.plan(f"seeds: [1, 2]\nset: {{model.path: {self.folder}/model-1}}\ninclude: [{{seed: 7}}]\n")

    def recipe_of(self, planned, run):
        name = planned.folder.name_of(run)
        return yaml.safe_load((planned.folder.root / "recipes" / f"{name}.yaml").read_text())

    def test_memory_is_asked_again_for_other_ranks_and_threads(self):
        for extra, asked in (("", 1), ("", 1), ("ranks: 2", 2), ("threads: 2", 3)):
            planned = self.plan("")
            text = (self.folder / "sweep.yaml").read_text()
            text = text.replace("threads: 1\n", "") if "threads" in extra else text
            (self.folder / "sweep.yaml").write_text(text + extra + "\n")
            planned = plan(self.folder / "sweep.yaml")
            planned.check()
            self.assertEqual(len(self.calls("dry-run")), asked, extra)


class Untrained(SweepRunsTest):
    SWEEP = (
        "grid: {method: [one, two]}\nuntrained: true\nseeds: [1, 2]\nset: {model.path: MODEL}\n"
        "baseline: {untrained: true}\n"
        "when: [{if: {untrained: true}, set: {evaluate.t1.generate.responses: 7}}]\n"
        "evaluate:\n"
        "  - {name: t1, generate: {corpus: CORPUS, responses: 5}}\n"
        "  - {name: beams, if: {untrained: true}, generate: {corpus: CORPUS}}\n"
    )

    def setUp(self):
        super().setUp()
        model = self.folder / "model"
        model.mkdir()
        (model / "weights").write_text("base")
        program = self.folder / "program"
        program.write_text(program.read_text().replace("path: null", f"path: {model}"))
        self.sweep = self.SWEEP.replace("MODEL", str(model)).replace("CORPUS", f"{self.folder}/corpus.h5")
        self.model = model

    def test_the_model_as_it_is_is_measured_and_not_trained(self):
        planned = self.plan(self.sweep)
        self.assertEqual([one.label for one in planned.settings], ["one", "two", "untrained"])
        planned.check()
        self.assertEqual(len(self.calls("dry-run")), 2)  # nothing of it to predict
        self.assertEqual(self.run_all(planned), ["finished"] * 6)
        self.assertEqual(len(self.calls("train")), 4)
        asked = [words for words in self.calls("generate") if words[:2] == ["--model", str(self.model)]]
        self.assertEqual(len(asked), 4)  # two evaluations of two seeds
        self.assertFalse(any("--adapter" in words for words in asked))
        responses = {words[words.index("--responses") + 1] for words in asked if "--responses" in words}
        self.assertEqual(responses, {"7"})
        # beams is of the untrained alone.
        self.assertEqual(len([words for words in self.calls("generate") if "-o" in words]), 4 + 4)
        table = make_table(planned.sweep, planned.folder, planned.settings, planned.runs, planned.baseline)
        self.assertEqual(table["baseline"], "untrained")
        self.assertEqual({row["run"] for row in table["rows"] if row["arm"] == "untrained"}, {None})

    def test_a_started_again_sweep_does_nothing_and_another_model_is_measured_anew(self):
        planned = self.plan(self.sweep)
        self.run_all(planned)
        before = len(self.calls("generate"))
        self.run_all(self.plan(self.sweep))
        self.assertEqual(len(self.calls("generate")), before)
        (self.model / "weights").write_text("other")
        planned = self.plan(self.sweep)
        states = {run.label: planned.folder.state(run) for run in planned.runs}
        self.assertEqual(states["untrained-s1"], "waiting")

    def test_a_member_of_an_array_that_only_trains_has_nothing_to_do(self):
        planned = self.plan(self.sweep)
        one = [run for run in planned.runs if run.untrained]
        LocalRuns(planned.sweep, planned.folder, one, [Place()], measure=False).run_all()
        self.assertEqual(self.calls("generate"), [])
        self.assertEqual(outcome_code(planned.folder, one, print, measured=False), 0)

    def test_conversations_are_held_once_and_apart_for_other_questions(self):
        questions = self.folder / "questions.jsonl"
        sweep = self.sweep.partition("when:")[0] + f"evaluate: {{persona: {{questions: {questions}}}}}\n"
        with mock.patch.object(step_options, "TEXT_COMMANDS", ("metrics",)):  # persona is our program's, too
            for asked, held in (("Who?", 1), ("Who?", 1), ("And where?", 2)):
                questions.write_text(asked)
                planned = self.plan(sweep)
                self.assertEqual(set(self.run_all(planned)), {"finished"})
                for run in planned.runs:
                    files = list(planned.folder.measured(run).glob("conversations-*.jsonl"))
                    self.assertEqual([file.read_text().count("\n") for file in files], [1] * held)
        words = [words for words in self.calls("persona") if "--help" not in words]
        self.assertEqual(len(words), 2 * 6)
        self.assertEqual({call[call.index("--seed") + 1] for call in words}, {"1", "2"})
        table = make_table(planned.sweep, planned.folder, planned.settings, planned.runs, planned.baseline)
        self.assertEqual({row["figures"]["persona.average_entropy_bits"] for row in table["rows"]}, {1.5})

    def test_what_it_needs(self):
        for text, words in (
            (self.sweep.replace("untrained: true\nseeds", "untrained: 1\nseeds"), "takes true or false"),
            (self.sweep.replace("untrained: true\nseeds", "seeds"), "when names untrained, which neither"),
        ):
            with self.assertRaisesRegex(BadRecipe, words):
                self.plan(text)


class Ends(SweepRunsTest):
    def test_a_failure_stops_what_has_not_begun(self):
        text = "grid: {method: [broken, fine, other]}\nseeds: [1]\non_failure: "
        planned = self.plan(text + "stop\n")
        self.assertEqual(self.run_all(planned), ["failed", "waiting", "waiting"])
        self.assertEqual(outcome_code(planned.folder, planned.runs, print), 77)
        self.assertIn("2 of 3 runs are unfinished", self.printed.getvalue())
        # A member of an array does one run, and heeds the others.
        later = LocalRuns(planned.sweep, planned.folder, planned.runs[1:2], [Place()], watched=planned.runs)
        later.run_all()
        self.assertEqual(planned.folder.state(planned.runs[1]), "waiting")
        self.assertEqual(outcome_code(planned.folder, planned.runs[1:], print), 70)
        self.assertEqual(self.run_all(self.plan(text + "continue\n")), ["failed", "finished", "finished"])

    def test_a_trained_run_is_what_an_array_of_trainings_wants(self):
        planned = self.plan("seeds: [1]\nevaluate: {evaluate: {}}\n")
        self.assertEqual(self.run_all(planned, measure=False), ["waiting"])
        self.assertEqual(outcome_code(planned.folder, planned.runs, print, measured=False), 0)
        self.assertEqual(outcome_code(planned.folder, planned.runs, print), 70)

    def test_an_error_of_a_thread_is_an_error(self):
        planned = self.plan("seeds: [1, 2]\n")
        wrong = mock.patch("plural_text.sweep.work.Worker.do", side_effect=ZeroDivisionError("no"))
        with wrong, self.assertRaises(ZeroDivisionError):
            self.run_all(planned, places=2)
        self.assertEqual([planned.folder.state(one) for one in planned.runs], ["waiting"] * 2)

    def test_who_comes_second_tries_again(self):
        planned = self.plan("seeds: [1]\n")
        claim, losses = planned.folder.claim, []

        def lost_once(one, job=""):
            if losses:
                return claim(one, job)
            losses.append(one)
            return contextlib.nullcontext(False)

        with mock.patch.object(planned.folder, "claim", lost_once):
            self.assertEqual(self.run_all(planned), ["finished"])

    def test_two_planners_do_every_run_once(self):
        self.plan("seeds: [1, 2, 3, 4, 5, 6]\n")
        words = ("sweep", "run", self.folder / "sweep.yaml", "--jobs", "1")
        codes = []
        threads = [
            threading.Thread(target=lambda: codes.append(run(*words, cwd=self.folder).returncode))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(codes, [0, 0])
        self.assertEqual(len(self.calls("train")), 6)
        self.assertEqual(len(set(map(str, self.calls("train")))), 6)
        self.assertEqual(list((self.folder / "sweeps/sweep/claims").glob("*.json")), [])


class Claims(SweepRunsTest):
    def test_of_many_processes_one_gets_a_claim(self):
        planned = self.plan("seeds: [1]\n")
        context = multiprocessing.get_context("fork")
        together, found = context.Barrier(4), context.SimpleQueue()

        def take():
            together.wait()
            with SweepFolder(planned.folder.root).claim(planned.runs[0]) as mine:
                found.put(mine)
                together.wait()

        processes = [context.Process(target=take) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        self.assertEqual(sorted(found.get() for _ in processes), [False] * 3 + [True])

    def test_a_claim_that_was_lost_is_left_alone(self):
        planned = self.plan("seeds: [1]\n")
        one, folder = planned.runs[0], planned.folder
        file = folder.root / "claims" / f"{one.id}.json"
        with folder.claim(one):
            self.assertEqual(json.loads(file.read_text())["job"], "")  # no job of the sweep's own
            file.write_text('{"machine": "elsewhere"}')
        self.assertEqual(file.read_text(), '{"machine": "elsewhere"}')
        file.unlink()
        with folder.claim(one, "8"):
            self.assertEqual(json.loads(file.read_text())["job"], "8")
        self.assertFalse(file.exists())

    def test_cancel_reaches_whoever_is_there(self):
        planned = self.plan("seeds: [1]\n")
        with planned.folder.claim(planned.runs[0]), mock.patch("os.kill") as kill:
            _cancel(planned)
            kill.assert_called_once()
            kill.side_effect = ProcessLookupError
            self.assertEqual(_cancel(planned), 0)
        self.assertIn("nothing is at work here", self.printed.getvalue())

    def test_a_cancelled_array_is_marked(self):
        planned = self.plan("seeds: [1]\n")
        submissions = planned.folder.root / "submissions"
        submissions.mkdir()
        record = {"sweep": "sweep.yaml", "runs": [planned.runs[0].id], "jobs": {"train": 12}}
        (submissions / "one.json").write_text(json.dumps(record))
        programs = self.folder / "bin"
        programs.mkdir()
        for name, line in (("squeue", "echo 12"), ("scancel", f"ls '{submissions}' >>'{self.folder}/seen'")):
            (programs / name).write_text(f"#!/bin/sh\n{line}\n")
            (programs / name).chmod(0o755)
        with mock.patch.dict(os.environ, {"PATH": f"{programs}:{os.environ['PATH']}"}):
            _cancel(planned)
        self.assertIn("asked to save and stop: 1 jobs", self.printed.getvalue())
        # The mark is there before a member hears of it.
        self.assertEqual((self.folder / "seen").read_text().split()[:2], ["one.cancelled", "one.json"])


class Measured(SweepRunsTest):
    def test_a_program_that_writes_no_figures_fails_alone(self):
        body = 'case "$2" in *bad*) cat "$0.said" >"$1";; *) echo "{\\"x\\": 3}" >"$1";; esac\n'
        (self.folder / "own.sh.said").write_text("[1")
        text = f"grid: {{method: [bad, good]}}\nseeds: [1]\nevaluate: {{program: {self.own_program(body)}}}\n"
        planned = self.plan(text)
        self.assertEqual(self.run_all(planned), ["failed", "finished"])
        failure = planned.folder.failure(planned.runs[0])
        self.assertEqual((failure["step"], failure["exit_code"]), ("program", 65))
        self.assertIn("program.json: holds no JSON object", failure["message"])
        self.assertEqual(planned.folder.row(planned.runs[1])["figures"]["program.x"], 3)
        # It does not count as made.
        planned.folder.forget_failure(planned.runs[0])
        (self.folder / "own.sh.said").write_text('{"x": 4}')
        self.assertEqual(self.run_all(planned), ["finished"] * 2)
        self.assertEqual(planned.folder.row(planned.runs[0])["figures"]["program.x"], 4)

    def test_figures_that_are_no_numbers_are_undefined(self):
        body = 'case "$2" in *-s1-*) x=NaN;; *) x=2;; esac\n'
        body += 'echo "{\\"x\\": $x, \\"y\\": Infinity, \\"z\\": null}" >"$1"\n'
        planned = self.plan(f"seeds: [1, 2]\nevaluate: {{program: {self.own_program(body)}}}\n")
        self.run_all(planned)
        row = planned.folder.row(planned.runs[0])
        self.assertEqual(row["figures"], {"train.loss": 0.5})
        self.assertEqual(set(row["undefined"]), {"program.x", "program.y", "program.z"})
        with mock.patch("plural_text.report.command.write_page"):
            _report(planned)
        table = json.loads((planned.folder.root / "table.json").read_text())
        arm = table["arms"][0]
        self.assertEqual((arm["figures"]["program.x"]["mean"], arm["undefined"]["program.x"]), (2, 1))
        self.assertNotIn("program.y", arm["figures"])
        text = (planned.folder.root / "table.md").read_text()
        self.assertIn("| 2, undefined for 1 seed(s) | undefined | undefined |", text)

    def test_what_a_program_reads_is_looked_at(self):
        program = self.own_program('echo "{\\"x\\": 1}" >"$1"; echo one >>"$0.calls"\n')
        program = program.replace("{result}", "{responses}").replace("]", ', "."]')
        planned = self.plan(f"seeds: [1]\nevaluate: {{generate: {{}}, evaluate: {{}}, program: {program}}}\n")
        counts = self.folder / "own.sh.calls"
        one, measured = planned.runs[0], planned.folder.measured(planned.runs[0])
        stamp = measured / "program.json.made.json"
        for change, count in ((None, 1), (None, 1), ("answers", 2), ("figures", 3), ("weights", 4)):
            if change == "answers":
                (measured / "responses.jsonl").write_text("other\n")
            if change == "figures":
                (measured / "evaluate.json").write_text('{"summary": {}}')
            if change == "weights":
                (planned.folder.run_folder(one) / "model/weights").write_text("other")
            (measured / "row.json").unlink(missing_ok=True)
            self.assertEqual(self.run_all(planned), ["finished"])
            self.assertEqual(counts.read_text().count("one"), count, change)
        # The folder where the program starts is none of its inputs.
        self.assertEqual(len(json.loads(stamp.read_text())["inputs"]), 4)

    def test_the_error_line_is_that_of_the_last_attempt(self):
        program = self.own_program('echo "plural: error: first [exit 3]"; exit 3\n')
        text = f"seeds: [1]\nevaluate: {{program: {program}}}\n"
        planned = self.plan(text)
        self.run_all(planned)
        self.assertEqual(planned.folder.failure(planned.runs[0])["message"], "first")
        planned.folder.forget_failure(planned.runs[0])
        self.own_program("echo second; exit 3\n")
        planned = self.plan(text)
        self.run_all(planned)
        self.assertRegex(planned.folder.failure(planned.runs[0])["message"], "^second; its output is in ")

    def test_programs_of_others_have_the_users_environment(self):
        program = self.own_program('echo "path $PYTHONPATH"; echo "{\\"x\\": 1}" >"$1"\n')
        planned = self.plan(f"seeds: [1]\nevaluate: {{program: {program}}}\n")
        with (
            mock.patch.dict(os.environ, {"PYTHONPATH": "/theirs"}),
            mock.patch.object(sys, "path", [*sys.path, "/ours"]),
        ):
            self.run_all(planned)
            ours = step_options.environment()["PYTHONPATH"].split(os.pathsep)
        log = planned.folder.measured(planned.runs[0]) / "log/program.log"
        self.assertEqual(log.read_text(), "path /theirs\n")
        self.assertEqual((len(ours), ours[1]), (2, "/theirs"))

    def test_base_weights_and_corpora_are_read_once_for_all_runs(self):
        text = f"seeds: [1, 2]\nevaluate: {{evaluate: {{corpus: {self.folder}/corpus.h5}}}}\n"
        with mock.patch("plural_text.sweep.contents.Contents._hash", autospec=True, return_value="x") as read:
            self.run_all(self.plan(text))
            files = [call.args[1].name for call in read.call_args_list]
            self.assertEqual(files.count("corpus.h5"), 1)
            self.run_all(self.plan(text))
            self.assertEqual(len(read.call_args_list), len(files))


class Searches(SweepRunsTest):
    def test_a_search_goes_on_past_an_undefined_figure(self):
        body = 'case "$2" in *odd*) echo "{\\"x\\": null}" >"$1";; *) echo "{\\"x\\": 3}" >"$1";; esac\n'
        text = (
            f"seeds: [1, 2]\nevaluate: {{program: {self.own_program(body)}}}\nsearch:\n  trials: 8\n"
            "  sampler: random\n  objectives: {program.x: maximize}\n  space: {method: [odd, even, broken]}\n"
        )
        run_search(self.plan(text), [Place(), Place()])
        planned = self.plan(text)
        states = {one.setting.label: planned.folder.state(one) for one in planned.runs}
        self.assertEqual(states, {"odd": "finished", "even": "finished", "broken": "failed"})
        self.assertEqual(len(self.calls("train")), 6)  # a setting that is drawn again is not trained again
        with self.assertRaisesRegex(BadRecipe, "search.space has changed since the search in .* began"):
            self.plan(text.replace("odd, even", "odd, none"))
        with self.assertRaisesRegex(BadRecipe, "search.objectives has changed"):
            self.plan(text.replace("maximize", "minimize"))
        with self.assertRaisesRegex(BadRecipe, "no figure program.z; a run has train.loss, program.x"):
            run_search(self.plan(text.replace("program.x", "program.z") + "name: z\n"), [Place()])

    def test_choices_of_one_run_are_told_its_figures(self):
        text = (
            "seeds: [1]\nsearch:\n  trials: 4\n  sampler: random\n  objectives: {train.loss: minimize}\n"
            "  space: {log.level: [info, debug]}\n"
        )
        planned = self.plan(text)
        run_search(planned, [Place()] * 4)
        trials = SearchStudy(planned.sweep, planned.folder)._study.trials
        self.assertEqual(len({str(trial.params) for trial in trials}), 2)
        self.assertEqual([trial.values for trial in trials], [[0.5]] * 4)
        self.assertEqual(len(self.calls("train")), 1)

    def test_a_search_ends_at_a_failure_where_it_is_to(self):
        text = (
            "seeds: [1]\non_failure: stop\nsearch:\n  trials: 4\n  objectives: {train.loss: maximize}\n"
            "  space: {method: [broken], optimizer.lr: {low: 0.1, high: 0.2}}\n"
        )
        planned = self.plan(text)
        run_search(planned, [Place()])
        self.assertEqual(len(self.calls("train")), 1)
        self.assertEqual(len(plan(planned.sweep.file).runs), 1)


class Words(SweepRunsTest):
    def refused(self, kind, told, *words):
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        with self.assertRaisesRegex(kind, told):
            command.run(parser.parse_args(["run", *map(str, words)]))

    def test_mistakes_are_found_before_anything_starts(self):
        file = self.folder / "sweep.yaml"
        self.plan("seeds: [1]\n")
        self.refused(UsageError, "run needs a sweep file")
        self.refused(UsageError, "'more': run takes one sweep file", file, "more")
        self.refused(UsageError, "--only 'xyz': no run has this in its name", file, "--only", "xyz")
        self.plan("evaluate: {generate: {xyzzy: 4}}\n")
        self.refused(BadRecipe, "no option xyzzy; plural generate --help", file)
        with self.assertRaisesRegex(MissingInput, "evaluate.generate.corpus: no corpus at 'none.h5'"):
            self.plan("evaluate: {generate: {corpus: none.h5}}\n")
        with self.assertRaisesRegex(BadRecipe, "an adapter of a random model"):
            self.plan("set: {adapter.type: lora}\nevaluate: {generate: {}}\n")
        self.assertEqual(self.calls("train"), [])

    def test_a_wrong_action_is_told_the_known_ones(self):
        for word, told in (("rum", "did you mean run?"), ("xyzzy", "allowed are plan, run, submit, status")):
            done = run("sweep", word, "sweep.yaml")
            self.assertEqual(done.returncode, 64)
            self.assertIn(f"'{word}' is no action of a sweep; {told}", done.stderr)
            self.assertNotIn("task", done.stderr)

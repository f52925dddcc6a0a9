"""Mistakes of a first hour, each with its message and exit code: nothing lost, nothing silent."""

import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

LAUNCHER = Path(__file__).resolve().parents[2] / "launch" / "plural"
SHORT = "train: {epochs: 1, groups_per_step: 4}\ncheckpoint: {every_steps: 0}"


class FirstHour(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(8))
        training.write_corpus(cls.folder / "plain.h5", training.random_groups(8, possibilities=0))
        training.write_corpus(
            cls.folder / "targets.h5", training.random_groups(8, possibilities=0, targets=True), "targets"
        )
        cls.recipe("base", "otmft", adapter=False)
        cls.recipe("tuned", "peft", model="runs/base/model")
        for name in ("base", "tuned"):
            result = training.train(cls.folder, f"{name}.yaml")
            assert result.returncode == 0, result.stderr
        cls.first_run = result

    @classmethod
    def recipe(cls, name, method="peft", model=None, extra=SHORT, **more):
        path = cls.folder / f"{name}.yaml"
        training.write_recipe(path, name, method, dtype="fp32", extra=extra, **more)
        if model:
            path.write_text(path.read_text().replace(f"config: {training.MODEL}", f"path: {model}"))
        return path.name

    def run_plural(self, *arguments, launcher=(), **options):
        return subprocess.run(
            [*launcher, training.PLURAL, *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    def said(self, code, *arguments, words=(), **options):
        """The one error line, which holds `words`."""
        result = self.run_plural(*arguments, **options)
        self.assertEqual(result.returncode, code, result.stderr)
        errors = [line for line in result.stderr.splitlines() if line.startswith("plural: error: ")]
        self.assertEqual(len(errors), 1, result.stderr)
        self.assertIn(f"[exit {code}", errors[0])
        for word in words:
            self.assertIn(word, errors[0])
        return errors[0]

    def generate(self, *arguments):
        return ("generate", "--model", "runs/base/model", "--threads", 1, *arguments)

    # Runs that are finished.

    def test_a_finished_run_says_how_to_go_on(self):
        result = self.run_plural("train", "tuned.yaml")
        self.assertEqual(result.returncode, 0)
        self.assertIn("is finished", result.stdout)
        self.assertIn("adapter.init_from=runs/tuned/adapter", result.stdout)
        self.assertIn("model.path=runs/base/model", self.run_plural("train", "base.yaml").stdout)

    def test_a_finished_run_with_more_epochs(self):
        self.said(
            78,
            "train",
            "tuned.yaml",
            "train.epochs=2",
            words=("train.epochs: 2 (was 1)", "name=...", "adapter.init_from=runs/tuned/adapter"),
        )

    def test_a_finished_run_whose_inputs_changed(self):
        training.write_corpus(self.folder / "mine.h5", training.random_groups(8))
        overrides = ("data.train=mine.h5", "name=changed", "model.path=runs/copy/model")
        overrides += ("adapter.init_from=runs/first/adapter",)
        for name, source in (("copy", "base"), ("first", "tuned")):
            subprocess.run(["cp", "-r", f"runs/{source}", f"runs/{name}"], cwd=self.folder, check=True)
        start = ("train", "tuned.yaml", *overrides)
        result = self.run_plural(*start)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("is finished", self.run_plural(*start).stdout)

        training.write_corpus(self.folder / "mine.h5", training.random_groups(8, seed=1))
        self.said(78, *start, words=("data.train (mine.h5) has changed", "name=..."))
        training.write_corpus(self.folder / "mine.h5", training.random_groups(8))
        weights = self.folder / "runs/copy/model/model.safetensors"
        before = weights.read_bytes()
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        self.said(78, *start, words=("model.path (runs/copy/model) has changed",))
        weights.write_bytes(before)
        weights = self.folder / "runs/first/adapter/adapter_model.safetensors"
        before = weights.read_bytes()
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        self.said(78, *start, words=("adapter.init_from (runs/first/adapter) has changed",))
        weights.unlink()
        (self.folder / "mine.h5").unlink()
        (self.folder / "runs/first/adapter").rename(self.folder / "runs/first/moved")
        result = self.run_plural(*start)
        self.assertEqual(result.returncode, 0, result.stderr)
        for key in ("data.train", "adapter.init_from"):
            self.assertIn(f"what {key} names is gone", result.stderr)

    # Recipes.

    def test_a_warm_up_longer_than_the_run(self):
        for command in ("train", "dry-run"):
            self.said(
                78,
                command,
                "tuned.yaml",
                "name=warm",
                "optimizer.warmup_steps=100",
                words=("command line", "optimizer.warmup_steps is 100", "more than the 2 steps"),
            )

    def test_a_corpus_that_is_not_there(self):
        for command in ("train", "dry-run"):
            self.said(
                66,
                command,
                "tuned.yaml",
                "name=none",
                "data.train=corpora/dialogues.h5",
                words=("command line", "data.train is corpora/dialogues.h5", "plural prepare"),
            )
        recipe = self.folder / "missing.yaml"
        recipe.write_text((self.folder / "tuned.yaml").read_text().replace("corpus.h5", "none.h5"))
        self.said(66, "train", "missing.yaml", "name=none", words=("missing.yaml:7", "none.h5"))

    def test_a_corpus_of_another_kind(self):
        self.said(
            65,
            "dry-run",
            "tuned.yaml",
            "data.train=targets.h5",
            words=("was prepared as targets", "method distribution_matching"),
        )
        self.said(65, "dry-run", "tuned.yaml", "data.train=plain.h5", words=("--possibilities 5",))
        recipe = self.recipe("wide", "distribution_matching")
        result = self.run_plural("dry-run", recipe)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("was prepared as dialogue: method distribution_matching takes", result.stderr)
        result = self.run_plural("dry-run", recipe, "data.train=targets.h5")
        self.assertNotIn("was prepared as", result.stderr)

    def test_prompts_with_too_few_responses(self):
        groups = training.random_groups(8)
        groups[5] = (*groups[5][:2], groups[5][2][:2])
        groups[6] = (*groups[6][:2], groups[6][2][:3])
        training.write_corpus(self.folder / "ragged.h5", groups)
        self.said(
            65,
            "dry-run",
            "tuned.yaml",
            "data.train=ragged.h5",
            words=("asks for 4, and 2 of 8 groups have fewer", "first 'g5' with 2", "group.responses to 2"),
        )

    def test_validation_is_predicted(self):
        plain = self.run_plural("dry-run", "tuned.yaml", "name=new").stdout
        self.assertNotIn("validations", plain)
        result = self.run_plural(
            "dry-run", "tuned.yaml", "name=new", "data.validation=corpus.h5", "validation.every_steps=1"
        )
        self.assertRegex(
            result.stdout, r"validations +2 of 8 groups and 40 sampled responses: at most [\d.]+ %"
        )

    def test_plurals(self):
        self.assertRegex(self.first_run.stdout, r"8 groups, \d+ trained parameters, 1 rank\n")
        self.assertIn("finished: 2 steps, 8 groups", self.first_run.stdout)

    # Outputs.

    def test_an_output_that_exists_stays(self):
        (self.folder / "kept.txt").write_text("mine")
        (self.folder / "lines.jsonl").write_text('{"id": 1, "prompt_tokens": [1], "response_tokens": [2]}\n')
        model = ("--model", "runs/base/model")
        commands = [
            self.generate("--corpus", "corpus.h5", "--limit", 1),
            ("score", *model, "--input", "lines.jsonl"),
            ("evaluate", *model, "--corpus", "corpus.h5"),
        ]
        for command in commands:
            with self.subTest(command[0]):
                self.said(73, *command, "-o", "kept.txt", words=("kept.txt: exists", "--force"))
                self.assertEqual((self.folder / "kept.txt").read_text(), "mine")
                result = self.run_plural(*command, "-o", f"{command[0]}.out")
                self.assertEqual(result.returncode, 0, result.stderr)
                before = (self.folder / f"{command[0]}.out").stat().st_mtime_ns
                result = self.run_plural(*command, "-o", f"{command[0]}.out", "--force")
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertGreater((self.folder / f"{command[0]}.out").stat().st_mtime_ns, before)
                if command[0] == "score":  # which the same input gives again
                    result = self.run_plural(*command, "-o", "score.out")
                    self.assertEqual(result.returncode, 0, result.stderr)
                    self.assertIn("score.out: holds scores, which are made anew", result.stderr)
                else:
                    self.said(73, *command, "-o", f"{command[0]}.out", words=("exists", "--force"))
        self.assertEqual([str(path) for path in self.folder.glob(".tmp*")], [])
        self.said(73, *commands[0], "-o", "none/a.jsonl", words=("the folder none does not exist",))

    def test_export_replaces_models_alone(self):
        export = ("export", "--model", "runs/base/model", "--adapter", "runs/tuned/adapter", "-o")
        result = self.run_plural(*export, "merged")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("in 1 file of", result.stdout)
        self.said(73, *export, "merged", words=("merged: exists", "--force"))
        self.assertEqual(self.run_plural(*export, "merged", "--force").returncode, 0)
        (self.folder / "notes").mkdir()
        (self.folder / "notes/a.txt").write_text("mine")
        self.said(73, *export, "notes", "--force", words=("is not an exported model",))
        self.said(73, *export, "runs/base/model", "--force", words=("is not an exported model",))
        self.assertEqual((self.folder / "notes/a.txt").read_text(), "mine")
        (self.folder / "merged/.git").mkdir()  # a repository of its own
        self.said(73, *export, "merged", "--force", words=("is not an exported model",))

    # Stops.

    def stop_after_lines(self, number, partial, *arguments, stop=signal.SIGINT):
        path = self.folder / partial
        before = path.read_bytes().count(b"\n") if path.exists() else 1  # the first is not an answer
        process = subprocess.Popen(
            [training.PLURAL, *map(str, arguments)],
            cwd=self.folder,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < before + number:
            self.assertIsNone(process.poll(), "ended before it could be stopped")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.002)
        os.kill(process.pid, stop)
        _, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, errors)
        self.assertIn(f"are kept in {partial}", errors)
        self.assertNotIn("error", errors)
        return errors

    def test_generate_keeps_its_answers(self):
        training.write_corpus(self.folder / "many.h5", training.random_groups(2000))
        asked = self.generate("--corpus", "many.h5", "--responses", 8, "--batch", 1)
        for stop in (signal.SIGINT, signal.SIGTERM):
            errors = self.stop_after_lines(3, "far.jsonl.partial", *asked, "-o", "far.jsonl", stop=stop)
            self.assertRegex(errors, r"plural: stopped on request: \d+ of 2000 prompts are kept in")
        self.assertFalse((self.folder / "far.jsonl").exists())
        # What was kept is what an undisturbed start answers first.
        kept = (self.folder / "far.jsonl.partial").read_text().splitlines()[1:]
        self.assertGreaterEqual(len(kept), 6)
        few = self.generate("--corpus", "many.h5", "--responses", 8, "--batch", 1, "--limit", len(kept))
        result = self.run_plural(*few, "-o", "few.jsonl")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn(f"{len(kept)} prompts answered, in few.jsonl", result.stderr)
        for one, other in zip(kept, (self.folder / "few.jsonl").read_text().splitlines(), strict=True):
            one, other = json.loads(one), json.loads(other)
            self.assertEqual(
                [one["id"], [r["tokens"] for r in one["responses"]]],
                [other["id"], [r["tokens"] for r in other["responses"]]],
            )

    def score_goes_on(self, lines, ids):
        (self.folder / "sequences.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        score = ("score", "--model", "runs/base/model", "--input", "sequences.jsonl", "--threads", 1, "-o")
        self.stop_after_lines(1, "scores.jsonl.partial", *score, "scores.jsonl")
        # A kill may leave the lines of a part of an answer.
        partial = self.folder / "scores.jsonl.partial"
        partial.write_text("".join(partial.read_text().splitlines(keepends=True)[:-3]))
        result = self.run_plural(*score, "scores.jsonl")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r"goes on behind \d+ scored sequences")
        self.assertEqual(self.run_plural(*score, "calm.jsonl").returncode, 0)
        stopped, calm = (
            [json.loads(line) for line in (self.folder / name).read_text().splitlines()]
            for name in ("scores.jsonl", "calm.jsonl")
        )
        self.assertEqual([[line["id"], line.get("index", 0)] for line in stopped], ids)
        self.assertEqual(stopped, calm)
        for name in ("scores.jsonl", "calm.jsonl"):
            (self.folder / name).unlink()

    def test_score_goes_on(self):
        lines = [
            {"id": i, "prompt_tokens": [1, 10 + i % 30], "response_tokens": [11, 12, i % 40]}
            for i in range(12000)
        ]
        self.score_goes_on(lines, [[i, 0] for i in range(12000)])
        # Answers of generate, several sequences a line.
        lines = [
            {
                "id": f"g{i}",
                "prompt_tokens": [1, 10 + i % 30],
                "responses": [{"index": k, "possibility": 0, "tokens": [11, 12 + k]} for k in range(5)],
            }
            for i in range(2400)
        ]
        self.score_goes_on(lines, [[f"g{i}", k] for i in range(2400) for k in range(5)])

    def test_a_bad_line_leaves_nothing_behind(self):
        good = {"id": 1, "prompt_tokens": [1], "response_tokens": [2]}
        lines = [json.dumps(good)] * 3000 + ["{"]  # after the first block
        (self.folder / "broken.jsonl").write_text("\n".join(lines) + "\n")
        score = ("score", "--model", "runs/base/model", "--input", "broken.jsonl", "-o", "broken.out")
        for launcher in ((), training.mpirun(2)):
            result = self.run_plural(*score, launcher=launcher)
            self.assertEqual(result.returncode, 65, result.stderr)
            self.assertEqual(result.stderr.count("line 3001"), 1, result.stderr)
            self.assertEqual([path.name for path in self.folder.glob("broken.out*")], [])

    # Possibility numbers.

    def test_more_answers_than_numbers(self):
        numbers = self.generate("--corpus", "corpus.h5", "-o", "never.jsonl", "--possibilities")
        self.said(
            65,
            *numbers,
            "sample",
            "--responses",
            50,
            words=("50 different numbers", "the corpus has 1..5", "--possibilities 1,2,3,4,5"),
        )
        self.said(65, *numbers, "first", "--responses", 6, words=("number 6", "at most 5"))
        self.said(65, *numbers, "2,7", words=("number 7", "1..5"))
        plain = self.generate("--corpus", "plain.h5", "-o", "never.jsonl", "--possibilities", "first")
        self.said(65, *plain, words=("prepared without numbers", "leave --possibilities out"))
        self.assertEqual([path.name for path in self.folder.glob("never*")], [])
        # The advice works.
        result = self.run_plural(
            *self.generate("--corpus", "corpus.h5", "-o", "fifty.jsonl", "--limit", 1),
            *("--possibilities", "1,2,3,4,5", "--responses", 50),
        )
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_numbers_and_what_was_trained(self):
        def warnings(*arguments):
            result = self.run_plural(
                *self.generate("--corpus", "corpus.h5", "-o", "w.jsonl", "--force", "--limit", 1, *arguments)
            )
            self.assertEqual(result.returncode, 0, result.stderr)
            return [line for line in result.stderr.splitlines() if "warning" in line]

        subprocess.run(["cp", "-r", "runs/tuned/adapter", "told"], cwd=self.folder, check=True)
        told = {
            "method": "poexft",
            "possibilities": 5,
            "latents": 0,
            "begin_token_ids": [1],
            "source_format": "dialogue",
            "template": {"name": "plain-dialogue"},
            "tokenizer_name": "",
            "tokenizer_sha256": "",
        }
        (self.folder / "told/plural.json").write_text(json.dumps(told))
        self.assertEqual(warnings(), [])
        self.assertIn(
            "does not say that it was trained with possibility numbers",
            warnings("--possibilities", "first")[0],
        )
        self.assertIn("trained with possibility numbers 1 to 5", warnings("--adapter", "told")[0])
        self.assertEqual(warnings("--adapter", "told", "--possibilities", "first"), [])
        (self.folder / "told/plural.json").write_text(json.dumps(told | {"possibilities": 0}))
        self.assertIn("was not trained", warnings("--adapter", "told", "--possibilities", "first")[0])

    # Command lines.

    def test_generate_names_all_that_is_missing(self):
        self.said(64, "generate", words=("--model", "--corpus", "--output"))
        line = self.said(64, "generate", "--model", "m", words=("--corpus", "--output"))
        self.assertNotIn("--model", line)

    def test_an_adapter_of_another_model(self):
        config = training.MODEL.replace("num_hidden_layers: 2", "num_hidden_layers: 1")
        recipe = self.recipe("shallow", "otmft", adapter=False)
        path = self.folder / recipe
        path.write_text(path.read_text().replace(training.MODEL, config))
        self.assertEqual(training.train(self.folder, recipe).returncode, 0)
        line = self.said(
            65,
            *("evaluate", "--model", "runs/shallow/model", "--adapter", "runs/tuned/adapter"),
            *("--corpus", "corpus.h5"),
            words=("does not fit this model", "give the base"),
        )
        self.assertLess(len(line), 450)

    def test_a_run_is_not_its_adapter(self):
        self.said(66, "inspect", "runs/tuned", words=("is a run", "runs/tuned/adapter"))

    def test_commands_of_one_rank(self):
        for command in (["inspect", "corpus.h5"], ["validate", "tuned.yaml"], ["prepare", "x"]):
            result = subprocess.run(
                [*training.mpirun(2), LAUNCHER, *command],
                cwd=self.folder,
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual(result.returncode, 64, result.stderr)
            self.assertEqual(result.stderr.count("works on one rank alone"), 1, result.stderr)
            self.assertEqual(result.stdout.replace("-", "").strip(), "")

    def test_errors_of_python_commands_end_alike(self):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OMPI_COMM")}
        for code, command in (
            (64, ["metrics"]),
            (66, ["metrics", "none.jsonl"]),
            (64, ["prepare", "--format", "nonsense"]),
            (66, ["postprocess", "none.jsonl", "-o", "cleaned.jsonl"]),
        ):
            result = subprocess.run(
                [LAUNCHER, *command], cwd=self.folder, capture_output=True, text=True, env=environment
            )
            self.assertEqual(result.returncode, code, result.stderr)
            self.assertRegex(result.stderr, rf"^plural: error: .* \[exit {code}, phase {command[0]}\]\n$")

    def test_help_lists_every_command(self):
        text = self.run_plural("--help").stdout
        own = "train verify generate score rate evaluate export inspect validate dry-run".split()
        text_side = ["prepare", "postprocess", "metrics", "persona", "report", "plot", "ask", "serve"]
        for word in [*own, *text_side, "doctor", "launch"]:
            self.assertRegex(text, rf"(?m)^  {word} +[A-Z].*\.$")
            self.assertRegex(text, rf"(?m)^ +plural {word}")
        for word in own:
            text += self.run_plural(word, "--help").stdout
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertNotRegex(text, r"INT:|FLOAT:|TEXT:|UINT| in \[|NONNEGATIVE|POSITIVE")
        self.assertIn("--dtype fp32|bf16|fp64", text)
        self.assertIn("Example: plural train RECIPE.yaml", text)
        self.assertIn("did you mean prepare?", self.run_plural("prepar").stderr)


if __name__ == "__main__":
    unittest.main()

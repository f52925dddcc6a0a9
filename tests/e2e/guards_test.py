"""What guards a run: `plural verify`, where a start may go on from, steps that spike."""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

EXTRA = """train: {steps: 12, groups_per_step: 3}
checkpoint: {every_steps: 4, keep: 5}
"""


def verify(folder, run, *options):
    return subprocess.run(
        [training.PLURAL, "verify", f"runs/{run}", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )


_held = tempfile.TemporaryDirectory()
FOLDER = Path(_held.name)


def stop(name, step, *overrides):
    """A run that was killed before `step`."""
    kill = {"PLURAL_FAULT": f"kill@0:{step}"}
    whole = "checkpoint.asynchronous=off"
    done = training.train(FOLDER, "r.yaml", f"name={name}", whole, *overrides, environment=kill)
    assert done.returncode != 0


def setUpModule():
    unittest.addModuleCleanup(_held.cleanup)
    training.write_corpus(FOLDER / "corpus.h5", training.random_groups(8))
    training.write_recipe(FOLDER / "r.yaml", "whole", dtype="fp32", extra=EXTRA)
    stop("stopped", 11)
    done = training.train(FOLDER, "r.yaml")
    assert done.returncode == 0, done.stderr


class Guards(unittest.TestCase):
    folder = FOLDER

    def run_folder(self, name):
        return self.folder / "runs" / name

    def adapter(self, name):
        return (self.run_folder(name) / "adapter/adapter_model.safetensors").read_bytes()

    def copy(self, of, name):
        shutil.rmtree(self.run_folder(name), ignore_errors=True)
        shutil.copytree(self.run_folder(of), self.run_folder(name), copy_function=shutil.copy2)
        return self.run_folder(name)

    def assert_ends(self, done, code, *words):
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        for word in words:
            self.assertIn(word, done.stdout + done.stderr)


class Verify(Guards):
    def flip(self, file):
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)

    def bad(self, run, goes_on=False):
        """What the command finds damaged. `goes_on`: a start would mend it."""
        done = verify(self.folder, run)
        self.assertEqual("a start of the run goes on" in done.stderr, goes_on, done.stderr)
        self.assertEqual(done.returncode, 65, done.stdout + done.stderr)
        self.assertRegex(done.stderr, r"^plural: error: .* \[exit 65, phase verify\]\n$")
        return re.findall(r"(?m)^bad +([^:]+):", done.stdout)

    def test_a_finished_run_is_good_and_stays_as_it_is(self):
        run = self.run_folder("whole")
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        done = verify(self.folder, "whole")
        self.assert_ends(done, 0, "runs/whole: finished")
        good = re.findall(r"(?m)^good +([^:]+):", done.stdout)
        steps = [f"checkpoints/step-{step:08}" for step in (4, 8, 12)]
        self.assertEqual(good, ["recipe.yaml", "adapter", *steps, "metrics.jsonl", "data.train"])
        self.assertEqual(before, {path: path.stat().st_mtime_ns for path in run.rglob("*")})
        report = json.loads(verify(self.folder, "whole", "--json").stdout)
        self.assertEqual((report["state"], report["good"]), ("finished", True))
        self.assertEqual([found["what"] for found in report["findings"]], good)

    def test_every_damage_is_named(self):
        checkpoint = "checkpoints/step-00000008"
        for name in ("trainable.safetensors", "optimizer.safetensors", "state.json", "manifest.json"):
            self.flip(self.copy("whole", "damaged") / checkpoint / name)
            self.assertEqual(self.bad("damaged", goes_on=True), [checkpoint], name)
        self.flip(self.copy("whole", "damaged") / "adapter/adapter_model.safetensors")
        self.assertEqual(self.bad("damaged", goes_on=True), ["adapter"])
        (self.copy("whole", "damaged") / "recipe.yaml").write_text("method: none\n")
        self.assertEqual(self.bad("damaged"), ["recipe.yaml"])
        recipe = self.copy("whole", "damaged") / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("seed: 7", "seed: 8"))
        self.assertEqual(len(self.bad("damaged")), 3)  # each checkpoint is of another recipe
        copy = self.copy("whole", "damaged")
        recipe = (copy / "recipe.yaml").read_text()
        training.write_corpus(self.folder / "other.h5", training.random_groups(8, seed=1))
        (copy / "recipe.yaml").write_text(recipe.replace("train: corpus.h5", "train: other.h5"))
        self.assertEqual(self.bad("damaged"), ["data.train"])

    def test_metrics_that_are_cut_or_out_of_order(self):
        whole = (self.run_folder("whole") / "metrics.jsonl").read_text()
        lines = whole.splitlines(keepends=True)
        at = next(i for i, line in enumerate(lines) if '"step":6,' in line)
        damages = {
            "cut within a line": whole[: len(whole) // 2],
            "cut behind a line": "".join(lines[:-1]),
            "a line too few": "".join(lines[:at] + lines[at + 1 :]),
            "a line twice": "".join(lines[: at + 1] + lines[at:]),
            "no JSON": whole.replace('"step":6,', '"step":6', 1),
            "a NUL": whole.replace('"step":6,', '"step":\0,', 1),
        }
        for damage, text in damages.items():
            with self.subTest(damage):
                (self.copy("whole", "damaged") / "metrics.jsonl").write_text(text)
                self.assertEqual(self.bad("damaged"), ["metrics.jsonl"])
        (self.copy("whole", "damaged") / "metrics.jsonl").unlink()
        self.assertEqual(self.bad("damaged"), ["metrics.jsonl"])

    def test_a_run_that_was_killed(self):
        self.assert_ends(verify(self.folder, "stopped"), 0, "runs/stopped: unfinished")
        metrics = self.copy("stopped", "cut") / "metrics.jsonl"
        text = metrics.read_text()
        # What stands behind the last checkpoint is written anew.
        metrics.write_text(text[:-20])
        self.assert_ends(verify(self.folder, "cut"), 0, "note  metrics.jsonl: behind them")
        metrics.write_text(text[: len(text) // 2])
        self.assertEqual(self.bad("cut"), ["metrics.jsonl"])

    def test_lines_of_other_steps_and_starts(self):
        """Steps between lines, another number of them at each start, a last step that is no multiple."""
        stop("sparse", 10, "train.log_every_steps=3")
        done = training.train(self.folder, "r.yaml", "name=sparse", "train.log_every_steps=5")
        self.assertEqual(done.returncode, 0, done.stderr)
        steps = [line["step"] for line in training.metrics(self.folder, "sparse") if line["event"] == "step"]
        self.assertEqual(steps, [3, 6, 10, 12])
        self.assert_ends(verify(self.folder, "sparse"), 0)

    def test_no_run(self):
        self.assert_ends(verify(self.folder, "none"), 66, "runs/none")
        (self.folder / "runs/empty").mkdir()
        self.assert_ends(verify(self.folder, "empty"), 66, "no run")

    def test_a_run_that_lives(self):
        process = subprocess.Popen(
            training.command("r.yaml", "name=lives", "train.steps=100000", "watchdog.enabled=false"),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 60
            while not (self.run_folder("lives") / "checkpoints/step-00000004").exists():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            for _ in range(3):
                self.assert_ends(
                    verify(self.folder, "lives"), 0, f"process {process.pid} on", "runs/lives: running"
                )
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        self.assert_ends(verify(self.folder, "lives"), 0, "runs/lives: unfinished")


class Resume(Guards):
    def start(self, name, resume, *overrides):
        return training.train(self.folder, "r.yaml", f"name={name}", f"resume={resume}", *overrides)

    def files(self, name):
        run = self.run_folder(name)
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} if run.exists() else {}

    def test_never_begins_where_nothing_is(self):
        for name, word in (("stopped", "holds checkpoints"), ("whole", "holds checkpoints")):
            before = self.files(name)
            self.assert_ends(self.start(name, "never"), 73, word, "resume is never")
            self.assertEqual(self.files(name), before)
        shutil.rmtree(self.copy("whole", "result") / "checkpoints")
        self.assert_ends(self.start("result", "never"), 73, "holds a result")
        self.assert_ends(self.start("fresh", "never", "train.steps=1"), 0, "steps 1 to 1")

    def test_require_begins_nothing(self):
        self.assert_ends(self.start("nothing", "require"), 66, "resume is require")
        self.assertFalse(self.run_folder("nothing").exists())
        stop("required", 6)
        self.assert_ends(self.start("required", "require"), 0, "resumed after step 4 of 12")
        self.assert_ends(self.start("required", "require"), 0, "is finished")

    def test_lines_that_were_lost_end_no_run_and_are_not_invented(self):
        whole = {
            line["step"]: line for line in training.metrics(self.folder, "whole") if line["event"] == "step"
        }
        damages = {"gone": None, "empty": "", "cut": '"step":5,', "torn": '"step":7,'}
        stop("lost", 11)
        self.copy("lost", "kept")
        for damage, at in damages.items():
            with self.subTest(damage):
                metrics = self.copy("kept", "lost") / "metrics.jsonl"
                text = metrics.read_text()
                metrics.unlink() if at is None else metrics.write_text(
                    text[: text.index(at) + 20] if at else ""
                )
                last = {"cut": 4, "torn": 6}.get(damage, 0)
                done = self.start("lost", "auto")
                self.assert_ends(
                    done, 0, "resumed after step 8 of 12", f"lines behind step {last} up to step 8"
                )
                self.assertEqual(self.adapter("lost"), self.adapter("whole"))
                lines = training.metrics(self.folder, "lost")
                steps = [line for line in lines if line["event"] == "step"]
                self.assertEqual([line["step"] for line in steps], [*range(1, last + 1), *range(9, 13)])
                for line in steps:
                    self.assertEqual(line["loss"], whole[line["step"]]["loss"])
                (resume,) = [line for line in lines if line["event"] == "resume"]
                self.assertEqual(resume["lines_lost_after_step"], last)
                self.assert_ends(verify(self.folder, "lost"), 0, f"lines of steps {last + 1} to 8 were lost")

    def test_lines_behind_an_older_checkpoint_never_stand_twice(self):
        """Lost lines leave a file that is shorter than an older checkpoint has seen."""
        stop("again", 11)
        (self.run_folder("again") / "metrics.jsonl").unlink()
        stop("again", 12, "checkpoint.every_steps=1")
        for step in (9, 10, 11):
            shutil.rmtree(self.run_folder("again") / f"checkpoints/step-{step:08}")
        self.assert_ends(self.start("again", "auto"), 0, "resumed after step 8 of 12")
        lines = training.metrics(self.folder, "again")
        self.assertEqual([line["step"] for line in lines if line["event"] == "step"], [9, 10, 11, 12])
        self.assert_ends(verify(self.folder, "again"), 0, "steps 1 to 8 were lost")

    def test_a_checkpoint_of_another_run(self):
        before = self.files("stopped")
        path = "runs/stopped/checkpoints/step-00000004"
        self.assert_ends(self.start("branch", f"{path}/"), 0, "resumed after step 4 of 12")
        self.assertEqual(self.adapter("branch"), self.adapter("whole"))
        first, *lines = training.metrics(self.folder, "branch")
        self.assertEqual((first["event"], first["step"], first["restarts"]), ("resume", 4, 0))
        self.assertEqual(first["resumed_from"], f"{path}/")
        self.assertEqual([line["step"] for line in lines if line["event"] == "step"], list(range(5, 13)))
        self.assertEqual(self.files("stopped"), before)
        self.assert_ends(verify(self.folder, "branch"), 0)
        # From another folder and by another spelling of the corpus; to a run that is killed and goes on.
        stop("moved", 10, f"resume={self.folder / path}", f"data.train={self.folder / 'corpus.h5'}")
        self.assert_ends(self.start("moved", self.folder / path), 0, "resumed after step 8 of 12")
        self.assertEqual(self.adapter("moved"), self.adapter("whole"))

    def test_checkpoints_that_do_not_fit(self):
        path = "runs/whole/checkpoints/step-00000004"
        refused = [
            (78, ("seed: 8 (was 7)",), path, "seed=8"),
            (65, ("another corpus",), path, "data.train=other.h5"),
            (78, ("must be auto",), "runs/whole", "seed=7"),
            (78, ("must be auto",), "alway", "seed=7"),
            (66, ("no checkpoint is there",), "runs/whole/checkpoints/step-00000005", "seed=7"),
        ]
        training.write_corpus(self.folder / "other.h5", training.random_groups(8, seed=1))
        for code, words, resume, override in refused:
            self.assert_ends(self.start("branch-2", resume, override), code, *words)
        self.assert_ends(self.start("whole", path), 78, "of this run itself")
        copy = self.copy("whole", "alone")
        (copy / "recipe.yaml").unlink()
        self.assert_ends(
            self.start("branch-2", "runs/alone/checkpoints/step-00000004"), 66, "no recipe.yaml two folders"
        )
        weights = self.copy("whole", "broken") / "checkpoints/step-00000004/trainable.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        self.assert_ends(self.start("branch-3", weights.parent.relative_to(self.folder)), 65, "bytes")
        self.assertTrue(weights.exists(), "a checkpoint of another run is not set aside")


class Spikes(Guards):
    """One group again and again, which the model learns by heart, and another one in step 26."""

    SPIKE, GROUPS = 26, [50, 51]

    @classmethod
    def setUpClass(cls):
        usual, odd = training.random_groups(1, responses=1), training.random_groups(1, responses=1, seed=9)
        groups = usual * 60
        groups[50:52] = odd * 2
        training.write_corpus(cls.folder / "spike.h5", groups)
        extra = "train: {groups_per_step: 2, reduction: canonical}\n"
        corpus = "spike.h5, shuffle: false"
        training.write_recipe(cls.folder / "s.yaml", "spikes", "otoft", corpus, dtype="fp32", extra=extra)

    def start(self, name, spike, *overrides, **settings):
        guard = [f"guard.spike={spike}"] + (["guard.window_steps=16"] if spike != "off" else [])
        return training.train(
            self.folder, "s.yaml", f"name={name}", "optimizer.lr=0.02", *guard, *overrides, **settings
        )

    def skipped(self):
        """The run that no test disturbs, one for all."""
        if not hasattr(Spikes, "calm"):
            Spikes.calm = self.start("skip", "skip")
        return Spikes.calm

    def spikes(self, name):
        lines = training.metrics(self.folder, name)
        for line in lines:
            if line["event"] == "step":
                self.assertEqual("spike" in line, line["step"] == self.SPIKE, line)
        return [line for line in lines if line["event"] == "spike"]

    def test_a_step_is_left_out_on_any_number_of_ranks_and_over_a_kill(self):
        done = self.skipped()
        self.assert_ends(done, 0, "step 26 stands out: its gradient norm", "groups: 50, 51; it was left out")
        self.start("skip-2", "skip", ranks=2)
        kill = {"PLURAL_FAULT": f"kill@0:{self.SPIKE - 1}"}
        saves = ("checkpoint.every_steps=21", "checkpoint.asynchronous=off")
        self.start("skip-kill", "skip", *saves, environment=kill, ranks=2)
        self.assert_ends(self.start("skip-kill", "skip"), 0, "resumed after step 21")
        (found,) = self.spikes("skip")
        self.assertEqual((found["step"], found["action"], found["figure"]), (self.SPIKE, "skip", "grad_norm"))
        self.assertEqual(found["group_ids"], self.GROUPS)
        self.assertGreater(found["value"], 10 * found["median"])
        for other in ("skip-2", "skip-kill"):
            self.assertEqual(self.adapter(other), self.adapter("skip"), other)
            self.assertEqual(self.spikes(other), [found])
            self.assertEqual(training.losses(self.folder, other), training.losses(self.folder, "skip"))
        self.assert_ends(verify(self.folder, "skip-kill"), 0)
        state = json.loads((self.run_folder("skip") / "checkpoints/step-00000030/state.json").read_text())
        self.assertEqual((state["guard"]["skipped_steps"], state["optimizer"]["updates"]), (1, 29))
        self.assertEqual(len(state["guard"]["losses"]), 16)

    def test_a_warning_changes_nothing(self):
        self.start("off", "off")
        self.assert_ends(self.start("warn", "warn"), 0, "groups: 50, 51; it was made")
        self.assertEqual(self.adapter("off"), self.adapter("warn"))
        self.assertEqual([line["action"] for line in self.spikes("warn")], ["warn"])
        state = (self.run_folder("off") / "checkpoints/step-00000030/state.json").read_text()
        self.assertNotIn("guard", state)

    def test_a_stop_keeps_the_state_before(self):
        words = ("step 26 stands out", "groups: 50, 51", "the state after step 25 is saved")
        for ranks in (2, 1):
            self.assert_ends(self.start("stop", "stop", ranks=ranks), 77, *words)
            steps = [path.name for path in (self.run_folder("stop") / "checkpoints").iterdir()]
            self.assertEqual(steps, ["step-00000025"])
        self.assertEqual(training.metrics(self.folder, "stop")[-1]["action"], "stop")
        self.assert_ends(verify(self.folder, "stop"), 0)
        self.assert_ends(self.start("stop", "skip"), 0, "resumed after step 25")
        self.skipped()
        self.assertEqual(self.adapter("stop"), self.adapter("skip"))

    def test_steps_that_all_stand_out_end_the_run(self):
        done = self.start("all", "skip", "optimizer.lr=0.1", "guard.window_steps=8", "guard.factor=3")
        self.assert_ends(done, 77, "the 8 steps before it were left out", "set guard.spike to warn")


if __name__ == "__main__":
    unittest.main()

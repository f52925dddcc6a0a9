"""A tracker beside a training: what it gets, and that it changes neither result, exit code nor the end."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util

import training

ROOT = Path(__file__).resolve().parents[2]
# At the priority of a tracker, a machine that is busy takes minutes; root alone may raise it.
USUAL = "#!/bin/sh\nrenice -n 0 -p $$ >&- 2>&-\n"
# A launch/plural that answers as the real one does on a machine without the library.
WITHOUT_LIBRARY = (
    USUAL
    + """exec {python} -c "import sys; sys.modules['tensorboard'] = None
import plural_text.__main__ as m; sys.exit(m.main(sys.argv[1:]))" "$@"
"""
)


def wait_for(what, seconds=400):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("it does not come")
        time.sleep(0.05)


class TrackTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(4))
        training.write_recipe(self.folder / "r.yaml", "run", extra="train: {epochs: 3, groups_per_step: 2}")

    def program_beside(self, launch):
        """The compiled program in a project of its own, whose launch/plural is this script."""
        program = self.folder / "project/build/plural"
        program.parent.mkdir(parents=True)
        shutil.copy2(training.PLURAL, program)
        if launch is not None:
            path = self.folder / "project/launch/plural"
            path.parent.mkdir()
            path.write_text(launch)
            path.chmod(0o755)
        return program

    def train(self, name, *overrides, program=training.PLURAL, ranks=1, code=0):
        start = training.mpirun(ranks) if ranks > 1 else []
        done = subprocess.run(
            [*start, program, "train", "r.yaml", f"name={name}", *overrides],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def log(self, name):
        path = self.folder / f"runs/{name}/log/track.log"
        return path.read_text() if path.exists() else ""

    def assert_same_result(self, name):
        adapter = self.folder / f"runs/{name}/adapter"
        for path in (self.folder / "runs/plain/adapter").iterdir():
            self.assertEqual((adapter / path.name).read_bytes(), path.read_bytes(), path.name)

    def test_figures_arrive_and_the_result_is_the_same(self):
        self.train("plain")
        program = self.program_beside(f'{USUAL}exec {ROOT / "launch/plural"} "$@"\n')
        for ranks in (1, 2):
            name = f"tracked-{ranks}"
            done = self.train(name, "log.tensorboard=true", program=program, ranks=ranks)
            self.assertNotIn("warning", done.stderr)
            if ranks == 1:
                self.assert_same_result(name)
            run = self.folder / "runs" / name
            size = (run / "metrics.jsonl").stat().st_size
            state = run / "log/track.json"
            reached = lambda: (
                state.exists() and json.loads(state.read_text())["tensorboard"]["place"]["end_bytes"] == size
            )
            wait_for(reached)
            found = {}
            for path in (run / "log/tensorboard").iterdir():
                for event in EventFileLoader(str(path)).Load():
                    for value in event.summary.value:
                        if value.tag == "train/loss":
                            found[event.step] = tensor_util.make_ndarray(value.tensor).item()
            losses = {
                line["step"]: line["loss"]
                for line in training.metrics(self.folder, name)
                if line["event"] == "step"
            }
            self.assertEqual(found.keys(), losses.keys())
            for number, loss in losses.items():
                self.assertAlmostEqual(found[number], loss, delta=abs(loss) * 2**-23)
            self.assertEqual(self.log(name), "")

    def test_a_tracker_that_fails_changes_nothing(self):
        self.train("plain")
        python = f"PYTHONPATH={ROOT / 'data/text'} exec {sys.executable}"
        scripts = {
            "crash": "#!/bin/sh\necho end of it\nkill -SEGV $$\n",
            "missing": WITHOUT_LIBRARY.replace("exec {python}", python),
        }
        for name, script in scripts.items():
            shutil.rmtree(self.folder / "project", ignore_errors=True)
            done = self.train(name, "log.tensorboard=true", program=self.program_beside(script))
            self.assertEqual(done.stderr, "")
            self.assert_same_result(name)
            wait_for(lambda: self.log(name))
        wait_for(lambda: self.log("missing").endswith("[exit 69, phase track]\n"))
        self.assertIn("requirements-tracking.txt", self.log("missing"))
        # None that could be started: one warning.
        shutil.rmtree(self.folder / "project")
        done = self.train("none", "log.tensorboard=true", program=self.program_beside(None))
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        self.assertIn("plural: warning: no tracker is started: launch/plural is not beside", done.stderr)
        self.assert_same_result("none")

    def test_the_training_does_not_wait_for_it(self):
        program = self.program_beside("#!/bin/sh\necho $$\nexec sleep 600\n")
        for ranks in (1, 2):
            name = f"slow-{ranks}"
            self.train(name, "log.tensorboard=true", program=program, ranks=ranks)  # also mpirun ends
            wait_for(lambda: self.log(name))
            (process,) = self.log(name).split()  # one, also of two ranks
            os.kill(int(process), signal.SIGKILL)  # which is still there

    def test_what_ends_a_run_is_in_its_log_and_in_watch(self):
        done = self.train("bad", "model.dtype=fp32", "optimizer.lr=1e30", "train.epochs=50", code=77)
        last = (self.folder / "runs/bad/log/rank-00000.log").read_text().splitlines()[-1]
        self.assertIn(" error ", last)
        reason = last.partition(" error ")[2]
        self.assertIn(reason, done.stderr)
        shown = subprocess.run(
            [sys.executable, "-m", "plural_text", "watch", self.folder / "runs/bad"],
            capture_output=True,
            text=True,
        )
        self.assertEqual(shown.stdout.splitlines()[0].split()[:2], ["bad", "failed"])
        self.assertIn(reason, " ".join(shown.stdout.split()))

    def test_other_trackers_are_no_other_run(self):
        self.train("run")
        self.assertIn("is finished", self.train("run", "log.tensorboard=true").stdout)


if __name__ == "__main__":
    unittest.main()

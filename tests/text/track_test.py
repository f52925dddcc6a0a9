"""`plural track`: what trackers hold is what metrics.jsonl holds, once, whatever happens to them or to the
run. Files are read back by TensorBoard's own reader; those of Weights & Biases by their records."""

import contextlib
import json
import os
import sqlite3
import struct
import subprocess
import sys
import time
import unittest
from collections import Counter

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from wandb.proto import wandb_internal_pb2

from text.metrics_lines import Run, start, step, validation
from text.support import FolderTest, command, run

_BLOCK_BYTES = 32768  # of the files of Weights & Biases, whose form is LevelDB's log


def scalars(run_root):
    """(name, step) -> the values of all event files, in the order of the files."""
    found = {}
    for path in sorted((run_root / "log/tensorboard").iterdir()):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag != "recipe":
                    number = tensor_util.make_ndarray(value.tensor).item()
                    found.setdefault((value.tag, event.step), []).append(number)
    return found


def expected(lines):
    """The same of metrics.jsonl, in TensorBoard's single precision."""
    found = {}
    for line in lines:
        if line["event"] in ("start", "resume", "checkpoint"):
            continue
        name = "train" if line["event"] == "step" else line["event"]
        for key, value in line.items():
            if key not in ("event", "step"):
                found[f"{name}/{key}", line["step"]] = [float(np.float32(value))]
    return found


def records(path):
    """The records of a .wandb file, with their kinds."""
    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if _BLOCK_BYTES - at % _BLOCK_BYTES < 7:
            at += _BLOCK_BYTES - at % _BLOCK_BYTES
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def sent_to_wandb(run_root):
    """The rows of every offline run, and its settings: ([(step, name, value)], run record)."""
    rows, about = [], []
    for path in sorted((run_root / "log/wandb").glob("offline-run-*/*.wandb")):
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                about.append(record.run)
            if record.WhichOneof("record_type") == "history":
                items = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
                number = items.pop("_step")
                rows += [(number, key, value) for key, value in items.items() if not key.startswith("_")]
    return rows, about


class Track(FolderTest):
    LINES = [
        start(),
        *[step(n) for n in range(1, 6)],
        validation(5),
        {"event": "pass", "step": 5, "epoch": 0, "groups": 10, "loss": 3.0, "stopped_early": False},
        {"event": "checkpoint", "step": 5},
    ]

    def equal(self, found, lines):
        want = expected([{k: v for k, v in line.items() if k != "stopped_early"} for line in lines])
        self.assertEqual(found.keys(), want.keys())
        for key, values in want.items():
            np.testing.assert_array_equal(found[key], values, err_msg=str(key))

    def track(self, *arguments, code=0):
        done = run("track", *arguments)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def test_tensorboard_has_what_the_file_has(self):
        mine = Run(self.folder, lines=self.LINES)
        done = self.track(mine.root, "--tensorboard")
        self.assertIn("tensorboard: 7 lines sent, for tensorboard --logdir", done.stdout)
        self.equal(scalars(mine.root), self.LINES)
        self.assertIn("train/grad_norm", {name for name, _ in scalars(mine.root)})  # not a number
        # Again: nothing is new. Later lines are sent alone.
        self.assertIn("tensorboard: 0 lines sent", self.track(mine.root, "--tensorboard").stdout)
        mine.append(step(6))
        self.assertIn("tensorboard: 1 lines sent", self.track(mine.root, "--tensorboard").stdout)
        self.equal(scalars(mine.root), [*self.LINES, step(6)])

    def test_times_are_those_of_the_run(self):
        mine = Run(self.folder, lines=self.LINES)
        self.track(mine.root, "--tensorboard")
        (path,) = (mine.root / "log/tensorboard").iterdir()
        times = [e.wall_time for e in EventFileLoader(str(path)).Load() if e.summary.value and e.step > 0]
        self.assertEqual(times[:2], [1_700_000_000.5, 1_700_000_001.0])

    def test_steps_without_a_line_take_their_time_too(self):
        # As train.log_every_steps = 10 writes them, from a start on that resumes behind step 5.
        lines = [start(event="resume", at=5), *[{**step(n), "seconds": 2.0} for n in (10, 20)]]
        lines += [{"event": "validation", "step": 20, "perplexity": 2.0, "seconds": 7.0}]
        lines += [{"event": "step", "step": 21, "loss": 1.0, "seconds": "nan"}]
        lines += [{"event": "end", "step": 21, "seconds": 100.0}]
        mine = Run(self.folder, lines=lines)
        self.track(mine.root, "--tensorboard")
        (path,) = (mine.root / "log/tensorboard").iterdir()
        times = [e.wall_time for e in EventFileLoader(str(path)).Load() if e.summary.value and e.step > 0]
        self.assertEqual([time - 1_700_000_000 for time in times], [10.0, 30.0, 37.0, 37.0, 100.0])

    def test_a_line_that_is_half_written_is_left_for_later(self):
        mine = Run(self.folder, lines=self.LINES)
        whole = json.dumps(step(6)) + "\n"
        with open(mine.metrics, "a") as stream:
            stream.write(whole[:40])
        self.track(mine.root, "--tensorboard")
        self.equal(scalars(mine.root), self.LINES)
        with open(mine.metrics, "a") as stream:
            stream.write(whole[40:])
        self.track(mine.root, "--tensorboard")
        self.equal(scalars(mine.root), [*self.LINES, step(6)])

    def test_what_a_resumed_run_repeats_is_not_sent_again(self):
        for grown in (1, 3):  # steps behind the checkpoint; the file is then shorter, or longer than before
            with self.subTest(grown):
                mine = Run(self.folder, f"cut-{grown}", [*self.LINES, step(6), step(7)])
                self.track(mine.root, "--tensorboard")
                again = [start(event="resume", at=5), *[step(6 + n) for n in range(grown)]]
                mine.metrics.write_text("")
                mine.append(*self.LINES, *again)
                self.track(mine.root, "--tensorboard")
                self.equal(scalars(mine.root), [*self.LINES, step(6), step(7), *again[3:]])

    def test_wandb_offline(self):
        mine = Run(self.folder, lines=self.LINES, project="p")
        self.track(mine.root)
        mine.append(step(6))
        self.assertIn("wandb/p: 1 lines sent, for wandb sync ", self.track(mine.root).stdout)
        rows, about = sent_to_wandb(mine.root)
        want = {
            (number, name): value[0] for (name, number), value in expected([*self.LINES, step(6)]).items()
        }
        want = {key: value for key, value in want.items() if key[1] != "pass/stopped_early"}
        self.assertEqual(Counter((number, name) for number, name, _ in rows), Counter(want.keys()))
        for number, name, value in rows:
            np.testing.assert_allclose(
                float("nan") if value == "NaN" else value, want[number, name], rtol=1e-6, err_msg=name
            )
        self.assertEqual({(each.project, each.display_name) for each in about}, {("p", "mine")})
        self.assertEqual(len({each.run_id for each in about}), 1)  # the second start went on with the first's
        other = self.track(mine.root, "--wandb", "q").stdout  # which has got nothing yet
        self.assertIn("wandb/q: 8 lines sent", other)
        config = {item.key: json.loads(item.value_json) for item in about[0].config.update}
        self.assertEqual((config["seed"], config["optimizer"]), (7, {"lr": 0.01}))

    def test_trackio(self):
        mine = Run(self.folder, lines=self.LINES)
        with open(mine.root / "recipe.yaml", "a") as stream:
            stream.write("  trackio: true\n")
        store = {**os.environ, "TRACKIO_DIR": str(self.folder / "store")}
        state = mine.root / "log/track.json"
        for lines in (7, 1, 1):
            done = run("track", mine.root, env=store)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn(f"trackio: {lines} lines sent, for trackio show --project plural", done.stdout)
            if lines == 7:
                mine.append(step(6))
                before = state.read_text()
            else:
                state.write_text(before)  # killed before it was counted: the store has the row once
        with contextlib.closing(sqlite3.connect(self.folder / "store/plural.db")) as base:
            rows = base.execute("select step, run_name, metrics, timestamp from metrics").fetchall()
            (config,) = base.execute("select config from configs").fetchone()
        self.assertEqual({name for _, name, *_ in rows}, {"mine"})
        values = [(number, json.loads(text)) for number, _, text, _ in rows]
        found = Counter((key, number) for number, own in values for key in own)
        want = Counter(expected([*self.LINES, step(6)]).keys())
        self.assertEqual(found, want - Counter([("pass/stopped_early", 5)]))
        losses = {number: own["train/loss"] for number, own in values if "train/loss" in own}
        self.assertEqual(losses, {number: 5.0 / number for number in range(1, 7)})
        self.assertEqual(min(time for *_, time in rows), "2023-11-14T22:13:20.500000+00:00")
        self.assertEqual(json.loads(config)["optimizer"], {"lr": 0.01})

    def test_a_follower_that_is_killed_sends_nothing_twice(self):
        mine = Run(self.folder, lines=self.LINES, tensorboard="true")
        mine.hold()
        lines, number = list(self.LINES), 5
        for _ in range(3):
            process = subprocess.Popen(command("track", mine.root, "--follow"))
            begun, wanted = time.monotonic(), number + 2
            while time.monotonic() - begun < 60 and not self.has_sent(mine, wanted):
                if number < wanted + 3:
                    number += 1
                    lines.append(step(number))
                    mine.append(lines[-1])
                time.sleep(0.05)
            process.kill()
            process.wait()
        mine.let_go()
        # What a follower wrote and did not live to count.
        newest = max((mine.root / "log/tensorboard").iterdir(), key=lambda path: path.stat().st_mtime)
        newest.write_bytes(newest.read_bytes() * 2)
        lines.append(step(number + 1))
        mine.append(lines[-1])
        self.track(mine.root, "--follow")
        self.equal(scalars(mine.root), lines)

    @staticmethod
    def has_sent(mine, number):
        state = mine.root / "log/track.json"
        return (
            state.exists() and json.loads(state.read_text())["tensorboard"]["steps"].get("step", 0) >= number
        )

    def test_follow_ends_when_the_run_does(self):
        mine = Run(self.folder, lines=self.LINES, tensorboard="true")
        mine.hold()
        follower = subprocess.Popen(command("track", mine.root, "--follow"))
        self.addCleanup(follower.kill)
        begun = time.monotonic()
        while not self.has_sent(mine, 5):
            self.assertLess(time.monotonic() - begun, 60)
            time.sleep(0.05)
        # There is one at a time: the second follower leaves at once, a start by hand is refused.
        self.track(mine.root, "--follow")
        self.assertIn("another process sends", self.track(mine.root, code=73).stderr)
        self.assertIsNone(follower.poll())
        mine.append(step(6))  # its last line, and the lock is free
        mine.let_go()
        self.assertEqual(follower.wait(60), 0)
        self.equal(scalars(mine.root), [*self.LINES, step(6)])

    def test_a_missing_library_is_named_with_what_installs_it(self):
        mine = Run(self.folder, lines=self.LINES)
        for library in ("tensorboard", "wandb", "trackio"):
            code = f"import sys; sys.modules['{library}'] = None; import plural_text.__main__ as m; "
            code += f"sys.exit(m.main(['track', {str(mine.root)!r}, *sys.argv[1:]]))"
            option = ["--wandb", "p"] if library == "wandb" else [f"--{library}"]
            done = subprocess.run([sys.executable, "-c", code, *option], capture_output=True, text=True)
            self.assertEqual(done.returncode, 69, done.stderr)
            self.assertIn(f"{library} is not installed", done.stderr)
            self.assertIn("requirements-tracking.txt", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def test_bad_input_is_refused_in_a_line(self):
        mine = Run(self.folder, lines=self.LINES)
        cases = [
            ((self.folder / "nothing", "--tensorboard"), 66, "is no folder"),
            ((self.folder, "--tensorboard"), 66, "has neither recipe.yaml nor metrics.jsonl"),
            ((mine.root,), 64, "give --tensorboard, --wandb PROJECT or --trackio"),
        ]
        for arguments, code, text in cases:
            self.assertIn(text, self.track(*arguments, code=code).stderr)
        huge = json.dumps({"event": "step", "step": 1, "loss": 10**400})
        far = json.dumps({"event": "step", "step": 10**30})
        for damage in (
            '{"event": "step"}',
            "no json",
            "[1]",
            huge,
            far,
            '{"event":"step","step":1,"loss":1e999}',
        ):
            mine.metrics.write_text("")
            mine.append(*self.LINES)
            with open(mine.metrics, "a") as stream:
                stream.write(damage + "\n")
            done = self.track(mine.root, "--tensorboard", code=65)
            self.assertIn(f"metrics.jsonl:{len(self.LINES) + 1}: ", done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        (mine.root / "log/track.json").write_text("{")
        self.assertIn("track.json", self.track(mine.root, "--tensorboard", code=65).stderr)
        (mine.root / "recipe.yaml").write_text("log: [1]")
        self.track(mine.root, "--tensorboard", code=65)


if __name__ == "__main__":
    unittest.main()

"""`plural watch`: what it shows of runs in every state, at every width, and that it leaves them alone."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import unittest
from unittest import mock

from plural_text.common.run_state import RunFolder
from plural_text.watch import command as watch
from plural_text.watch.lines import duration, lines_of
from plural_text.watch.run_view import RunView
from text.metrics_lines import Run, start, step, validation
from text.support import FolderTest, command, run


def seen(mine, columns=1000):
    view = RunView(RunFolder(mine.root))
    view.look()
    return view, [line.plain for line in lines_of(view, columns)]


class Screen:
    """`plural watch` on a terminal of its own."""

    def __init__(self, *arguments, columns=80, rows=24):
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            command("watch", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
        )

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text, seconds=60.0):
        """What was written up to a text; also an AssertionError's message where it does not come."""
        shown, end = b"", time.monotonic() + seconds
        while text.encode() not in shown:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"no {text!r} in {shown.decode(errors='replace')!r}")
            shown += os.read(self.master, 65536)
        return shown.decode(errors="replace")

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


class Watch(FolderTest):
    LINES = [start(last_step=40), *[step(n) for n in range(1, 11)], validation(10)]

    def screen(self, *arguments, **options):
        screen = Screen(*arguments, **options)
        self.addCleanup(screen.close)
        return screen

    def test_a_run_that_trains(self):
        mine = Run(self.folder, lines=self.LINES)
        mine.hold()
        self.addCleanup(mine.let_go)
        view, lines = seen(mine)
        self.assertEqual(view.state.word, "running")
        self.assertEqual(lines[0], "mine  running   2 ranks")
        # 2 groups in half a second; 30 steps of that are left.
        for text in ("step 10 of 40", "25 %", "15 s left", "4 groups/s", "epoch 2"):
            self.assertIn(text, lines[1])
        self.assertIn("loss 0.5  likelihood 0.5  unlikelihood 0.25  grad_norm 0.1  lr 0.001", lines[2])
        self.assertIn("validation of step 10  loss 2  perplexity 7.5  different_responses 3.5", lines[3])
        self.assertEqual(len(lines), 4)

    def test_every_state(self):
        def state(name, *, lines=(), logs=(), finish=False):
            mine = Run(self.folder, name, lines)
            mine.log(*logs)
            if finish:
                mine.finish()
            return seen(mine)[0].state

        begun = ("info", "start, rank 0 of 1 on here")
        end = {"event": "end", "step": 40, "seconds": 3.0, "peak_host_memory_bytes": 2**30}
        self.assertEqual(state("a", lines=[*self.LINES, end], logs=[begun], finish=True).word, "finished")
        stopped = ("info", "stopped on request after step 10")
        self.assertEqual(state("b", lines=self.LINES, logs=[begun, stopped]).word, "stopped")
        failed = state("c", lines=self.LINES, logs=[begun, ("error", "corpus.h5: is damaged")])
        self.assertEqual((failed.word, failed.detail), ("failed", "corpus.h5: is damaged"))
        self.assertEqual(state("d", lines=self.LINES, logs=[begun]).word, "ended")
        # An error of an earlier start, here of a rank that is no longer there, is of no interest.
        mine = Run(self.folder, "e", self.LINES)
        mine.log(("error", "x"), rank=1)
        mine.log(begun, begun, ("error", "y"), ("info", "resume after step 3"))
        self.assertEqual(seen(mine)[0].state.word, "ended")
        # Of several ranks, the first error made the others end.
        mine = Run(self.folder, "f", self.LINES)
        mine.log(begun, ("info", "x"), ("info", "y"), ("error", "a peer is lost"))
        mine.log(("info", "start"), ("error", "the disk is full"), rank=1)
        self.assertEqual(seen(mine)[0].state.detail, "the disk is full")
        # Whether a process of another machine lives is not known; how it ended is, by the logs.
        for name, word in (("d", "elsewhere"), ("b", "stopped"), ("f", "failed"), ("a", "finished")):
            (self.folder / name / "run.lock").write_text(f"process {os.getpid()} on elsewhere")
            view = RunView(RunFolder(self.folder / name))
            view.look()
            self.assertEqual(view.state.word, word)
        self.assertEqual(seen(Run(self.folder, "g"))[0].state.word, "starting")
        # A result that is being written again.
        mine = Run(self.folder, "h", self.LINES)
        mine.finish()
        mine.hold()
        self.assertEqual(seen(mine)[0].state.word, "running")
        mine.let_go()
        self.assertEqual(seen(mine)[0].state.word, "finished")

    def test_half_a_line_a_damaged_one_and_a_file_that_is_cut(self):
        mine = Run(self.folder, lines=self.LINES)
        view, _ = seen(mine)
        with open(mine.metrics, "a") as stream:
            stream.write(json.dumps(step(11))[:30])
        view.look()
        self.assertEqual((view.step, view.unreadable_lines), (10, 0))
        with open(mine.metrics, "a") as stream:
            stream.write(json.dumps(step(11))[30:] + "\nno json\n")
        view.look()
        self.assertEqual((view.step, view.unreadable_lines), (11, 1))
        mine.metrics.write_text("")
        mine.append(*self.LINES[:6], start(40, "resume", at=5), step(6, loss=9.0))
        view.look()
        self.assertEqual((view.step, view.last["step"]["loss"], view.unreadable_lines), (6, 9.0, 0))
        self.assertNotIn("validation", view.last)  # it came behind the checkpoint

    def test_numbers_that_are_none_are_no_crash(self):
        mine = Run(self.folder, lines=self.LINES)
        mine.hold()
        self.addCleanup(mine.let_go)
        with open(mine.metrics, "a") as stream:
            stream.write('{"event":"step","step":11,"seconds":1%s}\n' % ("0" * 400))
            stream.write('{"event":"step","step":"12"}\n{"event":["step"],"step":13}\n')
            stream.write('{"event":"step","step":14,"seconds":1e308,"groups":[],"loss":{},"epoch":1e300}\n')
            stream.write('{"event":"step","step":15,"seconds":1e308,"ranks":true,"data_wait_seconds":null}\n')
        view, lines = seen(mine, 100)
        self.assertEqual((view.step, view.unreadable_lines), (15, 3))
        self.assertIn("  3 lines of metrics.jsonl cannot be read", lines)

    def test_new_runs_are_not_looked_for_at_every_look(self):
        searched = []
        with (
            mock.patch.object(watch, "_runs_in", lambda named: searched.append(named) or []),
            mock.patch.object(watch.time, "monotonic", lambda: clock[0]),
        ):
            clock = [100.0]
            runs = watch.Runs([self.folder])
            for clock[0] in (100.0, 100.3, 101.9, 102.1):
                runs.look()
                self.assertEqual(runs.without_run(), [self.folder])
        self.assertEqual(len(searched), 2)

    def test_no_line_is_wider_than_the_terminal(self):
        mine = Run(self.folder, "a-name-of-some-length-" * 5, self.LINES)
        mine.log(("info", "start, rank 0"), ("error", "a long reason " * 20))
        for columns in (20, 40, 80, 120):
            lines = seen(mine, columns)[1]
            self.assertLessEqual(max(map(len, lines)), columns)
            self.assertTrue(lines[0].split()[1].startswith("failed"), lines[0])
        self.assertIn("step 10 of 40", seen(mine, 40)[1][1])
        self.assertIn("perplexity", seen(mine, 80)[1][3])

    def test_nothing_that_a_terminal_obeys_is_shown(self):
        mine = Run(self.folder, lines=[*self.LINES, {"event": "validation", "step": 1, "\x1b[2J": 1}])
        mine.log(("info", "start, rank 0"), ("error", "bad\x1b[31m name"))
        self.assertFalse(any("\x1b" in line for line in seen(mine)[1]))

    def test_once(self):
        Run(self.folder, "one", self.LINES).log(("info", "start, rank 0"))
        Run(self.folder, "two").finish()
        (self.folder / "other").mkdir()
        for options in (["--once"], []):  # no terminal
            done = run("watch", self.folder, *options)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertNotIn("\x1b", done.stdout)
            heads = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
            self.assertEqual([head.split()[:2] for head in heads], [["two", "finished"], ["one", "ended"]])
        done = run("watch", self.folder / "absent", "--once")
        self.assertEqual(done.returncode, 66)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertEqual(run("watch", self.folder / "other").returncode, 66)

    def test_the_tracker_is_shown_where_it_failed(self):
        mine = Run(self.folder, lines=self.LINES)
        (mine.root / "log/track.log").write_text("plural: error: wandb is not installed\n")
        self.assertIn("  tracker: wandb is not installed", seen(mine)[1])

    def test_on_a_terminal(self):
        screen = self.screen(self.folder / "mine")
        screen.read_until("waiting for a run")
        mine = Run(self.folder, lines=self.LINES)  # the folder appears later
        mine.hold()
        screen.read_until("step 10 of 40")
        screen.resize(44, 10)
        mine.append(step(11))
        shown = screen.read_until("step 11 of 40")
        self.assertLessEqual(max(len(line) for line in shown.replace("\x1b", "\n").splitlines()), 80)
        before = {path: path.read_bytes() for path in mine.root.rglob("*") if path.is_file()}
        os.write(screen.master, b"q")
        self.assertEqual(screen.process.wait(60), 0)
        self.assertEqual(termios.tcgetattr(screen.slave), screen.before)
        after = {path: path.read_bytes() for path in mine.root.rglob("*") if path.is_file()}
        self.assertEqual(after, before)
        mine.let_go()

    def test_ctrl_c_leaves(self):
        Run(self.folder, lines=self.LINES)
        screen = self.screen(self.folder)
        screen.read_until("step 10 of 40")
        screen.process.send_signal(signal.SIGINT)
        self.assertEqual(screen.process.wait(60), 0)
        self.assertEqual(termios.tcgetattr(screen.slave), screen.before)

    def test_durations(self):
        self.assertEqual(
            [duration(seconds) for seconds in (0.25, 12, 60, 200, 7500, 3 * 86400 + 4 * 3600)],
            ["0.2 s", "12 s", "1 min", "3 min 20 s", "2 h 5 min", "3 d 4 h"],
        )


if __name__ == "__main__":
    unittest.main()

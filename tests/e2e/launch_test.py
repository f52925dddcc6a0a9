"""`plural launch`: real ranks, stops that save, failures whose last line is ours."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import training

LAUNCHER = Path(__file__).resolve().parents[2] / "launch" / "plural"
LISTENING = "0A"  # a socket's state in /proc/net/tcp
LONG = "train: {steps: 1500, groups_per_step: 2}\ncheckpoint: {every_steps: 500}"
# What a user's shell has: none of what tests set for mpirun.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("OMPI_", "PRTE_"))}

OTHER = """\
#!/bin/sh
if [ "$1" = --version ]; then echo 'mpirun (Open MPI) 5.0.3'; exit 0; fi
printf '%s\\n' "$@" >arguments
{
  echo 'plural: error: no such thing [exit 66, rank 1, phase train]'
  echo 'plural: error: no such thing [exit 66, rank 0, phase train]'
  echo '--------------------------------------------------------------------------'
  echo 'prterun has exited due to process rank 1 with PID 7 on node here'
  echo '--------------------------------------------------------------------------'
  echo '--------------------------------------------------------------------------'
  echo 'a network is missing'
  echo '--------------------------------------------------------------------------'
} >&2
exit 66
"""


def ports_of(process):
    """The TCP ports at which a process listens."""
    own = set()
    for link in Path(f"/proc/{process}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a run opens and closes files meanwhile
            own.add(os.readlink(link))
    ports = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and f"socket:[{words[9]}]" in own:
                ports.append(int(words[1].rpartition(":")[2], 16))
    return ports


class LaunchTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        training.write_corpus(self.folder / "corpus.h5", training.random_groups(8))

    def launch(self, *arguments, **options):
        return subprocess.run(
            [LAUNCHER, "launch", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
            **{"env": ENVIRONMENT, **options},
        )

    def refused(self, code, words, *arguments, **options):
        result = self.launch(*arguments, **options)
        self.assertEqual(result.returncode, code, result.stderr)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(lines[0].startswith("plural: error: "), lines)
        self.assertIn(words, lines[0])
        self.assertIn(f"[exit {code}", lines[0])
        return lines[0]

    def start(self, name, words=("launch", "-np", "2", "train")):
        """A long run in a session of its own, as a terminal has one, past its third step."""
        training.write_recipe(self.folder / f"{name}.yaml", name, "otmft", extra=LONG)
        process = subprocess.Popen(
            [LAUNCHER, *words, f"{name}.yaml"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.addCleanup(process.kill)
        metrics = self.folder / "runs" / name / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not metrics.exists() or '"step":3,' not in metrics.read_text():
            self.assertIsNone(process.poll(), "ended before it could be stopped")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)
        return process

    def test_ranks_train_and_bad_recipes_have_the_last_line(self):
        training.write_recipe(
            self.folder / "run.yaml", "run", "otmft", extra="train: {steps: 2, groups_per_step: 2}"
        )
        result = self.launch("-np", 2, "train", "run.yaml")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("2 ranks", result.stdout)
        self.assertEqual(result.stderr, "")
        # Each problem once, however many ranks see it; nothing of mpirun's.
        result = self.launch("-np", 3, "train", "run.yaml", "lora_r=8", "seed=x")
        self.assertEqual(result.returncode, 78, result.stderr)
        first, *problems = result.stderr.splitlines()
        self.assertRegex(first, r"^plural: error: run.yaml has 2 problems \[exit 78, rank 0, phase train\]$")
        self.assertEqual([line[:2] for line in problems], ["  ", "  "])
        self.refused(66, "no recipe at 'none.yaml'", "-np", 2, "train", "none.yaml")
        # What of mpirun's own comes beside it depends on which message reaches mpirun in time.
        verbose = self.launch("-np", 2, "--verbose", "train", "none.yaml").stderr
        self.assertGreater(len(verbose.splitlines()), 1)

    def test_stops_save(self):
        # Ctrl-C reaches the whole foreground group; the others this process alone.
        for name, stop in (
            ("int", lambda process: os.killpg(process.pid, signal.SIGINT)),
            ("term", lambda process: process.terminate()),
            ("usr1", lambda process: process.send_signal(signal.SIGUSR1)),
        ):
            with self.subTest(name):
                process = self.start(name)
                stop(process)
                output, errors = process.communicate(timeout=120)
                self.assertEqual(process.returncode, 75, errors)
                self.assertEqual(errors, "")
                self.assertRegex(output.splitlines()[-1], r"^stopped on request: step \d+ of 1500 is saved")
        done = self.launch("-np", 2, "train", "int.yaml", "checkpoint.keep=1", stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"resumed after step \d+ of 1500")

    def test_a_rank_that_is_killed(self):
        process = self.start("killed")
        (mpirun,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[-1:]
        ranks = Path(f"/proc/{mpirun}/task/{mpirun}/children").read_text().split()
        self.assertEqual([ports_of(rank) for rank in ranks], [[], []])
        self.assertNotEqual(ports_of(mpirun), [])  # else they would not be found
        os.kill(int(ranks[1]), signal.SIGKILL)
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 76, errors)
        last = errors.splitlines()[-1]
        self.assertRegex(
            last, r"^plural: error: a rank was ended by signal KILL: .*\[exit 76, phase launch]$"
        )

    def test_one_process_listens_at_no_port(self):
        process = self.start("alone", ["train"])
        self.assertEqual(ports_of(process.pid), [])
        process.terminate()
        self.assertEqual(process.wait(timeout=120), 75)

    def test_command_lines(self):
        self.refused(64, "-np is ''", "train", "run.yaml")
        self.refused(64, "-np is 'two'", "-np", "two", "train", "run.yaml")
        self.refused(64, "launch -np 2 train run.yaml a.b=c", "-np", 2, "run.yaml", "a.b=c")
        self.refused(64, "prepare works on one rank alone", "-np", 2, "prepare", "x")
        self.refused(64, "export works on one rank alone", "-np", 2, "export")
        self.refused(64, "'trian' is no command for several ranks", "-np", 2, "trian")
        self.refused(64, "unknown option '-x'", "-np", 2, "-x", "train", "run.yaml")
        tools = self.folder / "tools"  # all that the scripts call, but for mpirun
        tools.mkdir()
        for name in ("bash", "dirname", "readlink", "id", "nproc", "grep", "awk"):
            (tools / name).symlink_to(shutil.which(name))
        result = self.launch("-np", 2, "train", "run.yaml", env={**ENVIRONMENT, "PATH": str(tools)})
        self.assertEqual(result.returncode, 69, result.stderr)
        self.assertIn("no mpirun in PATH", result.stderr)
        text = self.launch("--help").stdout
        self.assertIn("Examples: plural launch -np 4 train RECIPE.yaml", text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)

    def test_what_another_open_mpi_is_given_and_says(self):
        program = self.folder / "bin" / "mpirun"
        program.parent.mkdir()
        program.write_text(OTHER)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        environment = {**ENVIRONMENT, "PATH": f"{program.parent}:{ENVIRONMENT['PATH']}"}
        result = self.launch("-np", 2, "--host", "a:1,b:1", "train", "run.yaml", "x=1 2", env=environment)
        self.assertEqual(result.returncode, 66)
        rule = "-" * 74
        self.assertEqual(
            result.stderr.splitlines(),
            [
                rule,
                "a network is missing",
                rule,
                "plural: error: no such thing [exit 66, rank 1, phase train]",
            ],
        )
        given = (self.folder / "arguments").read_text().splitlines()
        self.assertEqual(given[:4], ["-np", "2", "--host", "a:1,b:1"])
        self.assertEqual(given[4:8], ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"])
        self.assertEqual(given[-4:], [str(LAUNCHER), "train", "run.yaml", "x=1 2"])


if __name__ == "__main__":
    unittest.main()

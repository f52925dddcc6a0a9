"""Which checkpoints stay, their second copies, and what a start makes of those that are damaged or gone."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import training

EXTRA = """train: {steps: 16, groups_per_step: 3}
checkpoint: {every_steps: 4, keep: 2}
"""


class Copies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        training.write_corpus(cls.folder / "corpus.h5", training.random_groups(4))
        training.write_corpus(cls.folder / "held-out.h5", training.random_groups(4, seed=1))
        training.write_recipe(cls.folder / "r.yaml", "whole", dtype="fp32", extra=EXTRA)
        done = training.train(cls.folder, "r.yaml")
        assert done.returncode == 0, done.stderr

    def start(self, name, *overrides, code=0, fault="", ranks=1):
        done = training.train(
            self.folder,
            "r.yaml",
            f"name={name}",
            *overrides,
            ranks=ranks,
            environment={"PLURAL_FAULT": fault},
        )
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def command(self, *words, code=0):
        done = subprocess.run(
            [training.PLURAL, *words], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def run_folder(self, name):
        return self.folder / "runs" / name

    def steps(self, folder):
        return sorted(int(path.name[5:]) for path in folder.glob("step-" + "[0-9]" * 8))

    def assert_like_whole(self, name):
        weights = "adapter/adapter_model.safetensors"
        self.assertEqual(
            (self.run_folder(name) / weights).read_bytes(), (self.run_folder("whole") / weights).read_bytes()
        )
        self.assertEqual(training.losses(self.folder, name), training.losses(self.folder, "whole"))

    # The best one.

    def test_the_best_checkpoint_stays(self):
        given = ("data.validation=held-out.h5", "validation.every_steps=3", "validation.responses=0")
        given += ("checkpoint.keep_best=loss", "optimizer.lr=0.05", "train.steps=30")
        # Killed behind the best one, so that the next start knows of it from a checkpoint alone.
        self.start("best", *given, "checkpoint.asynchronous=off", fault="kill@0:26", code=-9)
        self.start("best", *given)
        losses = {
            line["step"]: line["loss"]
            for line in training.metrics(self.folder, "best")
            if line["event"] == "validation"
        }
        best = min(losses, key=losses.get)
        self.assertLess(best, 24, "a test of nothing")
        self.assertEqual(self.steps(self.run_folder("best") / "checkpoints"), [best, 28, 30])
        found = self.command("verify", "runs/best")
        self.assertRegex(found, rf"good +checkpoints/step-{best:08}: .*; the best by the validation's loss, ")
        shutil.rmtree(self.run_folder("best") / f"checkpoints/step-{best:08}")
        self.assertIn("is not there", self.command("verify", "runs/best"))

    # Second copies.

    def test_a_start_goes_on_from_the_second_copies(self):
        mirror = "checkpoint.mirror=copies"
        self.start("copied", mirror)
        copies, run = self.folder / "copies/copied", self.run_folder("copied")
        self.assertEqual(self.steps(copies), [12, 16])
        for step in (12, 16):
            for file in (copies / f"step-{step:08}").iterdir():
                first = run / "checkpoints" / file.parent.name / file.name
                self.assertEqual(file.read_bytes(), first.read_bytes(), file)
        self.assertIn("mirror/step-00000012", self.command("verify", "runs/copied"))
        shutil.rmtree(run / "adapter")
        (copies / ".tmp-step-00000020-x").mkdir()  # of a start that was killed
        shutil.copytree(run, self.run_folder("kept"))
        shutil.copytree(copies, self.folder / "copies/kept")

        def damaged():
            weights = run / "checkpoints/step-00000016/trainable.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1])

        def gone():
            shutil.rmtree(run)

        def both():  # the copy of the newest one, too
            shutil.rmtree(run / "checkpoints")
            (copies / "step-00000016/state.json").write_text("{")

        for damage, step in ((damaged, 16), (gone, 16), (both, 12)):
            with self.subTest(damage.__name__):
                for kept, place in ((self.run_folder("kept"), run), (self.folder / "copies/kept", copies)):
                    shutil.rmtree(place, ignore_errors=True)
                    shutil.copytree(kept, place)
                damage()
                done = self.start("copied", mirror)
                self.assertIn(f"goes on from copies/copied/step-{step:08}", done.stderr)
                self.assertIn(f"resumed after step {step} of 16", done.stdout)
                self.assert_like_whole("copied")
                self.assertEqual(self.steps(copies), [12, 16])
                self.assertEqual([path for path in copies.rglob(".*")], [])
                self.command("verify", "runs/copied")
        self.assertIn("is finished", self.start("copied", mirror).stdout)
        # Without the key nobody looks there.
        shutil.rmtree(run)
        self.assertIn("steps 1 to 16", self.start("copied").stdout)

    def test_a_mirror_that_fails_ends_no_run(self):
        (self.folder / "full").mkdir()
        (self.folder / "full/broken").symlink_to("/dev/full/nowhere")
        self.start("broken", "checkpoint.asynchronous=off", code=-9, fault="kill@0:6")
        done = self.start("broken", "checkpoint.mirror=full")
        self.assertIn("checkpoint.mirror: no copy of step 16", done.stderr)
        self.assertIn("the run goes on", done.stderr)
        self.assert_like_whole("broken")
        # Where nothing else says whether there is a run, its beginning would be a guess.
        refused = self.start("broken-2", "checkpoint.mirror=full/broken", code=66)
        self.assertIn("checkpoint.mirror: full/broken/broken-2: the checkpoints cannot", refused.stderr)

    # Disks that are full or lose power.

    def test_a_full_disk_and_a_torn_checkpoint(self):
        for kind, code, word in (("enospc", 74, "No space left on device"), ("torn", -9, "")):
            with self.subTest(kind):
                whole = "checkpoint.asynchronous=off"
                self.assertIn(word, self.start(kind, whole, fault=f"{kind}@0:12", code=code).stderr)
                folder = self.run_folder(kind) / "checkpoints"
                self.assertEqual(self.steps(folder), [4, 8] if kind == "enospc" else [8, 12])
                done = self.start(kind)
                self.assertEqual("checkpoint is not whole" in done.stderr, kind == "torn")
                self.assertIn("resumed after step 8 of 16", done.stdout)
                self.assert_like_whole(kind)
                self.assertEqual([path for path in self.run_folder(kind).rglob(".*")], [])

    # Looking before a start.

    def test_a_dry_run_reads_the_checkpoint_that_resume_names(self):
        dry = ("dry-run", "r.yaml", "name=branch")
        newest = "runs/whole/checkpoints/step-00000016"
        self.assertIn(f"after step 16, from {newest}", self.command(*dry, f"resume={newest}"))
        self.assertNotIn("goes on", self.command(*dry))
        self.command(*dry, "resume=runs/whole/checkpoints/step-00000009", code=66)
        self.command(*dry, f"resume={newest}", "seed=8", code=78)
        training.write_corpus(self.folder / "other.h5", training.random_groups(4, seed=2))
        self.assertIn(
            "another corpus", self.command(*dry, f"resume={newest}", "data.train=other.h5", code=65)
        )
        shutil.copytree(self.run_folder("whole"), self.run_folder("flipped"))
        weights = self.run_folder("flipped") / "checkpoints/step-00000016/trainable.safetensors"
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        self.assertIn("SHA-256", self.command(*dry, f"resume={weights.parent}", code=65))
        self.assertFalse(self.run_folder("branch").exists())


if __name__ == "__main__":
    unittest.main()

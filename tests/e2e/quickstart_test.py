"""The README's first command, as a stranger runs it, and the effect it promises."""

import json
import pathlib
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Quickstart(unittest.TestCase):
    def test_one_command_shows_a_clear_effect(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "quickstart"
            done = subprocess.run(
                [str(ROOT / "launch/quickstart"), str(out)], capture_output=True, text=True, timeout=850
            )
            self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])
            before, after = ({} for _ in range(2))
            for when, figures in (("before", before), ("after", after)):
                answers = [json.loads(line) for line in open(out / f"questions-{when}.jsonl")]
                self.assertEqual(len(answers), 30)
                self.assertTrue(all(len(prompt["responses"]) == 5 for prompt in answers))
                figures["different"] = sum(len({r["text"] for r in p["responses"]}) for p in answers) / 30
                figures["kl"] = json.loads((out / f"targets-{when}.json").read_text())["summary"]["kl_nats"]
            trained = {json.loads(line)["id"] for line in open(out / "text/questions-train.jsonl")}
            self.assertFalse(trained & {prompt["id"] for prompt in answers}, "asked what was trained on")
            self.assertLess(before["different"], 2.0, "the model must have a favourite answer to begin with")
            self.assertGreaterEqual(after["different"], 2 * before["different"])
            self.assertGreater(before["kl"], 0.2)
            self.assertLess(after["kl"], 0.05)
            summary = json.loads((out / "summary.json").read_text())
            self.assertGreaterEqual(summary["after"]["questions"]["valid_share"], 0.9)
            self.assertTrue(all(summary["checks"].values()), summary["checks"])


if __name__ == "__main__":
    unittest.main()

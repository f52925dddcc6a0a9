"""The questions of two turns that `launch/reproduce diffuse-6` asks, and their judge. No model."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes" / "papers"))

import ability
from text import chat_server
from text.support import FolderTest

# In the place of `plural serve`: tells its process, and serves nobody.
SERVER = """#!/bin/sh
echo $$ > PID
echo 'plural: serves model at http://127.0.0.1:9/v1, Ctrl-C ends it'
exec sleep 60
"""


class Ability(FolderTest):
    def setUp(self):
        super().setUp()
        self.questions = self.folder / "questions.jsonl"
        asked = [("sums", ["One?", "Two?"]), ("words", ["Three?"])]
        lines = [json.dumps({"category": name, "temperature": 0.0, "turns": turns}) for name, turns in asked]
        self.questions.write_text("\n".join(lines) + "\n")

    def test_ratings_of_all_turns_and_categories(self):
        def answer(question, model, _times):
            if model == "model":
                return chat_server.completion(f"Answer to {question}")
            # The judge: 4 for second turns, else 8; nothing of the last question.
            rating = "no word" if "Three?" in question else f"Rating: [{4 if 'Two?' in question else 8}]"
            return chat_server.completion(rating)

        output = self.folder / "figures.json"
        with chat_server.server(answer) as (address, asked):
            served = mock.patch.object(ability, "served", lambda options: contextlib.nullcontext(address))
            words = ["--output", output, "--model", "m", "--questions", self.questions]
            words += ["--judge", address, "--judge-model", "judge"]
            with served, mock.patch.object(ability, "take_stops"):
                self.assertEqual(ability.main(list(map(str, words))), 0)
        self.assertEqual(
            json.loads(output.read_text()),
            {
                "rating_mean": 6.0,
                "abstentions": 1,
                "turn": {"1": 8.0, "2": 4.0},
                "category": {"sums": 6.0, "words": None},
            },
        )
        # A judge sees the second turn behind the model's own first answer.
        (second,) = [question for question in asked if "Two?" in question and "Rating" in question]
        self.assertIn("User: One?\n\nAssistant: Answer to One?\n\nUser: Two?", second)

    def test_a_stop_ends_the_server_too(self):
        pid = self.folder / "pid"
        server = self.folder / "server"
        server.write_text(SERVER.replace("PID", str(pid)))
        server.chmod(0o755)
        words = ["--output", "o", "--model", "m", "--judge", "http://127.0.0.1:9/v1", "--judge-model", "j"]
        # What starts plural serve is the script.
        program = f"import sys, ability; sys.executable = {str(server)!r}; sys.exit(ability.main({words!r}))"
        path = os.pathsep.join(map(str, (ROOT / "recipes/papers", ROOT / "data/text")))
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            cwd=self.folder,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 50
        while not pid.exists() or not pid.read_text().strip():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=50), 75)
        self.assertFalse(Path(f"/proc/{pid.read_text().strip()}").exists())

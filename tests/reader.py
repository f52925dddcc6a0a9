"""What the commands of documents meet where a test types them: a reader's folder.

Owns: its files, a tiny model of the name and shape of the one that the documents name, the environment. Does
not own: what is typed. Thread rule: one folder, one thread.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import hub_models

ROOT = Path(__file__).resolve().parents[1]
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
PROMPTS = 6
CHAT = {"messages": [{"role": "user", "content": "Any plans for tonight?"}]}
REPLIES = ("A film", "A walk", "Reading", "Rest")


class Reader:
    def __init__(self, folder: Path):
        """Links the project's folders into `folder`, which is made, and puts the model into a cache there."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        for name in ("launch", "recipes", "data", "tests", ".venv"):
            (folder / name).symlink_to(ROOT / name)
        self.cache = folder / "hf/hub"
        self.model = hub_models.qwen2_in_cache(self.cache, MODEL)

    def copy(self, folder: Path) -> "Reader":
        """Another folder with the same files, and the same cache."""
        shutil.copytree(self.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("hf"))
        other = Reader.__new__(Reader)
        other.folder, other.cache, other.model = folder, self.cache, self.model
        return other

    def write_lines(self, name, lines):
        (self.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))

    def write_chats(self, name, record=CHAT):
        """PROMPTS chats like `record`, which differ by a day, with replies that differ by it, too."""
        asked = record["messages"][0]["content"]
        lines = []
        for day in range(PROMPTS):
            question = {"role": "user", "content": f"{asked} Day {day}."}
            replies = [f"{reply} {day}." for reply in REPLIES]
            lines.append({**record, "messages": [question], "responses": replies})
        self.write_lines(name, lines)

    def write_dialogues(self, name):
        self.write_lines(
            name,
            (
                {
                    "context": f"Hello!\nHi.\nPlans {day}?",
                    "candidates": [f"{reply} {day}." for reply in REPLIES],
                }
                for day in range(PROMPTS)
            ),
        )

    def environment(self, **more):
        """The shell's: `plural` is a word, and a rank may share a core."""
        return {
            **os.environ,
            "PATH": f"{ROOT / 'launch'}{os.pathsep}{os.environ['PATH']}",
            "HF_HUB_CACHE": str(self.cache),
            "TRACKIO_DIR": str(self.folder / "trackio"),
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "OMP_NUM_THREADS": "1",
            **more,
        }

    def type(self, command, answers=None, **environment):
        """What the shell makes of the command; `answers`: what is typed then."""
        return subprocess.run(
            command,
            shell=True,
            executable="/bin/bash",
            cwd=self.folder,
            env=self.environment(**environment),
            input=answers,
            stdin=None if answers is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

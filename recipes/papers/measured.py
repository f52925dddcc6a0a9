"""What a study's sweeps keep of its rows besides figures: their answers, values and conversations.

Owns: which file of which sweep that is. Does not own: figures (outcome.py), what is made of the contents
(extracts.py, pictures.py). Thread rule: values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from definition import Definition, Row
from plural_text.common.json_lines import read_objects
from plural_text.metrics.responses import Answers, read_answers
from plural_text.sweep.files import read_json
from stages import meant


@dataclass(frozen=True)
class Measured:
    """Finished sweeps: stage -> its folder, and its table.json."""

    definition: Definition
    folders: Mapping[str, Path]
    swept: Mapping[str, Mapping[str, Any]]

    def row(self, key: str) -> Row:
        return self.definition.rows[key]

    def files(self, row: Row, name: str) -> Sequence[Path]:
        """What the evaluation of a row has kept under this name, of each seed that has it."""
        if row.stage not in self.swept or row.setting is None:
            return []
        arms = self.swept[row.stage]["arms"]
        named = {arms[i]["arm"] for i in meant(row.setting, [arm["settings"] for arm in arms])}
        runs = [run for run in self.swept[row.stage]["rows"] if run["arm"] in named]
        measured = self.folders[row.stage] / "measured"
        # A run keeps the folder of an earlier label.
        folders = [folder for run in runs for folder in measured.glob(f"*-{run['id']}")]
        evaluation = row.at.partition(".")[0]
        found = [folder / evaluation / name for folder in folders]
        return [file for file in found if file.exists()]

    def answers(self, row: Row) -> Sequence[Sequence[Answers]]:
        """Of each seed. Errors: BadData."""
        return [read_answers(file) for file in self.files(row, "responses.jsonl")]

    def conversations(self, row: Row) -> Sequence[Sequence[str]]:
        """Of the first seed, in the order of their names: the turns. Errors: BadData."""
        for file in self.files(row, "persona.json"):  # beside those of earlier options
            held = (read_json(file) or {}).get("conversations_file", "")
            talks = {
                str(talk["id"]): talk["turns"] for _, talk in read_objects(file.parent / Path(held).name)
            }
            return [talks[name] for name in sorted(talks, key=lambda name: (len(name), name))]
        return []

    def persona_values(self, row: Row) -> Sequence[Mapping[str, Mapping[str, int]]]:
        """Of each seed: attribute -> value -> personas that have it."""
        reports = [read_json(file) or {} for file in self.files(row, "persona.json")]
        return [report["values"] for report in reports if "values" in report]

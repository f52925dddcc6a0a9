"""Answers files of `plural generate` on a page.

Owns: their labels. Does not own: reading a line (metrics/responses.py), figures. Thread rule: values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plural_text.metrics.responses import Answers, read_answers


@dataclass(frozen=True)
class AnswersFile:
    label: str
    path: Path
    prompts: list[Answers]


def read_answers_file(path: Path, label: str) -> AnswersFile:
    """A page also shows files with several lines per prompt. Errors: MissingInput; BadData naming file and
    line, and for a file without a response."""
    return AnswersFile(label, path, read_answers(path, one_line_per_prompt=False))

"""The question that asks a model for a list of replies to a prompt.

Owns: the files of data/text/lists, how a prompt is shown in them. Does not own: asking, the answer. Thread
rule: free of state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from plural_text.common.errors import BadData
from plural_text.common.json_lines import read_object, text_of
from plural_text.common.places import FILES
from plural_text.prepare.formats import Record

_FOLDER = FILES / "lists"
_PLACEHOLDER = re.compile(r"\{(context|k)\}")


@dataclass(frozen=True)
class ListQuestion:
    prompt: str  # with {context} and {k}
    speakers: tuple[str, ...]  # of turns that take turns, the last is the first one's; of messages, by role

    def ask(self, record: Record, count: int) -> str:
        values = {"context": self._shown(record.turns), "k": str(count)}
        return _PLACEHOLDER.sub(lambda place: values[place[1]], self.prompt)

    def _shown(self, turns: list) -> str:
        if not isinstance(turns[0], str):
            roles = dict(zip(("user", "assistant", "system"), self.speakers, strict=True))
            return "\n".join(f"{roles[turn['role']]}: {turn['content']}" for turn in turns)
        if not self.speakers:
            return "\n".join(turns)
        last = len(turns) - 1
        return "\n".join(f"{self.speakers[(last - i) % 2]}: {turn}" for i, turn in enumerate(turns))


def read_question(kind: str, file: Path | None) -> ListQuestion:
    """kind: dialogue, chat or story, whose own question is asked where no file is named. Errors:
    MissingInput, BadData naming the key."""
    path = file or _FOLDER / f"{kind}.json"
    fields = read_object(path)
    prompt = text_of(fields, "prompt", str(path))
    if sorted(_PLACEHOLDER.findall(prompt)) != ["context", "k"]:
        raise BadData(f"{path}: key 'prompt' must hold {{context}} and {{k}}, each once")
    speakers = fields.get("speakers", [])
    allowed = {"dialogue": (0, 2), "story": (0, 2), "chat": (3,)}[kind]
    if (
        not isinstance(speakers, list)
        or len(speakers) not in allowed
        or not all(isinstance(name, str) and name.strip() for name in speakers)
    ):
        names = "three names, of user, assistant and system" if kind == "chat" else "two names or none"
        raise BadData(f"{path}: key 'speakers' must hold {names}")
    return ListQuestion(prompt, tuple(speakers))

"""A conversation of two: a seeker, which asks, and a revealer, which is the model under test.

Owns: the order of turns, the end, both kinds of seeker. Does not own: the model (model_process.py), the
personas (figures.py). The seeker speaks first and is Person A; given opening turns come in pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from plural_text.common.endpoint import Endpoint
from plural_text.common.errors import BadData
from plural_text.common.json_lines import read_object, read_objects, text_of
from plural_text.metrics.words import sentences
from plural_text.persona.values import FOLDER

PROTOCOL = FOLDER / "protocol.json"
# As published: at most 30 utterances before the closing question, a look at 20 and 26 whether all is
# revealed.
MAX_UTTERANCES = 30
CHECKED_UTTERANCES = (20, 26)
SEEKER_TEMPERATURE = 0.5
_SEEKER_TOKENS = 128
_SEEKER_SENTENCES = 2
_MAX_QUESTIONS = 100


@dataclass
class Conversation:
    """asked[i] is the attribute that the seeker's turn i asks for, "" where it is not known; possibilities[i]
    the number that the revealer's turn i drew, 0 for none. Both count from the first turn after the
    opening."""

    id: str
    opening: int
    turns: list[str]
    asked: list[str] = field(default_factory=list)
    possibilities: list[int] = field(default_factory=list)

    def json(self) -> dict:
        return asdict(self)

    def text(self) -> str:
        return "\n".join(f"Person {'AB'[i % 2]}: {turn}" for i, turn in enumerate(self.turns))


class Seeker(Protocol):
    def next(self, conversation: Conversation) -> tuple[str, str] | None:
        """The next utterance, and the attribute it asks for; None at the end."""


def converse(
    name: str, opening: list[str], seeker: Seeker, reveal: Callable[[Conversation], tuple[str, int]]
) -> Conversation:
    """reveal(conversation) -> the revealer's answer to its last turn, and the number drawn for it."""
    conversation = Conversation(name, len(opening), [_one_line(turn) for turn in opening])
    while utterance := seeker.next(conversation):
        conversation.turns.append(_one_line(utterance[0]))
        conversation.asked.append(utterance[1])
        answer, possibility = reveal(conversation)
        conversation.turns.append(_one_line(answer))
        conversation.possibilities.append(possibility)
    return conversation


class ScriptedSeeker:
    """Asks given questions in order: (text, attribute) each."""

    def __init__(self, questions: list[tuple[str, str]]):
        self._questions = questions

    def next(self, conversation: Conversation) -> tuple[str, str] | None:
        done = len(conversation.asked)
        return self._questions[done] if done < len(self._questions) else None


class EndpointSeeker:
    """A model behind an endpoint asks; a fixed question about gender closes the conversation."""

    def __init__(self, endpoint: Endpoint, protocol: ProtocolTexts):
        self._endpoint = endpoint
        self._texts = protocol

    def next(self, conversation: Conversation) -> tuple[str, str] | None:
        turns, closing = conversation.turns, (self._texts.closing, "gender")
        if conversation.asked and conversation.asked[-1] == "gender":
            return None
        if len(turns) >= MAX_UTTERANCES or (
            len(turns) in CHECKED_UTTERANCES and self._all_revealed(conversation)
        ):
            return closing
        messages = [
            {"role": "system", "content": self._texts.seeker},
            {"role": "user", "content": self._texts.opening},
        ]
        messages += [
            {"role": "user" if i % 2 else "assistant", "content": turn} for i, turn in enumerate(turns)
        ]
        said = self._endpoint.ask(messages, SEEKER_TEMPERATURE, _SEEKER_TOKENS)
        said = " ".join(sentences(said)[:_SEEKER_SENTENCES])
        return (said, "") if said else closing  # nothing left to ask

    def _all_revealed(self, conversation: Conversation) -> bool:
        question = self._texts.revealed.replace("{conversation}", conversation.text())
        return (
            self._endpoint.ask([{"role": "user", "content": question}], 0.0, 16)
            .strip()
            .lower()
            .startswith("yes")
        )


@dataclass(frozen=True)
class ProtocolTexts:
    """The texts of the protocol file; `revealed` and `extract` hold {conversation}, `map` has {said} and
    {values}."""

    seeker: str
    opening: str
    revealed: str
    closing: str
    extract: str
    map: str


def read_protocol(path: Path = PROTOCOL) -> ProtocolTexts:
    """Errors: MissingInput, BadData naming the key."""
    fields = read_object(path)
    if "map" not in fields:  # of a file written before there was one
        fields["map"] = read_object(PROTOCOL)["map"]
    texts = ProtocolTexts(*(text_of(fields, key, str(path)) for key in ProtocolTexts.__dataclass_fields__))
    for key in ("revealed", "extract"):
        if getattr(texts, key).count("{conversation}") != 1:
            raise BadData(f"{path}: key '{key}' must hold {{conversation}} once")
    if not all(f"{{{name}}}" in texts.map for name in ("said", "values")):
        raise BadData(f"{path}: key 'map' must hold {{said}} and {{values}}")
    return texts


def read_questions(path: Path) -> list[tuple[str, str]]:
    """A script: a JSON line {"ask", "attribute"} a question, in order. Errors: MissingInput, BadData."""
    questions = []
    for where, fields in read_objects(path):
        question = text_of(fields, "ask", where), text_of(fields, "attribute", where)
        if not all(text.strip() for text in question):
            raise BadData(f"{where}: 'ask' and 'attribute' must not be empty")
        questions.append(question)
    if not 1 <= len(questions) <= _MAX_QUESTIONS:
        raise BadData(f"{path}: holds {len(questions)} questions, must hold 1 to {_MAX_QUESTIONS}")
    return questions


def _one_line(text: str) -> str:
    return " ".join(text.split())

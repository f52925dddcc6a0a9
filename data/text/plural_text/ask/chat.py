"""A dialogue in the terminal.

Owns: reading lines, its commands, the turns so far. Does not own: prompts, the model's process. Thread rule:
main thread.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from plural_text.ask.choices import Choice
from plural_text.ask.model_options import sampling_of
from plural_text.ask.prompts import Answer, Prompts
from plural_text.ask.showing import show_prompts, visible_lines
from plural_text.ask.waiting import wait_for
from plural_text.common.errors import BadData
from plural_text.common.model_process import ModelProcess

HELP = (
    "/again another answer to the same turn, in place of the last   /new begin anew   /quit or Ctrl-D leave"
)


class Dialogue:
    """The turns so far; an answer that is asked again takes the last one's place."""

    def __init__(self, model: ModelProcess, prompts: Prompts, choice: Choice, arguments: argparse.Namespace):
        self._model, self._prompts, self._choice = model, prompts, choice
        self._arguments = arguments
        self._settings = sampling_of(arguments, prompts)
        self.max_new_tokens = self._settings["max_new_tokens"]
        self._turns: list = []  # up to the last question
        self._answer: str | None = None
        self._asked = 0

    def forget(self) -> None:
        self._turns, self._answer = [], None

    def say(self, line: str) -> Answer:
        """Errors: BadData for a turn that has no room; it is forgotten."""
        before, answer = self._turns, self._answer
        past = self._prompts.answered(before, answer) if answer is not None else before
        if past:
            self._turns = [*past, *self._prompts.turns(line)]
        else:
            self._turns = self._prompts.turns(line, self._arguments.system)
        try:
            return self._reply()
        except BadData:
            self._turns, self._answer = before, answer
            raise

    def again(self) -> Answer | None:
        """None before the first turn."""
        return self._reply() if self._turns else None

    def _reply(self) -> Answer:
        key = f"chat:{self._asked}"
        ask = self._prompts.ask(key, self._turns, 1, self._choice, self._settings)
        what = "answering" if self._asked else "loading the model and answering"
        self._asked += 1
        fields = wait_for(self._model.send(ask.request), what, sys.stderr, quiet=self._arguments.quiet)
        answer = self._prompts.answers(ask, fields)[0]
        self._answer = answer.text.strip() or "..."
        return answer


def converse(model: ModelProcess, prompts: Prompts, choice: Choice, arguments: argparse.Namespace) -> int:
    """Until the end of the input. Errors: those of the process."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, input() then edits lines
        print(HELP, file=sys.stderr)
    dialogue = Dialogue(model, prompts, choice, arguments)
    while (line := _read(terminal)) is not None:
        if line in ("/quit", "/exit"):
            break
        _obey(line, dialogue, arguments)
    return 0


def _obey(line: str, dialogue: Dialogue, arguments: argparse.Namespace) -> None:
    if not line:
        return
    if line == "/new":
        dialogue.forget()
    elif line.startswith("/") and line != "/again":
        print(HELP, file=sys.stderr)
    else:
        try:
            answer = dialogue.again() if line == "/again" else dialogue.say(line)
        except BadData as error:
            print(f"plural: {error}", file=sys.stderr)
            return
        if answer is None:
            print("plural: /again: nothing has been asked yet", file=sys.stderr)
            return
        _show(answer, dialogue.max_new_tokens, arguments)


def _show(answer: Answer, max_new_tokens: int, arguments: argparse.Namespace) -> None:
    if arguments.show_prompt:
        show_prompts([answer])
    label = f"#{answer.possibility}  " if answer.possibility else ""
    label = f"latent {answer.latent}  " if answer.latent else label
    print(label + "\n".join(visible_lines(answer.text)), flush=True)
    if not answer.finished and not arguments.quiet:
        print(f"plural: cut at {max_new_tokens} tokens (--max-new-tokens)", file=sys.stderr)


def _read(terminal: bool) -> str | None:
    """The next line; None at the end, which on a terminal Ctrl-C is, too."""
    try:
        return input("> " if terminal else "").strip()
    except EOFError:
        if terminal:
            print(file=sys.stderr)
        return None
    except KeyboardInterrupt:
        if not terminal:
            raise
        print(file=sys.stderr)
        return None

"""`plural score` for texts: the token ids that the compiled program then scores.

  {"id", "prompt": text, "response": text}     the text as it stands, behind the begin token
  {"id", "messages": [...], "response": text}  as the chat template writes it; or messages that end with it
  {"id", "question": text, "response": text}   as the model or adapter was trained; "possibility": its number
Each may have "responses": [texts] instead of "response".

Owns: what a line of text may say, its ids. Does not own: prompts (ask/prompts.py); scores, all other options
and the help, which the program has. Thread rule: main thread.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from plural_text.common.errors import BadData, CommandError, MissingInput, UsageError
from plural_text.common.json_lines import kind, read_objects, text_of
from plural_text.common.program import program

# The rest of the command line is the program's.
PASSES_ON = True
_PROMPTS = ("prompt", "messages", "question")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--template")


def run(arguments: argparse.Namespace) -> int:
    command = [program(), "score", *arguments.rest]
    for name in ("model", "adapter"):
        value = getattr(arguments, name)
        command += [f"--{name}", str(value)] if value else []
    if arguments.input is None or arguments.model is None or not _is_text(arguments.input):
        if arguments.input:
            command += ["--input", str(arguments.input)]
        _refuse_options(arguments)
        os.execv(command[0], command)
    with tempfile.TemporaryDirectory(prefix="plural-score-") as folder:
        ids = Path(folder) / arguments.input.name
        with open(ids, "w", encoding="utf-8") as stream:
            for line in _lines(arguments):
                stream.write(line + "\n")
        return _run([*command, "--input", str(ids)])


def _run(command: list[str]) -> int:
    """The program's exit code. Requests to stop go to it: it says what it keeps, and how it ends."""
    try:
        # In a group of its own, where the terminal's Ctrl-C does not reach it a second time.
        scoring = subprocess.Popen(command, process_group=0)
    except OSError as error:
        raise CommandError(f"{command[0]}: cannot be started: {error.strerror}") from None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, lambda number, _: scoring.send_signal(number))
    code = scoring.wait()
    return code if code >= 0 else 128 - code


def _is_text(path: Path) -> bool:
    """Whether the first line has no token ids. A file that is not there is the program's to refuse."""
    if not path.is_file():
        return False
    try:
        _, fields = next(read_objects(path))
    except (StopIteration, BadData, MissingInput):
        return False
    return "prompt_tokens" not in fields and any(key in fields for key in _PROMPTS)


def _refuse_options(arguments: argparse.Namespace) -> None:
    for name in ("tokenizer", "template"):
        if getattr(arguments, name):
            raise UsageError(f"--{name} is for lines of text, the input has token ids; leave it out")


def _lines(arguments: argparse.Namespace) -> Iterator[str]:
    """A line of ids for each line of text. Errors: BadData naming file and line."""
    from plural_text.ask.model_options import resolve_names, warn
    from plural_text.ask.prompts import Prompts, tokenizer_folder
    from plural_text.ask.training import check_folders, read_training

    resolve_names(arguments)
    check_folders(arguments.model, arguments.adapter)
    texts = _Texts(
        Prompts(
            arguments.model,
            read_training(arguments.model, arguments.adapter),
            arguments.template,
            tokenizer_folder(arguments.model, arguments.adapter, arguments.tokenizer),
            warn,
        )
    )
    number = 0
    for where, fields in read_objects(arguments.input):
        place = int(where.rpartition(":")[2])
        yield from [""] * (place - number - 1)  # lines keep their numbers
        number = place
        yield json.dumps(texts.ids(fields, where))


class _Texts:
    def __init__(self, prompts):
        from plural_text.prepare.chat_turn import ChatTurn

        self._prompts, self._tokenizer = prompts, prompts.tokenizer
        self._turn = None
        if prompts.template.format == "chat":
            self._turn = ChatTurn(prompts.template, self._tokenizer)

    def ids(self, fields: dict, where: str) -> dict:
        given = [key for key in _PROMPTS if key in fields]
        if "prompt_tokens" in fields:
            raise BadData(f"{where}: has token ids, the first line has texts; a file has one of the two")
        if len(given) != 1:
            raise BadData(
                f"{where}: needs one of the keys {', '.join(_PROMPTS)}; found "
                f"{', '.join(map(repr, fields)) or 'no keys'}"
            )
        name = fields.get("id", where.rpartition("/")[2])
        if not isinstance(name, str) and type(name) is not int:
            raise BadData(f"{where}: key 'id' holds {kind(name)}, must hold a text or a number")
        try:
            prompt, responses = getattr(self, f"_{given[0]}")(fields, where)
        except BadData as error:
            text = str(error)
            raise BadData(text if text.startswith(where) else f"{where}: {text}") from None
        if not prompt:
            raise BadData(f"{where}: the prompt has no tokens")
        for i, ids in enumerate(responses):
            if not ids:
                raise BadData(f"{where}: response {i + 1} has no tokens")
        if "responses" not in fields:
            return {"id": name, "prompt_tokens": prompt, "response_tokens": responses[0]}
        number = fields.get("possibility", 0)
        rows = [{"index": i, "possibility": number, "tokens": ids} for i, ids in enumerate(responses)]
        return {"id": name, "prompt_tokens": prompt, "responses": rows}

    def _prompt(self, fields: dict, where: str):
        text = text_of(fields, "prompt", where)
        ids = self._tokenizer.with_begin(self._tokenizer.encode_prompts([text])[0])
        return ids, self._tokenizer.encode_text(_responses(fields, where))

    def _messages(self, fields: dict, where: str):
        messages = fields["messages"]
        if not isinstance(messages, list) or not all(
            isinstance(m, dict) and all(isinstance(m.get(key), str) for key in ("role", "content"))
            for m in messages
        ):
            raise BadData(f'{where}: key \'messages\' must hold a list of {{"role", "content"}}')
        if self._turn is None:
            raise BadData(
                f"{where}: template '{self._prompts.template.name}' has no messages; give 'question', or "
                "--template chat"
            )
        if "response" not in fields and "responses" not in fields:
            if not messages or messages[-1]["role"] != "assistant":
                raise BadData(f"{where}: key 'response' is missing, and the messages do not end with one")
            fields, messages = {**fields, "response": messages[-1]["content"]}, messages[:-1]
        if not messages or messages[-1]["role"] != "user":
            raise BadData(f"{where}: the messages before the response must end with the user's")
        return self._numbered(messages, fields, where)

    def _question(self, fields: dict, where: str):
        text = text_of(fields, "question", where)
        if not text.strip():
            raise BadData(f"{where}: key 'question' is empty")
        return self._numbered(self._prompts.turns(text), fields, where)

    def _numbered(self, turns: list, fields: dict, where: str):
        k = fields.get("possibility", 0)
        if type(k) is not int or k < 0 or (k and not self._prompts.template.has_numbers()):
            raise BadData(
                f"{where}: key 'possibility' holds {json.dumps(k)[:40]}, must hold a whole number, 0 where "
                f"the template ('{self._prompts.template.name}') has no place for one"
            )
        encode = self._turn.encode_responses if self._turn else self._tokenizer.encode_text
        return self._prompts.encode(turns, k), encode(_responses(fields, where))


def _responses(fields: dict, where: str) -> list[str]:
    if "responses" not in fields:
        return [text_of(fields, "response", where)]
    texts = fields["responses"]
    if isinstance(texts, list) and texts and isinstance(texts[0], dict):
        raise BadData(
            f"{where}: holds answers of an earlier version, which lack 'prompt_tokens'; generate them again"
        )
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise BadData(f"{where}: key 'responses' must hold a list of texts that is not empty")
    return texts

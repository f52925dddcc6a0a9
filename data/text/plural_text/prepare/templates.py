"""Prompt templates: data files that turn a record into the text of a prompt.

Owns: reading and checking a template, rendering, which oldest turns may be dropped. Does not own:
tokenising. A template serves training and generation alike; its JSON is stored in the corpus.

A template is a JSON object. For dialogue and targets:
  name, description, format
  bos                 put the begin token first (true unless said otherwise)
  speakers            {"a": ..., "b": ...}: labels before the turns, backwards from the last turn, which
                      is Person A's; left out: bare turns
  prompt              text without a possibility number, with {context} (dialogue) or {request} (targets)
  prompt_with_number  the same with {k}, the possibility number; left out: no numbers
  prompt_with_count   dialogue only, in its place: {k} is how many responses a list is asked for
                      (`plural generate --method list` takes --responses); `prompt` then asks for a usual
                      number of them
  ratings             dialogue only: the ten ratings, lowest first. They make the template a question about
                      how well a response fits (ratings.py); `prompt` then has {response}, too, after
                      {context}
For chat: `chat_template` (Jinja; left out: the tokenizer's own) and `number`, the text with {k} that is
added to the last user message; a chat template writes the begin token itself, so `bos` has no effect.
For text: `bos` alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from plural_text.common.errors import BadData, MissingInput, UsageError
from plural_text.common.places import FILES
from plural_text.prepare.instruct_markers import marker_gap, with_fitting_markers

FOLDER = FILES / "templates"
# Used when --template is not given.
DEFAULTS = {"dialogue": "plain-dialogue", "targets": "plain-targets", "chat": "chat", "text": "text"}

_CONTENT = {"dialogue": "context", "targets": "request"}
_KEYS = {
    "dialogue": {"speakers", "prompt", "prompt_with_number", "prompt_with_count", "ratings"},
    "targets": {"prompt", "prompt_with_number"},
    "chat": {"chat_template", "number"},
    "text": set(),
}
RATINGS = 10
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class TemplateRefused(Exception):
    """A chat template that does not take a record's messages; the caller adds file and line."""


class Template:
    """A checked template; subclasses render. `turns` below is Record.turns (formats.py)."""

    def __init__(self, spec: dict, where: str):
        self.spec = spec
        self.name: str = spec["name"]
        self.format: str = spec["format"]
        self.bos: bool = spec.get("bos", True)
        self.where = where
        self.before_prefix = ""

    @property
    def ratings(self) -> list[str]:
        """The ratings of a question about how well a response fits; empty: an ordinary template."""
        return self.spec.get("ratings", [])

    @property
    def json(self) -> str:
        return json.dumps(self.spec, ensure_ascii=False, indent=1)

    def continued(self, prompt: str, prefix: str) -> str:
        """A rendered prompt with the beginning of the answer, which may be empty, behind it."""
        return prompt + (self.before_prefix + prefix if prefix else "")

    def has_numbers(self) -> bool:
        """True when prompts with a possibility number can be rendered."""
        return False

    def number_is_early(self) -> bool:
        """True when content follows the number, so that the prompts of one group cannot share it."""
        return False

    def with_number_last(self) -> Template:
        """The same template with the number moved to the end of the prompt."""
        raise NotImplementedError

    def render(self, turns: list, k: int) -> str:
        """The prompt's text for possibility number k; k = 0: without a number."""
        raise NotImplementedError

    def without_oldest(self, turns: list) -> list | None:
        """The turns without the oldest ones that may go; None when nothing may go."""
        return None


class TextTemplate(Template):
    """Prompts made of strings with placeholders."""

    def __init__(self, spec: dict, where: str, before_prefix: str = ""):
        """before_prefix: what stands between the prompt and the beginning that all answers have."""
        super().__init__(spec, where)
        self.before_prefix = before_prefix

    @property
    def _numbered(self) -> str:
        return "prompt_with_count" if "prompt_with_count" in self.spec else "prompt_with_number"

    def has_numbers(self) -> bool:
        return self._numbered in self.spec

    def number_is_early(self) -> bool:
        order = _PLACEHOLDER.findall(self.spec.get(self._numbered, "{k}"))
        return order[-1] != "k"

    def with_number_last(self) -> TextTemplate:
        text = self.spec[self._numbered].replace("{k}", "") + " {k}"
        return TextTemplate({**self.spec, self._numbered: text}, self.where, self.before_prefix)

    @property
    def after_response(self) -> str:
        """The text after the response in a question about how well it fits; render() gives the text before
        it."""
        return self.spec["prompt"].split("{response}")[1]

    def render(self, turns: list[str], k: int) -> str:
        values = {_CONTENT[self.format]: "\n".join(self._labelled(turns)), "k": str(k)}
        text = self.spec[self._numbered if k else "prompt"].split("{response}")[0]
        return _PLACEHOLDER.sub(lambda m: values[m[1]], text)

    def without_oldest(self, turns: list[str]) -> list[str] | None:
        return turns[1:] if len(turns) > 1 else None

    def _labelled(self, turns: list[str]) -> list[str]:
        speakers = self.spec.get("speakers")
        if not speakers:
            return turns
        last = len(turns) - 1
        return [speakers["a" if (last - i) % 2 == 0 else "b"] + turn for i, turn in enumerate(turns)]


class ChatTemplate(Template):
    """Prompts made by a Jinja chat template, by the function that transformers' apply_chat_template calls."""

    def __init__(self, spec: dict, where: str, special_tokens: dict[str, str]):
        """special_tokens: what the template may use as variables, such as bos_token."""
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        super().__init__(spec, where)
        self.bos = False
        self._special_tokens = special_tokens
        self._render = render_jinja_template
        try:
            self._render([], chat_template=spec["chat_template"])  # only compiles it
        except jinja2.TemplateError as error:
            raise BadData(f"{where}: chat template: {_one_line(error)}") from None

    @property
    def reads_clock(self) -> bool:
        """True when the text of prompts may depend on the date."""
        return "strftime_now" in self.spec["chat_template"]

    def has_numbers(self) -> bool:
        return "number" in self.spec

    def render(self, turns: list[dict], k: int) -> str:
        if k:
            last = max(i for i, turn in enumerate(turns) if turn["role"] == "user")
            number = self.spec["number"].replace("{k}", str(k))
            turns = [
                {**turn, "content": turn["content"] + number} if i == last else turn
                for i, turn in enumerate(turns)
            ]
        return self._text(turns, add_generation_prompt=True)

    def render_whole(self, turns: list[dict], response: str) -> str:
        """The text of the conversation with the assistant's response, as the template closes it."""
        answer = {"role": "assistant", "content": response}
        return self._text([*turns, answer], add_generation_prompt=False)

    def _text(self, turns: list[dict], add_generation_prompt: bool) -> str:
        try:
            (text,), _ = self._render(
                [turns],
                chat_template=self.spec["chat_template"],
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # a template is a program: it can fail in any way
            raise TemplateRefused(f"chat template of {self.where} refuses it: {_one_line(error)}") from None
        return text

    def without_oldest(self, turns: list[dict]) -> list[dict] | None:
        """Drops the oldest exchange: all up to the second user message, system messages kept."""
        users = [i for i, turn in enumerate(turns) if turn["role"] == "user"]
        if len(users) < 2:
            return None
        return [turn for i, turn in enumerate(turns) if i >= users[1] or turn["role"] == "system"]


def template_names() -> list[str]:
    """Names of the templates that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def open_template(name_or_file: str | None, source_format: str, tokenizer) -> Template:
    """The template of a name, a .json file, or (chat) a .jinja file; None: the format's default.

    Errors: MissingInput, BadData naming the file and key, UsageError for another format's template.
    """
    path, spec = _read(name_or_file or DEFAULTS[source_format])
    _check(spec, path)
    if spec["format"] != source_format:
        fitting = [n for n in template_names() if _read(n)[1]["format"] == source_format]
        raise UsageError(
            f"template '{spec['name']}' is for --format {spec['format']}, not "
            f"{source_format}; for {source_format}: {', '.join(fitting)}, or a file"
        )
    if source_format == "chat" and "chat_template" not in spec:
        if not tokenizer.chat_template:
            raise BadData(
                f"{tokenizer.path}: no chat template beside this tokenizer; give one with "
                "--template FILE.jinja"
            )
        spec["chat_template"] = tokenizer.chat_template
    if path.parent != FOLDER or source_format in ("chat", "text"):
        return _made(spec, str(path), tokenizer)
    # A user's own file is taken as it stands; the project's templates serve every version of a family.
    return TextTemplate(with_fitting_markers(spec, tokenizer), str(path), marker_gap(spec, tokenizer))


def format_of(name_or_file: str) -> str:
    """The format that a template is for. Errors: those of open_template."""
    path, spec = _read(name_or_file)
    _check(spec, path)
    return spec["format"]


def stored_template(spec, where: Path, tokenizer) -> Template:
    """A template as training left it in the file `where`. Errors: BadData naming the file and key."""
    _check(spec, where)
    if spec["format"] == "chat" and "chat_template" not in spec:
        raise BadData(f"{where}: template key 'chat_template' is missing; train again, or name a --template")
    return _made(spec, str(where), tokenizer)


def _made(spec: dict, where: str, tokenizer) -> Template:
    """The template of a specification that is checked and taken as it stands."""
    if spec["format"] == "chat":
        return ChatTemplate(spec, where, tokenizer.special_tokens)
    return Template(spec, where) if spec["format"] == "text" else TextTemplate(spec, where)


def _one_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines and lines[0] else type(error).__name__


def _read(name_or_file: str) -> tuple[Path, dict]:
    path = Path(name_or_file)
    is_name = "/" not in name_or_file and path.suffix not in (".json", ".jinja")
    if is_name:
        path = FOLDER / f"{name_or_file}.json"
        if not path.is_file():
            raise MissingInput(
                f"no template '{name_or_file}'; known: {', '.join(template_names())}, or "
                "give a .json or .jinja file"
            )
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jinja":
            return path, {**_read("chat")[1], "name": path.stem, "chat_template": text}
        return path, json.loads(text)
    except OSError as error:
        raise MissingInput(f"{path}: template cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadData(f"{path}: template is not valid JSON: {error}") from None


def _check(spec, path: Path) -> None:
    def refuse(key, found, allowed):
        raise BadData(f"{path}: template key '{key}': {found}; {allowed}")

    if not isinstance(spec, dict):
        raise BadData(f"{path}: a template must be a JSON object, this is a {type(spec).__name__}")
    source_format = spec.get("format")
    if source_format not in _KEYS:
        refuse("format", f"found {source_format!r}", f"allowed: {', '.join(_KEYS)}")
    allowed = {"name", "description", "format", "bos"} | _KEYS[source_format]
    for key in spec:
        if key not in allowed:
            refuse(key, "not known", f"allowed for {source_format}: {', '.join(sorted(allowed))}")
    required = {"name"} | ({"prompt"} if source_format in _CONTENT else set())
    for key in sorted(required | (allowed & spec.keys()) - {"bos", "speakers", "ratings"}):
        if not isinstance(spec.get(key), str) or not spec[key]:
            refuse(key, f"found {spec.get(key)!r}", "must be a text that is not empty")
    if not isinstance(spec.get("bos", True), bool):
        refuse("bos", f"found {spec['bos']!r}", "must be true or false")
    speakers = spec.get("speakers", {"a": "", "b": ""})
    if not (
        isinstance(speakers, dict)
        and speakers.keys() == {"a", "b"}
        and all(isinstance(label, str) for label in speakers.values())
    ):
        refuse("speakers", f"found {speakers!r}", 'must be {"a": label, "b": label}')
    if "ratings" in spec:
        _check_question(spec, refuse)
    elif source_format in _CONTENT:
        content = _CONTENT[source_format]
        _check_placeholders(spec, "prompt", {content}, refuse)
        if {"prompt_with_number", "prompt_with_count"} <= spec.keys():
            refuse("prompt_with_count", "stands beside 'prompt_with_number'", "{k} means one of the two")
        for key in ("prompt_with_number", "prompt_with_count"):
            if key in spec:
                _check_placeholders(spec, key, {content, "k"}, refuse)
    if "number" in spec:
        _check_placeholders(spec, "number", {"k"}, refuse)


def _check_question(spec: dict, refuse) -> None:
    ratings = spec["ratings"]
    if not (
        isinstance(ratings, list)
        and len(ratings) == RATINGS
        and all(isinstance(r, str) and r for r in ratings)
    ):
        refuse("ratings", f"found {ratings!r}", f"must be {RATINGS} texts, the lowest rating first")
    for key in ("prompt_with_number", "prompt_with_count"):
        if key in spec:
            refuse(key, "stands beside 'ratings'", "a rating does not depend on a number; leave it out")
    _check_placeholders(spec, "prompt", {"context", "response"}, refuse)
    after = spec["prompt"].split("{response}")[1]
    if "{context}" in after or not after:
        refuse(
            "prompt",
            "{context} stands behind {response}, or nothing does",
            "needs {context}, {response} and what the rating answers, in this order",
        )


def _check_placeholders(spec: dict, key: str, needed: set[str], refuse) -> None:
    found = _PLACEHOLDER.findall(spec[key])
    if sorted(found) != sorted(needed):
        names = " and ".join(f"{{{name}}}" for name in sorted(needed))
        refuse(key, f"placeholders found: {', '.join(found) or 'none'}", f"needs {names}, each once")

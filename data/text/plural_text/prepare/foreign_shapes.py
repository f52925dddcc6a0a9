"""Chat records in the shapes that other programs use, turned into {"messages", "responses"}.

Owns: how a shape is told by its keys, what becomes its prompt and its response. Does not own: the checks of
messages and responses themselves (formats.py). Thread rule: functions without state.
"""

from __future__ import annotations

from collections.abc import Callable

from plural_text.prepare.json_records import Mistake, kind_of

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}


def own_shape(fields: dict, prompts_only: bool) -> tuple[dict, str]:
    """The fields as --format chat writes them, and the name of the shape they had; "" for its own.

    Keys that the shape does not use stay, so that the reader can name them. Errors: Mistake.
    """
    if "responses" in fields:
        return fields, ""
    for key, (name, read) in _SHAPES.items():
        if key in fields and ("messages" not in fields or key == "messages"):
            found = read(dict(fields), prompts_only)
            return (fields, "") if found is None else (found, name)
    return fields, ""


def shape_of(fields: dict) -> str:
    """The name of the shape of a chat record, for people."""
    if "responses" in fields and "messages" in fields:
        return "messages with responses"
    return next((name for key, (name, _) in _SHAPES.items() if key in fields), "messages")


def require_shape(fields: dict, key: str) -> None:
    """Errors: Mistake for a record without the key that tells the shape that --format names."""
    if key not in fields:
        name = next(name for name, told_by in NAMED_SHAPES.items() if told_by == key)
        raise Mistake(
            f"key '{key}' is missing, which --format {name} reads; found "
            f"{', '.join(map(repr, fields)) or 'no keys'}"
        )


def refuse_foreign_shape(fields: dict, source_format: str, key: str) -> None:
    """For a format whose records have `key`. Errors: Mistake for a record that --format chat would read."""
    name = next((name for shape, (name, _) in _SHAPES.items() if shape in fields), "")
    if name and key not in fields:
        raise Mistake(
            f"key '{key}' is missing: these are {name}; --format chat reads them, not {source_format}"
        )


def _messages(fields: dict, prompts_only: bool) -> dict | None:
    """Messages that end with the assistant's; None for a prompt."""
    messages = fields["messages"]
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "assistant":
        return None
    return _split(fields, messages, "messages", prompts_only)


def _sharegpt(fields: dict, prompts_only: bool) -> dict:
    turns = fields.pop("conversations")
    if not isinstance(turns, list) or not turns:
        raise Mistake('key \'conversations\' must hold a list of {"from", "value"} that is not empty')
    messages = []
    for i, turn in enumerate(turns):
        speaker, text = (
            ("role", "content") if isinstance(turn, dict) and "role" in turn else ("from", "value")
        )
        if not isinstance(turn, dict) or speaker not in turn or text not in turn:
            raise Mistake(f"conversations[{i}] must be an object with 'from' and 'value'")
        role = _ROLES.get(turn[speaker]) if isinstance(turn[speaker], str) else None
        if role is None:
            raise Mistake(
                f"conversations[{i}] is from {turn[speaker]!r}, allowed: human, gpt, system "
                f"({', '.join(_ROLES)}); leave the conversation out"
            )
        messages.append({"role": role, "content": turn[text]})
        for key in turn.keys() - {speaker, text}:
            fields[f"conversations[].{key}"] = turn[key]
    return _split(fields, messages, "conversations", prompts_only)


def _alpaca(fields: dict, prompts_only: bool) -> dict:
    request, more = fields.pop("instruction"), fields.pop("input", "")
    for name, text in (("instruction", request), ("input", more)):
        if not isinstance(text, str):
            raise Mistake(f"key '{name}' holds a {kind_of(text)}, must hold a text")
    system = fields.pop("system", "")
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": f"{request}\n\n{more}" if more.strip() else request})
    return _answered(fields, messages, fields.pop("output", None), "output", prompts_only)


def _prompted(fields: dict, prompts_only: bool) -> dict:
    """{"prompt"} with "completion", or with "chosen" and "rejected", of which the chosen one is learnt."""
    prompt = fields.pop("prompt")
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if not isinstance(messages, list):
        raise Mistake(f"key 'prompt' holds a {kind_of(prompt)}, must hold a text or a list of messages")
    key = "chosen" if "chosen" in fields and "completion" not in fields else "completion"
    answer = fields.pop(key, None)
    if key == "chosen":
        fields.pop("rejected", None)
    if not isinstance(answer, list):
        return _answered(fields, messages, answer, key, prompts_only)
    return _split(fields, answer if len(answer) > 1 else [*messages, *answer], key, prompts_only)


def _chosen(fields: dict, prompts_only: bool) -> dict:
    """{"chosen", "rejected"} alone: whole conversations."""
    chosen = fields.pop("chosen")
    fields.pop("rejected", None)
    if not isinstance(chosen, list):
        raise Mistake(
            f"key 'chosen' holds a {kind_of(chosen)} and there is no 'prompt'; it must hold the messages of "
            "the whole conversation"
        )
    return _split(fields, chosen, "chosen", prompts_only)


# The key that tells a shape -> its name and reader. The first that fits counts.
_SHAPES: dict[str, tuple[str, Callable[[dict, bool], dict | None]]] = {
    "messages": ("conversations that end with the assistant", _messages),
    "conversations": ("ShareGPT conversations", _sharegpt),
    "instruction": ("Alpaca records", _alpaca),
    "prompt": ("prompts with a completion or a chosen answer", _prompted),
    "chosen": ("conversations with a chosen answer", _chosen),
}


# The shapes as --format names them -> the key that a record of each has.
NAMED_SHAPES = {
    "messages": "messages",
    "sharegpt": "conversations",
    "alpaca": "instruction",
    "completion": "prompt",
    "preference": "chosen",
}


def _answered(fields: dict, messages: list, answer, key: str, prompts_only: bool) -> dict:
    if answer is not None and not isinstance(answer, str):
        raise Mistake(f"key '{key}' holds a {kind_of(answer)}, must hold a text")
    if not prompts_only and (answer is None or not answer.strip()):
        raise Mistake(
            f"key '{key}' {'is missing' if answer is None else 'is empty'}, it must hold the assistant's "
            "answer; leave the record out, or give --prompts-only"
        )
    responses = [answer] if answer and answer.strip() else []
    return {**fields, "messages": messages, "responses": responses}


def _split(fields: dict, messages: list, key: str, prompts_only: bool) -> dict:
    """The last turn, the assistant's, becomes the response; before it the two take turns."""
    roles = [m.get("role") if isinstance(m, dict) else None for m in messages]
    begin = 1 if roles[:1] == ["system"] else 0
    for i, role in enumerate(roles[begin:], begin):
        due = "assistant" if (i - begin) % 2 else "user"
        if role != due:
            raise Mistake(
                f"{key}[{i}] is {_named(role)}, where a turn of the {due} is due; user and assistant take "
                "turns, the user begins"
            )
    if roles[-1] == "assistant":
        last = messages[-1]
        if "content" not in last:
            raise Mistake(f"{key}[{len(roles) - 1}] must be an object with exactly 'role' and 'content'")
        return {**fields, "messages": messages[:-1], "responses": [last["content"]]}
    if not prompts_only:
        raise Mistake(
            f"{key} ends with the {roles[-1]}'s turn, the assistant's answer is missing; leave the record "
            "out, or give --prompts-only"
        )
    return {**fields, "messages": messages, "responses": []}


def _named(role) -> str:
    return f"the {role}'s" if isinstance(role, str) else "no message"

"""What a request to the endpoint may say: every field is checked, and what is not supported is refused.

Owns: names, types and ranges of fields, values that mean nothing and are allowed. Does not own: prompts, HTTP
(server.py). Thread rule: free of state.
"""

from __future__ import annotations

from dataclasses import dataclass

from plural_text.ask.choices import Choice, parse_choice
from plural_text.common.errors import UsageError
from plural_text.common.json_lines import kind

_MAX_ANSWERS = 1024
_MAX_STOPS = 16
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
# Fields whose other values are not supported: name -> the values at which they change nothing.
_NEUTRAL = {
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "logprobs": (None, False, 0),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "response_format": (None, {"type": "text"}),
    "modalities": (None, ["text"]),
    "store": (None, False),
    "echo": (None, False),
    "suffix": (None, ""),
    "best_of": (None, 1),
}
_IGNORED = (
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "parallel_tool_calls",
)
_COMMON = (
    "model",
    "n",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "possibilities",
)
_KNOWN = {"chat": (*_COMMON, "messages", "max_completion_tokens"), "text": (*_COMMON, "prompt")}


class Refused(Exception):
    """A request that is not answered, in the words of OpenAI's errors."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400):
        super().__init__(message)
        self.status = status
        self.body = {
            "error": {
                "message": message,
                "type": "invalid_request_error" if status < 500 else "server_error",
                "param": param,
                "code": code,
            }
        }


@dataclass(frozen=True)
class Wanted:
    """A request that is checked."""

    answers: int
    settings: dict  # of the model's process, but for what the server decides
    max_new_tokens: int | None
    seed: int | None
    stops: list[str]
    stream: bool
    stream_usage: bool
    choice: Choice | None  # None: as the server was started


def check(body: dict, what: str, model: str) -> Wanted:
    """what: chat or text. model: the name that is served. Errors: Refused."""
    for key, value in body.items():
        if key in _KNOWN[what] or key in _IGNORED:
            continue
        if key not in _NEUTRAL:
            raise Refused(
                f"'{key}' is not supported; supported are {', '.join(_KNOWN[what])}",
                key,
                "unsupported_parameter",
            )
        if not any(value == neutral and type(value) in (type(neutral), float) for neutral in _NEUTRAL[key]):
            raise Refused(f"'{key}' is not supported; leave it out", key, "unsupported_parameter")
    name = body.get("model")
    if name is not None and name != model:
        raise Refused(f"no model {name!r} here; this is '{model}'", "model", "model_not_found", 404)
    settings = {}
    for key, least, most in (("temperature", 0, 100), ("top_p", 1e-9, 1)):
        if body.get(key) is not None:
            settings[key] = _number(body, key, least, most)
    if body.get("top_k") is not None:
        settings["top_k"] = _count(body, "top_k", 0, (1 << 31) - 1)
    stream = _flag(body, "stream")
    return Wanted(
        answers=1 if body.get("n") is None else _count(body, "n", 1, _MAX_ANSWERS),
        settings=settings,
        max_new_tokens=_new_tokens(body),
        seed=None if body.get("seed") is None else _count(body, "seed", 0, (1 << 63) - 1),
        stops=_stops(body.get("stop")),
        stream=stream,
        stream_usage=_stream_usage(body, stream),
        choice=_choice(body.get("possibilities")),
    )


def messages_of(body: dict) -> list[dict]:
    """Errors: Refused."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused("'messages' must be a list of messages that is not empty", "messages")
    found = []
    for i, message in enumerate(messages):
        param = f"messages[{i}]"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise Refused(f"{param}: the role must be one of {', '.join(_ROLES)}", param)
        for key, value in message.items():
            if key not in ("role", "content", "name") and value not in (None, [], ""):
                raise Refused(f"{param}: '{key}' is not supported", param, "unsupported_parameter")
        found.append({"role": _ROLES[role], "content": _content(message.get("content"), param)})
    if found[-1]["role"] != "user":
        raise Refused("the last message must be the user's", f"messages[{len(found) - 1}]")
    return found


def prompts_of(body: dict, vocabulary: int) -> list[str | list[int]]:
    """Texts or token ids. Errors: Refused."""
    prompt = body.get("prompt")
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and type(prompt[0]) is int):
        prompt = [prompt]
    if not isinstance(prompt, list) or not prompt or len(prompt) > _MAX_ANSWERS:
        raise Refused(
            f"'prompt' must be a text, token ids, or a list of 1 to {_MAX_ANSWERS} of either", "prompt"
        )
    for item in prompt:
        if isinstance(item, str) and item:
            _check_text(item, "prompt", "'prompt'")
            continue
        whole = isinstance(item, list) and item and all(type(token) is int for token in item)
        if not whole or not all(0 <= token < vocabulary for token in item):
            raise Refused(f"'prompt' must be a text or token ids below {vocabulary:,}, not empty", "prompt")
    return prompt


def _content(content, param: str) -> str:
    if isinstance(content, list):
        if not all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            for part in content
        ):
            raise Refused(f"{param}: parts of other types than text are not supported", param)
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str) or not content.strip():
        raise Refused(f"{param}: 'content' must be a text that is not empty", param)
    _check_text(content, param, f"{param}: 'content'")
    return content


def _check_text(text: str, param: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(f"{what} holds half of a surrogate pair", param) from None


def _number(body: dict, key: str, least: float, most: float) -> float:
    value = body[key]
    if type(value) not in (int, float) or not least <= value <= most:
        raise Refused(f"'{key}' must be a number from {least:g} to {most:g}", key)
    return value


def _count(body: dict, key: str, least: int, most: int) -> int:
    value = body[key]
    if type(value) is not int or not least <= value <= most:
        raise Refused(f"'{key}' must be a whole number from {least:,} to {most:,}", key)
    return value


def _flag(body: dict, key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise Refused(f"'{key}' must be true or false", key)
    return bool(value)


def _new_tokens(body: dict) -> int | None:
    given = [key for key in ("max_tokens", "max_completion_tokens") if body.get(key) is not None]
    if len(given) > 1:
        raise Refused("'max_tokens' and 'max_completion_tokens' are the same; give one", given[0])
    return _count(body, given[0], 1, 1 << 20) if given else None


def _stops(value) -> list[str]:
    stops = [value] if isinstance(value, str) else value or []
    if (
        not isinstance(stops, list)
        or len(stops) > _MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise Refused(f"'stop' must be a text or up to {_MAX_STOPS} texts, none empty", "stop")
    return stops


def _stream_usage(body: dict, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not stream or not isinstance(options, dict) or not options.keys() <= {"include_usage"}:
        raise Refused("'stream_options' may hold 'include_usage', with 'stream' true", "stream_options")
    return _flag(options, "include_usage")


def _choice(value) -> Choice | None:
    if value is None:
        return None
    if isinstance(value, list) and value and all(type(k) is int for k in value):
        value = ",".join(map(str, value))
    try:
        if isinstance(value, str):
            return parse_choice("'possibilities'", value)
    except UsageError as error:
        raise Refused(str(error), "possibilities") from None
    raise Refused(
        f"'possibilities' holds {kind(value)}, must be none, first, sample or a list of numbers",
        "possibilities",
    )

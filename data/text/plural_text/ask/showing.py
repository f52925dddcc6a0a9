"""Answers as a terminal shows them, and as a JSON line.

Owns: what is printed of an answer. Does not own: where to. Thread rule: free of state.
"""

from __future__ import annotations

import json
import os
import sys

from plural_text.ask.prompts import Answer


def shown(answer: Answer, count: int) -> str:
    """An answer behind its number, further lines below its first."""
    label = str(answer.index + 1)
    if answer.possibility or answer.latent:
        label = f"#{answer.possibility}" if answer.possibility else f"latent {answer.latent}"
    width = max(len(label), len(str(count)) + 1) + 2
    lines = visible_lines(answer.text)
    return "\n".join([label.ljust(width) + lines[0], *(" " * width + line for line in lines[1:])])


def visible_lines(text: str) -> list[str]:
    """Signs that steer a terminal are shown as escapes."""
    visible = lambda line: "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
    return [visible(line) for line in text.strip().splitlines()] or ["(nothing)"]


def show_prompts(answers: list[Answer]) -> None:
    for prompt in dict.fromkeys(answer.prompt for answer in answers):
        print(f"plural: the model reads {json.dumps(prompt, ensure_ascii=False)}", file=sys.stderr)


def print_cut(answers: list[Answer], max_new_tokens: int) -> None:
    cut = sum(not answer.finished for answer in answers)
    if cut:
        print(
            f"plural: {cut} of {len(answers)} answer{'s' * (len(answers) > 1)} "
            f"{'were' if cut > 1 else 'was'} cut at {max_new_tokens} tokens (--max-new-tokens)",
            file=sys.stderr,
        )


def json_line(key: str, answers: list[Answer], prompts: list[list[int]]) -> dict:
    """As `plural generate` writes it: a response's tail stands behind the line's prompt."""
    shared = len(os.path.commonprefix([min(prompts), max(prompts)]))
    text = len(os.path.commonprefix([answer.prompt for answer in answers]))
    return {
        "id": key,
        "prompt": answers[0].prompt[:text],
        "prompt_tokens": prompts[0][:shared],
        "method": "sample",
        "responses": [
            {
                "index": answer.index,
                "possibility": answer.possibility,
                "latent": answer.latent,
                "text": answer.text,
                "tokens": answer.tokens,
                "logprob_nats": answer.logprob_nats,
                "finished": answer.finished,
                "tail": answer.prompt[text:],
                "tail_tokens": prompt[shared:],
            }
            for answer, prompt in zip(answers, prompts)
        ],
    }

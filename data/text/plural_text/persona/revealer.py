"""The model under test of a persona study: how it is started and asked for its next turn."""

# Owns: its prompts, the number drawn for each turn, its command line. Does not own: the process
# (common/model_process.py), turns (conversation.py).

from __future__ import annotations

import random
import sys

from plural_text.common.compute_options import compute_words
from plural_text.common.errors import UsageError
from plural_text.common.model_process import ModelProcess
from plural_text.common.program import program
from plural_text.persona.conversation import Conversation
from plural_text.prepare.prompt_encoder import PromptEncoder
from plural_text.prepare.templates import open_template
from plural_text.prepare.tokenizer_files import open_tokenizer


class RevealerPrompts:
    """Conversations to the token ids that ask for the revealer's next turn, and its token ids to text."""

    def __init__(self, arguments):
        tokenizer = open_tokenizer(
            arguments.tokenizer or arguments.model,
            warn=lambda line: print(f"plural: warning: {line}", file=sys.stderr),
        )
        template = open_template(arguments.template, "dialogue", tokenizer)
        self._seed, self.possibilities = arguments.seed, arguments.possibilities
        if self.possibilities and not template.has_numbers():
            raise UsageError(
                f"template '{template.name}' has no place for a possibility number; give "
                "--possibilities 0 or another --template"
            )
        self._encoder = PromptEncoder(
            tokenizer, template, arguments.max_prompt_tokens, "--max-prompt-tokens allows"
        )
        self.text = self._encoder.text

    def number(self, request: str) -> int:
        """Uniform from 1 to M, drawn anew for every turn; 0 without numbers."""
        return (
            random.Random(f"{self._seed}:{request}").randint(1, self.possibilities)
            if self.possibilities
            else 0
        )

    def tokens(self, turns: list[str], k: int) -> list[int]:
        """Drops oldest turns where the prompt is too long. Errors: BadData when nothing is left to drop."""
        return self._encoder.fit(turns, [k])[1][0]


def reveal(so_far: Conversation, revealer: ModelProcess, prompts: RevealerPrompts) -> tuple[str, int]:
    request = f"{so_far.id}:{len(so_far.turns)}"
    k = prompts.number(request)
    answer = revealer.ask({"id": request, "prompt_tokens": prompts.tokens(so_far.turns, k)})
    return prompts.text(answer["responses"][0]["tokens"]), k


def generate_command(arguments) -> list[str]:
    command = [
        program(),
        "generate",
        "--stream",
        "--model",
        str(arguments.model),
        "--responses",
        "1",
        "--temperature",
        str(arguments.temperature),
        "--top-k",
        str(arguments.top_k),
        "--max-new-tokens",
        str(arguments.max_new_tokens),
        "--seed",
        str(arguments.seed),
        *compute_words(arguments),
    ]
    return command + (["--adapter", str(arguments.adapter)] if arguments.adapter else [])

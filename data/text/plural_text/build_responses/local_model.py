"""A model on this machine, asked in the manner of an endpoint.

Owns: how a question becomes a request to `plural generate --stream`. Does not own: the process
(common/model_process.py), tokens and templates (ask/prompts.py). Thread rule: may be asked from several
threads; their requests are decoded together.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from plural_text.ask.choices import Choice
from plural_text.ask.prompts import Prompts
from plural_text.common.model_process import ModelProcess


class LocalModel:
    """Asks with the model's chat template, or with bare text where it has none. `base_url` and `model` stand
    for it in kept answers."""

    def __init__(
        self, process: ModelProcess, prompts: Prompts, folder: Path, attempt: int, seed: int, quantize: str
    ):
        self.base_url = f"{folder.resolve()} seed {seed}" + (f" {quantize}" if quantize != "none" else "")
        self.model = folder.name
        self._process, self._prompts = process, prompts
        self._attempt, self._seed = attempt, seed
        self._lock = threading.Lock()

    def ask(self, messages: list[dict], temperature: float, max_tokens: int) -> str:
        """The answer's text. Errors: BadData for a question that has no room, those of ModelProcess."""
        question = messages[-1]["content"]
        digest = hashlib.sha256(question.encode("utf-8", "replace")).hexdigest()
        settings = {
            "temperature": temperature,
            "top_p": 1.0,
            "top_k": 0,
            "max_new_tokens": max_tokens,
            "seed": self._seed,
        }
        key = f"list:{self._attempt}:{digest}"
        with self._lock:
            ask = self._prompts.ask(key, self._prompts.turns(question), 1, Choice("none"), settings)
        fields = self._process.ask(ask.request)
        with self._lock:
            return self._prompts.answers(ask, fields)[0].text

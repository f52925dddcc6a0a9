"""The size of a corpus, counted while it is written.

Owns: the figures that `prepare` prints. Thread rule: one thread at a time.
"""

from __future__ import annotations

import os

from plural_text.prepare.groups import Changes, Group

# The number of responses that possibility exploration trains on by default.
_PEFT_RESPONSES = 4
# Byte values with the bit of content_first (masks.py).
_MARKED = bytes(range(1, 256, 2))
_UNMARKED = bytes(range(0, 256, 2))
_FEW_MARKED = 0.05


class Summary:
    def __init__(self):
        self.groups = 0
        self.responses = 0
        self.fewest = self.most = 0  # responses of a group
        self.prompt_tokens = 0
        self.tail_tokens = 0
        self.response_tokens = 0
        self.marked_tokens = 0
        self.longest_tokens = 0
        self.longest_id = ""
        self.end_tokens = ""
        self.alignment: list[str] = []  # lines of the alignment, where there is one
        # Tokens of all sequences of a group, and rows of the token tree that they share, as `plural inspect`
        # and `plural dry-run` count them.
        self._plain = self._shared = 0
        self._peft_plain = self._peft_shared = 0

    def add(self, group: Group) -> None:
        prompt = len(group.prompt)
        lengths = [len(tokens) for tokens in group.responses]
        self.groups += 1
        self.responses += len(lengths)
        self.fewest = min(self.fewest, len(lengths)) if self.groups > 1 else len(lengths)
        self.most = max(self.most, len(lengths))
        self.prompt_tokens += prompt
        self.tail_tokens += sum(map(len, group.tails))
        self.response_tokens += sum(lengths)
        self.marked_tokens += sum(len(mask) - len(mask.translate(None, _MARKED)) for mask in group.masks)
        longest = prompt + max(map(len, group.tails)) + max(lengths, default=0)
        if longest > self.longest_tokens:
            self.longest_tokens, self.longest_id = longest, group.id
        if not lengths:
            return
        head = prompt + len(group.tails[0])
        self._plain += head * len(lengths) + sum(lengths)
        self._shared += head + _fed_rows(group.responses)
        n = min(_PEFT_RESPONSES, len(lengths), len(group.tails) - 1)
        if n > 0:
            tails = group.tails[1 : n + 1]
            self._peft_plain += n * (n * prompt + sum(map(len, tails)) + sum(lengths[:n]))
            self._peft_shared += prompt + _rows(tails) + _peft_rows(group, n)

    @property
    def marked_share(self) -> float:
        """Share of the response tokens that mask content_first marks."""
        return self.marked_tokens / max(1, self.response_tokens)

    def mask_warning(self, word_rule: str) -> str:
        """What to say of replies with hardly a marked token; empty otherwise."""
        if not self.responses or self.marked_share >= _FEW_MARKED:
            return ""
        line = (
            f"only {100 * self.marked_share:.1f} % of the response tokens begin a word with content: method "
            "poexft has almost nothing to lower"
        )
        if word_rule == "spaces":
            return line + "; --words unicode finds words in languages without spaces"
        return line + "; see which words --stopwords leaves out"

    def _range(self) -> str:
        if not self.responses:
            return ""
        range = f"{self.fewest:,} to {self.most:,}" if self.fewest < self.most else f"{self.most:,}"
        return f", {range} per group"

    def lines(self, changes: Changes, output: str, sha256: str) -> list[str]:
        rows = [
            ("corpus", output),
            ("groups", f"{self.groups:,}"),
            ("responses", f"{self.responses:,}{self._range()}"),
            (
                "tokens",
                f"{self.prompt_tokens:,} prompts, {self.tail_tokens:,} tails, "
                f"{self.response_tokens:,} responses",
            ),
            ("longest sequence", f"{self.longest_tokens:,} tokens, in {self.longest_id}"),
        ]
        if self.end_tokens:
            rows.append(("end tokens", self.end_tokens))
        if self.responses:
            ratio = f"{self._plain / self._shared:.2f}x (one sequence per response"
            if self._peft_shared:
                ratio += (
                    f"), {self._peft_plain / self._peft_shared:.2f}x (poexft with {_PEFT_RESPONSES} responses"
                )
            rows.append(("shared", ratio + ")"))
        if self.marked_tokens:
            rows.append(
                ("penalised tokens", f"{100 * self.marked_share:.1f} % of the responses' (content_first)")
            )
        if changes.trimmed_prompts:
            rows.append(("prompts trimmed", f"{changes.trimmed_prompts:,}"))
        rows.append(("responses cut", f"{changes.truncated_responses:,}"))
        rows += [("aligned", line) for line in self.alignment]
        rows.append(("sha256", sha256))
        return [f"{name:<21} {value}" for name, value in rows]


def _rows(sequences: list) -> int:
    """Rows of the token tree of sequences: their different beginnings."""
    rows, before = 0, ()
    for tokens in sorted(map(tuple, sequences)):
        rows += len(tokens) - len(os.path.commonprefix([before, tokens]))
        before = tokens
    return rows


def _peft_rows(group: Group, n: int) -> int:
    """Rows behind the n tails: each has its own response, and of the others what leads to the last token that
    is penalised (content_first)."""
    penalised = [
        tokens[: max(len(mask.rstrip(_UNMARKED)) - 1, 0)]
        for tokens, mask in zip(group.responses[:n], group.masks[:n], strict=True)
    ]
    return sum(_rows([*penalised[:k], group.responses[k][:-1], *penalised[k + 1 :]]) for k in range(n))


def _fed_rows(responses: list) -> int:
    """The same of responses, whose last tokens are predicted and not fed."""
    return _rows([tokens[:-1] for tokens in responses])

"""The token tree of one group: which rows are computed, and for which sequences.

Owns: the sequences of a method with numbers 1 to N, their merging, what `plural inspect --json` and the
corpus's vocabulary give. Does not own: the picture (tree_figure.py); training draws other numbers and has its
own trees (docs/methods.md). Thread rule: free of state.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from plural_text.common.errors import CommandError
from plural_text.common.json_lines import parse_object
from plural_text.common.program import program
from plural_text.report.runs import Run

# Leaves of a picture that can still be read.
MAX_SEQUENCES = 64
_INSPECT_SECONDS = 60
_WITHOUT_TREE = {
    "pretrain": "a document is one sequence, without a branch",
    "cvf": "its sequences branch by latents, which a corpus does not have",
}


@dataclass(frozen=True)
class Sequence:
    """`tokens`: prompt, tail and response. `trained`: how many of them are needed, 0 for none: a negative
    sequence ends at its last penalised token."""

    tokens: tuple[int, ...]
    trained: int
    positive: bool
    possibility: int
    response: int


@dataclass
class Node:
    """A stretch of rows without a branch. `sequences`: those that go through it."""

    tokens: list[int] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Tree:
    """`plain_rows`: tokens of one line per sequence. `tree_rows`: rows of the tree; a last token is
    predicted, never a row. `pieces`: token id -> text."""

    group: str
    root: Node
    sequences: list[Sequence]
    plain_rows: int
    tree_rows: int
    pieces: dict[int, str]


class NoTree(Exception):
    """Why there is no picture, in words."""


def corpus_of(run: Run, key: str = "data.train") -> Path:
    """A corpus of the run, as seen from where the run was started. Errors: NoTree."""
    named = run.setting(key)
    if not isinstance(named, str):
        raise NoTree(f"the recipe names no {key}")
    path = Path(named)
    if not path.is_absolute():
        # The run lies in <run.dir>/<name>, which was relative to the same folder.
        runs = run.setting("run.dir")
        depth = 1 if not isinstance(runs, str) or Path(runs).is_absolute() else len(Path(runs).parts) + 1
        parents = run.folder.resolve().parents
        started = parents[depth - 1] if depth <= len(parents) else Path()
        path = next((place for place in (started / path, path) if os.path.isfile(place)), started / path)
    if not os.path.isfile(path):
        raise NoTree(f"its corpus {named} is not there")
    return path


def read_tree(run: Run) -> Tree:
    """The tree of the first group of the run's corpus. Errors: NoTree."""
    method = str(run.setting("method"))
    if method in _WITHOUT_TREE:
        raise NoTree(_WITHOUT_TREE[method])
    corpus = corpus_of(run)
    mask = run.setting("loss.unlikelihood.mask") or "content_first"
    group = _inspect(corpus, str(mask))
    used = run.setting("group.responses")
    try:
        sequences = sequences_of(
            group, method in ("peft", "poexft"), _used(method, used, len(group["responses"]))
        )
        name = str(group["id"])
    except (KeyError, TypeError):
        raise NoTree(f"its corpus {corpus} has no prompts with responses") from None
    if len(sequences) < 2:
        raise NoTree(f"a group of {method} is one sequence, without a branch")
    if len(sequences) > MAX_SEQUENCES:
        raise NoTree(f"its first group has {len(sequences):,} sequences, a picture at most {MAX_SEQUENCES}")
    return build(name, sequences, _pieces(corpus, {t for s in sequences for t in s.tokens}))


def _used(method, setting, found: int) -> int:
    if method == "otoft":
        return min(1, found)
    if method == "distribution_matching" or not isinstance(setting, int) or setting == 0:
        return found
    return min(setting, found)


def sequences_of(group: dict, numbered: bool, used: int) -> list[Sequence]:
    """`group`: an object of `plural inspect --json`. With `numbered`, each of the first `used` responses
    under each of the numbers 1 to `used`; else each behind the prompt without a number."""
    prompt, tails = group["prompt_tokens"], group["tails"]
    found = []
    for number in range(1, used + 1) if numbered else (0,):
        if str(number) not in tails:
            raise NoTree(f"its first group has no prompt with number {number}")
        prefix = [*prompt, *tails[str(number)]]
        for place, response in enumerate(group["responses"][:used], 1):
            tokens, needed = response["tokens"], len(response["tokens"])
            positive = not numbered or place == number
            if not positive:
                needed = max((i for i, bit in enumerate(response["unlikelihood_mask"], 1) if bit), default=0)
            trained = len(prefix) + needed if needed else 0
            found.append(Sequence((*prefix, *tokens), trained, positive, number, place))
    return found


def build(group: str, sequences: list[Sequence], pieces: dict[int, str]) -> Tree:
    """Merges the sequences by their tokens."""
    root = _grow(sequences, 0)
    return Tree(
        group,
        root,
        sequences,
        sum(len(sequence.tokens) for sequence in sequences),
        _rows(root, 0),
        pieces,
    )


def _rows(node: Node, begin: int) -> int:
    """Of a node whose first token is at place `begin`, and of all below it: tokens that a sequence needs and
    that are not its last one."""
    end = begin + len(node.tokens)
    deepest = max((min(sequence.trained - 1, end) for sequence in node.sequences), default=0)
    return max(0, deepest - begin) + sum(_rows(child, end) for child in node.children)


def _grow(sequences: list[Sequence], depth: int) -> Node:
    node = Node(sequences=sequences)
    while True:
        alive = [sequence for sequence in sequences if len(sequence.tokens) > depth]
        nexts: dict[int, list[Sequence]] = {}
        for sequence in alive:
            nexts.setdefault(sequence.tokens[depth], []).append(sequence)
        if len(nexts) != 1 or len(alive) < len(sequences):
            node.children = [_grow(own, depth) for own in nexts.values()]
            return node
        node.tokens.append(next(iter(nexts)))
        depth += 1


def _inspect(corpus: Path, mask: str) -> dict:
    try:
        command = [program(), "inspect", str(corpus), "--json", "--groups", "0:1", "--mask", mask]
        done = subprocess.run(command, capture_output=True, timeout=_INSPECT_SECONDS)
        if done.returncode:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise NoTree(f"plural inspect ended with {done.returncode}: {' '.join(last)}")
        return parse_object(done.stdout.splitlines()[0], "plural inspect --json")
    except (CommandError, OSError, IndexError, subprocess.TimeoutExpired) as error:
        raise NoTree(str(error) or "plural inspect printed nothing") from None


def _pieces(corpus: Path, tokens: set[int]) -> dict[int, str]:
    import h5py

    try:
        with h5py.File(corpus, "r") as file:
            offsets, content = file["vocab_offsets"][:], file["vocab_bytes"][:]
            return {
                token: content[offsets[token] : offsets[token + 1]].tobytes().decode("utf-8", "replace")
                for token in tokens
            }
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise NoTree(f"{corpus}: the vocabulary cannot be read: {error}") from None

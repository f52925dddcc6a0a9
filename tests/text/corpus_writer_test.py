"""The corpus file: its layout, its memory, and what a crash, a full disk or a second writer leave."""

import hashlib
import os
import random
import tracemalloc
import unittest
from pathlib import Path
from unittest import mock

import h5py

from plural_text.common.errors import CannotCreate
from plural_text.prepare import corpus_writer
from plural_text.prepare.corpus_writer import CorpusWriter
from plural_text.prepare.groups import Group
from text.support import FolderTest, read_corpus

ATTRIBUTES = {
    "vocab_size": 3,
    "possibilities": 1,
    "source_format": "dialogue",
    "tokenizer_name": "tokenizer.json",
    "tokenizer_sha256": "0" * 64,
    "template_name": "t",
    "mask_modes": "content_first,all_first,repo_compat",
}
VOCABULARY = [b"a", b"", "\u4f60".encode()]


def groups(count, seed=1):
    draw = random.Random(seed)
    row = lambda most: [draw.randrange(3) for _ in range(draw.randrange(most))]
    for g in range(count):
        responses = [row(30) for _ in range(draw.randrange(4))]
        yield Group(
            f"group \u4f60 {g}",
            row(200),
            [row(3), row(9)],
            responses,
            [bytes(draw.randrange(8) for _ in r) for r in responses],
            [draw.random() for _ in responses],
        )


class WriterTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.path = self.folder / "corpus.h5"
        self.sidecar = self.folder / "corpus.h5.sha256"

    def writer(self):
        return CorpusWriter(self.path, ATTRIBUTES, VOCABULARY, "{}")

    def write(self, count=3, seed=1):
        with self.writer() as writer:
            for group in groups(count, seed):
                writer.append(group)
            return writer.commit()

    def names(self):
        return sorted(p.name for p in self.folder.iterdir())

    def sidecar_fits(self):
        return (
            self.sidecar.read_text() == f"{hashlib.sha256(self.path.read_bytes()).hexdigest()}  corpus.h5\n"
        )


def _rows(group):
    return [group.prompt, *group.tails, *group.responses]


class Layout(WriterTest):
    def test_lists_and_the_largest_token_id_wherever_it_stands(self):
        for place in range(3):
            rows = [[9 if i == place else 1] for i in range(3)]
            group = Group("a", rows[0], [[], rows[1]], [rows[2]], [b"\0"], [1.0])
            with CorpusWriter(self.path, {**ATTRIBUTES, "end_token_ids": [2, 0]}, VOCABULARY, "{}") as writer:
                writer.append(Group("b", [3], [[], []]))
                writer.append(group)
                writer.commit()
            attributes, *_ = read_corpus(self.path)
            self.assertEqual((attributes["largest_token_id"], attributes["end_token_ids"]), (9, [2, 0]))

    def test_everything_comes_back(self):
        # Enough for several chunks of tokens, with a rest in every dataset.
        digest = self.write(700)
        attributes, found, vocabulary = read_corpus(self.path)
        for a, b in zip(groups(700), found, strict=True):
            self.assertEqual(
                (a.id, a.prompt, a.tails, a.responses, [list(m) for m in a.masks], a.weights),
                (b.id, b.prompt, b.tails, b.responses, b.masks, b.weights),
            )
        self.assertEqual(vocabulary, VOCABULARY)
        expected = {
            **ATTRIBUTES,
            "format": "plural-corpus",
            "format_version": 1,
            "complete": 1,
            "largest_token_id": max(i for g in groups(700) for row in _rows(g) for i in row),
            "template": "{}",
        }
        self.assertEqual(attributes, expected)
        self.assertEqual(digest, hashlib.sha256(self.path.read_bytes()).hexdigest())
        self.assertTrue(self.sidecar_fits())
        self.assertEqual(self.names(), ["corpus.h5", "corpus.h5.sha256"])

    def test_checksums_everywhere_and_a_format_that_old_readers_know(self):
        self.write()
        self.assertEqual(self.path.read_bytes()[8], 3)  # superblock version: HDF5 1.10, metadata checksums
        with h5py.File(self.path) as file:
            self.assertEqual(set(file), set(corpus_writer._COLUMNS))
            for dataset in file.values():
                self.assertTrue(dataset.fletcher32)
                self.assertEqual((dataset.ndim, dataset.maxshape, dataset.compression), (1, (None,), None))
                self.assertNotEqual(dataset.dtype.byteorder, ">")

    def test_same_input_same_bytes(self):
        first, other, same = self.write(50), self.write(50, seed=2), self.write(50)
        self.assertEqual(first, same)
        self.assertNotEqual(first, other)

    def test_memory_does_not_grow_with_the_corpus(self):
        group = Group("g", [1] * 100, [[1], [2]], [[1] * 10], [bytes(10)], [1.0])
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with self.writer() as writer:
            for _ in range(60_000):
                writer.append(group)
            writer.commit()
        _, peak = tracemalloc.get_traced_memory()
        # 14 buffers of at most 65,536 elements of at most 8 bytes, and two copies of one while it is
        # written: 8.4 MB. The file is over three times that.
        self.assertGreater(self.path.stat().st_size, 3 * 8.4e6)
        self.assertLess(peak, 8.4e6)


class Crashes(WriterTest):
    def crash_before(self, step: int) -> bool:
        """Writes a corpus in a child that dies without any clean-up before its step-th change of the
        folder or synchronisation; False when it came through."""
        child = os.fork()
        if child == 0:
            left = [step]

            def dying(function):
                def call(*arguments, **options):
                    left[0] -= 1
                    if left[0] == 0:
                        os._exit(9)
                    return function(*arguments, **options)

                return call

            with (
                mock.patch.object(corpus_writer, "_sync", dying(corpus_writer._sync)),
                mock.patch.object(os, "replace", dying(os.replace)),
                mock.patch.object(os, "fsync", dying(os.fsync)),
                mock.patch.object(Path, "unlink", dying(Path.unlink)),
            ):
                self.write(seed=2)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    def test_at_every_step_of_the_commit(self):
        old = self.write(seed=1)
        seen, step = set(), 1
        while self.crash_before(step):
            digest = hashlib.sha256(self.path.read_bytes()).hexdigest()
            seen.add((digest == old, self.sidecar.exists()))
            if self.sidecar.exists():
                self.assertTrue(self.sidecar_fits(), f"a stale sidecar after a crash at step {step}")
            read_corpus(self.path)
            self.assertNotEqual(self.write(seed=3), old)  # the next run works
            self.assertEqual(self.names(), ["corpus.h5", "corpus.h5.sha256"])
            self.write(seed=1)
            step += 1
        self.assertGreater(step, 8)
        self.assertTrue(self.sidecar_fits())
        # Old pair, old without sidecar, new without sidecar, new pair: each was seen.
        self.assertEqual(seen, {(True, True), (True, False), (False, False), (False, True)})

    def test_leaving_without_commit_keeps_the_old_corpus(self):
        old = self.write(seed=1)
        with self.assertRaises(KeyboardInterrupt), self.writer() as writer:
            writer.append(next(groups(1, seed=2)))
            raise KeyboardInterrupt
        self.assertEqual(self.names(), ["corpus.h5", "corpus.h5.sha256"])
        self.assertIn(old, self.sidecar.read_text())
        self.assertTrue(self.sidecar_fits())

    def test_second_writer_is_refused_and_the_first_goes_on(self):
        with self.writer() as writer:
            with self.assertRaisesRegex(CannotCreate, "another process is writing it"):
                self.writer()
            writer.append(next(groups(1)))
            writer.commit()
        self.assertEqual(len(read_corpus(self.path)[1]), 1)

    def test_not_creatable(self):
        with self.assertRaisesRegex(CannotCreate, "is a folder"):
            CorpusWriter(self.folder, ATTRIBUTES, VOCABULARY, "{}")
        with self.assertRaisesRegex(CannotCreate, "cannot be created: No such file"):
            CorpusWriter(self.folder / "absent" / "corpus.h5", ATTRIBUTES, VOCABULARY, "{}")


if __name__ == "__main__":
    unittest.main()

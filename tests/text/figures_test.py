"""The figures of `plural metrics` as functions: the published definitions' vectors, intervals, invariants."""

import itertools
import math
import unittest

import numpy

from plural_text.metrics import (
    bootstrap,
    coverage,
    distinct,
    entropy,
    incoherence,
    latency,
    self_bleu,
    semantic,
    unigram,
    words,
)
from plural_text.metrics.responses import Answers, Response

CATS = [["I like cats.", "I like dogs!"], ["Cats like me."]]


def answers(*texts, seconds=None, decode_steps=None, token_forwards=None, tokens=None, name="p"):
    responses = [Response(i, text, tokens and tokens[i], None) for i, text in enumerate(texts)]
    return Answers(name, "prompt", responses, seconds, decode_steps, token_forwards)


class DistinctN(unittest.TestCase):
    # text, its tokens, its kept 1-grams, its kept 2-grams.
    TABLE = [
        (
            "I can't wait. It's $3.50 (cheap)!",
            "I ca n't wait . It 's $ 3.50 ( cheap ) !",
            "i ca n't wait it 's 3.50 cheap",
            "i_ca ca_n't n't_wait it_'s",
        ),
        ("Hello", "Hello", "", ""),
        ("Hello!", "Hello !", "hello", ""),
        ("Wait... what?!", "Wait ... what ? !", "wait what", ""),
        (
            "Dr. Smith isn't here; he's at 5 p.m. today.",
            "Dr. Smith is n't here ; he 's at 5 p.m. today .",
            "dr. smith is n't here he 's at 5 p.m. today",
            "dr._smith smith_is is_n't n't_here he_'s 's_at at_5 5_p.m. p.m._today",
        ),
    ]

    def test_published_tokens_and_ngrams(self):
        for text, tokens, one, two in self.TABLE:
            found = words.words(text)
            self.assertEqual(found, tokens.lower().split(), text)
            self.assertEqual([" ".join(gram) for gram in distinct.kept_ngrams(found, 1)], one.split(), text)
            self.assertEqual(["_".join(gram) for gram in distinct.kept_ngrams(found, 2)], two.split(), text)

    def test_published_values(self):
        one, two = distinct.distinct_n(CATS, 1), distinct.distinct_n(CATS, 2)
        self.assertEqual((one.unique, one.total, two.unique, two.total), (5, 9, 5, 6))
        self.assertAlmostEqual(one.value, 0.555556, delta=5e-7)
        self.assertAlmostEqual(two.value, 0.833333, delta=5e-7)

    def test_quotes_and_double_hyphen_are_words(self):
        kept = [gram[0] for gram in distinct.kept_ngrams(words.words('He said "no" -- twice'), 1)]
        self.assertEqual(kept, ["he", "said", "``", "no", "''", "--", "twice"])

    def test_no_ngrams_is_zero_with_a_note(self):
        for found in distinct.figures([answers("Hello", "", "?!")], None):
            self.assertEqual((found.value, found.count, found.interval), (0.0, 0, None))
            self.assertIn("-grams: every response is empty, one token or all punctuation", found.note)

    def test_interval_holds_the_value_although_resamples_repeat_words(self):
        # Every prompt has words of its own: a plain bootstrap would lie around 1 - 1/e of the value.
        found = distinct.distinct_n([[f"word{i} other{i} the the {'the ' * (i % 3)}"] for i in range(50)], 1)
        self.assertLess(found.interval.low, found.value)
        self.assertGreater(found.interval.high, found.value)
        self.assertLess(found.interval.high - found.interval.low, 0.2)

    def test_leaving_a_prompt_out(self):
        texts = [[f"a b {'c' * i} d d"] + ["e f g"] * (i % 4) for i in range(1, 9)]
        whole = distinct.distinct_n(texts, 2)
        rest = [distinct.distinct_n(texts[:i] + texts[i + 1 :], 2).value for i in range(len(texts))]
        # Equal quotients of equal integers: the same floating-point numbers.
        self.assertEqual(
            whole.interval, bootstrap.influence_interval(whole.value, rest, range_of_values=(0, 1))
        )
        words_of = [["a", "b"], ["b", "c", "c"], ["d"]]
        found, _ = unigram.text_figures("u", [[" ".join(own)] for own in words_of], 1)
        rest = [unigram.diversity(words_of[:i] + words_of[i + 1 :]) for i in range(3)]
        self.assertEqual(found.interval, bootstrap.influence_interval(4 / 6, rest, range_of_values=(0, 1)))


class Sentences(unittest.TestCase):
    def test_breaks(self):
        for text, expected in [
            ("One. Two? Three! Four", ["One.", "Two?", "Three!", "Four"]),
            ('"Stop." He left.', ['"Stop."', "He left."]),
            ("Mr. J. Smith of the U.S. army, e.g. here.", ["Mr. J. Smith of the U.S. army, e.g. here."]),
            ("It was I. We left.", ["It was I.", "We left."]),
            ("3.50 is a.b text.No break", ["3.50 is a.b text.No break"]),
            ("  \n", []),
            ("", []),
            ("...", ["..."]),
        ]:
            self.assertEqual(words.sentences(text), expected)


class SemanticDiversity(unittest.TestCase):
    A = [[1, 0], [0, 2], [3, 3]]
    B = [[1, 0], [1, 0], [-1, 0]]

    def test_published_vectors(self):
        self.assertAlmostEqual(1 - semantic.diversity([self.A]).micro, 0.471405, delta=5e-7)
        self.assertAlmostEqual(1 - semantic.diversity([self.B]).micro, -1 / 3)
        self.assertAlmostEqual(semantic.diversity([self.A, self.B]).micro, 0.930964, delta=5e-7)
        unequal = semantic.diversity([self.A, [[1, 0], [0, 1]]])
        self.assertAlmostEqual(unequal.micro, 0.646447, delta=5e-7)
        self.assertAlmostEqual(unequal.macro, 0.764298, delta=5e-7)
        self.assertEqual((unequal.pairs, unequal.prompts), (4, 2))

    def test_one_response_per_prompt_is_undefined(self):
        found = semantic.diversity([[[1, 0]], [[0, 1]]])
        self.assertEqual((found.micro, found.macro, found.pairs), (None, None, 0))
        for figure in semantic.figures([answers("a"), answers("b")], None):
            self.assertIsNone(figure.value)
            self.assertIn("one response per prompt", figure.reason)
        self.assertEqual(semantic.diversity([[[1, 0]], self.A]).prompts, 1)

    def test_equals_the_mean_over_pairs(self):
        generator = numpy.random.default_rng(1)
        vectors = [generator.normal(size=(n, 7)) for n in (2, 5, 9)]
        cosine = lambda a, b: a @ b / numpy.linalg.norm(a) / numpy.linalg.norm(b)
        pairs = [cosine(a, b) for own in vectors for a, b in itertools.combinations(own, 2)]
        # Both sum at most 47 cosines of 7 products in fp64.
        self.assertAlmostEqual(semantic.diversity(vectors).micro, 1 - sum(pairs) / len(pairs), delta=1e-13)

    def test_equal_responses_count_and_are_encoded_once(self):
        class Encoder:
            def encode(self, texts):
                self.texts = texts
                return numpy.array([[1.0, 0.0] if text == "a" else [0.0, 1.0] for text in texts])

        encoder = Encoder()
        vectors = semantic.vectors_of([["b", "a", "a"], ["b", "b"]], encoder)
        self.assertEqual(encoder.texts, ["a", "b"])
        self.assertEqual([v.tolist() for v in vectors], [[[0, 1], [1, 0], [1, 0]], [[0, 1], [0, 1]]])
        self.assertAlmostEqual(semantic.diversity(vectors).micro, 2 / 4)

    def test_vector_without_direction(self):
        with self.assertRaises(ValueError):
            semantic.diversity([[[0, 0], [1, 0]]])


class SelfBleu(unittest.TestCase):
    def test_ends_of_the_scale(self):
        self.assertAlmostEqual(self_bleu.self_bleu([["a b c d e"] * 3, ["yes"] * 2]).value, 1.0)
        self.assertEqual(self_bleu.self_bleu([["a b c d e", "f g h i j"]]).value, 0.0)

    def test_by_hand(self):
        # "a b c d" against "a b c e": precisions 3/4, 2/3, 1/2 and 0.1/1 (smoothed), no brevity penalty.
        value = (3 / 4 * 2 / 3 * 1 / 2 * 0.1) ** 0.25
        self.assertAlmostEqual(self_bleu.self_bleu([["a b c d", "a b c e"]]).value, value)

    def test_undefined_without_a_pair(self):
        self.assertIsNone(self_bleu.self_bleu([["a b"], ["c d", ""]]).value)
        self.assertIn("no prompt has two", self_bleu.figures([answers("a b")], None)[0].reason)


class Entropy(unittest.TestCase):
    def test_bits_and_nats(self):
        for counts, bits, nats in [
            ([150, 150], 1.0, 0.693147),
            ([225, 50, 15, 10], 1.121765, 0.777548),
            ([300], 0, 0),
            ([75] * 4, 2, 2 * math.log(2)),
            ([3] * 27, 4.754888, 3.295837),
        ]:
            self.assertAlmostEqual(entropy.entropy_bits(counts), bits, delta=5e-7)
            self.assertAlmostEqual(entropy.entropy_nats(counts), nats, delta=5e-7)
        for values, bits in [(8, 3), (57, 5.833), (196, 7.615), (13, 3.700), (27, 4.755), (28, 4.807)]:
            self.assertAlmostEqual(entropy.entropy_bits([1] * values), bits, delta=5e-4)

    def test_uniform_source(self):
        for values, draws, expected in [
            (10, 1000, 10.0),
            (81, 1000, 80.9997),
            (100, 1000, 99.9957),
            (200, 1000, 198.6692),
            (500, 1000, 432.4677),
        ]:
            self.assertAlmostEqual(entropy.expected_coverage(values, draws), expected, delta=5e-5)
        for values, expected in [(10, 2.298077), (100, 4.554730), (200, 5.194158)]:
            self.assertAlmostEqual(entropy.expected_entropy_nats(values, 1000), expected, delta=5e-7)
        self.assertEqual((entropy.expected_entropy_nats(1, 9), entropy.expected_coverage(1, 9)), (0.0, 1.0))

    def test_uniform_source_against_enumeration(self):
        # Every outcome of 5 draws from 3 values.
        outcomes = [[outcome.count(v) for v in range(3)] for outcome in itertools.product(range(3), repeat=5)]
        self.assertAlmostEqual(
            entropy.expected_entropy_nats(3, 5), sum(map(entropy.entropy_nats, outcomes)) / len(outcomes)
        )
        self.assertAlmostEqual(
            entropy.expected_coverage(3, 5),
            sum(sum(c > 0 for c in counts) for counts in outcomes) / len(outcomes),
        )

    def test_invariant(self):
        entropy.check_entropy(math.log(7), 7, 7)
        for broken in [
            (6.18, 375, 1000),
            (6.63, 557, 1000),
            (4.22, 67, 1000),
            (1.0, 11, 10),
        ]:  # swapped columns
            with self.assertRaises(ValueError):
                entropy.check_entropy(*broken)

    def test_no_draws(self):
        for counts in ([], [0, 0], [-1, 2]):
            with self.assertRaises(ValueError):
                entropy.entropy_nats(counts)


class Coverage(unittest.TestCase):
    DRAWS = ["{3}", "{7}", "{3}", "{10}", "{3}", "{7}", "oops", "{3}"]

    def test_published_vector(self):
        keys = [coverage.answer_key(text) for text in self.DRAWS]
        every = coverage.key_figures(keys)
        self.assertEqual(every.coverage, 4)
        self.assertAlmostEqual(every.entropy_nats, 1.213008, delta=5e-7)
        valid = coverage.key_figures([key for key in keys if key in {str(n) for n in range(1, 11)}])
        self.assertEqual(valid.coverage, 3)
        self.assertAlmostEqual(valid.entropy_nats, 0.955700, delta=5e-7)

    def test_keys(self):
        for text, key in [
            ("{Ann}!", "Ann"),
            (" Ann\n", "Ann"),
            ("so { Zo\u00eb } {Bo}", "Zo\u00eb"),
            ("{a{b}c}", "a{b}c"),
            ("{never", "{never"),
            ("{ {in}", "in"),
            ("} {x}", "x"),
            ("{}", ""),
            ("", ""),
            ("{a", "{a"),
            ("Ann}", "Ann}"),
        ]:
            self.assertEqual(coverage.answer_key(text), key, text)

    def test_leaving_a_draw_out(self):
        # The interval's influences are computed a value at a time; here by leaving draws out for real.
        keys = list("aaabbcde")
        whole = coverage.key_figures(keys)
        rest = [keys[:i] + keys[i + 1 :] for i in range(len(keys))]
        counts = lambda own: [own.count(key) for key in set(own)]
        nats = bootstrap.influence_interval(
            whole.entropy_nats, [entropy.entropy_nats(counts(own)) for own in rest]
        )
        self.assertAlmostEqual(whole.entropy_interval.low, max(0, nats.low), delta=1e-12)
        self.assertAlmostEqual(whole.entropy_interval.high, min(math.log(8), nats.high), delta=1e-12)
        different = bootstrap.influence_interval(5, [len(set(own)) for own in rest])
        self.assertAlmostEqual(whole.coverage_interval.low, max(1, different.low), delta=1e-12)

    def test_no_and_one_draw(self):
        self.assertIsNone(coverage.key_figures([]).entropy_nats)
        one = coverage.key_figures(["x"])
        self.assertEqual((one.coverage, one.entropy_nats, one.coverage_interval), (1, 0.0, None))


class Unigram(unittest.TestCase):
    def test_published_vector(self):
        texts = [unigram.counted_words(text) for text in ("a b a", "b c")]
        self.assertAlmostEqual(unigram.diversity(texts), 0.6)

    def test_single_words_count_and_punctuation_does_not(self):
        self.assertEqual(unigram.diversity([unigram.counted_words(t) for t in ("Yes", "yes!", "No.")]), 2 / 3)

    def test_budget(self):
        texts = [["a", "b", "a"], ["b", "c"]]
        self.assertEqual(unigram.at_budget(texts, 4), 2 / 4)
        self.assertEqual(unigram.at_budget(texts, 5), 3 / 5)
        self.assertIsNone(unigram.at_budget(texts, 6))
        whole, limited = unigram.text_figures("unigram_diversity", [["a b a"], ["b c"]], 6)
        self.assertEqual((whole.count, limited.value), (5, None))
        self.assertIn("only 5 words", limited.reason)


class Incoherence(unittest.TestCase):
    def test_published_table(self):
        for ratings, incoherent in [
            ([6], False),
            ([5, 6], False),
            ([5, 5], True),
            ([None, 3], True),
            ([4, None], True),
            ([None, None], None),
            ([None, 6], False),
            ([], None),
            ([5.99], True),
            ([6.0], False),
        ]:
            self.assertEqual(incoherence.decide(ratings), incoherent, ratings)

    def test_abstentions_are_reported(self):
        percent, first, second = incoherence.judged_figures(
            [[6], [5, 5], [4, None], [None, None]], ["one", "two"]
        )
        self.assertAlmostEqual(percent.value, 100 * 2 / 3)
        self.assertEqual(percent.count, 3)
        self.assertEqual(
            percent.note,
            "1 responses left out, every judge abstained; 1 called incoherent although a judge abstained",
        )
        self.assertEqual(
            [(f.name, f.value, f.count, f.note) for f in (first, second)],
            [("judge_1_abstentions", 1, 4, "one"), ("judge_2_abstentions", 2, 3, "two")],
        )

    def test_all_abstain(self):
        percent, _ = incoherence.judged_figures([[None], [None]], ["one"])
        self.assertIsNone(percent.value)
        self.assertIn("no answer has a rating", percent.reason)


class Latency(unittest.TestCase):
    class Arguments:
        baseline = None
        warmup_prompts = 2

    def test_warmup_and_medians(self):
        files = [
            answers("a", seconds=s, decode_steps=4, token_forwards=n, tokens=[2, 6], name=str(n))
            for n, s in enumerate([90, 50, 1, 2, 9])
        ]
        found = {f.name: f for f in latency.figures(files, self.Arguments)}
        self.assertEqual(found["prompt_seconds_median"].value, 2)
        self.assertEqual(found["prompt_token_forwards_median"].value, 2)
        few = {f.name: f for f in latency.figures(files[:2], self.Arguments)}
        self.assertIsNone(few["prompt_seconds_median"].value)
        self.assertIn("warm-up", few["prompt_seconds_median"].reason)
        none = {f.name: f for f in latency.figures([answers("a")], self.Arguments)}
        self.assertIsNone(none["prompt_decode_steps_median"].value)

    def test_sum_over_longest(self):
        figure = latency.figures(
            [answers("a", "b", tokens=[2, 6]), answers("a", "b", tokens=[3, 3])], self.Arguments
        )[-1]
        self.assertEqual((figure.name, figure.value), ("tokens_sum_over_longest", 14 / 9))

    def test_multiple(self):
        self.assertEqual(latency.multiple([4, 2, 90], [1, 1, 1]), 4)
        self.assertIsNone(latency.multiple([], []))
        self.assertIsNone(latency.multiple([1.0], [0.0]))


class Intervals(unittest.TestCase):
    def test_seeded_and_about_as_wide_as_theory_says(self):
        values = numpy.random.default_rng(5).normal(size=400).tolist()
        found = bootstrap.interval(values)
        self.assertEqual(found, bootstrap.interval(values))
        # Normal theory: mean +- 1.96 s / sqrt(n). The limits are quantiles of 2,000 resamples: their standard
        # error is sqrt(.025 * .975 / 2000) / density(1.96 s) = 0.06 s / sqrt(n); four of them are allowed.
        error = numpy.std(values) / math.sqrt(len(values))
        self.assertAlmostEqual(found.low, numpy.mean(values) - 1.96 * error, delta=4 * 0.06 * error)
        self.assertAlmostEqual(found.high, numpy.mean(values) + 1.96 * error, delta=4 * 0.06 * error)

    def test_influences_of_a_mean_give_the_plain_bootstrap(self):
        # Descending, so that both draw the units in the same order.
        values = sorted(numpy.random.default_rng(3).random(30).tolist(), reverse=True)
        mean = lambda own: sum(own) / len(own)
        plain = bootstrap.interval(values)
        linear = bootstrap.influence_interval(
            mean(values), [mean(values[:i] + values[i + 1 :]) for i in range(30)]
        )
        self.assertAlmostEqual(plain.low, linear.low, delta=1e-12)
        self.assertAlmostEqual(plain.high, linear.high, delta=1e-12)

    def test_units_of_equal_influence_are_drawn_together(self):
        # 300 units with influence 1, 100 with 0: the share is binomial, with standard error sqrt(.75 * .25 /
        # 400).
        without = [(300 - 1) / 399] * 300 + [300 / 399] * 100
        found = bootstrap.influence_interval(0.75, without)
        error = math.sqrt(0.75 * 0.25 / 400)
        # A quantile of 2,000 resamples is off by 0.06 errors (see above), and the share goes in steps of 1 /
        # 400.
        for limit, expected in ((found.low, 0.75 - 1.96 * error), (found.high, 0.75 + 1.96 * error)):
            self.assertAlmostEqual(limit, expected, delta=4 * 0.06 * error + 1 / 400)

    def test_ratio_weighs_units(self):
        # One unit of weight 98 with share 0, two of weight 1 with share 1.
        found = bootstrap.interval([0, 1, 1], [98, 1, 1])
        self.assertEqual((found.low, found.high), (0.0, 1.0))

    def test_nothing_varies(self):
        self.assertIsNone(bootstrap.interval([1.0]))
        self.assertIsNone(bootstrap.influence_interval(1.0, [1.0]))
        self.assertIsNone(bootstrap.interval([1, 2], [0, 0]))

    def test_wilson(self):
        # 0 of 10: z^2 / (n + z^2), z = 1.959964; 60 of 1,500 is 4 % with a standard error of 0.51 points.
        self.assertAlmostEqual(bootstrap.wilson(0, 10).high, 0.277533, delta=1e-6)
        self.assertEqual(bootstrap.wilson(0, 10).low, 0.0)
        self.assertEqual(bootstrap.wilson(10, 10).high, 1.0)
        found = bootstrap.wilson(60, 1500)
        self.assertAlmostEqual((found.high - found.low) / 2, 1.96 * 0.0051, delta=2e-4)
        self.assertIsNone(bootstrap.wilson(0, 0))


if __name__ == "__main__":
    unittest.main()

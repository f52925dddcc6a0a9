"""The page and the pictures: what is read of runs, answers, figures and sweeps, what a curve keeps, the
Pareto front, escaping, errors."""

import argparse
import contextlib
import io
import itertools
import json
import random
import re
import unittest
from html.parser import HTMLParser
from unittest import mock

import h5py
import numpy as np

from plural_text.__main__ import main
from plural_text.common import pareto, recipe_yaml
from plural_text.report import figures, sources
from plural_text.report.curves import curves
from plural_text.report.decimate import kept_places
from plural_text.report.figure import Figure, axes, safe
from plural_text.report.labels import short_names
from plural_text.report.recipe_lines import read_recipe, value_of
from plural_text.report.runs import read_run
from plural_text.report.token_tree import NoTree, Sequence, build, corpus_of, read_tree, sequences_of
from text.metrics_lines import Run, start
from text.metrics_lines import step as metrics_step
from text.support import FolderTest

# Ends the element, begins a tag, an entity and a comment: a page must show each as it stands.
HOSTILE = "</script><script>alert(1)</script> &lt; <!-- <b>'\"\u2028"
RECIPE = f"""name: mine                                      # r.yaml:2
method: {{method}}
run:
  dir: runs                                     # r.yaml:4
data:
  train: corpus.h5                              # r.yaml:7
  validation: "{HOSTILE.split(chr(8232))[0].replace('"', "")}"  # r.yaml:8
optimizer:
  betas: [0.9, 0.999]                           # default
"""


def run(words):
    """Exit code, standard output and standard error of a command in this process."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as output,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        return main(words), output.getvalue(), errors.getvalue()


def step(number, **fields):
    return {"event": "step", "step": number, "epoch": 0, "groups": 4, "seconds": 0.5, "loss": 1.0} | fields


def write_run(folder, lines, method="otmft", end=True):
    folder.mkdir(parents=True)
    lines = [{"event": "start", "step": 0, "last_step": 9, "ranks": 2, "restarts": 0}, *lines]
    lines += [{"event": "end", "step": 9, "seconds": 4.5}] * end
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "recipe.yaml").write_text(RECIPE.format(method=method))
    return folder


def write_answers(path, texts, **fields):
    responses = [
        {"index": i, "text": text, "possibility": i + 1, "latent": 0, "logprob_nats": -1.25, "finished": True}
        | fields
        for i, text in enumerate(texts)
    ]
    line = {"id": "a", "prompt": f"Ask {HOSTILE}", "method": "sample", "responses": responses}
    path.write_text(json.dumps(line) + "\n")
    return path


def write_targets(path, weights, source="targets"):
    """A corpus with one prompt "a" whose targets are the words of `weights`; token 0 ends them."""
    words = ["</s>", *weights]
    with h5py.File(path, "w") as file:
        file.attrs["source_format"], file.attrs["eos_token_id"] = source, 0
        pieces = [word.encode() for word in words]
        for name, values in {
            "vocab_bytes": np.frombuffer(b"".join(pieces), np.uint8),
            "vocab_offsets": np.cumsum([0, *map(len, pieces)]),
            "id_bytes": np.frombuffer(b"a", np.uint8),
            "id_offsets": [0, 1],
            "group_responses": [0, len(weights)],
            "response_offsets": np.arange(len(weights) + 1) * 2,
            "response_tokens": [token for place in range(1, len(words)) for token in (place, 0)],
            "response_weights": list(weights.values()),
        }.items():
            file[name] = np.asarray(values)
    return path


class Texts(HTMLParser):
    """The embedded data, the texts outside scripts, the tags, and the figures' names of a page."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.tags, self.inside = [], [], None
        self.data = ""
        self.feed(page)
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = dict(attributes).get("id", tag) if tag in ("script", "style") else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "data":
            self.data += data
        elif self.inside is None:
            self.texts.append(data)

    def figure(self, name):
        return next(figure for figure in self.data["figures"] if figure["name"] == name)


class Page(FolderTest):
    def page(self, *arguments):
        output = self.folder / "page.html"
        code, _, errors = run(["report", *map(str, arguments), "-o", str(output), "--force"])
        self.assertEqual(code, 0, errors)
        return Texts(output.read_text(encoding="utf-8"))

    def refused(self, code, *arguments):
        """The error's line; no page is left."""
        words = [*map(str, arguments)]
        if "-o" not in words:
            words += ["-o", str(self.folder / "refused.html")]
        found, _, errors = run(words if words[0] == "plot" else ["report", *words])
        self.assertEqual(found, code, errors)
        self.assertEqual(errors.strip().count("\n"), 0, errors)
        self.assertFalse((self.folder / "refused.html").exists())
        return errors

    def test_values_are_those_of_the_files(self):
        values = [2.0000000000000004, 1 / 3, 1e-300]
        folder = write_run(self.folder / "runs/mine", [step(i, loss=v) for i, v in enumerate(values, 1)])
        page = self.page(folder)
        (trace,) = page.figure("loss")["data"]
        self.assertEqual((trace["x"], trace["y"]), ([1, 2, 3], values))
        self.assertEqual(page.figure("groups_per_second")["data"][0]["y"], [8.0] * 3)
        exact = [attributes["value"] for tag, attributes in page.tags if tag == "data"]
        self.assertIn(repr(values[-1]), exact)  # the last loss of the run, in its table
        self.assertIn("r.yaml:4", page.texts)  # the origin of a value

    def test_nothing_is_asked_for(self):
        page = self.page(write_run(self.folder / "runs/mine", [step(1)]))
        for tag, attributes in page.tags:
            for key in ("src", "href", "srcset", "action"):
                self.assertRegex(attributes.get(key) or "#", r"^(#|data:,)", tag)
        policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
        self.assertTrue(policy.startswith("default-src 'none';"), policy)

    def test_hostile_texts_stay_texts(self):
        folder = write_run(self.folder / "runs/mine", [step(1)])
        plain = self.page(folder)
        (self.folder / "<b>x").mkdir()
        answers = write_answers(self.folder / "<b>x/<i>.jsonl", [HOSTILE, "{x}"])
        page = self.page(folder, "--responses", answers, "--title", HOSTILE)
        self.assertEqual(page.data["responses"]["text"], [HOSTILE, "{x}"])
        raw = (self.folder / "page.html").read_text(encoding="utf-8")
        embedded = raw.partition('<script type="application/json" id="data">')[2].partition("</script")[0]
        self.assertEqual(json.loads(embedded), page.data)
        self.assertNotIn("<", embedded)  # "</script >" and "<!--" would be markup, too
        self.assertEqual(page.data["responses"]["prompts"], [["a", f"Ask {HOSTILE}"]])
        self.assertEqual(page.data["responses"]["labels"], ["<i>"])
        scripts = [sum(tag == "script" for tag, _ in found.tags) for found in (plain, page)]
        self.assertEqual(scripts[0], scripts[1])
        self.assertFalse([tag for tag, _ in page.tags if tag in ("b", "i")])
        self.assertIn(HOSTILE, page.texts)

    def test_plotly_gets_no_tags(self):
        trace = {"name": "<a href='x'>&amp;", "x": ["<b>"], "y": [1], "customdata": [["<i>", 2]]}
        found = safe(Figure("f", "runs", "t", [trace], axes("<u>x", "y")))
        self.assertEqual(found.traces[0]["name"], "&lt;a href='x'&gt;&amp;amp;")
        self.assertEqual(found.traces[0]["x"], ["&lt;b&gt;"])
        self.assertEqual(found.traces[0]["customdata"], [["&lt;i&gt;", 2]])
        self.assertEqual(found.layout["xaxis"]["title"]["text"], "&lt;u&gt;x")

    def test_targets_beside_answers_with_counts(self):
        run_folder = write_run(self.folder / "runs/mine", [step(1)], "distribution_matching")
        write_targets(self.folder / "corpus.h5", {"pink": 3.0, "blue": 1.0})
        answers = write_answers(self.folder / "a.jsonl", ["pink", " blue", "blue", "green"])
        page = self.page(run_folder, "--responses", answers)  # finds the run's own corpus
        target, drawn = page.figure("targets-1")["data"]
        self.assertEqual(target["customdata"], ["pink", "blue", "(no target)"])
        self.assertEqual(target["y"], [0.75, 0.25, 0.0])
        self.assertEqual([count for _, count in drawn["customdata"]], [1, 2, 1])
        columns = {"answer": ["pink", "blue", "(no target)"], "answers": [1, 2, 1]}
        self.assertEqual(drawn["meta"]["columns"], columns)
        self.assertEqual(drawn["y"], [0.25, 0.5, 0.25])
        write_targets(self.folder / "other.h5", {"pink": 1.0}, "dialogue")
        errors = self.refused(65, "--responses", answers, "--targets", self.folder / "other.h5")
        self.assertIn("--format targets", errors)

    def test_figures_of_one_label_are_one_point(self):
        for name, diversity, perplexity in (("one", 0.5, 8.0), ("two", 0.7, 9.0), ("three", 0.4, 10.0)):
            answers = write_answers(self.folder / f"{name}.jsonl", ["x"])
            figures = {"semantic_diversity": {"value": diversity, "interval_95": [0.1, 0.9]}}
            metrics = {"responses_file": str(answers), "figures": figures}
            (self.folder / f"{name}-metrics.json").write_text(json.dumps(metrics))
            exact = {"summary": {"perplexity": perplexity, "groups": 1}, "groups": []}
            (self.folder / f"{name}-exact.json").write_text(json.dumps(exact))
        words = [f"{name}={self.folder / name}-exact.json" for name in ("one", "two", "three")]
        words += [str(path) for path in sorted(self.folder.glob("*-metrics.json"))]
        answers = sorted(self.folder.glob("*.jsonl"))
        page = self.page("--metrics", *words, "--responses", *answers)
        front, *points = page.figure("semantic_diversity-perplexity")["data"]
        self.assertEqual({p["name"]: (p["x"], p["y"]) for p in points}["two"], ([9.0], [0.7]))
        self.assertEqual((front["x"], front["y"]), ([8.0, 9.0], [0.5, 0.7]))
        self.assertAlmostEqual(points[0]["error_y"]["array"][0], 0.4)
        self.assertIn("LABEL=FILE", self.refused(64, "--metrics", words[0], words[0]))

    def test_figures_measured_on_other_data_are_not_compared(self):
        for name, prompts, diversity in (("one", 9, 0.5), ("two", 9, 0.7), ("three", 4, 0.9)):
            figures = {
                "distinct_2": {"value": diversity, "interval_95": [0.1, 0.2]},
                "incoherence": {"value": 0.5},
            }
            content = {"figures": figures, "prompts": prompts, "responses": prompts * 5 - 1}
            (self.folder / f"{name}.json").write_text(json.dumps(content))
        page = self.page("--metrics", *(self.folder / f"{name}.json" for name in ("one", "two", "three")))
        _, *points = page.figure("distinct_2-incoherence")["data"]
        self.assertEqual([point["name"] for point in points], ["one", "two"])
        self.assertEqual(points[0]["meta"]["columns"], {"y_low": [0.1], "y_high": [0.2]})
        (told,) = [text for text in page.texts if "not measured on the same" in text]
        self.assertIn("one, two on prompts 9, responses per prompt 5; three on prompts 4", told)

    def test_validations_of_other_data_have_figures_of_their_own(self):
        line = {"event": "validation", "step": 1, "groups": 8, "responses": 5, "temperature": 1.0}
        line |= {"perplexity": 3.0, "different_responses": 2.0}
        others = {"a": {}, "b": {}, "c": {"temperature": 0.5}, "d": {"groups": 9}}
        folders = [write_run(self.folder / name, [step(1), line | other]) for name, other in others.items()]
        page = self.page(*folders)

        def names(figure):
            return [trace["name"] for trace in page.figure(figure)["data"]]

        self.assertEqual(names("validation.perplexity"), ["a", "b", "c"])  # nothing is sampled for it
        self.assertEqual(names("validation.perplexity-2"), ["d"])
        self.assertEqual(names("validation.different_responses"), ["a", "b"])
        self.assertEqual(names("validation.different_responses-2"), ["c"])
        self.assertIn("temperature 0.5; not comparable with that of a, b, d.", " ".join(page.texts))

    def test_the_slowest_rank_is_no_curve(self):
        ranks = {"slowest_rank_seconds": 0.25, "mean_rank_seconds": 0.125}
        lines = [step(i, **ranks, slowest_rank=rank) for i, rank in enumerate((3, 0, 3), 1)]
        page = self.page(write_run(self.folder / "runs/mine", lines))
        names = [figure["name"] for figure in page.data["figures"]]
        self.assertNotIn("slowest_rank", names)
        trace = page.figure("slowest_rank_seconds")["data"][0]
        self.assertEqual((trace["y"], trace["customdata"]), ([0.25] * 3, [3, 0, 3]))
        at = page.texts.index
        self.assertLess(at("seconds of the slowest rank"), at("Slowest ranks"))
        self.assertGreater(at("seconds of the slowest rank"), at("Time of a step", at("Time of a step") + 1))

    def test_the_newest_warnings_are_kept(self):
        folder = write_run(self.folder / "runs/mine", [step(1)])
        (folder / "log").mkdir()
        for rank in range(2):
            lines = [f"2026-01-01T00:{i:02d}:{rank:02d}.000Z warning w{i}-{rank}\n" for i in range(60)]
            (folder / f"log/rank-0000{rank}.log").write_text("".join(lines))
        texts = self.page(folder).texts
        self.assertIn("mine: the last 100 of 120 warnings and errors are shown.", texts)
        shown = [text for text in texts if re.match(r"w\d", text)]
        self.assertEqual(shown, [f"w{i}-{rank}" for i in range(10, 60) for rank in range(2)])

    def test_faults_and_restarts(self):
        lines = [
            step(1, loss="nan"),
            {"event": "resume", "step": 1, "restarts": 1, "ranks": 3, "time_unix_seconds": 0},
            step(2),
        ]
        folder = write_run(self.folder / "runs/mine", lines, end=False)
        (folder / "log").mkdir()
        (folder / "log/rank-00001.log").write_text(
            "2026-01-01T00:00:00.000Z info fine\n2026-01-01T00:00:01.000Z warning slow <disk>\n"
        )
        with open(folder / "metrics.jsonl", "a") as stream:
            stream.write('{"event":"step","st')  # killed within a line
        page = self.page(folder)
        for text in ("resume", "1970-01-01 00:00:00", "slow <disk>", "rank-00001", "not finished"):
            self.assertIn(text, page.texts)
        self.assertNotIn("fine", page.texts)
        self.assertIn("is not whole", " ".join(page.texts))
        self.assertEqual(page.figure("loss")["data"][0]["y"], [None, 1.0])

    def test_what_no_number_or_text_can_be_is_one_line_or_shown(self):
        folder = write_run(self.folder / "runs/mine", [])
        for damage in (
            step(2, loss=10**400),
            step(2, **{"\ud800": 1.0}),
            step(2**60),
            step("2"),
            step(2) | {"event": 1},
        ):
            (folder / "metrics.jsonl").write_text(json.dumps(step(1)) + "\n" + json.dumps(damage) + "\n")
            self.assertIn("metrics.jsonl:2: ", self.refused(65, folder))
        odd = step(1, loss=[1], grad_norm={}, seconds=5e-324, groups=1e300, lr=1e308, version="\ud800")
        (folder / "metrics.jsonl").write_text(json.dumps(odd) + "\n")
        page = self.page(folder)
        self.assertEqual(page.figure("lr")["data"][0]["y"], [1e308])
        self.assertNotIn("loss", [figure["name"] for figure in page.data["figures"]])
        answers = write_answers(self.folder / "a.jsonl", ["a"], logprob_nats=10**400)
        self.assertIn("a.jsonl:1: responses[0]: key 'logprob_nats'", self.refused(65, "--responses", answers))
        figures = {"responses_file": "\0", "figures": {"d": {"value": 10**400}, "e": {"value": 1.0}}}
        (self.folder / "m.json").write_text(json.dumps(figures))
        self.page("--metrics", self.folder / "m.json")

    def test_a_run_is_finished_when_its_result_is_there_and_no_process_at_work(self):
        mine = Run(self.folder, lines=[start(), metrics_step(1), {"event": "end", "step": 1}])
        self.assertEqual(
            read_run(mine.root, "mine").state, "not finished"
        )  # the result comes after that line
        mine.finish()
        mine.hold()
        self.assertEqual(read_run(mine.root, "mine").state, "running")
        mine.let_go()
        self.assertEqual(read_run(mine.root, "mine").state, "finished")

    def test_a_run_whose_first_line_is_being_written(self):
        folder = write_run(self.folder / "runs/mine", [], end=False)
        for content, told in (('{"event":"sta', "is not whole"), ("", "holds no line yet")):
            (folder / "metrics.jsonl").write_text(content)
            self.assertIn(told, " ".join(self.page(folder).texts))

    def test_sweep_shows_failures_first(self):
        write_run(self.folder / "runs/a", [step(1)])
        figures = {"metrics.d": {"mean": 0.5, "ci_low": 0.4, "ci_high": 0.6, "p_holm": 0.03}}
        table = {
            "name": "mine",
            "baseline": "a",
            "axes": ["method"],
            "figures": ["metrics.d"],
            "pareto": {
                "x": "metrics.d",
                "y": "metrics.d",
                "x_better": "lower",
                "y_better": "higher",
                "front": ["a"],
            },
            "rows": [
                {"id": "1", "label": "a-s1", "arm": "a", "settings": {"method": "otmft"}, "seed": 1}
                | {"state": "finished", "figures": {"metrics.d": 0.5}, "failure": None, "run": "../runs/a"}
                | {"responses": None},
                {"id": "2", "label": "a-s2", "arm": "a", "settings": {"method": "otmft"}, "seed": 2}
                | {"state": "failed", "figures": {}, "run": "none", "responses": None}
                | {"failure": {"exit_code": 77, "step": "train", "message": "loss is <nan>"}},
            ],
            "arms": [
                {"arm": "a", "settings": {"method": "otmft"}, "seeds": 2, "failed": 1, "figures": figures}
            ],
        }
        sweep = self.folder / "sweep"
        sweep.mkdir()
        (sweep / "table.json").write_text(json.dumps(table))
        page = self.page(sweep)
        at = page.texts.index
        self.assertLess(at("loss is <nan>"), at("metrics.d of each arm"))
        self.assertIn("1 of 2 runs failed; figures of their arms are of the others.", page.texts)
        self.assertEqual(page.figure("loss")["data"][0]["name"], "a-s1")
        self.assertIn("0.03", [a["value"] for tag, a in page.tags if tag == "data"])
        for key, value in (("rows", 1), ("name", None), ("arms", [{"arm": "a"}])):
            (sweep / "table.json").write_text(json.dumps(table | {key: value}))
            self.assertIn(f"{key}", self.refused(65, sweep))
        table["rows"][1]["state"] = "lost"
        (sweep / "table.json").write_text(json.dumps(table))
        self.assertIn("finished, failed, running, waiting", self.refused(65, sweep))

    def test_refusals(self):
        folder = write_run(self.folder / "runs/mine", [step(1)])
        self.assertIn("nothing to show", self.refused(64))
        self.assertIn("no such folder", self.refused(66, self.folder / "none"))
        self.assertIn("table.json", self.refused(66, self.folder))
        self.assertIn("given twice", self.refused(64, folder, folder / "."))
        self.assertIn("does not exist", self.refused(73, folder, "-o", self.folder / "no/page.html"))
        (self.folder / "old.html").write_text("old")
        self.assertIn("--force", self.refused(73, folder, "-o", self.folder / "old.html"))
        self.assertEqual((self.folder / "old.html").read_text(), "old")
        (self.folder / "x.jsonl").write_text('{"id": "a", "prompt": "b"}\n')
        self.assertIn("x.jsonl:1", self.refused(65, "--responses", self.folder / "x.jsonl"))
        write_answers(self.folder / "x.jsonl", ["a"], possibility=1.5)
        self.assertIn("whole number", self.refused(65, "--responses", self.folder / "x.jsonl"))
        (self.folder / "x.json").write_text("{}")
        self.assertIn("plural evaluate", self.refused(65, "--metrics", self.folder / "x.json"))
        with open(folder / "metrics.jsonl", "a") as stream:
            stream.write('{"event":\n{"event":"end"}\n')
        self.assertIn("metrics.jsonl:4", self.refused(65, folder))

    def test_plot_makes_the_figure_that_was_asked_for(self):
        folder = write_run(
            self.folder / "runs/mine", [step(1), {"event": "validation", "step": 1, "loss": 2.0}]
        )
        parser = argparse.ArgumentParser()
        sources.add_arguments(parser)
        found = sources.read_sources(parser.parse_args([str(folder)]))
        with mock.patch.object(figures, "read_tree", side_effect=AssertionError):
            for name in ("loss", "validation.loss", "groups_per_second"):
                self.assertEqual(figures.figure_named(found, name).name, name)
            unused = mock.patch.object(figures, "curves", side_effect=ValueError)
            with unused, self.assertRaises(AssertionError):
                figures.figure_named(found, "tree-1")
        errors = self.refused(64, "plot", "tree-1", folder, "-o", self.folder / "x.png")
        self.assertIn("mine: no picture of a token tree: its corpus corpus.h5 is not there", errors)

    def test_refusals_of_plot(self):
        folder = write_run(self.folder / "runs/mine", [step(1)])
        self.assertIn(".svg", self.refused(64, "plot", "loss", folder, "-o", self.folder / "x.gif"))
        errors = self.refused(64, "plot", "los", folder, "-o", self.folder / "x.png")
        self.assertIn("did you mean 'loss'?", errors)
        self.assertIn("groups_per_second", errors)


class Curves(FolderTest):
    def test_a_long_curve_keeps_its_extremes(self):
        draw = random.Random(5)
        values = [draw.random() for _ in range(30_000)]
        values[12_345], values[23_456], values[20_000] = 50.0, -50.0, None
        kept = kept_places(values, 2000)
        self.assertLessEqual(len(kept), 2000)
        self.assertEqual(kept, sorted(set(kept)))
        self.assertLessEqual({0, 12_345, 20_000, 23_456, 29_999}, set(kept))
        for stretch in range(500):  # the envelope is that of all values
            span = range(stretch * 60, stretch * 60 + 60)
            all_of_it = [values[i] for i in span if values[i] is not None]
            drawn = [values[i] for i in kept if i in span and values[i] is not None]
            self.assertEqual((min(all_of_it), max(all_of_it)), (min(drawn), max(drawn)))
        self.assertEqual(kept_places([None] * 3000, 2000)[0], 0)
        self.assertEqual(kept_places([3.0, 1.0, 2.0]), [0, 1, 2])

    def test_a_page_tells_what_was_left_out(self):
        folder = write_run(self.folder / "runs/mine", [step(i, loss=1 / i) for i in range(1, 4001)])
        (loss,) = [figure for figure in curves([read_run(folder, "mine")]) if figure.name == "loss"]
        shown = len(loss.traces[0]["x"])
        self.assertLess(shown, 2001)
        self.assertIn(f"{4000 - shown:,} points are left out", loss.note)

    def test_validation_and_epochs_have_figures_of_their_own(self):
        lines = [step(1, kl_nats=0.5), {"event": "validation", "step": 1, "perplexity": 7.5, "seconds": 2.0}]
        lines += [{"event": "pass", "step": 1, "epoch": 0, "groups": 4, "entropy_nats": 0.25}]
        found = {f.name: f for f in curves([read_run(write_run(self.folder / "r", lines), "r")])}
        self.assertEqual(found["validation.perplexity"].traces[0]["y"], [7.5])
        self.assertEqual(found["epoch.entropy_nats"].layout["yaxis"]["title"]["text"], "entropy (nats)")
        self.assertEqual(found["kl_nats"].section, "training")
        self.assertNotIn("validation.seconds", found)


class Front(unittest.TestCase):
    def test_equals_brute_force(self):
        draw = random.Random(3)
        for better in itertools.product(("higher", "lower"), repeat=2):
            for _ in range(60):
                # Few values, so that many are equal.
                points = [(draw.randrange(6), draw.randrange(6)) for _ in range(draw.randrange(1, 14))]
                signs = [1 if word == "higher" else -1 for word in better]

                def beats(p, q):
                    gains = [sign * (a - b) for sign, a, b in zip(signs, p, q)]
                    return min(gains) >= 0 and max(gains) > 0

                expected = {i for i, q in enumerate(points) if not any(beats(p, q) for p in points)}
                found = pareto.front(points, *better)
                self.assertEqual(set(found), expected, (points, better))
                self.assertEqual([points[i] for i in found], sorted(points[i] for i in found))


class Trees(FolderTest):
    def test_rows_are_distinct_prefixes_that_are_needed(self):
        # As in the example of README.md: two numbers, two responses.
        prompt = list(range(100, 109))
        responses = [
            {"tokens": [1, 3, 2], "unlikelihood_mask": [1, 0, 0]},
            {"tokens": [5, 3, 2], "unlikelihood_mask": [1, 0, 0]},
        ]
        group = {"id": "g", "prompt_tokens": prompt, "responses": responses}
        group["tails"] = {"0": [20], "1": [11, 20], "2": [12, 20]}
        tree = build("g", sequences_of(group, True, 2), {})
        self.assertEqual(tree.plain_rows, 4 * (9 + 2 + 3))
        # 9 of the prompt, 2 per tail; the response under its own number feeds 2 of its 3 tokens, the other
        # one ends at its penalised first token, which is only predicted.
        self.assertEqual(tree.tree_rows, 9 + 2 * (2 + 2))
        self.assertEqual(tree.root.tokens, prompt)
        self.assertEqual([node.tokens for node in tree.root.children], [[11, 20], [12, 20]])
        self.assertEqual([s.positive for s in tree.sequences], [True, False, False, True])
        plain = build("g", sequences_of(group, False, 2), {})
        self.assertEqual((plain.plain_rows, plain.tree_rows), (2 * (9 + 1 + 3), 10 + 2 * 2))

    def test_rows_equal_those_of_all_prefixes(self):
        draw = random.Random(7)
        for _ in range(200):
            sequences = []
            for _ in range(draw.randrange(1, 7)):
                tokens = tuple(draw.randrange(2) for _ in range(draw.randrange(1, 8)))
                sequences.append(Sequence(tokens, draw.randrange(len(tokens) + 1), True, 0, 1))
            rows = {s.tokens[:end] for s in sequences for end in range(1, s.trained)}
            self.assertEqual(build("g", sequences, {}).tree_rows, len(rows), sequences)

    def test_methods_without_a_tree_are_told(self):
        (self.folder / "corpus.h5").write_text("")
        for method, why in (("cvf", "branch by latents"), ("pretrain", "without a branch")):
            run_ = read_run(write_run(self.folder / "runs" / method, [step(1)], method), method)
            with self.assertRaisesRegex(NoTree, why):
                read_tree(run_)
        run_ = read_run(write_run(self.folder / "runs/mine", [step(1)]), "mine")
        for group in (
            {},
            {"id": "a"},
            {"id": "a", "responses": [{}], "prompt_tokens": [1], "tails": {"0": []}},
        ):
            inspected = mock.patch("plural_text.report.token_tree._inspect", return_value=group)
            with inspected, self.assertRaisesRegex(NoTree, "no prompts with responses"):
                read_tree(run_)

    def test_the_corpus_is_looked_for_where_the_run_was_started(self):
        found = read_run(write_run(self.folder / "runs/mine", [step(1)]), "mine")
        with self.assertRaisesRegex(NoTree, r"corpus\.h5 is not there"):
            corpus_of(found)
        (self.folder / "corpus.h5").write_text("")
        self.assertEqual(corpus_of(found), self.folder.resolve() / "corpus.h5")


class Small(FolderTest):
    def test_recipes_keep_values_and_origins(self):
        path = self.folder / "recipe.yaml"
        path.write_text('a:\n  b:\n    c: [1, 2]   # x.yaml:3\n  d: "#1"   # default\ne: null\n')
        lines = read_recipe(path)
        self.assertEqual(
            [(line.key, line.value, line.origin) for line in lines],
            [("a.b.c", "[1, 2]", "x.yaml:3"), ("a.d", '"#1"', "default"), ("e", "null", "")],
        )
        self.assertEqual(value_of(lines, "a.d"), "#1")
        self.assertEqual(value_of(lines, "a.b.c"), [1, 2])

    def test_scalars_are_those_of_the_trainer(self):
        words = {"1e-05": 1e-05, "5.": 5.0, "-3": -3, "true": True, "~": None, "0.5": 0.5, "1E+2": 100.0}
        texts = ["010", "12:30", "1_000", "2026-01-01", "yes", "on", "0x10", ".inf", "1e999", "."]
        for word, value in (words | {text: text for text in texts}).items():
            found = recipe_yaml.load(f"a: {word}")["a"]
            self.assertEqual((type(found), found), (type(value), value), word)
        (self.folder / "recipe.yaml").write_text("optimizer:\n  lr: 1e-05\n")
        self.assertEqual(value_of(read_recipe(self.folder / "recipe.yaml"), "optimizer.lr"), 1e-05)

    def test_names_tell_paths_apart(self):
        paths = [self.folder / "a/x/run", self.folder / "b/x/run"]
        self.assertEqual(short_names(paths), ["a/x/run", "b/x/run"])
        self.assertEqual(short_names(paths[:1]), ["run"])

    def test_profile_tables(self):
        folder = write_run(self.folder / "runs/mine", [step(1)])
        (folder / "profile").mkdir()
        (folder / "profile/rank-00000.txt").write_text(
            "profile of 4 steps, 0.2 s a step, 1 compute threads a rank\n"
            "  part                  share %      ms a step   of it multiplies*, %\n"
            "  attention, and such     75.00         150.25                    0.0\n"
            "  other                   25.00          50.00                    0.0\n"
            "  together               100.00         200.25                    0.0\n"
        )
        parts = read_run(folder, "mine").profiles["rank-00000"]
        self.assertEqual(parts, [("attention, and such", 150.25), ("other", 50.0)])


if __name__ == "__main__":
    unittest.main()

"""`plural metrics` as a user calls it: table, JSON file, targets, biographies, bad input."""

import json
import math
import unittest

from plural_text.common.errors import BadData
from plural_text.metrics import biography, figure_report
from plural_text.metrics import command as metrics
from plural_text.metrics.responses import read_answers
from text.support import FolderTest, byte_level_folder, run, shared_data, write_lines

LINES = [
    {
        "id": "a",
        "prompt": "p",
        "responses": [{"text": "I like cats.", "tokens": [1, 2]}, {"text": "I like dogs!"}],
        "seconds": 4.0,
        "decode_steps": 6,
        "token_forwards": 8,
        "method": "sample",
    },
    {
        "id": "b",
        "prompt": "q",
        "responses": [{"text": "Cats like me."}],
        "seconds": 2.0,
        "decode_steps": 2,
        "token_forwards": 2,
    },
]


def name_answers(*names):
    return {"id": "names", "prompt": "p", "responses": [{"text": name} for name in names]}


class Metrics(FolderTest):
    def metrics(self, *options, lines=LINES, code=0):
        """Runs the command on the lines; returns (its result, the figures it wrote)."""
        file = lines if not isinstance(lines, list) else write_lines(self.folder / "r.jsonl", lines)
        output = self.folder / "figures.json"
        output.unlink(missing_ok=True)
        done = run("metrics", file, "-o", output, *options)
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual((done.stderr.count("\n"), done.stdout), (1, ""), done.stderr)
            self.assertNotIn("Traceback", done.stderr)
            self.assertEqual([p.name for p in self.folder.glob("figures*")], [])
            return done, None
        return done, json.loads(output.read_text())


class Results(Metrics):
    def test_table_and_file(self):
        done, report = self.metrics("--metrics", "distinct,coverage")
        self.assertEqual(done.stderr, "")
        self.assertEqual(
            (report["prompts"], report["responses"], report["metrics"]), (2, 3, ["distinct", "coverage"])
        )
        self.assertEqual(list(report["figures"])[:3], ["distinct_1", "distinct_2", "coverage_all"])
        one = report["figures"]["distinct_1"]
        self.assertEqual((one["value"], one["count"], one["of"]), (5 / 9, 9, "1-grams"))
        self.assertTrue(one["interval_95"][0] < 5 / 9 < one["interval_95"][1])
        self.assertEqual(report["figures"]["coverage_valid"]["value"], None)
        self.assertIn("--targets", report["figures"]["coverage_valid"]["reason"])
        table = done.stdout.splitlines()
        self.assertEqual(table[0].split(), ["figure", "value", "95", "%", "interval", "of"])
        self.assertEqual(table[1].split()[:2], ["distinct_1", "0.5556"])
        self.assertRegex(table[-1], r"^valid_rate +undefined +needs the valid answers")

    def test_several_files_stand_side_by_side(self):
        one = write_lines(self.folder / "one.jsonl", LINES)
        two = write_lines(self.folder / "two.jsonl", [name_answers("Ann", "Ann", "Bo", "Bo")])
        output = self.folder / "figures.json"
        use = ("metrics", one, two, "--metrics", "coverage,latency", "--warmup-prompts", "0", "-o", output)
        done = run(*use, "--names", "base,tuned")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = {line.split()[0]: line for line in done.stdout.split("\n\n")[0].splitlines()}
        self.assertRegex(rows["figure"], r"^figure +base +tuned$")
        self.assertRegex(rows["coverage_all"], r"^coverage_all +1\.5000 \(.*\) +2 \(.*\)$")
        self.assertRegex(rows["prompt_seconds_median"], r" 3\.?\d*.* undefined$")
        self.assertIn("\nprompt_seconds_median of tuned: ", done.stdout)
        self.assertIn("\ncoverage_valid: needs the valid answers", done.stdout)
        reports = json.loads(output.read_text())["files"]
        self.assertEqual([report["name"] for report in reports], ["base", "tuned"])
        for file, report in ((one, reports[0]), (two, reports[1])):
            alone = self.folder / "alone.json"
            done = run("metrics", file, *use[3:-1], alone, "--force")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(json.loads(alone.read_text()), {k: report[k] for k in report if k != "name"})

    def test_names_of_files_are_told_apart(self):
        one = write_lines(self.folder / "one.jsonl", LINES)
        for options, said in (
            ([one, one], "give each file once"),
            ([one, self.folder / "none.jsonl", "--names", "a"], "--names has 1 names for 2 files"),
            ([one, "--names", "a,"], "empty name"),
            ([one, "--values", "0"], "takes 1 or more"),
        ):
            done = run("metrics", *options, "--metrics", "distinct")
            self.assertEqual((done.returncode, done.stderr.count("\n")), (64, 1), done.stderr)
            self.assertIn(said, done.stderr)

    def test_values_with_count_and_share(self):
        lines = [name_answers("{Bo}!", "Ann", "Bo", "Cy\nor not", "Ann", "Bo"), LINES[1]]
        done, report = self.metrics("--metrics", "coverage", "--values", "2", lines=lines)
        shown = done.stdout.split("\n\n")[1].splitlines()
        self.assertEqual(shown[0], "names: 3 values of 6 responses")
        self.assertEqual([line.split() for line in shown[1:3]], [["Bo", "3", "50.0%"], ["Ann", "2", "33.3%"]])
        self.assertEqual(shown[3].strip(), "and 1 more")
        first = report["values"][0]
        self.assertEqual([value["count"] for value in first["values"]], [3, 2, 1])
        self.assertAlmostEqual(sum(value["share"] for value in first["values"]), 1.0)
        self.assertEqual((first["id"], first["responses"]), ("names", 6))
        self.assertNotIn("values", self.metrics("--metrics", "coverage", lines=lines)[1])

    def test_values_beside_the_targets(self):
        lines = [{**name_answers("{Bo}", "Ann", "Bo", "Eve"), "id": "names"}, name_answers("Ann")]
        lines[1]["id"] = "others"
        sets = [
            {"id": "names", "request": "r", "targets": ["{Ann}", "Bo", "Cy"], "weights": [2, 5, 1]},
            {"id": "unused", "request": "r", "targets": ["x"]},
        ]
        targets = write_lines(self.folder / "targets.jsonl", sets)
        done, report = self.metrics("--metrics", "coverage", "--values", "--targets", targets, lines=lines)
        names, others = report["values"]
        self.assertEqual(
            [(value["value"], value["count"], value["target_share"]) for value in names["values"]],
            [("Bo", 2, 0.625), ("Ann", 1, 0.25), ("Eve", 1, 0.0), ("Cy", 0, 0.125)],
        )
        self.assertNotIn("target_share", others["values"][0])
        shown = done.stdout.split("\n\n")[1].splitlines()
        self.assertEqual(shown[0], "names: 3 values of 4 responses, 3 targets")
        self.assertEqual(shown[1].split()[:4], ["Bo", "2", "50.0%", "62.5%"])

    def test_prompts_and_tasks_by_themselves(self):
        lines = [
            {**name_answers("Ann", "Bo"), "id": "names/a"},
            {**name_answers("Ann", "Ann"), "id": "names/b:2"},
            {**name_answers("Monday"), "id": "days:1"},
        ]
        sets = [{"id": line["id"], "request": "r", "targets": ["Ann", "Bo"]} for line in lines[:2]]
        targets = write_lines(self.folder / "targets.jsonl", sets)
        use = ("--metrics", "coverage", "--targets", targets)
        done, report = self.metrics(*use, "--by", "task", lines=lines)
        tasks = {row["task"]: row for row in report["by_task"]}
        self.assertEqual(
            [(name, row["responses"]) for name, row in tasks.items()], [("names", 4), ("days", 1)]
        )
        self.assertEqual(tasks["names"]["figures"]["coverage_all"]["value"], 1.5)
        self.assertEqual(tasks["names"]["figures"]["valid_rate"]["value"], 1.0)
        self.assertEqual(tasks["days"]["figures"]["coverage_all"]["value"], 1)
        self.assertIn("no set for these prompts", tasks["days"]["figures"]["valid_rate"]["reason"])
        table = [line.split() for line in done.stdout.split("\n\n")[1].splitlines()]
        self.assertEqual(table[0][:4], ["task", "prompts", "responses", "coverage_all"])
        self.assertEqual(
            (table[1][:4], table[2][:4]), (["names", "2", "4", "1.5000"], ["days", "1", "1", "1.0000"])
        )
        self.assertEqual((table[1][-1], table[2][-1]), ("0.3466", "-"))
        _, report = self.metrics(*use, "--by", "prompt", lines=lines)
        found = [row["figures"].get("coverage_all", {}).get("value") for row in report["by_prompt"]]
        self.assertEqual(found, [2, 1, 1])

    def test_the_same_figures_every_time(self):
        names = ("--metrics", "distinct,self-bleu,unigram,latency", "--warmup-prompts", "0")
        self.assertEqual(self.metrics(*names)[1], self.metrics(*names)[1])

    def test_real_encoder(self):
        texts = ("I love dogs.", "I really like dogs.", "The stock market fell today.")
        lines = [
            {"id": name, "prompt": "p", "responses": [{"text": text} for text in texts[:count]]}
            for name, count in (("mixed", 3), ("alike", 2))
        ]
        _, report = self.metrics("--metrics", "semantic", lines=lines)
        micro, macro = (report["figures"][f"semantic_diversity{name}"] for name in ("", "_macro"))
        self.assertEqual((micro["count"], macro["count"]), (4, 2))
        self.assertIn("encoder all-MiniLM-L6-v2 ", micro["note"])
        # micro = (3 mixed + alike) / 4, macro = (mixed + alike) / 2.
        self.assertGreater(2 * micro["value"] - macro["value"], 0.5)
        self.assertLess(3 * macro["value"] - 2 * micro["value"], 0.3)

    def test_ratings(self):
        lines = [
            {"id": str(n), "prompt": "p", "responses": [{"text": "t", "rating": r} for r in (5.9, 6, 7.64)]}
            for n in range(2)
        ]
        _, report = self.metrics("--metrics", "incoherence", lines=lines)
        percent = report["figures"]["incoherence_rated_percent"]
        self.assertAlmostEqual(percent["value"], 100 / 3)
        self.assertEqual(percent["interval_method"], "Wilson over 6 responses")
        self.assertAlmostEqual(report["figures"]["coherence_rating_mean"]["value"], (5.9 + 6 + 7.64) / 3)

    def test_latency_against_a_baseline(self):
        base = write_lines(
            self.folder / "base.jsonl",
            [
                {**LINES[0], "seconds": 1.0, "decode_steps": 3},
                {**LINES[1], "seconds": 1.0, "decode_steps": 1},
            ],
        )
        _, report = self.metrics("--metrics", "latency", "--baseline", base, "--warmup-prompts", "0")
        figures = report["figures"]
        self.assertEqual(figures["latency_multiple"]["value"], 3.0)
        self.assertEqual(figures["decode_steps_multiple"]["value"], 2.0)
        self.assertEqual(figures["token_forwards_multiple"]["value"], 1.0)
        self.assertEqual(figures["prompt_seconds_median"]["value"], 3.0)


class Targets(Metrics):
    TARGETS = {"id": "names", "request": "r", "targets": ["{Ann}", "{Bo}", "{Cy}"]}

    def check(self, targets, lines):
        _, report = self.metrics("--metrics", "coverage", "--targets", targets, lines=lines)
        figures = report["figures"]
        value = lambda name: figures[name]["value"]
        self.assertEqual((value("coverage_all"), value("coverage_valid"), value("valid_rate")), (3, 2, 0.75))
        self.assertAlmostEqual(value("entropy_valid_nats"), math.log(3) - 2 * math.log(2) / 3)
        self.assertAlmostEqual(value("entropy_bits"), 1.5)
        self.assertAlmostEqual(value("coverage_of_uniform"), 3 * (1 - (2 / 3) ** 4))

    def test_text_and_corpus(self):
        lines = [name_answers("{Ann}", "Bo", " {Ann} ", "ann")]
        targets = write_lines(self.folder / "t.jsonl", [self.TARGETS, {**self.TARGETS, "id": "other"}])
        self.check(targets, lines)
        corpus = self.folder / "t.h5"
        done = run(
            "prepare",
            targets,
            "--tokenizer",
            byte_level_folder(self.folder / "model"),
            "--format",
            "targets",
            "-o",
            corpus,
            "--quiet",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.check(corpus, lines)

    def test_a_single_set_is_every_prompts(self):
        targets = write_lines(self.folder / "t.jsonl", [self.TARGETS])
        self.check(targets, [{**name_answers("Ann", "Bo", "Ann", "x"), "id": "unseen"}])

    def test_nothing_valid(self):
        targets = write_lines(self.folder / "t.jsonl", [self.TARGETS])
        _, report = self.metrics(
            "--metrics", "coverage", "--targets", targets, lines=[name_answers("x", "y")]
        )
        self.assertEqual(report["figures"]["coverage_valid"]["value"], 0)
        self.assertEqual(report["figures"]["entropy_valid_nats"]["reason"], "no valid answer")

    def test_refused(self):
        other = [{**self.TARGETS, "id": "x"}, {**self.TARGETS, "id": "y"}]
        targets = write_lines(self.folder / "t.jsonl", other)
        use = ("--metrics", "coverage", "--targets")
        done, _ = self.metrics(*use, targets, code=65)
        self.assertIn(
            "no target set has the id of a prompt; prompts have ids such as 'a', target sets such as 'x'",
            done.stderr,
        )
        write_lines(targets, [{"id": "x", "request": "r"}])
        self.assertIn("holds no targets", self.metrics(*use, targets, code=65)[0].stderr)
        self.metrics(*use, self.folder / "none.jsonl", code=66)
        self.metrics(*use, self.folder / "none.h5", code=66)
        (self.folder / "bad.h5").write_text("no")
        self.assertIn("not a corpus", self.metrics(*use, self.folder / "bad.h5", code=65)[0].stderr)
        done, _ = self.metrics("--metrics", "distinct", "--targets", targets, code=64)
        self.assertIn("--targets is for the metric 'coverage'", done.stderr)


class Biography(Metrics):
    FULL = (
        "{Fatema Binte Rahman}\n{Female}\n{February 20, 1934}\n{Rajshahi, Bangladesh}\n{Chemist}\n"
        "{Found a {rare} salt}"
    )

    def test_parse(self):
        fields = biography.parse(self.FULL)
        self.assertEqual(
            fields,
            {
                "name": "Fatema Binte Rahman",
                "first_name": "Fatema",
                "last_name": "Rahman",
                "gender": "Female",
                "birth_year": "1934",
                "birth_place": "Rajshahi",
                "birth_country": "Bangladesh",
                "profession": "Chemist",
                "accomplishments": "Found a {rare} salt",
            },
        )
        self.assertEqual(biography.parse(self.FULL[1:]), fields)  # the prompt ended with the brace
        short = biography.parse("{Cher}{}{1901 or 1902}{Oslo}")
        self.assertEqual(
            short, {"name": "Cher", "first_name": "Cher", "birth_year": "1902", "birth_place": "Oslo"}
        )
        for text in ("", "Fatema Rahman, Female, 1934", "{A B} {Male} {1901}", "}{", "{{{{"):
            self.assertIsNone(biography.parse(text))

    def test_figures(self):
        texts = [
            self.FULL,
            self.FULL.replace("Fatema", "Ann").replace("Female", "Male"),
            "{Bo Li} {male} {?} {Oslo}",
            "none",
        ]
        _, report = self.metrics(
            "--metrics", "biography", "--unigram-budget", "4", lines=[name_answers(*texts)]
        )
        figures = report["figures"]
        value = lambda name: figures[name]["value"]
        self.assertEqual(value("biography_rate"), 0.75)
        self.assertEqual((value("first_name_coverage"), figures["first_name_coverage"]["count"]), (3, 3))
        self.assertAlmostEqual(value("first_name_entropy_nats"), math.log(3))
        self.assertEqual((value("birth_year_coverage"), figures["birth_year_coverage"]["count"]), (1, 2))
        self.assertEqual(
            (value("birth_place_top_share"), figures["birth_place_top_share"]["note"]), (2 / 3, "Rajshahi")
        )
        # 1/3 female, 2/3 male, none non-binary, against thirds.
        self.assertAlmostEqual(value("gender_distance_from_uniform"), 1 / 3)
        self.assertEqual(value("accomplishments_unigram_diversity"), 0.5)  # two times the same four words
        self.assertEqual(value("accomplishments_unigram_diversity_first_4_words"), 1.0)

    def test_no_biographies(self):
        _, report = self.metrics("--metrics", "biography")
        self.assertEqual(report["figures"]["biography_rate"]["value"], 0)
        for name in (
            "first_name_coverage",
            "gender_distance_from_uniform",
            "accomplishments_unigram_diversity",
        ):
            self.assertIsNone(report["figures"][name]["value"])
            self.assertTrue(report["figures"][name]["reason"])

    def test_gender_distance(self):
        self.assertAlmostEqual(biography.gender_distance(["Female"] * 3), 2 / 3)
        self.assertAlmostEqual(biography.gender_distance(["Female", "Male", "Non-binary"]), 0)
        self.assertAlmostEqual(biography.gender_distance(["robot"]), 1)

    def test_real_target_set(self):
        file = shared_data() / "tasks" / "ficticious-people.ficticious-people-train.json"
        targets = json.loads(file.read_text())["targets"]
        values = biography.attribute_values(targets)
        for name in biography.ATTRIBUTES[:5]:
            self.assertEqual(len(values[name]), len(targets), name)
        self.assertEqual(set(values["gender"]), {"Female", "Male", "Non-binary"})


class BadInput(Metrics):
    def test_unknown_metric(self):
        done, _ = self.metrics("--metrics", "distinct,semantics", code=64)
        self.assertIn(
            "no metric 'semantics'; did you mean 'semantic'? known: distinct, semantic, ", done.stderr
        )
        self.metrics("--metrics", "", code=64)
        self.metrics("--metrics", "distinct,distinct", code=64)

    def test_lines_that_are_not_answers(self):
        good, response = LINES[0], {"text": "t"}
        for bad, said in [
            ('{"id":', "not valid JSON"),
            ("[1]", "holds a list"),
            ({**good, "id": 3}, "'id' holds a number"),
            ({"id": "x", "responses": []}, "'prompt' is missing"),
            ({"id": "x", "prompt": "p"}, "'responses' is missing"),
            ({**good, "id": "x", "responses": "t"}, "'responses' holds a text"),
            ({**good, "id": "x", "responses": ["t"]}, "responses[0] holds a text"),
            ({**good, "id": "x", "responses": [response, {}]}, "responses[1]: key 'text' is missing"),
            ({**good, "id": "x", "responses": [{**response, "rating": 11}]}, "from 1 to 10"),
            ({**good, "id": "x", "responses": [{**response, "tokens": 4}]}, "'tokens' holds a number"),
            ({**good, "id": "x", "seconds": -1}, "'seconds' holds -1"),
            ({**good, "seconds": True}, "'seconds' holds true"),
            ('{"id": "x", "prompt": "p", "responses": [], "seconds": NaN}', "NaN is not a JSON number"),
            (good, "id 'a' stands already in"),
            ("[" * 100000, "not valid JSON"),
        ]:
            file = write_lines(self.folder / "r.jsonl", [good, "", bad])
            with self.assertRaises(BadData) as refused:
                read_answers(file)
            self.assertIn("r.jsonl:3", str(refused.exception))
            self.assertIn(said, str(refused.exception))

    def test_files(self):
        done, _ = self.metrics(lines=[], code=65)
        self.assertIn("r.jsonl: holds no responses", done.stderr)
        self.metrics(lines=[{**LINES[0], "responses": []}], code=65)
        self.metrics(lines=self.folder / "none.jsonl", code=66)
        self.metrics(lines=self.folder, code=66)
        binary = self.folder / "binary.jsonl"
        binary.write_bytes(b"\xff\xfe\n")
        self.assertIn("binary.jsonl:1: not UTF-8", self.metrics(lines=binary, code=65)[0].stderr)
        binary.write_bytes(b"\x89HDF\r\n\x1a\n")
        self.assertIn("binary.jsonl:1: HDF5, as corpora", self.metrics(lines=binary, code=65)[0].stderr)

    def test_outputs(self):
        file = write_lines(self.folder / "r.jsonl", LINES)
        for output, code in [("none/f.json", 73), (".", 73), ("r.jsonl", 64)]:
            done = run("metrics", file, "--metrics", "distinct", "-o", self.folder / output)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (code, 1), done.stderr)
        self.assertEqual(len(file.read_text().splitlines()), 2)
        old = self.folder / "old.json"
        old.write_text("mine")
        use = ("metrics", file, "--metrics", "distinct", "-o", old)
        done = run(*use)
        self.assertEqual((done.returncode, "old.json: exists" in done.stderr), (73, True), done.stderr)
        self.assertEqual(old.read_text(), "mine")
        self.assertEqual(run(*use, "--force").returncode, 0)
        self.assertIn("figures", old.read_text())

    def test_baseline_of_other_prompts(self):
        base = write_lines(self.folder / "base.jsonl", [{**LINES[0], "id": "z"}])
        self.assertIn(
            "no prompt with the id",
            self.metrics("--metrics", "latency", "--baseline", base, code=65)[0].stderr,
        )


class Table(unittest.TestCase):
    def test_every_metric_has_figures(self):
        import importlib

        for module, _ in metrics.METRICS.values():
            self.assertTrue(callable(importlib.import_module(module).figures), module)

    def test_numbers(self):
        for value, shown in [
            (0.0, "0.0000"),
            (1.0, "1.0000"),
            (1234.0, "1,234"),
            (0.1355, "0.1355"),
            (0.00012, "1.200e-04"),
            (-0.25, "-0.2500"),
        ]:
            self.assertEqual(figure_report.number(value), shown)


if __name__ == "__main__":
    unittest.main()

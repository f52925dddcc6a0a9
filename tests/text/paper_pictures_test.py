"""What tables of papers show besides figures: values, answers side by side, pictures, a map."""

import json
import sys
import unittest
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "recipes" / "papers"))

import definition
import extracts
import pictures
import report
from gazetteer import Gazetteer
from measured import Measured
from plural_text.persona.values import FOLDER, read_value_sets
from text.support import FolderTest

PERSON = "{{{} Ray}}\n{{{}}}\n{{May 1, 1985}}\n{{{}}}\n{{Baker}}\n{{Bakes.}}"


class Shown(FolderTest):
    def setUp(self):
        super().setUp()
        rows = (
            definition.Row("base", {"untrained": True}, "people.metrics"),
            definition.Row("tuned", {"method": "otmft"}, "people.metrics"),
            definition.Row("personas", {"method": "otmft"}, "asked.persona"),
            definition.Row("natural", None),
        )
        columns = (definition.Column("to-10.entropy_nats", "1 to 10"),)
        table = definition.Table("Title", columns, rows)
        stages = (definition.Stage("", {}),)
        self.definition = definition.Definition(
            "t", "Title", "", "", None, (), stages, (table,), (), (), (), ()
        )
        arms = {"untrained": {"untrained": True}, "otmft": {"method": "otmft"}}
        swept = {
            "arms": [{"arm": arm, "settings": values} for arm, values in arms.items()],
            "rows": [
                {"arm": arm, "label": f"{arm}-s{seed}", "id": f"{arm[0]}{seed}", "seed": seed, "figures": {}}
                for arm in arms
                for seed in (1, 2)
            ],
        }
        self.swept = swept

    def measured(self, **shown):
        return Measured(replace(self.definition, **shown), {"": self.folder}, {"": self.swept})

    def answer(self, arm, seed, **texts):
        lines = [
            {"id": name, "prompt": f"Say {name}.\n", "responses": [{"text": text} for text in own]}
            for name, own in texts.items()
        ]
        file = self.folder / "measured" / f"{arm}-s{seed}-{arm[0]}{seed}" / "people" / "responses.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def extract(self, **wanted):
        one = {"title": "T", "rows": ["base", "tuned"], **wanted}
        return extracts.extracts(self.measured(extracts=(one,)))

    def test_values_stand_row_beside_row_in_the_order_of_their_counts(self):
        self.answer("untrained", 1, names=["{Ann}", "so {Ann}", "{B|b}", "{Al}"])
        self.answer("untrained", 2, names=["{Zoe}"])  # of a further seed: not shown
        self.answer("otmft", 1, names=["{Cy}"], others=["{Ann}"])
        (section,) = self.extract(kind="values", prompts=["names"], top=2)
        self.assertEqual(
            section.splitlines(),
            [
                "**T**",
                "",
                "| names | base | tuned |",
                "|---|---|---|",
                "| 1 | Ann (2) | Cy (1) |",
                "| 2 | Al (1) |  |",
            ],
        )

    def test_attributes_of_biographies(self):
        self.answer("untrained", 1, people=[PERSON.format("Ann", "Female", "Paris, France")] * 2)
        self.answer("otmft", 1, people=[PERSON.format("Bob", "Male", "Lima, Peru")])
        (section,) = self.extract(kind="attributes", top=1)
        self.assertIn("| first name | base | tuned |\n|---|---|---|\n| 1 | Ann (2) | Bob (1) |", section)
        self.assertIn(
            "| birth country | base | tuned |\n|---|---|---|\n| 1 | France (2) | Peru (1) |", section
        )

    def test_examples_are_whole_answers_under_their_prompt(self):
        self.answer("untrained", 1, first=["One\nline.", "Two.", "Three."], second=["Other."])
        self.answer("otmft", 1, first=["", "Four."])
        (section,) = self.extract(kind="examples", prompts=1, responses=2)
        self.assertEqual(
            section,
            "**T**\n\n> Say first.\n\nbase:\n\n1. One line.\n2. Two.\n\ntuned:\n\n1. (nothing)\n2. Four.",
        )
        self.assertEqual(self.extract(kind="examples", prompts=0, responses=2), [])

    def test_whole_conversations(self):
        folder = self.folder / "measured" / "otmft-s1-o1" / "asked"
        folder.mkdir(parents=True)
        (folder / "conversations-00.jsonl").write_text("")  # of other options, before
        file = folder / "conversations-0a.jsonl"
        (folder / "persona.json").write_text(json.dumps({"conversations_file": str(file)}))
        talks = [{"id": f"persona-{n}", "turns": [f"Hello {n}?", "I am\nAnn."]} for n in (10, 2)]
        file.write_text("".join(json.dumps(talk) + "\n" for talk in talks))
        (section,) = self.extract(kind="talks", rows=["personas"], talks=1)
        self.assertEqual(section, "**T**\n\npersonas:\n\nPerson A: Hello 2?  \nPerson B: I am Ann.")

    def draw(self, **wanted):
        found = report.Report("t")
        for seed, value in ((1, 1.0), (2, 2.0)):
            found.add("tuned", seed, {"to-10.entropy_nats": value})
        measured = self.measured(pictures=({"title": "T", "rows": ["base", "tuned"], **wanted},))
        return pictures.pictures(measured.definition, found, measured)

    def test_shares_of_all_seeds_the_most_frequent_first(self):
        self.answer("untrained", 1, names=["{a}", "{b}"])
        self.answer("untrained", 2, names=["{b}", "{c}"])
        (figure,) = self.draw(kind="ranked", prompt="names")
        (trace,) = figure.traces
        self.assertEqual((trace["x"], trace["y"]), ([1, 2, 3], [0.5, 0.25, 0.25]))

    def test_means_over_what_differs_with_intervals(self):
        (figure,) = self.draw(
            kind="lines", x="X", y="Y", points={"10": "to-10.entropy_nats"}, limit="entropy"
        )
        ours, even = figure.traces
        self.assertEqual((ours["name"], ours["x"], ours["y"]), ("tuned", [10], [1.5]))
        self.assertAlmostEqual(ours["error_y"]["array"][0], 12.706 / 2, 3)  # t(0.975, 1) s / sqrt(2)
        self.assertAlmostEqual(even["y"][0], 2.302585, 6)

    def test_bars_of_personas_add_up_to_one(self):
        file = self.folder / "measured" / "otmft-s1-o1" / "asked" / "persona.json"
        file.parent.mkdir(parents=True)
        counts = {"age": {"20s": 3, "30s": 2, "40s": 1}, "gender": {"Female": 4}, "education": {}}
        file.write_text(json.dumps({"values": counts}))
        (figure,) = self.draw(kind="shares", rows=["personas"], top=2)
        by_name = {trace["name"]: dict(zip(trace["y"], trace["x"])) for trace in figure.traces}
        self.assertEqual(by_name["value 1"], {"age, personas": 0.5, "gender, personas": 1.0})
        self.assertEqual(by_name["value 2"], {"age, personas": 2 / 6})
        self.assertAlmostEqual(by_name["all others"]["age, personas"], 1 / 6)

    def test_the_map_counts_who_it_shows(self):
        people = ["Paris, France", "Paris, France", "Lima, Peru", "Atlantis, Neverland"]
        self.answer("otmft", 1, people=[PERSON.format("Ann", "Female", place) for place in people])
        (figure,) = self.draw(kind="map")
        self.assertEqual(figure.note, "tuned: 3 of 4 people, 2 places")
        self.assertEqual(sorted(figure.traces[1]["text"]), ["1", "2"])

    def test_nothing_measured_is_no_picture(self):
        for kind in ({"kind": "ranked", "prompt": "names"}, {"kind": "shares", "top": 2}, {"kind": "map"}):
            self.assertEqual(self.draw(**kind), [])


class Places(unittest.TestCase):
    def test_cities_lie_in_the_country_that_is_named(self):
        found = Gazetteer()
        for city, country, east, north in (
            ("Paris", "FR", 2.3, 48.9),
            ("Paris", "USA", -95.6, 33.7),  # in Texas
            ("Paris", "", 2.3, 48.9),  # the largest of all
            ("München", "Germany", 11.6, 48.1),
            ("Nowhere at all", "Peru", -77.0, -12.0),  # its capital
        ):
            point = found.find(city, country)
            self.assertLess(abs(point[0] - east) + abs(point[1] - north), 0.2, (city, country, point))
        self.assertIsNone(found.find("Nowhere at all", "Neverland"))

    def test_every_country_of_the_personas_is_known(self):
        found = Gazetteer()
        unknown = {name for name, _ in read_value_sets(FOLDER)["location"] if not found.find("-", name)}
        self.assertEqual(unknown, {"Vatican City"})  # without a city of 15,000


if __name__ == "__main__":
    unittest.main()

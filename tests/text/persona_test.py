"""`plural persona`: the protocol of two, value sets, entropies; with a made revealer and a real local
server."""

import json
import math
import os
import pathlib
import re
import sys
import tempfile
import time
import unittest

from plural_text.common.errors import BadData
from plural_text.persona import conversation, mapping
from plural_text.persona.command import opening_of
from plural_text.persona.conversation import ScriptedSeeker, converse
from plural_text.persona.figures import answered, parse_extraction, persona_values
from plural_text.persona.figures import figures as persona_figures
from plural_text.persona.values import read_value_sets, values_of
from text.chat_server import completion, server
from text.support import FolderTest, byte_level_folder, run, running, write_lines

# Answers like a model would: from the prompt's ids, by the last digit of the request. It reads the tokenizer
# that the prompts were made with, so a wrong prompt gives a wrong answer.
REVEALER = """#!{python}
import json, os, sys
from plural_text.prepare.tokenizer_files import open_tokenizer
from pathlib import Path
assert sys.argv[1:3] == ["generate", "--stream"], sys.argv
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert options["--device"] == os.environ.get("REVEALER_DEVICE", "auto"), options
tokenizer = open_tokenizer(Path(options["--model"]))
log = open(os.environ["REVEALER_LOG"], "a")
held = []
for line in sys.stdin:
    request = json.loads(line)
    prompt = tokenizer.decode(request["prompt_tokens"]).decode()
    print(json.dumps({{"id": request["id"], "prompt": prompt}}), file=log, flush=True)
    n = int(request["id"].split(":")[0].split("-")[1])
    if os.environ.get("REVEALER_DIES") == str(n):
        print("plural: error: model: it broke [exit 77]", file=sys.stderr)
        sys.exit(77)
    asked = prompt.split("Person A: ")[-1]
    text = (os.environ.get("REVEALER_AGE") or "I am %d." % (20 + 10 * (n % 2)) if "old" in asked else
            os.environ["REVEALER_SAYS"] if "trade" in asked else
            "From Papua New Guinea\\nand Spain." if "from" in asked else "none")
    tokens = tokenizer.encode_text([text])[0]
    held.append(json.dumps({{"id": request["id"], "responses": [{{"tokens": tokens}}]}}))
    if len(held) == int(os.environ.get("REVEALER_HOLDS", "1")):  # answers in another order than asked
        for answer in reversed(held):
            print(answer, flush=True)
        held = []
"""


class Values(unittest.TestCase):
    SETS = read_value_sets()

    def test_sizes_as_published(self):
        self.assertEqual(
            {name: len({value for value, _ in values}) for name, values in self.SETS.items()},
            {"gender": 57, "location": 196, "education": 13, "occupation": 27},
        )

    def test_every_value_is_itself(self):
        """Also in lower case, and with hyphens for spaces, as a reader of a conversation may write it."""
        for name, values in self.SETS.items():
            for value in {value for value, _ in values}:
                for said in (value, f"{value.lower()}.", value.replace(" ", "-"), f"  {value.upper()} "):
                    self.assertEqual(values_of(name, said, self.SETS), [value], (name, said))

    def test_published_values(self):
        self.assertEqual(
            {value for value, _ in self.SETS["education"]},
            {
                "Primary school",
                "Secondary school",
                "High school",
                "Bachelor",
                "Master",
                "PhD",
                "Doctorate Degree",
                "Associate Degree",
                "Diploma",
                "Certificate programs",
                "Juris Doctor",
                "Medical Doctor",
                "No formal education",
            },
        )
        sectors = {value for value, _ in self.SETS["occupation"]}
        self.assertLessEqual({"Student", "Retired", "Unemployed", "Law", "Retail", "Sales"}, sectors)
        self.assertLessEqual({"Social care", "Recruitment and HR", "Law enforcement and security"}, sectors)
        genders = {value for value, _ in self.SETS["gender"]}
        for value in (
            "Abinary, Bakla, Binary, Bissu, Calabai, Calalai, Demiflux, Dual gender, Genderfae, Genderfuck, "
            "Genderless, Gender non conforming, Kathoey, Maverique, Meta gender, Muxe, Neurogender, "
            "Non binary, Sekhet, Travesti, Tumtum, Vakasalewalewa, Waria, Winkte, X gender, Prefer not to say"
        ).split(", "):
            self.assertIn(value, genders)
        ages = ["0-10", "10-20", "20-30", "30-40", "40-50", "50-60", "60-70", "70+"]
        self.assertEqual(len({tuple(values_of("age", f"{age} years", self.SETS)) for age in ages}), 8)

    def test_rules(self):
        for attribute, said, values in [
            ("age", "34", ["30-39"]),
            ("age", "I'm 9", ["0-9"]),
            ("age", "70", ["70+"]),
            ("age", "101 years", ["70+"]),
            ("age", "born in 1985", []),
            ("age", "none", []),
            ("age", "500", []),
            ("age", "thirty-two", ["30-39"]),
            ("age", "I'm in my mid-twenties.", ["20-29"]),
            ("age", "Early forties", ["40-49"]),
            ("age", "late 30s", ["30-39"]),
            ("age", "eighteen", ["10-19"]),
            ("age", "eighty-one", ["70+"]),
            ("age", "a teenager", ["10-19"]),
            ("age", "sixty", ["60-69"]),
            ("age", "nine years old", ["0-9"]),
            ("age", "one of the older ones", []),
            ("age", "middle-aged", []),
            ("age", "often asked", []),
            ("gender", "A trans woman", ["Transgender female"]),
            ("gender", "Female.", ["Female"]),
            ("gender", "cisgender man", ["Male"]),
            ("gender", "non-binary", ["Non binary"]),
            ("gender", "Nonbinary", ["Non binary"]),
            ("gender", "I am gender-nonconforming", ["Gender non conforming"]),
            ("gender", "I'd prefer not to say", ["Prefer not to say"]),
            ("gender", "human", []),
            ("location", "Papua New Guinea", ["Papua New Guinea"]),
            ("location", "Nigeria", ["Nigeria"]),
            ("location", "Spain, before that Germany and Spain", ["Germany", "Spain"]),
            ("location", "I live in the US", ["United States"]),
            ("location", "Minnesota", ["United States"]),
            ("location", "New York, U.S.", ["United States"]),
            ("location", "New Mexico", ["United States"]),
            ("location", "Mexico City", ["Mexico"]),
            ("location", "Hong Kong", ["China"]),
            ("location", "Toronto, Canada", ["Canada"]),
            ("location", "Georgia", ["Georgia"]),
            ("location", "with us", []),
            ("location", "None.", []),
            ("location", "", []),
            ("education", "A PhD after my bachelor's", ["PhD"]),
            ("education", "Bachelors degree", ["Bachelor"]),
            ("education", "BA in Marketing from St. Olaf College", ["Bachelor"]),
            ("education", "BASIC training", []),
            ("education", "Master of Science (MSc)", ["Master"]),
            ("education", "MBA", ["Master"]),
            ("education", "high school diploma", ["High school"]),
            ("education", "a diploma in nursing", ["Diploma"]),
            ("education", "Doctor of Medicine", ["Medical Doctor"]),
            ("education", "Law degree (J.D.)", ["Juris Doctor"]),
            ("education", "certified welder", ["Certificate programs"]),
            ("education", "some college", ["High school"]),
            ("occupation", "software developer", ["Information technology"]),
            ("occupation", "Software engineer", ["Information technology"]),
            ("occupation", "social worker", ["Social care"]),
            ("occupation", "HR specialist", ["Recruitment and HR"]),
            ("occupation", "real estate agent", ["Property and construction"]),
            ("occupation", "event planner", ["Hospitality and events management"]),
            ("occupation", "police officer", ["Law enforcement and security"]),
            ("occupation", "sales rep", ["Sales"]),
            ("occupation", "cashier in a shop", ["Retail"]),
            ("occupation", "retired kindergarten teacher", ["Retired"]),
            ("occupation", "engineering student", ["Student"]),
            ("occupation", "I like it", ["others"]),
            ("occupation", "astronaut", ["others"]),
            ("colour", "  Dark Red. ", ["dark red"]),
        ]:
            found = values_of(attribute, said, self.SETS)
            self.assertEqual(sorted(found), sorted(values), (attribute, said))


class Figures(unittest.TestCase):
    def test_published_units_and_drops(self):
        # 225, 50, 15, 10 give 1.121765 bits; one persona says nothing and does not count.
        own = [["a"]] * 225 + [["b"]] * 50 + [["c"]] * 15 + [["d"]] * 10 + [[]]
        found = {f.name: f for f in persona_figures({"age": own, "gender": [["x"], ["y"]] * 150 + [[]]}, 310)}
        self.assertAlmostEqual(found["age_entropy_bits"].value, 1.121765, delta=5e-7)
        self.assertEqual((found["age_entropy_bits"].count, found["age_coverage"].value), (300, 4))
        self.assertEqual((found["age_top_share"].value, found["age_top_share"].note), (0.75, "a"))
        self.assertAlmostEqual(found["average_entropy_bits"].value, (1.121765 + 1) / 2, delta=5e-7)
        self.assertEqual(found["persona_rate"].value, 301 / 310)
        spread = found["age_entropy_bits"].interval
        self.assertTrue(1.121765 - 0.2 < spread.low < 1.121765 < spread.high < 1.121765 + 0.2)

    def test_several_values_of_a_persona(self):
        found = {f.name: f for f in persona_figures({"location": [["s", "g"], ["s"], []]}, 3)}
        self.assertAlmostEqual(found["location_entropy_bits"].value, math.log2(3) - 2 / 3)
        self.assertEqual(found["location_entropy_bits"].count, 2)

    def test_undefined(self):
        found = {f.name: f for f in persona_figures({"age": [[], []], "gender": [["x"], []]}, 2)}
        self.assertEqual((found["age_entropy_bits"].value, found["gender_entropy_bits"].value), (None, 0))
        self.assertIn("no persona tells its age", found["age_entropy_bits"].reason)
        self.assertIsNone(found["average_entropy_bits"].value)
        none = {f.name: f for f in persona_figures({}, 2)}
        self.assertEqual((none["persona_rate"].value, none["average_entropy_bits"].value), (0, None))

    def test_extraction(self):
        lines = [
            "Age: 34",
            "- gender: none",
            "Country of residence: none.",
            "**country of birth:** Spain",
            "education: MSc",
            "occupation: chef: pastry",
            "hobby: chess",
        ]
        persona = {
            "age": "34",
            "gender": "none",
            "location": "Spain",
            "education": "MSc",
            "occupation": "chef: pastry",
        }
        self.assertEqual(parse_extraction("\n".join(lines)), persona)
        lines[2] = "Country of residence: Peru"
        self.assertEqual(parse_extraction("\n".join(lines))["location"], "Peru")
        for missing in range(6):
            self.assertIsNone(parse_extraction("\n".join(lines[:missing] + lines[missing + 1 :])))
        self.assertIsNone(parse_extraction("I do not know."))

    def test_sector_of_an_extraction(self):
        """The seventh line decides the sector where it names one; without it the occupation's words do."""
        six = "age: 34\ngender: none\ncountry of residence: Peru\ncountry of birth: none\neducation: none\n"
        sets = read_value_sets()
        for lines, value in [
            ("occupation: cook", "Hospitality and events management"),
            ("occupation: cook\noccupation sector: Education", "Teacher training and education"),
            ("occupation: cook\nOccupation sector: none", "Hospitality and events management"),
            ("occupation: cook\noccupation sector: outer space", "Hospitality and events management"),
            ("occupation: astronaut\noccupation sector: others", "others"),
            ("occupation: none\noccupation sector: law", "Law"),
        ]:
            values = persona_values([parse_extraction(six + lines)], sets)
            self.assertEqual(values["occupation"], [[value]], lines)
            self.assertEqual(list(values), ["age", "gender", "location", "education", "occupation"], lines)
        nothing = parse_extraction(f"{six}occupation: none\noccupation sector: none")
        self.assertEqual(persona_values([nothing], sets)["occupation"], [[]])
        self.assertIn("\noccupation sector:", conversation.read_protocol().extract)

    def test_labels_of_the_published_code(self):
        persona = parse_extraction(
            "Age: 34\nGender: none\nNationality: none\nPlace of birth (country): Spain\nEthnicity: none\n"
            "Highest education: MSc\nCurrent country of residence: None\nOccupation: chef\n"
            "Occupation sector: hospitality\nJob title: none"
        )
        self.assertEqual((persona["education"], persona["location"]), ("MSc", "Spain"))


class MappingByModel(unittest.TestCase):
    SETS = read_value_sets()

    def test_only_texts_that_say_something_and_have_no_value_are_asked(self):
        personas = [
            {"age": "34", "gender": "human", "occupation": "none", "occupation sector": "outer space"},
            {"age": "middle-aged", "gender": "human", "occupation": "astronaut", "colour": "red"},
            {"age": "none", "gender": "Female", "occupation": "cook", "location": "Atlantis"},
        ]
        self.assertEqual(
            mapping.unmapped(personas, self.SETS),
            [
                ("age", "middle-aged"),
                ("gender", "human"),
                ("location", "Atlantis"),
                ("occupation", "outer space"),
                ("occupation", "astronaut"),
            ],
        )
        mapped = {("occupation", "outer space"): ["Law"], ("age", "middle-aged"): ["40-49"]}
        values = persona_values(personas, self.SETS, mapped)
        self.assertEqual(values["age"], [["30-39"], ["40-49"], []])
        self.assertEqual(values["occupation"], [["Law"], ["others"], ["Hospitality and events management"]])
        # What the rules decide stays, also where another persona's text was asked about.
        told = {"occupation": "astronaut", "occupation sector": "Healthcare"}
        values = persona_values([told], self.SETS, {("occupation", "astronaut"): ["Law"]})
        self.assertEqual(values["occupation"], [["Healthcare"]])

    def test_what_an_answer_means(self):
        for attribute, answer, values in [
            ("gender", "non binary", ["Non binary"]),
            ("gender", " **Female**.\nMale is another.", ["Female"]),
            ("gender", "none", []),
            ("gender", "", []),
            ("age", "70+", ["70+"]),
            ("location", "The person lives in Peru.", ["Peru"]),
            ("location", "Peru or Spain", []),
            ("occupation", "none", ["others"]),
            ("occupation", "RETAIL", ["Retail"]),
        ]:
            self.assertEqual(mapping.values_in(answer, attribute, self.SETS), values, (attribute, answer))

    def test_what_was_said_is_asked_as_it_is(self):
        wording = "{attribute}: {said} {x} of\n{values}"
        asked = mapping.question(wording, "age", "{values} {said}", {})
        self.assertTrue(asked.startswith("age: {values} {said} {x} of\n0-9\n10-19\n"), asked)

    def test_a_protocol_without_the_question_has_ours(self):
        with tempfile.TemporaryDirectory() as folder:
            fields = json.loads(conversation.PROTOCOL.read_text())
            path = pathlib.Path(folder) / "protocol.json"
            path.write_text(json.dumps({key: text for key, text in fields.items() if key != "map"}))
            self.assertEqual(conversation.read_protocol(path).map, fields["map"])
            path.write_text(json.dumps(fields | {"map": "Which? {values}"}))
            with self.assertRaisesRegex(BadData, "key 'map' must hold {said} and {values}"):
                conversation.read_protocol(path)


class Openings(unittest.TestCase):
    def test_distinct_until_all_are_used(self):
        openings = [[f"a{n}", f"b{n}"] for n in range(7)]
        drawn = [opening_of(f"persona-{n}", openings, 42) for n in range(1, 22)]
        for start in range(0, 21, 7):
            self.assertEqual(sorted(drawn[start : start + 7]), openings)
        self.assertNotEqual(drawn[:7], openings)  # in an order that the seed decides
        self.assertNotEqual(drawn, [opening_of(f"persona-{n}", openings, 43) for n in range(1, 22)])
        self.assertEqual(opening_of("persona-1", [], 42), [])


class Turns(unittest.TestCase):
    def test_script_after_an_opening(self):
        seen = []
        reveal = lambda so_far: (seen.append(list(so_far.turns)), ("yes\nand no", len(so_far.turns)))[1]
        found = converse(
            "x",
            ["hi", "hello"],
            ScriptedSeeker([("old?", "age"), ("from?", "location"), ("again?", "age")]),
            reveal,
        )
        self.assertEqual(
            found.turns, ["hi", "hello", "old?", "yes and no", "from?", "yes and no", "again?", "yes and no"]
        )
        self.assertEqual((found.asked, found.possibilities), (["age", "location", "age"], [3, 5, 7]))
        self.assertEqual([len(turns) for turns in seen], [3, 5, 7])
        found.turns[7] = "later"
        self.assertEqual(answered(found), {"age": "later", "location": "yes and no"})

    def seek(self, revealed_at, said="Nice. Where? Third."):
        """Lengths at which the closing question came, and at which it was checked whether all is revealed."""
        checked = []

        class Endpoint:
            def ask(self, messages, temperature, max_tokens):
                if temperature:
                    assert [m["role"] for m in messages[2:]] == ["assistant", "user"] * (
                        (len(messages) - 2) // 2
                    )
                    return said
                turns = len(re.findall(r"^Person [AB]: ", messages[0]["content"], re.MULTILINE))
                checked.append(turns)
                return "Yes." if turns >= revealed_at else "No, not yet."

        seeker = conversation.EndpointSeeker(Endpoint(), conversation.read_protocol())
        found = converse("x", ["a", "b", "c", "d"], seeker, lambda so_far: ("r", 0))
        self.assertEqual(found.asked[-1], "gender")
        self.assertEqual(found.turns[-2], conversation.read_protocol().closing)
        return len(found.turns) - 2, checked, found

    def test_endpoint_seeker_ends_as_published(self):
        self.assertEqual(self.seek(99)[:2], (30, [20, 26]))
        self.assertEqual(self.seek(26)[:2], (26, [20, 26]))
        self.assertEqual(self.seek(1)[:2], (20, [20]))
        self.assertEqual(self.seek(99)[2].turns[4], "Nice. Where?")  # at most two sentences
        self.assertEqual(self.seek(99, said=" ")[:2], (4, []))


class Command(FolderTest):
    QUESTIONS = [
        {"ask": "How old are you?", "attribute": "age"},
        {"ask": "Where are you from?", "attribute": "location"},
    ]

    def setUp(self):
        super().setUp()
        self.model = byte_level_folder(self.folder / "model")
        self.talks, self.log = self.folder / "talks.jsonl", self.folder / "revealer.log"
        program = self.folder / "revealer"
        program.write_text(REVEALER.format(python=sys.executable))
        program.chmod(0o755)
        self.environment = os.environ | {"PLURAL_BINARY": str(program), "REVEALER_LOG": str(self.log)}
        self.questions = write_lines(self.folder / "questions.jsonl", self.QUESTIONS)

    def persona(self, *options, code=0, **environment):
        done = run(
            "persona",
            "-o",
            self.talks,
            "--model",
            self.model,
            "--conversations",
            "4",
            "--figures",
            self.folder / "f.json",
            "--force",
            *options,
            env=self.environment | environment,
        )
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertEqual((done.stderr.count("\n"), done.stdout), (1, ""), done.stderr)
            return done.stderr
        self.assertEqual(done.stderr, "")
        return json.loads((self.folder / "f.json").read_text())["figures"]

    def kept(self):
        return {line["id"]: line for line in map(json.loads, self.talks.read_text().splitlines())}

    def test_scripted(self):
        figures = self.persona("--questions", self.questions, "--possibilities", "9", REVEALER_HOLDS="4")
        self.assertEqual(figures["age_entropy_bits"]["value"], 1.0)
        self.assertEqual(
            (figures["location_entropy_bits"]["value"], figures["location_coverage"]["value"]), (1.0, 2)
        )
        self.assertEqual(figures["average_entropy_bits"]["value"], 1.0)
        counted = json.loads((self.folder / "f.json").read_text())["values"]
        self.assertEqual(sorted(counted["location"].values()), [4, 4])  # each says two
        talks = self.kept()
        self.assertEqual(
            talks["persona-3"]["turns"],
            ["How old are you?", "I am 30.", "Where are you from?", "From Papua New Guinea and Spain."],
        )
        asked = {line["id"]: line["prompt"] for line in map(json.loads, self.log.read_text().splitlines())}
        numbers = [k for talk in talks.values() for k in talk["possibilities"]]
        self.assertTrue(all(1 <= k <= 9 for k in numbers), numbers)
        self.assertTrue(
            any(len(set(talk["possibilities"])) > 1 for talk in talks.values()), numbers
        )  # anew every turn
        k = talks["persona-3"]["possibilities"][1]
        self.assertEqual(
            asked["persona-3:3"],
            "<start>Person A: How old are you?\nPerson B: I am 30.\n"
            f"Person A: Where are you from?\nPerson B, possibility #{k}:",
        )

    def test_the_same_conversations_whatever_runs_together(self):
        self.persona("--questions", self.questions, "--possibilities", "9")
        first = self.kept()
        self.talks.unlink()
        self.persona("--questions", self.questions, "--possibilities", "9", "--parallel", "1")
        self.assertEqual(self.kept(), first)

    def test_interrupted_and_gone_on(self):
        use = ("--questions", self.questions, "--parallel", "1")
        said = self.persona(*use, code=77, REVEALER_DIES="3")
        self.assertIn("it broke", said)
        self.assertIn("2 conversations are kept in", said)
        self.assertEqual(list(self.kept()), ["persona-1", "persona-2"])
        with open(self.talks, "a") as file:
            file.write('{"id": "persona-3", "tu')
        self.log.unlink()
        self.persona(*use)
        self.assertEqual(list(self.kept()), [f"persona-{n}" for n in range(1, 5)])
        self.assertEqual(
            {line.split(":")[1] for line in self.log.read_text().splitlines()}, {' "persona-3', ' "persona-4'}
        )
        self.log.unlink()
        self.persona(*use)  # nothing left to do but to measure
        self.assertFalse(self.log.exists())
        for option in ("--seed", "7"), ("--quantize", "nf4"):
            self.assertIn("other settings", self.persona(*use, *option, code=64))

    def test_interrupt_does_not_wait_for_answers(self):
        use = ("persona", "-o", self.talks, "--model", self.model, "--questions", self.questions)
        with running(*use, env=self.environment | {"REVEALER_HOLDS": "999"}) as process:
            while not (self.log.exists() and self.log.read_text().count("\n") >= 16):  # all are asked
                self.assertIsNone(process.poll())
                time.sleep(0.05)
            process.terminate()
            _, errors = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 75, errors)
            self.assertIn("plural: stopped on request: ", errors)

    def test_endpoints(self):
        def answer(question, model, _times):
            if model == "reader":
                return completion(
                    "age: 41\ngender: woman\ncountry of residence: Peru\ncountry of birth: none\n"
                    "education: none\noccupation: cook"
                    if "I am 20" in question
                    else "no idea"
                )
            return completion("yes" if "Answer with one word" in question else "Well. How old are you?")

        contexts = ["a\nb\nc\nd\ne", "a\nb\nc\nd\nz", "f\nb\nc\nd\ne", "g\nb\nc\nd\ne", "h\nb\nc\nd\ne"]
        openings = write_lines(self.folder / "openings.jsonl", [{"context": text} for text in contexts])
        with server(answer) as (url, _):
            figures = self.persona(
                "--seeker",
                url,
                "--seeker-model",
                "seeker",
                "--extractor",
                url,
                "--extractor-model",
                "reader",
                "--openings",
                openings,
            )
        talk = self.kept()["persona-1"]
        self.assertEqual(
            (talk["turns"][1:5], talk["opening"]), (["b", "c", "d", "Well. How old are you?"], 4)
        )
        self.assertEqual(sorted(talk["turns"][0] for talk in self.kept().values()), ["a", "f", "g", "h"])
        self.assertEqual((len(talk["turns"]), talk["asked"][-1]), (22, "gender"))
        self.assertEqual(figures["persona_rate"]["value"], 0.5)  # the other half had no labels
        self.assertEqual(figures["location_top_share"]["note"], "Peru")
        self.assertIsNone(figures["education_entropy_bits"]["value"])

    def test_a_model_maps_what_the_rules_do_not(self):
        """The revealer says its place in words of no list; only those are asked, each once, and kept."""
        script = [
            {"ask": "How old are you?", "attribute": "age"},
            {"ask": "Your trade?", "attribute": "occupation"},
        ]
        questions = write_lines(self.folder / "trades.jsonl", script)

        def answer(question, _model, _times):
            if "asked about their occupation" in question:
                return completion('"Hospitality and events management".\nBecause it fits.')
            return completion("40-49" if "about their age" in question else "none")

        use = ("--questions", questions)
        figures = self.persona(
            *use,
            "--device",
            "cuda",
            REVEALER_DEVICE="cuda",
            REVEALER_SAYS="I spin the discs.",
            REVEALER_AGE="Old enough.",
        )
        self.assertEqual(figures["occupation_top_share"]["note"], "others")
        self.assertIsNone(figures["age_entropy_bits"]["value"])
        with server(answer) as (url, asked):
            mapper = ("--mapper", url, "--mapper-model", "m")
            figures = self.persona(*use, *mapper)
            self.assertEqual(figures["occupation_top_share"]["note"], "Hospitality and events management")
            self.assertEqual(figures["age_top_share"]["note"], "40-49")
            self.assertEqual(len(asked), 2)
            trade = next(question for question in asked if "occupation" in question)
            self.assertIn("I spin the discs.", trade)
            for value in ("Law enforcement and security", "Retired"):
                self.assertIn(f"\n{value}\n", trade)
            self.persona(*use, *mapper)  # kept answers
            self.assertEqual(len(asked), 2)

    def test_bad_input(self):
        with server(lambda *_: completion("")) as (url, _):
            pass
        bad = write_lines(self.folder / "bad.jsonl", [{"ask": "x"}])
        for options, code, said in [
            ((), 64, "one of the two"),
            (("--questions", self.questions, "--seeker", "x"), 64, "one of the two"),
            (("--seeker", url), 64, "go together"),
            (("--questions", self.questions, "--mapper", url), 64, "--mapper and --mapper-model go together"),
            (("--seeker", url, "--seeker-model", "m"), 64, "needs --extractor"),
            (
                (
                    "--seeker",
                    url,
                    "--seeker-model",
                    "m",
                    "--extractor",
                    url,
                    "--extractor-model",
                    "m",
                    "--retries",
                    "0",
                    "--parallel",
                    "1",
                ),
                69,
                "no answer",
            ),
            (("--questions", bad), 65, "bad.jsonl:1: key 'attribute' is missing"),
            (("--questions", self.folder / "none"), 66, "none"),
            (
                ("--questions", self.questions, "--possibilities", "9", "--template", "mistral-targets"),
                64,
                "mistral-targets",
            ),
            (("--questions", self.questions, "--max-prompt-tokens", "3"), 65, "--max-prompt-tokens allows 3"),
            (("--questions", self.questions, "--values", self.folder / "none"), 66, "no value sets"),
        ]:
            self.assertIn(said, self.persona(*options, code=code))
            self.talks.unlink(missing_ok=True)
        self.talks.write_text('{"id": "persona-1", "turns": 3}\n')
        self.assertIn("talks.jsonl:1", self.persona("--questions", self.questions, code=64))

    def test_revealer_that_cannot_run(self):
        said = self.persona("--questions", self.questions, code=69, PLURAL_BINARY=str(self.folder / "none"))
        self.assertIn("no program at", said)


if __name__ == "__main__":
    unittest.main()

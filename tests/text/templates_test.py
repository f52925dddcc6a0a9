"""Templates: the exact prompts, the order of labels, what a template file may hold."""

import json
import unittest

from plural_text.common.errors import BadData, MissingInput, UsageError
from plural_text.prepare.templates import TemplateRefused, open_template, template_names
from text.support import MISTRAL_V1, MISTRAL_V3, TEKKEN, FolderTest, byte_level_folder, open_tokenizer

FAMILIES = ("mistral", "llama2", "gemma")
TURNS = ["Hello.", "Hi! {k} {context}", "How are you?"]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Name a fruit."},
]
JINJA = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class Strings(FolderTest):
    def setUp(self):
        super().setUp()
        self.tokenizer = open_tokenizer(MISTRAL_V1)

    def render(self, name, turns, k, source_format="dialogue"):
        return open_template(name, source_format, self.tokenizer).render(turns, k)

    def test_short_dialogue(self):
        context = "\n".join(TURNS)
        self.assertEqual(
            self.render("mistral-dialogue-short", TURNS, 3),
            "[INST] "
            + context
            + "\nThink of every way to reply. Give the reply for possibility number #"
            + "3"
            + ". [/INST]",
        )
        self.assertEqual(
            self.render("mistral-dialogue-short", TURNS, 0), f"[INST] {context}\nGive the next reply. [/INST]"
        )

    def test_targets(self):
        self.assertEqual(
            [self.render(f"{family}-targets", ["Pick {name}."], 0, "targets") for family in FAMILIES],
            [
                "[INST] Pick {name}. [/INST]",
                "[INST] Pick {name}. [/INST]",
                "<start_of_turn>user\nPick {name}.<end_of_turn>\n<start_of_turn>model\n",
            ],
        )

    def test_untuned_models_are_asked_for_25_words_and_begin_as_person_b(self):
        for family in ("mistral", "llama2"):
            for k in (0, 7):
                base = self.render(f"{family}-dialogue-base", TURNS, k)
                self.assertEqual(base.count("no more than 25 words. "), 1)
                self.assertEqual(base.count("act as if you were a real individual"), 1)
                self.assertTrue(base.endswith(" [/INST] Person B:"), base)
                self.assertEqual("possibility number #7" in base, k == 7)
                tuned = self.render(f"{family}-dialogue", TURNS, k)
                self.assertTrue(tuned.endswith(" [/INST]") and "25" not in tuned, tuned)
        self.assertEqual(
            self.render("mistral-dialogue-base", ["Hi."], 0),
            "[INST] Here is a conversation:\n\nPerson A: Hi.\n\nImagine that you are Person B, and act as "
            "if you were a real individual. Write the next response. Keep it to no more than 25 words. "
            "[/INST] Person B:",
        )

    def test_stories(self):
        begun = "[INST] Here is the beginning of a story:\n\nTom ran.\n\n"
        self.assertEqual(
            self.render("mistral-story", ["Tom ran."], 4),
            f"{begun}Think of every way in which the story could go on, then write, in a few sentences, what "
            "happens next for possibility number #4. [/INST]",
        )
        self.assertEqual(
            self.render("mistral-story", ["Tom ran."], 0),
            f"{begun}Write what happens next, in a few sentences. [/INST]",
        )
        listed = self.render("mistral-list-story", ["Tom ran."], 0)
        self.assertTrue(listed.startswith(begun) and listed.endswith("[/INST] Response 1:"), listed)
        self.assertIn("List a diverse set of 5 possible", listed)

    def test_lists_ask_for_as_many_as_their_number(self):
        for name in ("list-dialogue", "mistral-list-dialogue", "mistral-list-story"):
            usual, seven = (self.render(name, ["Tom ran."], k) for k in (0, 7))
            self.assertIn("List a diverse set of 7 possible", seven)
            self.assertEqual(usual, seven.replace("set of 7", "set of 5"), name)
        rating = self.render("mistral-story-rating", ["Tom ran."], 0)
        self.assertTrue(rating.endswith("Beginning: Tom ran.\nContinuation:"), rating)

    def test_question(self):
        self.assertEqual(
            [self.render("question", ["Name a fruit."], k) for k in (0, 12)],
            ["Name a fruit.", "Name a fruit. #12"],
        )

    def test_labels_alternate_backwards_from_person_a(self):
        odd = self.render("plain-dialogue", TURNS, 0)
        self.assertEqual(
            odd, "Person A: Hello.\nPerson B: Hi! {k} {context}\nPerson A: How are you?\nPerson B:"
        )
        self.assertTrue(self.render("plain-dialogue", TURNS[1:], 0).startswith("Person B: Hi!"))

    def test_every_template_of_the_project_is_sound_and_keeps_the_number_last(self):
        for name in template_names():
            source_format = json.loads((open_template.__globals__["FOLDER"] / f"{name}.json").read_text())[
                "format"
            ]
            self.tokenizer.chat_template = JINJA
            template = open_template(name, source_format, self.tokenizer)
            self.assertEqual((template.name, json.loads(template.json)["name"]), (name, name))
            self.assertFalse(template.number_is_early(), name)
            self.assertEqual(
                template.has_numbers(), source_format in ("dialogue", "chat") and "rating" not in name, name
            )
            self.assertEqual(bool(template.ratings), "rating" in name, name)

    def test_early_number_is_told(self):
        file = self.folder / "early.json"
        file.write_text(
            json.dumps(
                {
                    "name": "early",
                    "format": "dialogue",
                    "prompt": "{context}",
                    "prompt_with_number": "#{k}: {context} end",
                }
            )
        )
        template = open_template(str(file), "dialogue", self.tokenizer)
        self.assertTrue(template.number_is_early())
        self.assertFalse(template.with_number_last().number_is_early())


class Chat(FolderTest):
    def open(self, jinja=JINJA):
        folder = byte_level_folder(self.folder / "model")
        (folder / "chat_template.jinja").write_text(jinja)
        return open_template(None, "chat", open_tokenizer(folder))

    def test_number_ends_the_last_user_message(self):
        template = self.open()
        plain = "<start><system>Be brief.\n<user>Hello.\n<assistant>Hi.\n<user>Name a fruit.\n<assistant>"
        self.assertEqual(template.render(CHAT, 0), plain)
        asked = "\nThink of every way to respond. Give the response for possibility number #7."
        self.assertEqual(template.render(CHAT, 7), plain.replace("fruit.", "fruit." + asked))

    def test_the_stored_template_holds_the_chat_template(self):
        self.assertEqual(json.loads(self.open().json)["chat_template"], JINJA)

    def test_oldest_exchange_goes_first_and_the_system_stays(self):
        template = self.open()
        self.assertEqual(template.without_oldest(CHAT), [CHAT[0], CHAT[3]])
        self.assertIsNone(template.without_oldest([CHAT[0], CHAT[3]]))

    def test_a_template_that_refuses(self):
        with self.assertRaises(TemplateRefused):
            self.open("{{ raise_exception('no system role') }}").render(CHAT, 0)
        with self.assertRaises(BadData):
            self.open("{% for %}")

    def test_templates_cannot_reach_out(self):
        with self.assertRaises(TemplateRefused):
            self.open("{{ messages.__class__.__mro__ }}{{ ''.__class__.__base__.__subclasses__() }}").render(
                CHAT, 0
            )

    def test_what_transformers_adds_to_jinja(self):
        """Named special tokens as variables, tags around generated text, and absent values that are none."""
        folder = byte_level_folder(self.folder / "model")
        (folder / "tokenizer_config.json").write_text(
            '{"bos_token": null, "eos_token": "<end>", "sep_token": "<start>"}'
        )
        (folder / "chat_template.jinja").write_text(
            "{{ bos_token }}{{ sep_token }}{% if tools is none and documents is none %}!{% endif %}"
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content + eos_token }}"
            "{% endgeneration %}{% else %}{{ m.content | tojson }}{% endif %}{% endfor %}"
        )
        template = open_template(None, "chat", open_tokenizer(folder))
        self.assertEqual(template.render(CHAT[1:2], 0), '<start>!"Hello."')
        self.assertEqual(template.render_whole(CHAT[1:2], "Hi."), '<start>!"Hello."Hi.<end>')
        self.assertFalse(template.bos or template.reads_clock)

    def test_a_template_that_fails_as_any_program_may(self):
        for jinja in ("{{ 1 // 0 }}", "{{ messages[0].content.format(**{}) + 1 }}", "{{ [][3].x }}"):
            with self.assertRaisesRegex(TemplateRefused, "refuses it: [^\n]+$"):
                self.open(jinja).render(CHAT, 0)

    def test_without_any_chat_template(self):
        with self.assertRaisesRegex(BadData, "no chat template"):
            open_template(None, "chat", open_tokenizer(byte_level_folder(self.folder / "model")))


class Markers(FolderTest):
    def prompt(self, path, name):
        return open_template(name, "targets", open_tokenizer(path)).render(["a [INST] b"], 0)

    def test_spaces_are_those_of_the_version(self):
        for path, expected in (
            (MISTRAL_V1, "[INST] a [INST] b [/INST]"),
            (MISTRAL_V3, "[INST] a [INST] b[/INST]"),
            (TEKKEN, "[INST]a [INST] b[/INST]"),
        ):
            self.assertEqual(self.prompt(path, "mistral-targets"), expected)  # the record's text stays

    def test_a_file_of_the_users_own_stays_as_it_is(self):
        file = self.folder / "own.json"
        file.write_text('{"name": "own", "format": "targets", "prompt": "[INST] {request} [/INST]"}')
        self.assertEqual(self.prompt(TEKKEN, str(file)), "[INST] a [INST] b [/INST]")

    def test_the_given_beginning_of_answers(self):
        for path, expected in ((MISTRAL_V1, "ab"), (MISTRAL_V3, "a b"), (TEKKEN, "ab")):
            template = open_template("mistral-targets", "targets", open_tokenizer(path))
            self.assertEqual((template.continued("a", "b"), template.continued("a", "")), (expected, "a"))


class Refused(FolderTest):
    def test_files(self):
        good = {"name": "x", "format": "dialogue", "prompt": "{context}"}
        tokenizer = open_tokenizer(MISTRAL_V1)
        for change, words in (
            ({"format": "dialog"}, ["'format'", "'dialog'", "allowed: dialogue"]),
            ({"promt": "a"}, ["'promt'", "not known"]),
            ({"name": ""}, ["'name'", "not empty"]),
            ({"prompt": None}, ["'prompt'"]),
            ({"prompt": "a"}, ["'prompt'", "none", "{context}"]),
            ({"prompt": "{context}{context}"}, ["each once"]),
            ({"prompt_with_number": "{context}"}, ["'prompt_with_number'", "{k}"]),
            ({"prompt_with_count": "{context}"}, ["'prompt_with_count'", "{k}"]),
            (
                {"prompt_with_number": "{context} {k}", "prompt_with_count": "{context} {k}"},
                ["'prompt_with_count': stands beside 'prompt_with_number'"],
            ),
            ({"prompt": "{context} {request}"}, ["request"]),
            ({"bos": "yes"}, ["'bos'", "true or false"]),
            ({"speakers": {"a": "A: "}}, ["'speakers'"]),
        ):
            file = self.folder / "x.json"
            file.write_text(json.dumps({**good, **change}))
            with self.assertRaises(BadData, msg=change) as caught:
                open_template(str(file), "dialogue", tokenizer)
            for word in ["x.json", *words]:
                self.assertIn(word, str(caught.exception))
        (self.folder / "x.json").write_text("{")
        with self.assertRaisesRegex(BadData, "not valid JSON"):
            open_template(str(self.folder / "x.json"), "dialogue", tokenizer)
        with self.assertRaisesRegex(MissingInput, "cannot be read"):
            open_template(str(self.folder / "absent.json"), "dialogue", tokenizer)
        with self.assertRaisesRegex(MissingInput, "known: chat, coherence-rating, gemma-targets"):
            open_template("mistral", "dialogue", tokenizer)
        with self.assertRaisesRegex(UsageError, "plain-targets"):
            open_template("question", "targets", tokenizer)


if __name__ == "__main__":
    unittest.main()

"""Tokenizers: what ids stand for, special tokens, which file is taken, what is refused."""

import hashlib
import json
import shutil
import unittest
from unittest import mock

from plural_text.common.errors import BadData, MissingInput
from text.support import (
    HARD_TEXT,
    MISTRAL_V1,
    MISTRAL_V3,
    TEKKEN,
    FolderTest,
    byte_level_folder,
    open_tokenizer,
    train_byte_level,
)
from text.tiny_tokenizers import byte_level, sentencepiece_folder, split_folder


def metaspace_json(path):
    """A sentencepiece-style tokenizer.json: U+2581 for spaces, bytes for what is not in the vocabulary."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "\u2581", "a", "b", "\u2581a"]
    layout = {
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": None,
        "post_processor": None,
        "added_tokens": [
            {
                "id": i,
                "content": c,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, c in enumerate(pieces[:3])
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace",
            "replacement": "\u2581",
            "prepend_scheme": "first",
            "split": False,
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "vocab": {p: i for i, p in enumerate(pieces)},
            "merges": [["\u2581", "a"]],
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
        },
    }
    path.write_text(json.dumps(layout), encoding="utf-8")
    return path


class RoundTrip(FolderTest):
    """Joining the bytes of all tokens gives the text: the table is right for every kind."""

    def check(self, tokenizer, before=b""):
        for text in (HARD_TEXT, "a", "3 dogs", "\n", "x" * 300):
            ids = tokenizer.encode_text([text])[0]
            self.assertEqual(tokenizer.decode(ids), before + text.encode())
            self.assertTrue(all(0 <= i < len(tokenizer.token_bytes) for i in ids))

    def test_sentencepiece(self):
        self.check(open_tokenizer(MISTRAL_V1), before=b" ")

    def test_tekken(self):
        self.check(open_tokenizer(TEKKEN))

    def test_byte_level(self):
        self.check(open_tokenizer(byte_level_folder(self.folder)))

    def test_metaspace_ignores_truncation_in_the_file(self):
        self.check(open_tokenizer(metaspace_json(self.folder / "tokenizer.json")), before=b" ")

    def test_vocabulary_sizes_and_special_texts(self):
        v1, tekken = open_tokenizer(MISTRAL_V1), open_tokenizer(TEKKEN)
        self.assertEqual((len(v1.token_bytes), v1.bos_id, v1.eos_id), (32000, 1, 2))
        self.assertEqual((len(tekken.token_bytes), tekken.bos_id, tekken.eos_id), (131072, 1, 2))
        self.assertEqual((v1.token_bytes[2], tekken.token_bytes[3]), (b"</s>", b"[INST]"))
        self.assertEqual(v1.token_bytes[3 + 0x0A], b"\n")  # byte pieces follow the three special ones


class SpecialTokens(FolderTest):
    def test_stand_for_themselves_in_prompts_only(self):
        for tokenizer, marker in (
            (open_tokenizer(MISTRAL_V3), "[INST]"),
            (open_tokenizer(TEKKEN), "[INST]"),
            (open_tokenizer(byte_level_folder(self.folder)), "<end>"),
        ):
            special = tokenizer.id_of(marker)
            self.assertEqual(tokenizer.token_bytes[special], marker.encode())
            text = f"{marker} big dogs{marker}x"
            prompt = tokenizer.encode_prompts([text])[0]
            self.assertEqual([i for i in prompt if i == special], [special] * 2)
            self.assertEqual(tokenizer.decode(prompt), text.encode())  # no marker invented after it
            plain = tokenizer.encode_text([text])[0]
            self.assertNotIn(special, plain)
            self.assertEqual(tokenizer.decode(plain).strip(), text.encode())

    def test_a_leading_space_is_the_word_start_marker(self):
        tokenizer = open_tokenizer(MISTRAL_V1)
        plain, spaced, two = tokenizer.encode_text(["Haha", " Haha", "  Haha"])
        self.assertEqual(plain, spaced)
        self.assertEqual(tokenizer.decode(two), b"  Haha")


class WholeFolder(FolderTest):
    """The JSON files beside a tokenizer count, as transformers reads them."""

    def config(self, folder, **values):
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    def test_added_tokens_beside_a_sentencepiece_model(self):
        folder = sentencepiece_folder(self.folder, ["<|a|>", "<|b|>"], {"eos_token": "<|b|>"})
        opened = open_tokenizer(folder)
        ids = json.loads((folder / "added_tokens.json").read_text())
        self.assertEqual([opened.id_of("<|a|>"), opened.eos_id], [ids["<|a|>"], ids["<|b|>"]])
        self.assertEqual(opened.encode_prompts(["<|a|>"]), [[ids["<|a|>"]]])
        self.assertEqual((opened.name, opened.begin_ids), ("tokenizer.model", [1]))
        content = (folder / "tokenizer.model").read_bytes()
        self.assertEqual(opened.sha256, hashlib.sha256(content).hexdigest())

    def test_plain_text_keeps_the_ids_of_the_sentencepiece_model(self):
        # A model_type without a tokenizer class of its own: transformers forgets the mark of the first word.
        folder = sentencepiece_folder(self.folder, [], {"tokenizer_class": "LlamaTokenizer"})
        (folder / "config.json").write_text('{"model_type": "mistral"}')
        warnings = []
        opened = open_tokenizer(folder, warn=warnings.append)
        alone = open_tokenizer(folder / "tokenizer.model")
        self.assertEqual(opened.encode_text([HARD_TEXT]), alone.encode_text([HARD_TEXT]))
        self.assertEqual([line.split("; ")[1] for line in warnings], ["those of tokenizer.model are used"])

    def test_tokens_that_only_the_configuration_adds_to_a_tokenizer_json(self):
        folder = byte_level(self.folder, ["<e>"], {"eos_token": "<e>", "pad_token": "<pad>"})
        opened = open_tokenizer(folder)
        self.assertEqual(opened.encode_prompts(["<pad>"]), [[opened.id_of("<e>") + 1]])
        listed = {"eos_token": "<e>", "additional_special_tokens": ["<e>", "<tool>"]}
        opened = open_tokenizer(byte_level(self.folder / "listed", ["<e>"], listed))
        self.assertEqual(opened.encode_prompts(["<tool>"]), [[opened.id_of("<e>") + 1]])

    def test_vocabulary_and_merges(self):
        folder = split_folder(self.folder, ["<e>"], {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<e>"})
        opened = open_tokenizer(folder)
        self.assertEqual((opened.name, opened.token_text(opened.eos_id)), ("vocab.json", "<e>"))
        self.assertEqual(opened.decode(opened.encode_text([HARD_TEXT])[0]), HARD_TEXT.encode())

    def test_transformers_is_asked_only_where_it_can_matter(self):
        folder = byte_level(self.folder, ["<s>", "<e>"], {"bos_token": "<s>", "eos_token": "<e>"})
        token = json.loads((folder / "tokenizer.json").read_text())["added_tokens"][1]
        number = str(token.pop("id"))
        asked = "plural_text.prepare.tokenizer_files.open_folder"
        with mock.patch(asked, side_effect=AssertionError):
            self.config(folder, added_tokens_decoder={number: token}, model_max_length=512)
            self.assertEqual(open_tokenizer(folder).id_of("<e>"), int(number))
            open_tokenizer(folder / "tokenizer.json")
        for change in ({number: {**token, "lstrip": True}}, {"400": token}, {"400": {"content": "<new>"}}):
            self.config(folder, added_tokens_decoder=change)
            with mock.patch(asked, side_effect=AssertionError), self.assertRaises(AssertionError):
                open_tokenizer(folder)

    def test_a_folder_that_transformers_cannot_open(self):
        folder = sentencepiece_folder(self.folder, ["<|a|>"])
        warned = []
        with mock.patch("plural_text.prepare.tokenizer_files.open_folder", return_value="no such class"):
            with self.assertRaisesRegex(BadData, r"'<\|a\|>' with id \d+ is not in .*\(no such class\)"):
                open_tokenizer(folder, warn=warned.append)
            (folder / "added_tokens.json").write_text("{}")
            self.config(folder, added_tokens_decoder={"1": {"content": "<s>"}})
            self.assertEqual(open_tokenizer(folder, warn=warned.append).bos_id, 1)
        self.assertEqual([line.count("no such class") for line in warned], [1])

    def test_what_stands_before_a_text(self):
        folder = byte_level(self.folder, ["<s>", "<e>"], {"bos_token": "<s>", "eos_token": "<e>"})
        begin = [open_tokenizer(folder).id_of("<s>")]
        self.assertEqual(open_tokenizer(folder).begin_ids, begin)  # named, and nothing says otherwise
        layout = json.loads((folder / "tokenizer.json").read_text())
        layout["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
        layout["post_processor"]["use_regex"] = True
        (folder / "tokenizer.json").write_text(json.dumps(layout))
        self.assertEqual(open_tokenizer(folder).begin_ids, [])  # the tokenizer puts none
        self.assertEqual(open_tokenizer(folder, bos="<e>").begin_ids, [begin[0] + 1])
        self.config(folder, add_bos_token=True)
        self.assertEqual(open_tokenizer(folder).begin_ids, begin)
        self.assertEqual(open_tokenizer(folder).with_begin([*begin, 5]), [*begin, 5])
        self.config(folder, add_bos_token=False)
        self.assertEqual(open_tokenizer(folder).with_begin([5]), [5])

    def test_added_tokens_go_through_the_decoder(self):
        file = metaspace_json(self.folder / "tokenizer.json")
        layout = json.loads(file.read_text())
        spaces = {**layout["added_tokens"][0], "content": "\u2581\u2581", "special": False, "id": 500}
        layout["added_tokens"].append(spaces)
        file.write_text(json.dumps(layout))
        opened = open_tokenizer(file)
        self.assertEqual(opened.token_bytes[opened.id_of("\u2581\u2581")], b"  ")


class Opening(FolderTest):
    def test_fingerprint_is_that_of_the_file_and_json_goes_first(self):
        folder = byte_level_folder(self.folder / "model")
        shutil.copy(MISTRAL_V1, folder / "tokenizer.model")
        opened = open_tokenizer(folder)
        self.assertEqual(opened.name, "tokenizer.json")
        self.assertEqual(opened.sha256, hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest())
        (folder / "tokenizer.json").unlink()
        self.assertEqual(open_tokenizer(folder).name, "tokenizer.model")

    def test_begin_and_end_tokens(self):
        folder = byte_level_folder(self.folder / "model")
        opened = open_tokenizer(folder)
        self.assertEqual(
            (opened.token_text(opened.bos_id), opened.token_text(opened.eos_id)), ("<start>", "<end>")
        )
        (folder / "tokenizer_config.json").write_text('{"bos_token": null}')
        (folder / "generation_config.json").write_text('{"eos_token_id": [1, 7]}')
        opened = open_tokenizer(folder)
        self.assertEqual((opened.bos_id, opened.eos_id), (None, 1))
        self.assertEqual(open_tokenizer(folder, bos="the").bos_id, opened.id_of("the"))

    def refused(self, kind, words, *arguments, **options):
        with self.assertRaises(kind) as caught:
            open_tokenizer(*arguments, **options)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_refused(self):
        self.refused(MissingInput, ["absent", "nor a name of the Hugging Face Hub"], self.folder / "absent")
        self.refused(MissingInput, ["looked for tokenizer.json"], self.folder)
        bare = train_byte_level(self.folder)
        self.refused(BadData, ["no end token", "--eos"], bare)
        self.refused(BadData, ["--eos 'nope'"], bare, eos="nope")
        for name, content, words in (
            ("cut.json", bare.read_text()[:500], ["cut.json", "not a tokenizer"]),
            ("other.json", '{"a": 1}', ["neither"]),
            ("broken.json", '{"model": {"type": "BPE"}}', ["not a usable tokenizer.json"]),
            ("noise.model", "\x08noise", ["not a sentencepiece model"]),
            ("empty.model", "", ["not a sentencepiece model"]),
            ("tekken.json", '{"config": {"version": "v9"}, "vocab": []}', ["not a usable tekken file"]),
        ):
            file = self.folder / name
            file.write_text(content)
            self.refused(BadData, words, file)
        (self.folder / "tokenizer_config.json").write_text('{"eos_token": "nope"}')
        self.refused(BadData, ["tokenizer_config.json", "nope"], bare)


if __name__ == "__main__":
    unittest.main()

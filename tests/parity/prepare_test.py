"""`plural prepare` against transformers and mistral-common: the ids of prompts and responses are theirs."""

import itertools
import json
import unittest
import warnings

from plural_text.prepare.chat_turn import ChatTurn
from plural_text.prepare.corpus_check import CorpusCheck
from plural_text.prepare.formats import Record
from plural_text.prepare.groups import GroupBuilder, Limits
from plural_text.prepare.masks import MaskBuilder, StopWords
from plural_text.prepare.ratings import RatingBuilder
from plural_text.prepare.templates import open_template, template_names
from text.support import MISTRAL_DATA, FolderTest, open_tokenizer
from text.tiny_tokenizers import TEMPLATES, byte_level, metaspace, sentencepiece_folder, split_folder

# The question has two spaces, an accent and a line end; responses begin with a letter, a sign and a digit.
TURNS = [{"role": "user", "content": "Name a  fruit.\nA caf\u00e9?"}]
LATER = [*TURNS, {"role": "assistant", "content": "Plum."}, {"role": "user", "content": "Which one?"}]
RESPONSES = ["Quince and apple.", "(Plum)", "3 apples"]

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
# Name: how the folder is made, the chat template, the token that ends a response.
PAIRS = {
    "Llama 2": (metaspace, [], NAMES, "inst with spaces", "</s>"),
    "Zephyr, TinyLlama": (metaspace, [], NAMES, "roles as text", "</s>"),
    "Llama 3": (
        byte_level,
        ["<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"],
        {"bos_token": "<|begin|>", "eos_token": "<|eot|>"},
        "headers",
        "<|eot|>",
    ),
    "Qwen 2 base": (
        byte_level,
        CHATML,
        {"bos_token": None, "eos_token": "<|endoftext|>"},
        "default system",
        "<|im_end|>",
    ),
    "Qwen 3": (byte_level, CHATML, {"bos_token": None, "eos_token": "<|im_end|>"}, "thinking", "<|im_end|>"),
    "Gemma": (
        lambda *arguments: metaspace(*arguments, prefix=False),
        ["<start_of_turn>", "<end_of_turn>"],
        NAMES,
        "turns",
        "<end_of_turn>",
    ),
    "Phi-3": (
        lambda *arguments: metaspace(*arguments, rstrip=["<|user|>", "<|assistant|>", "<|end|>"]),
        ["<|user|>", "<|assistant|>", "<|end|>"],
        {**NAMES, "add_bos_token": False},
        "roles with end",
        "<|end|>",
    ),
    "Phi-4": (
        byte_level,
        [*CHATML, "<|im_sep|>"],
        {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        "separator",
        "<|im_end|>",
    ),
    "Nemo": (
        byte_level,
        ["<s>", "</s>", "[INST]", "[/INST]"],
        {"bos_token": "<s>", "eos_token": "</s>"},
        "inst",
        "</s>",
    ),
    "Mistral fast, spaces in the template": (
        byte_level,
        ["<s>", "</s>", "[INST]", "[/INST]"],
        {"bos_token": "<s>", "eos_token": "</s>"},
        "inst with spaces",
        "</s>",
    ),
    "ChatML tune of Llama, tokenizer.model": (
        sentencepiece_folder,
        ["<|im_end|>", "<|im_start|>"],
        {"eos_token": "<|im_end|>"},
        "chatml",
        "<|im_end|>",
    ),
    "ChatML in vocab.json": (
        split_folder,
        CHATML,
        {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": "<|endoftext|>",
            "eos_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
            "additional_special_tokens": ["<|im_start|>"],
        },
        "chatml",
        "<|im_end|>",
    ),
}


def builder(kind, tokenizer, template, possibilities=0):
    masks = MaskBuilder(tokenizer, StopWords())
    return kind(tokenizer, template, masks, Limits(possibilities))


class ChatTemplates(FolderTest):
    def test_prompts_and_responses_are_those_of_transformers(self):
        from transformers import AutoTokenizer

        for i, (name, (make, special, config, key, end)) in enumerate(PAIRS.items()):
            with self.subTest(name):
                folder = make(self.folder / str(i), special, config, TEMPLATES[key])
                self.check(folder, AutoTokenizer.from_pretrained(folder), end, key == "thinking")

    def check(self, folder, theirs, end, differs):
        warned = []
        tokenizer = open_tokenizer(folder, warn=warned.append)
        template = open_template(None, "chat", tokenizer)
        self.assertEqual(ChatTurn(template, tokenizer).end_id, theirs.convert_tokens_to_ids(end))
        tokenizer.eos_id = theirs.convert_tokens_to_ids(end)
        records = [Record(f"g{i}", f"f:{i}", turns, RESPONSES) for i, turns in enumerate((TURNS, LATER))]
        check = CorpusCheck(tokenizer, template)
        for record, group in zip(records, builder(GroupBuilder, tokenizer, template).build(records)):
            check.add(record, group)
            self.compare(record, group, theirs, differs)
        check.report(warned.append)
        self.assertEqual(len(warned), int(differs), warned)

    def compare(self, record, group, theirs, differs):
        prompt = group.prompt + group.tails[0]
        shown = lambda ids: theirs.convert_ids_to_tokens(ids)
        apply = lambda turns, asks: theirs.apply_chat_template(
            turns, add_generation_prompt=asks, return_dict=False
        )
        self.assertEqual(shown(prompt), shown(apply(record.turns, True)))
        for text, ids in zip(RESPONSES, group.responses):
            whole = apply([*record.turns, {"role": "assistant", "content": text}], False)
            if differs:
                self.assertNotEqual(whole[: len(prompt + ids)], prompt + ids)
                continue
            # Llama 2's template writes a space before the end token, which no model has to learn.
            end = len(prompt) + len(ids) - 1
            self.assertEqual(shown(whole[:end]), shown(prompt + ids[:-1]))
            self.assertIn(ids[-1], whole[end : end + 2])


class MistralTemplates(unittest.TestCase):
    """Every version of the format that mistral-common ships, with every mistral-* template."""

    FILES = sorted(p for p in MISTRAL_DATA.iterdir() if ".model" in p.name or p.name.startswith("tekken"))

    def test_prompts_are_those_of_mistral_common(self):
        self.assertGreaterEqual(len(self.FILES), 6)
        for file in self.FILES:
            theirs, tokenizer = self.theirs(file), open_tokenizer(file)
            for name in (n for n in template_names() if n.startswith("mistral-")):
                with self.subTest(f"{file.name}, {name}"):
                    self.check(theirs, tokenizer, name)

    def theirs(self, file):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

            return MistralTokenizer.from_file(str(file))

    def check(self, theirs, tokenizer, name):
        source_format = "targets" if "targets" in name else "dialogue"
        template = open_template(name, source_format, tokenizer)
        turns = ["Name a fruit."] if source_format == "targets" else ["Hello!", "Hi. How are you?"]
        record = Record("g", "f:1", turns, ["Fine, thanks."])
        numbers = 3 if template.has_numbers() else 0
        kind = RatingBuilder if template.ratings else GroupBuilder
        (group,) = builder(kind, tokenizer, template, numbers).build([record])
        written = json.loads(open_template.__globals__["FOLDER"].joinpath(f"{name}.json").read_text())
        for k in range(numbers + 1):
            text = self.filled(written, template, turns, k)
            content, answer = text.removeprefix("[INST] ").split(" [/INST]")
            expected = self.encode(theirs, content, answer.removeprefix(" "))
            if not template.ratings:
                self.assertEqual(group.prompt + group.tails[k], expected)
        if template.ratings:
            before, after = self.encode(theirs, content, ""), group.tails[0]
            shared = len(self.common(before, group.prompt))
            # The text before the response's place, but for its last token, which the response may change.
            self.assertGreaterEqual(shared, len(group.prompt) - 1)
            self.assertEqual(after[-len(self.answer(theirs, answer)) :], self.answer(theirs, answer))
            self.assertEqual(tokenizer.decode(after).decode().count("  "), 0)
        elif source_format == "targets":
            self.assertEqual(group.responses[0][:-1], self.answer(theirs, "Fine, thanks."))

    def filled(self, written, template, turns, k):
        numbered = "prompt_with_count" if "prompt_with_count" in written else "prompt_with_number"
        text = written[numbered if k else "prompt"]
        labelled = "\n".join(template._labelled(turns))
        values = {"{context}": labelled, "{request}": labelled, "{k}": str(k), "{response}": ""}
        for key, value in values.items():
            text = text.replace(key, value)
        return text

    def encode(self, theirs, content, answer):
        from mistral_common.protocol.instruct.messages import UserMessage
        from mistral_common.protocol.instruct.request import ChatCompletionRequest

        request = ChatCompletionRequest(messages=[UserMessage(content=content)])
        return theirs.encode_chat_completion(request).tokens + self.answer(theirs, answer)

    def answer(self, theirs, text):
        text = text.removeprefix(" ")
        return theirs.instruct_tokenizer.tokenizer.encode(text, bos=False, eos=False) if text else []

    @staticmethod
    def common(a, b):
        return list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


if __name__ == "__main__":
    unittest.main()

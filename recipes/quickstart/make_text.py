"""Writes the quickstart's text: what a small model learns from nothing, and what it is then tuned on.

    python make_text.py OUT_FOLDER

OUT_FOLDER gets
  tokenizer/tokenizer.json    a byte-level BPE tokenizer trained on the text below
  model.jsonl                 {"text"}: every question with its favourite answer most of the time
  questions-train.jsonl       {"id","context","candidates"}: 300 questions, 4 of their 6 good answers each
  questions-test.jsonl        {"id","context"}: 30 questions of topics that tuning never sees
  targets-train/*.json        target sets in three wordings each
  targets-test/*.json         the same sets in a wording that tuning never sees
Everything follows from questions.json: no draw depends on the machine.
"""

import json
import pathlib
import random
import sys

# Documents about one question, and how many give the favourite answer; the other five answers share the rest.
DOCUMENTS_PER_QUESTION = 25
FAVOURITE_DOCUMENTS = 20
# Documents about one wording of a target set, and how many give the favourite: models often prefer one so
# much.
DOCUMENTS_PER_WORDING = 100
FAVOURITE_TARGET_DOCUMENTS = 60
NUMBERS = 9
ANSWERS_TUNED_ON = 4


def prompt_text(question, number):
    """The prompt that template.json (and the template plain-targets, without numbers) makes of a question."""
    return question + (f" Way {number}." if number else "") + "\n"


def questions(spec):
    """(id, category, question, held out) of every topic."""
    for category in spec["categories"]:
        first_held_out = len(category["topics"]) - spec["held_out_topics_per_category"]
        for place, topic in enumerate(category["topics"]):
            yield (
                f"{category['name']}/{topic}",
                category,
                category["question"].format(topic),
                place >= first_held_out,
            )


def model_documents(spec, draw):
    for _, category, question, _ in questions(spec):
        favourite, others = category["answers"][0], category["answers"][1:]
        rest = DOCUMENTS_PER_QUESTION - FAVOURITE_DOCUMENTS
        answers = [favourite] * FAVOURITE_DOCUMENTS + [others[i % len(others)] for i in range(rest)]
        for answer in answers:
            # The model has read numbers, but they mean nothing to it yet.
            yield prompt_text(question, draw.randrange(NUMBERS + 1)) + answer
    for target_set in spec["target_sets"]:
        others = [target for target in target_set["targets"] if target != target_set["favourite"]]
        rest = DOCUMENTS_PER_WORDING - FAVOURITE_TARGET_DOCUMENTS
        for wording in target_set["wordings"]:
            targets = [target_set["favourite"]] * FAVOURITE_TARGET_DOCUMENTS
            targets += [others[i % len(others)] for i in range(rest)]
            for target in targets:
                yield prompt_text(wording, 0) + target


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_tokenizer(folder, documents):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}),
        encoding="utf-8",
    )


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = pathlib.Path(sys.argv[1])
    spec = json.loads((pathlib.Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    draw = random.Random(1)

    documents = list(model_documents(spec, draw))
    draw.shuffle(documents)
    out.mkdir(parents=True, exist_ok=True)
    write_tokenizer(out / "tokenizer", sorted(set(documents)))
    write_lines(out / "model.jsonl", ({"text": document} for document in documents))

    train, test = [], []
    for name, category, question, held_out in questions(spec):
        if held_out:
            test.append({"id": name, "context": question})
        else:
            answers = draw.sample(category["answers"], ANSWERS_TUNED_ON)
            train.append({"id": name, "context": question, "candidates": answers})
    write_lines(out / "questions-train.jsonl", train)
    write_lines(out / "questions-test.jsonl", test)

    for target_set in spec["target_sets"]:
        for place, wording in enumerate(target_set["wordings"]):
            folder = out / ("targets-test" if place == len(target_set["wordings"]) - 1 else "targets-train")
            folder.mkdir(exist_ok=True)
            row = {"request": wording, "response": [""], "targets": target_set["targets"]}
            (folder / f"{target_set['name']}-{place}.json").write_text(json.dumps(row), encoding="utf-8")


if __name__ == "__main__":
    main()

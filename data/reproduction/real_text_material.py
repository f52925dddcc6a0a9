"""The real-text study's material: conversations and written replies, as the commands read them.

    python real_text_material.py DIALOGUES_DIR OUT_FOLDER

DIALOGUES_DIR holds dialogues_one_to_one.jsonl, dialogues_one_to_many.jsonl and dialogues_test.jsonl, lines of
{"context": turns joined by newline, "candidates": [replies]}. OUT_FOLDER gets
  tokenizer/           byte-level BPE trained on model.jsonl; the end of a line is the end token
  model.jsonl          {"text"}: what the model reads from nothing
  one-to-one.jsonl     {"id","context","candidates"}: one reply each
  one-to-many.jsonl    the same with ten
  test.jsonl           the same: contexts that nothing above holds
The model reads whole conversations and, as lines without their context, further replies. It never sees a reply
that a method is tuned on later: not the first ones of the one-to-one file, none to a one-to-many context.
"""

import json
import pathlib
import sys

VOCABULARY = 4096
# At most so many loose replies a context: some contexts have ten, most four.
LOOSE_REPLIES = 3


def read(folder, name):
    path = pathlib.Path(folder) / name
    try:
        with open(path, encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines if line.strip()]
    except OSError as error:
        sys.exit(f"reproduce: error: {path}: {error.strerror}; give the folder that holds it [exit 66]")
    for row in rows:  # a line's end is the end token: only turns may be separated by it
        row["context"] = "\n".join(" ".join(turn.split()) for turn in row["context"].split("\n"))
        row["candidates"] = [" ".join(reply.split()) for reply in row.get("candidates", [])]
    return rows


def conversation(context):
    """Labelled as template.json labels a prompt: backwards from the last turn, which is A's."""
    turns = context.split("\n")
    return "\n".join(("A:" if (len(turns) - i) % 2 else "B:") + turn for i, turn in enumerate(turns))


def model_documents(one_to_one, one_to_many):
    tuned_on = {row["context"] for row in one_to_many}
    for row in one_to_one:
        yield conversation(row["context"])
        if row["context"] not in tuned_on:
            for reply in row["candidates"][1 : 1 + LOOSE_REPLIES]:
                yield "B:" + reply


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_tokenizer(folder, documents):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    newline = "\u010a"  # the byte-level alphabet's sign for it
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": newline}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return tokenizer.token_to_id(newline)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = sys.argv[1], pathlib.Path(sys.argv[2])
    one_to_one = read(source, "dialogues_one_to_one.jsonl")
    one_to_many = read(source, "dialogues_one_to_many.jsonl")
    test = read(source, "dialogues_test.jsonl")
    out.mkdir(parents=True, exist_ok=True)
    documents = list(model_documents(one_to_one, one_to_many))
    end = write_tokenizer(out / "tokenizer", documents)
    write_lines(out / "model.jsonl", ({"text": document} for document in documents))
    for row in one_to_one:
        row["candidates"] = row["candidates"][:1]
    for name, rows in (("one-to-one", one_to_one), ("one-to-many", one_to_many), ("test", test)):
        write_lines(out / f"{name}.jsonl", ({"id": f"{name}/{i}", **row} for i, row in enumerate(rows)))
    print(f"{len(documents)} documents, end token {end}, {len(one_to_one)} contexts with one reply, "
          f"{len(one_to_many)} with ten, {len(test)} to test")


if __name__ == "__main__":
    main()

"""The checklist's part about generation: answers with the kernels for it and without.

A draw is keyed by its response and token, wherever it is made: without the kernel that draws, every token is
the same. Another attention rounds otherwise, and of two nearly equal tokens the other may come.
"""

import json

ALIKE = {"sampling": 1.0, "paged": 0.8}  # the share of equal answers without each kernel
WAYS = {
    "greedy answers": ["--temperature", "0"],
    "samples": ["--temperature", "0.9", "--top-k", "40", "--top-p", "0.95", "--seed", "3"],
}


def check(checklist):
    model = checklist.folder_of_weights().removeprefix("path: ")
    for name, words in WAYS.items():
        try:
            answers = {without: tokens(checklist, model, words, without) for without in ("", *ALIKE)}
        except RuntimeError as error:
            checklist.report(f"generate: {name}", False, {"error": str(error)})
            continue
        for without, share in ALIKE.items():
            same = sum(a == b for a, b in zip(answers[""], answers[without], strict=True))
            checklist.report(
                f"generate: {name} without the kernel '{without}'",
                same >= share * len(answers[""]),
                {"same": same, "of": len(answers[""])},
            )


def tokens(checklist, model, words, without):
    output = checklist.folder / "kernels.jsonl"
    corpus = ["--corpus", str(checklist.corpora["small"]), "--limit", "12"]
    lengths = ["--responses", "2", "--max-new-tokens", "12"]
    place = ["--model", model, "--device", checklist.arguments.device, "--force", "-o", str(output)]
    checklist.plural("generate", *corpus, *lengths, *words, *place, without=without)
    return [response["tokens"] for line in open(output) for response in json.loads(line)["responses"]]

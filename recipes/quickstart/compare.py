"""Prints the quickstart's result: the model before and after tuning, side by side.

    python compare.py FOLDER

Reads from FOLDER questions-{before,after}.jsonl (plural generate) and targets-{before,after}.json (plural
evaluate), writes summary.json, and exits with 1 when the effect that the README promises is not there.
"""

import json
import math
import pathlib
import sys


def valid_answers():
    spec = json.loads((pathlib.Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    return {category["name"]: set(category["answers"]) for category in spec["categories"]}


def read_responses(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def figures(prompts, valid):
    """Averages over prompts: different answers of those drawn, share of valid ones, entropy of an answer."""
    different = valid_share = entropy = 0.0
    for prompt in prompts:
        answers = [response["text"].strip() for response in prompt["responses"]]
        counts = [answers.count(answer) for answer in set(answers)]
        different += len(counts)
        entropy -= sum(n / len(answers) * math.log(n / len(answers)) for n in counts)
        valid_share += sum(a in valid[prompt["id"].split("/")[0]] for a in answers) / len(answers)
    n = len(prompts)
    return {
        "prompts": n,
        "different_answers": different / n,
        "valid_share": valid_share / n,
        "entropy_nats": entropy / n,
    }


def side_by_side(title, before, after, width=44):
    print(f"\n{title}")
    print(f"  {'before':<{width}}  after")
    for left, right in zip(before, after):
        print(f"  {left:<{width}}  {right}")


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    valid = valid_answers()
    questions = {w: read_responses(folder / f"questions-{w}.jsonl") for w in ("before", "after")}
    targets = {w: json.loads((folder / f"targets-{w}.json").read_text()) for w in ("before", "after")}
    summary = {
        w: {"questions": figures(questions[w], valid), "targets": targets[w]["summary"]} for w in questions
    }

    shown = questions["before"][:: max(1, len(questions["before"]) // 3)][:3]
    for prompt in shown:
        pair = [next(p for p in questions[w] if p["id"] == prompt["id"]) for w in ("before", "after")]
        answers = [[r["text"].strip() for r in p["responses"]] for p in pair]
        side_by_side(prompt["prompt"].replace("<s>", "").strip(), *answers)

    q, t = ({w: summary[w][part] for w in summary} for part in ("questions", "targets"))
    n = q["before"]["prompts"]
    drawn = len(questions["before"][0]["responses"])
    rows = [
        (f"different answers of {drawn}", q, "different_answers", "{:.2f}"),
        ("valid answers, share", q, "valid_share", "{:.3f}"),
        ("entropy of the answers, nats", q, "entropy_nats", "{:.3f}"),
    ]
    target_rows = [
        ("KL to the target, nats", t, "kl_nats", "{:.4f}"),
        ("entropy on the targets, nats", t, "entropy_nats", "{:.3f}"),
        ("mass on the targets", t, "target_mass", "{:.4f}"),
    ]
    for heading, table in (
        (f"Averages over {n} questions that tuning never saw", rows),
        (f"Averages over {t['before']['groups']} target sets, worded as tuning never saw them", target_rows),
    ):
        print(f"\n{heading:<60}{'before':>10}{'after':>10}")
        for label, values, key, form in table:
            before, after = (form.format(values[w][key]) for w in ("before", "after"))
            print(f"  {label:<58}{before:>10}{after:>10}")

    checks = {
        "at least twice as many different answers": q["after"]["different_answers"]
        >= 2 * q["before"]["different_answers"],
        "at least 90 % valid": q["after"]["valid_share"] >= 0.9,
        "KL to the targets below 0.05 nats": t["after"]["kl_nats"] < 0.05,
    }
    summary["checks"] = checks
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print()
    for name, holds in checks.items():
        print(f"  {'yes' if holds else 'NO ':<4} {name}")
    sys.exit(0 if all(checks.values()) else 1)


if __name__ == "__main__":
    main()

"""`--method diverse-beam` against outputs of transformers' group beam search: token for token, and scores."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

from training import PLURAL, mpirun, write_corpus

VOCABULARY = [b"<%d>" % i for i in range(26)]
END = 2
# Sums of up to 16 fp32 log-probabilities and penalties of size 5, divided by their number, in another order
# of operations: a few 1e-6. The contract is this:
SCORE_TOLERANCE = 1e-4
# Candidates nearer than this are equal in fp32: 16 roundings of sums near 16.
TIE = 16 * 16 * 2.0**-24


def golden_cases() -> tuple[pathlib.Path, list[dict]]:
    folder = os.environ.get("PLURAL_SHARED_DIR", "")
    golden = pathlib.Path(folder) / "golden" / "dbs"
    if not folder or not golden.is_dir():
        raise unittest.SkipTest(
            "no outputs of transformers: PLURAL_SHARED_DIR does not name a folder with golden/dbs/"
        )
    return golden / "model", json.loads((golden / "diverse_beam_search.json").read_text())


class DiverseBeamSearchTest(unittest.TestCase):
    def setUp(self):
        self.model, self.cases = golden_cases()
        self.work = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def generate(self, cases: list[dict], *more: str, launcher=()) -> list[dict]:
        """Our responses to the prompts of cases that share their settings."""
        first = cases[0]
        corpus, output = self.work / "prompts.h5", self.work / "answers.jsonl"
        write_corpus(corpus, [(case["prompt_tokens"], [[]], []) for case in cases], vocabulary=VOCABULARY)
        subprocess.run(
            [
                *launcher,
                PLURAL,
                "generate",
                "--model",
                self.model,
                "--corpus",
                corpus,
                "-o",
                output,
                "--force",
                "--method",
                "diverse-beam",
                "--beams",
                str(first["beams"]),
                "--beam-groups",
                str(first["groups"]),
                "--diversity-penalty",
                str(first["diversity_penalty"]),
                "--responses",
                str(first["beams"]),
                "--max-new-tokens",
                str(first["max_new_tokens"]),
                "--threads",
                "1",
                *more,
            ],
            check=True,
            capture_output=True,
            text=True,
        )
        return [json.loads(line) for line in output.read_text().splitlines()]

    def by_settings(self) -> list[list[dict]]:
        groups: dict[tuple, list[dict]] = {}
        for number, case in enumerate(self.cases):
            key = (case["beams"], case["groups"], case["diversity_penalty"], case["max_new_tokens"])
            groups.setdefault(key, []).append({**case, "number": number})
        return list(groups.values())

    def check(self, case: dict, answer: dict) -> None:
        ours = [response["tokens"] + [END] * response["finished"] for response in answer["responses"]]
        scores = [response["score"] for response in answer["responses"]]
        expected = case["responses"]
        self.assertEqual(len(ours), len(expected))
        for score, response in zip(scores, expected):
            self.assertLess(abs(score - response["score"]), SCORE_TOLERANCE, f"case {case['number']}")
        for rank, response in enumerate(expected):
            if ours[rank] == response["tokens"]:
                continue
            # Responses of equal score may stand in either order.
            tied = [i for i, score in enumerate(scores) if abs(score - response["score"]) < TIE]
            self.assertIn(
                response["tokens"], [ours[i] for i in tied], f"case {case['number']}, response {rank}"
            )
            print(
                f"case {case['number']}: response {rank} ties with {sorted(set(tied) - {rank})} within fp32 "
                f"rounding, scores {[scores[i] for i in tied]}; their order differs"
            )

    def test_every_case(self):
        self.assertEqual(len(self.cases), 16)
        exact, largest = 0, 0.0
        for cases in self.by_settings():
            for case, answer in zip(cases, self.generate(cases), strict=True):
                with self.subTest(case["number"]):
                    self.check(case, answer)
                exact += all(
                    r["tokens"] == o["tokens"] + [END] * o["finished"]
                    for r, o in zip(case["responses"], answer["responses"])
                )
                largest = max(
                    largest,
                    *(abs(r["score"] - o["score"]) for r, o in zip(case["responses"], answer["responses"])),
                )
        print(
            f"{exact} of {len(self.cases)} cases equal token for token, in order; "
            f"largest difference of a score {largest:.1e}"
        )

    def test_neither_batch_nor_ranks_change_an_answer(self):
        cases = self.by_settings()[0]
        keep = lambda lines: [
            (line["id"], [(r["tokens"], r["finished"]) for r in line["responses"]]) for line in lines
        ]
        together = keep(self.generate(cases, "--dtype", "fp64"))
        self.assertEqual(keep(self.generate(cases, "--dtype", "fp64", "--batch", "1")), together)
        self.assertEqual(keep(self.generate(cases, "--dtype", "fp64", launcher=mpirun(2))), together)


if __name__ == "__main__":
    unittest.main()

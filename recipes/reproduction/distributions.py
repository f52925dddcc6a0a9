"""Distribution matching, end to end on a toy: what `launch/reproduce distributions` runs.

One model from nothing a seed; then random numbers, a binomial target, names with and without early stop,
every task alone (leave-one-in), every five of the six (leave-one-out), all six, biographies, and text that
tuning must leave alone. Exact figures come from `plural evaluate`, the others from 1,000 samples at
temperature 1. Owns: which runs and figures. Does not own: the language (distribution_grammar.py), tables and
checks (distribution_tables.py).
"""

from __future__ import annotations

import argparse
import itertools
import math
import random
import statistics
import sys
from pathlib import Path

from distribution_grammar import DistributionGrammar, Request
from distribution_tables import SAMPLES, tables
from plural_text.metrics.biography import ATTRIBUTES, attribute_values, gender_distance, parse
from plural_text.metrics.coverage import answer_key, key_figures
from report import Report
from study import Seed, Study, run
from words import write_lines, write_tokenizer

BASE_EPOCHS, BASE_DOCUMENTS_PER_STEP = 5, 32
GAMMA = 0.2
HELD_OUT_SENTENCES = 300
# Rank 4 learns which 200 of 400 names were meant only slowly: the run without early stop is given this long.
PASSES_WITHOUT_EARLY_STOP = 300
LONGEST_ANSWER, LONGEST_BIOGRAPHY = 8, 32  # tokens
# Tasks whose targets stand for an open set: tuned alone, they stop early.
OPEN_TASKS = ("names", "fruits", "occupations")


class Runs:
    """The runs of one seed, which fill the report. Corpora are made when a run needs them. Thread rule: one
    thread."""

    def __init__(self, seed: Seed, report: Report):
        self._seed, self._report = seed, report
        self._grammar = grammar = DistributionGrammar(random.Random(f"grammar {seed.number}"))
        requests = {
            "rng": [grammar.rng],
            "binomial": [grammar.binomial],
            "all": list(itertools.chain.from_iterable(grammar.tasks.values())),
        }
        for task, own in grammar.tasks.items():
            requests[task] = own
            requests[f"without-{task}"] = [
                r for other, rs in grammar.tasks.items() if other != task for r in rs
            ]
        self._target_sets = {name: [grammar.target_set(r) for r in each] for name, each in requests.items()}
        self._target_sets["biographies"] = [
            grammar.biography_target_set(random.Random(f"biographies {seed.number}"))
        ]
        self._model = self._from_nothing()

    def _from_nothing(self) -> Path:
        draw = random.Random(f"documents {self._seed.number}")
        documents = self._grammar.model_documents(draw)
        vocabulary = write_tokenizer(self._seed.path("text/tokenizer"), documents)
        self._texts("base", documents)
        self._texts("unrelated", [self._grammar.unrelated_sentence(draw) for _ in range(HELD_OUT_SENTENCES)])
        return self._seed.train(
            "base",
            "base",
            {
                "data.train": "corpora/base.h5",
                "model.config.vocab_size": vocabulary,
                "train.epochs": BASE_EPOCHS,
                "train.groups_per_step": BASE_DOCUMENTS_PER_STEP,
            },
        )

    # Parts of the study.

    def closed_sets(self) -> None:
        for request in (self._grammar.rng, self._grammar.binomial):
            self._measure(f"{request.id} base", request.id, [request], None)
            self._measure(f"{request.id} tuned", request.id, [request], self._tune(request.id, request.id))
            self._report.add(f"{request.id} tuned", self._seed.number, self._last_pass(request.id))

    def names(self) -> None:
        """The target set stands for an open one: 200 of 400 names of the same making."""
        requests = self._grammar.tasks["names"]
        self._measure("names base", "names", requests, None)
        for row, adapter in (
            ("names tuned", self._tune("names-tuned", "names", early_stop=True)),
            ("names to the end", self._tune("names-to-the-end", "names", passes=PASSES_WITHOUT_EARLY_STOP)),
        ):
            self._measure(row, "names", requests, adapter)
            self._report.add(row, self._seed.number, self._last_pass(row.replace(" ", "-")))

    def leave_one_out(self, tasks: list[str] | None = None) -> None:
        """tasks: those to leave out, one at a time; None: each."""
        for task in tasks or self._grammar.tasks:
            requests = self._grammar.tasks[task]
            self._measure(f"{task} base", task, requests, None)
            self._measure(f"{task} ood", task, requests, self._tune(f"without-{task}", f"without-{task}"))

    def leave_one_in(self) -> None:
        for task, requests in self._grammar.tasks.items():
            name = "names-tuned" if task == "names" else f"only-{task}"
            self._measure(f"{task} id", task, requests, self._tune(name, task, early_stop=task in OPEN_TASKS))

    def biographies(self) -> None:
        """OOD: tuned on the six tasks. ID goes on from there, as the released code does, or starts from the
        base."""
        everything = self._tune("all", "all")
        adapters = {
            "base": None,
            "ood": everything,
            "id": self._tune("biographies", "biographies", early_stop=True, start=everything),
            "id from base": self._tune("biographies-from-base", "biographies", early_stop=True),
        }
        for row, adapter in adapters.items():
            row = f"biographies {row}"
            texts = [
                response["text"]
                for response in self._sample(row, "biographies", adapter, LONGEST_BIOGRAPHY)[0]["responses"]
            ]
            values = attribute_values(texts)
            # Noise is no diversity: coverage and entropy are of values that the grammar has.
            known = {
                name: [value for value in values[name] if value in self._grammar.fields[name]]
                for name in ATTRIBUTES
            }
            figures = {
                "biography_share": sum(parse(text) is not None for text in texts) / len(texts),
                "unknown_share": 1 - sum(map(len, known.values())) / sum(map(len, values.values())),
                "gender_distance": gender_distance(values["gender"]),
            }
            for name in ATTRIBUTES:
                measured = key_figures(known[name])
                figures |= {
                    f"{name}_coverage": measured.coverage,
                    f"{name}_entropy_nats": measured.entropy_nats,
                }
            self._report.add(row, self._seed.number, figures)

    def unrelated(self) -> None:
        """Text that tuning was not about: both models' perplexity, and how far next-token distributions
        moved."""
        exact = self._seed.evaluate(
            "exact/unrelated.json",
            model=self._model,
            adapter=self._tune("all", "all"),
            corpus="corpora/unrelated.h5",
            options=["--compare-base"],
        )
        figures = exact["summary"]
        self._report.add(
            "unrelated",
            self._seed.number,
            {
                "base_perplexity": figures["base_perplexity"],
                "perplexity": figures["perplexity"],
                "rise_percent": 100 * figures["perplexity_rise_share"],
                "kl_nats_per_token": figures["kl_from_base_nats_per_token"],
                "harmed_percent": harmed_percent(exact["groups"]),
            },
        )

    # Steps. One that is asked for twice runs once.

    def _texts(self, name: str, texts: list[str]) -> None:
        write_lines(self._seed.path(f"text/{name}.jsonl"), ({"text": text} for text in texts))
        self._seed.prepare(f"text/{name}.jsonl", f"corpora/{name}.h5", format="text")

    def _targets(self, name: str) -> str:
        """The corpus of these target sets."""
        write_lines(self._seed.path(f"text/{name}.jsonl"), self._target_sets[name])
        self._seed.prepare(f"text/{name}.jsonl", f"corpora/{name}.h5", format="targets")
        return f"corpora/{name}.h5"

    def _tune(
        self,
        name: str,
        targets: str,
        early_stop: bool = False,
        passes: int | None = None,
        start: Path | None = None,
    ) -> Path:
        overrides = {"model.path": self._model, "data.train": self._targets(targets)}
        if early_stop:
            overrides |= {"early_stop.enabled": "true", "early_stop.gamma": GAMMA}
        if passes:
            overrides["train.epochs"] = passes
        if start:
            overrides["adapter.init_from"] = start
        several_tasks = len({row["id"].split("/")[0] for row in self._target_sets[targets]}) > 1
        recipe = "distribution-matching-tasks" if several_tasks else "distribution-matching"
        return self._seed.train(name, recipe, overrides)

    def _last_pass(self, name: str) -> dict[str, float]:
        """Losses before each prompt's step of the last pass, which early stop looks at."""
        steps = self._seed.metrics(name)
        last = [step["loss"] for step in steps if step["epoch"] == steps[-1]["epoch"]]
        return {"loss_nats": statistics.fmean(last), "passes": steps[-1]["epoch"] + 1}

    def _sample(self, row: str, targets: str, adapter: Path | None, longest: int) -> list[dict]:
        options = ["--responses", SAMPLES, "--temperature", 1, "--max-new-tokens", longest]
        return self._seed.generate(
            f"samples/{row.replace(' ', '-')}.jsonl",
            model=self._model,
            adapter=adapter,
            corpus=self._targets(targets),
            options=options,
        )

    def _evaluate(self, row: str, corpus: str, adapter: Path | None, options: list = ()) -> dict:
        return self._seed.evaluate(
            f"exact/{row.replace(' ', '-')}.json",
            model=self._model,
            adapter=adapter,
            corpus=corpus,
            options=options,
        )["summary"]

    def _measure(self, row: str, targets: str, requests: list[Request], adapter: Path | None) -> None:
        """Means over the requests of a corpus."""
        exact = self._evaluate(row, self._targets(targets), adapter)
        figures = [
            {
                "kl_nats": exact["kl_nats"],
                "exact_entropy_nats": exact["entropy_nats"],
                "target_mass": exact["target_mass"],
            }
        ]
        sampled = [
            _sampled(request, [response["text"] for response in line["responses"]])
            for request, line in zip(
                requests, self._sample(row, targets, adapter, LONGEST_ANSWER), strict=True
            )
        ]
        figures.append({key: statistics.fmean(each[key] for each in sampled) for key in sampled[0]})
        for part in figures:
            self._report.add(row, self._seed.number, part)


def harmed_percent(sentences: list[dict]) -> float:
    """Of 100 sentences, those whose own perplexity rose by over 10 %: the mean may hide a few."""
    rises = [
        (each["base_logprob_nats"] - each["logprob_nats"]) / each["response_tokens"] for each in sentences
    ]
    return 100 * sum(rise > math.log(1.1) for rise in rises) / len(rises)


def _sampled(request: Request, texts: list[str]) -> dict[str, float]:
    """Coverage and entropy of all answers, valid or not, as in the paper; shares of the valid ones."""
    keys = [answer_key(text) for text in texts]
    valid = {answer_key(answer) for answer in request.answers}
    targets = {answer_key(target) for target in request.targets}
    measured = key_figures(keys)
    return {
        "coverage": measured.coverage,
        "entropy_nats": measured.entropy_nats,
        "coverage_valid": len(valid.intersection(keys)),
        "valid_share": sum(key in valid for key in keys) / len(keys),
        "outside_share": sum(key in valid - targets for key in keys) / len(keys),
    }


PARTS = ("closed_sets", "names", "leave_one_out", "leave_one_in", "biographies", "unrelated")


def _parts(text: str) -> list[str]:
    parts = text.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    return parts


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--parts",
        type=_parts,
        default=list(PARTS),
        metavar="PART,...",
        help=f"only these: {', '.join(PARTS)}",
    )


def work(study: Study) -> None:
    parts = study.options.parts

    def one_seed(seed: Seed) -> None:
        runs = Runs(seed, study.report)
        for part in parts:
            getattr(runs, part)()

    study.each_seed(one_seed)
    if set(parts) != set(PARTS):
        study.report.run_in_part("--parts")
    tables(study.report, parts)


if __name__ == "__main__":
    sys.exit(run("distributions", __doc__.splitlines()[0], work, add_options))

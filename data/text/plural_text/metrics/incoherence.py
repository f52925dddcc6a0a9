"""Incoherence: the share of responses that are rated below 6 of 10.

Two sources: the `rating` of each response (`plural rate`: the expected rating of a local model), and judges
behind endpoints. With several judges a response is incoherent if every judge that does not abstain rates it
below 6 and at least one voted; where all abstain it is left out. Judges are asked in turn and only while none
has settled a response. Intervals are Wilson's over responses: a bootstrap has no width where none is
incoherent.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from plural_text.common.errors import BadData, UsageError
from plural_text.common.options import number, whole_number
from plural_text.metrics.bootstrap import interval, wilson
from plural_text.metrics.figure import Figure, undefined
from plural_text.metrics.responses import Answers
from plural_text.prepare.formats import InputFiles

THRESHOLD = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("judges (incoherence)").add_argument
    add(
        "--judge",
        action="append",
        default=[],
        metavar="BASE_URL",
        help="an OpenAI-compatible endpoint, such as http://localhost:8000/v1; may be given several times",
    )
    add("--judge-model", action="append", default=[], metavar="NAME", help="its model, one for each --judge")
    add(
        "--judge-key-variable",
        action="append",
        default=[],
        metavar="NAME",
        help="environment variable with its key (default: OPENAI_API_KEY)",
    )
    add(
        "--judge-template",
        type=Path,
        metavar="FILE.json",
        help="the question (default: coherence, in the form of P1, words ours)",
    )
    add(
        "--judge-contexts",
        type=Path,
        metavar="FILE",
        help="the dialogues as prepare --format dialogue reads them: judges then see the conversation alone, "
        "by id (default: the whole prompt, with what its template says)",
    )
    add(
        "--judge-cache",
        type=Path,
        metavar="FILE.jsonl",
        help="answers are kept here (default: RESPONSES.jsonl.judges.jsonl)",
    )
    add(
        "--judge-parallel",
        type=whole_number(1, 256),
        default=4,
        metavar="N",
        help="requests at a time (default: 4)",
    )
    add(
        "--judge-requests-per-minute",
        type=number(0, 1e6),
        default=0.0,
        metavar="N",
        help="0: no limit (default)",
    )
    add("--judge-timeout-seconds", type=number(0.1, 3600), default=60.0, metavar="S", help="(default: 60)")
    add(
        "--judge-retries",
        type=whole_number(0, 100),
        default=5,
        metavar="N",
        help="tries after a failed one, with growing waits (default: 5)",
    )


def decide(ratings: Sequence[float | None]) -> bool | None:
    """True when a response with these ratings is incoherent; None when every judge abstains."""
    votes = [rating for rating in ratings if rating is not None]
    return all(rating < THRESHOLD for rating in votes) if votes else None


def figures(answers: list[Answers], arguments) -> list[Figure]:
    found = _rated(answers)
    if arguments.judge or arguments.judge_model:
        return found + _judged(answers, arguments)
    for option in ("template", "cache", "contexts"):
        if getattr(arguments, f"judge_{option}"):
            raise UsageError(f"--judge-{option} is for judges; give --judge and --judge-model, too")
    return found


def _rated(answers: list[Answers]) -> list[Figure]:
    ratings = [response.rating for prompt in answers for response in prompt.responses]
    known = [rating for rating in ratings if rating is not None]
    names = "incoherence_rated_percent", "coherence_rating_mean"
    if not known:
        reason = "no response has a rating; let plural rate write them, or give --judge and --judge-model"
        return [undefined(name, 0, "responses", reason) for name in names]
    note = (
        f"{len(ratings) - len(known):,} responses without a rating left out"
        if len(known) < len(ratings)
        else ""
    )
    sums = [
        [response.rating for response in prompt.responses if response.rating is not None]
        for prompt in answers
    ]
    return [
        _percent(names[0], sum(rating < THRESHOLD for rating in known), len(known), note),
        Figure(
            names[1],
            sum(known) / len(known),
            len(known),
            "responses",
            interval(list(map(sum, sums)), list(map(len, sums))),
            note="; ".join(filter(None, ["of 1 to 10", note])),
        ),
    ]


def _judged(answers: list[Answers], arguments) -> list[Figure]:
    from plural_text.common.asking import AnswerCache
    from plural_text.metrics.judge import COHERENCE, rate, read_template

    judges = _judges(arguments)
    template = read_template(arguments.judge_template or COHERENCE)
    contexts = _contexts(answers, arguments.judge_contexts)
    questions = [
        template.question(contexts[prompt.id], response.text)
        for prompt in answers
        for response in prompt.responses
    ]
    with AnswerCache(arguments.judge_cache or _beside(arguments.responses)) as cache:
        ratings = rate(
            questions,
            judges,
            template.label,
            cache,
            threshold=THRESHOLD,
            parallel=arguments.judge_parallel,
            quiet=arguments.quiet,
        )
    return judged_figures(ratings, [judge.model for judge in judges])


def _contexts(answers: list[Answers], path: Path | None) -> dict[str, str]:
    """The part of each prompt that judges see. Errors: BadData for a prompt that the file does not have."""
    if path is None:
        return {prompt.id: prompt.prompt for prompt in answers}
    records = InputFiles([str(path)], "dialogue", lambda line: None, prompts_only=True)
    turns = {record.id: record.turns for record in records}
    for prompt in answers:
        if prompt.id not in turns:
            raise BadData(
                f"{path}: no dialogue has the id '{prompt.id}' of a prompt; give the file that the prompts "
                "were prepared from"
            )
    # The last turn is Person A's, as in the templates.
    return {
        prompt.id: "\n".join(f"Person {'AB'[(len(own) - 1 - i) % 2]}: {turn}" for i, turn in enumerate(own))
        for prompt in answers
        for own in [turns[prompt.id]]
    }


def judged_figures(ratings: Sequence[Sequence[int | None]], models: Sequence[str]) -> list[Figure]:
    """From the ratings of each response by the judges that were asked, in the judges' order."""
    decisions = [decision for own in ratings if (decision := decide(own)) is not None]
    partly = sum(None in own and decide(own) is True for own in ratings)
    name = "incoherence_judged_percent"
    notes = [
        f"{len(ratings) - len(decisions):,} responses left out, every judge abstained"
        if len(decisions) < len(ratings)
        else "",
        f"{partly:,} called incoherent although a judge abstained" if partly else "",
    ]
    note = "; ".join(filter(None, notes))
    found = [
        _percent(name, sum(decisions), len(decisions), note)
        if decisions
        else undefined(
            name, 0, "responses", "every judge abstained on every response: no answer has a rating"
        )
    ]
    for i, model in enumerate(models):
        asked = [own[i] for own in ratings if len(own) > i]
        found.append(
            Figure(
                f"judge_{i + 1}_abstentions",
                sum(rating is None for rating in asked),
                len(asked),
                "responses",
                note=model,
            )
        )
    return found


def _percent(name: str, hits: int, count: int, note: str) -> Figure:
    spread = wilson(hits, count)
    scaled = type(spread)(100 * spread.low, 100 * spread.high, spread.method)
    return Figure(name, 100 * hits / count, count, "responses", scaled, note=note)


def _judges(arguments) -> list:
    from plural_text.common.endpoint import DEFAULT_KEY_VARIABLE, Endpoint, EndpointLimits

    urls, models, variables = arguments.judge, arguments.judge_model, arguments.judge_key_variable
    if len(urls) != len(models):
        raise UsageError(
            f"{len(urls)} --judge and {len(models)} --judge-model: give one model for each endpoint"
        )
    if len(variables) > 1 and len(variables) != len(urls):
        raise UsageError(
            f"{len(variables)} --judge-key-variable for {len(urls)} judges: give one for all, or one each"
        )
    variables = (
        variables * len(urls) if len(variables) == 1 else variables or [DEFAULT_KEY_VARIABLE] * len(urls)
    )
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--judge '{url}': must be an http:// or https:// address")
    limits = EndpointLimits(
        arguments.judge_timeout_seconds, arguments.judge_retries, arguments.judge_requests_per_minute
    )
    return [Endpoint(*judge[:2], limits, judge[2]) for judge in zip(urls, models, variables)]


def _beside(responses: Path) -> Path:
    return responses.with_name(f"{responses.name}.judges.jsonl")

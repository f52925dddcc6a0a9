"""How long the page of `plural report` takes to make and to open, for a long run and many answers.

    PYTHONPATH=data/text:tests .venv/bin/python tests/bench/report_page.py WORK [--steps 100000]
        [--responses 50000] [--repetitions 5]

Writes a run of so many step lines and so many responses to WORK, makes the page with the program that
PLURAL_BINARY names, and opens it in headless Chromium at the widths of a phone and a screen: in a browser
that has just been started, and in new tabs of it. `open_seconds`: from the start of navigation until the
page has loaded, answers a script, has painted, and every figure that is on the screen is drawn. Each figure
is the smallest, median and largest of the repetitions.
"""

import argparse
import json
import math
import random
import statistics
import time
from pathlib import Path

from selenium import webdriver

import training
from e2e.report_page_test import WIDTHS, start_browser
from text.support import run

WORDS = "the old boat left its harbour before anyone had woken and nobody asked where it went".split()
# Resolves behind two frames: what the first one has laid out is on the screen.
PAINTED = (
    "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => "
    "done(performance.now())))"
)
ON_SCREEN = (
    "return [...document.querySelectorAll('.canvas')].filter((one) => { const box = "
    "one.getBoundingClientRect(); return box.bottom > 0 && box.top < innerHeight; })"
    ".every((one) => one.querySelector('.main-svg'))"
)


def write_inputs(folder: Path, steps: int, responses: int) -> None:
    """A run that trained a few steps and whose lines are repeated, and answers to prompts, 50 to each."""
    training.write_corpus(folder / "corpus.h5", training.random_groups(6))
    training.write_recipe(folder / "r.yaml", "long", dtype="fp32", extra="train: {steps: 4}")
    done = training.train(folder, "r.yaml")
    if done.returncode:
        raise SystemExit(done.stderr)
    draw = random.Random(1)
    metrics = folder / "runs/long/metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    step = next(line for line in lines if line["event"] == "step")
    with metrics.open("w") as file:
        for line in lines:
            if line["event"] != "step":
                file.write(json.dumps(line) + "\n")
        for i in range(1, steps + 1):
            loss = 3 * math.exp(-i / 2e4) + draw.gauss(0, 0.05)
            file.write(json.dumps({**step, "step": i, "loss": loss, "seconds": draw.random()}) + "\n")
    with (folder / "answers.jsonl").open("w") as file:
        for prompt in range(responses // 50):
            said = [
                {"index": i, "text": " ".join(draw.choices(WORDS, k=20)), "possibility": i % 10}
                | {"latent": 0, "logprob_nats": -draw.expovariate(0.05), "finished": True}
                for i in range(50)
            ]
            line = {"id": f"p{prompt}", "prompt": f"Prompt {prompt}", "method": "sample", "responses": said}
            file.write(json.dumps(line) + "\n")


def open_seconds(browser: webdriver.Chrome, page: Path, width: int) -> float:
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(page.as_uri())
    while not browser.execute_script(ON_SCREEN):
        time.sleep(0.01)
    return browser.execute_async_script(PAINTED) / 1000


def measured(page: Path, width: int) -> tuple[float, float]:
    """Seconds in a browser that has just been started, and in a new tab of it."""
    browser = start_browser()
    try:
        first = open_seconds(browser, page, width)
        browser.switch_to.new_window("tab")
        return first, open_seconds(browser, page, width)
    finally:
        browser.quit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--responses", type=int, default=50_000)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    folder = arguments.work.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder, arguments.steps, arguments.responses)
    began = time.monotonic()
    made = run("report", "runs/long", "--responses", "answers.jsonl", "-o", "page.html", cwd=folder)
    if made.returncode:
        raise SystemExit(made.stderr)
    found = {
        "make_seconds": round(time.monotonic() - began, 2),
        "page_bytes": (folder / "page.html").stat().st_size,
    }
    for width in WIDTHS:
        times = [measured(folder / "page.html", width) for _ in range(arguments.repetitions)]
        for name, column in zip(("new_browser", "new_tab"), zip(*times)):
            found[f"open_seconds_{name}_{width}_pixels"] = [
                round(value, 2) for value in (min(column), statistics.median(column), max(column))
            ]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""The page of `plural report` in a real browser, at the widths of a phone and a screen: no error, no request,
the files' values, filters, dark mode, keyboard. Pictures of `plural plot`."""

import csv
import json
import os
import re
import shutil
import signal
import tempfile
import time
import unittest
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

import training
from text.support import run, running

HOSTILE = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'> </script>"
WIDTHS = (390, 1280)
RESPONSES = 61  # of one prompt, so that a list has more than one page
SECONDS = 120


def make_files(folder):
    """A run, answers of two sources, figures of both."""
    training.write_corpus(folder / "corpus.h5", training.random_groups(6))
    training.write_recipe(
        folder / "r.yaml", "mine", dtype="fp32", extra="train: {steps: 4}\nvalidation: {every_steps: 2}"
    )
    done = training.train(folder, "r.yaml", "data.validation=corpus.h5")
    assert done.returncode == 0, done.stderr
    for name, count in (("first", RESPONSES), ("second", 2)):
        responses = [
            {
                "index": i,
                "text": HOSTILE if i == 0 else f"{name} answer {i}",
                "possibility": i % 10,
                "latent": 0,
                "logprob_nats": -1 / (i + 3),
                "finished": i != 1,
            }
            for i in range(count)
        ]
        lines = [
            {"id": prompt, "prompt": f"Ask {prompt}", "method": "sample", "responses": responses}
            for prompt in ("a", "b")
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    measured = run("metrics", folder / "first.jsonl", "--metrics", "distinct", "-o", folder / "first.json")
    assert measured.returncode == 0, measured.stderr
    for name, value in (("one", 0.5), ("two", 0.25)):
        interval = [value / 3, value / 0.7]
        figures = {"distinct_2": {"value": value, "interval_95": interval}, "incoherence": {"value": value}}
        (folder / f"{name}.json").write_text(json.dumps({"figures": figures}))


def start_browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    # A container has no sandbox of its own kind and little shared memory.
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


class ReportPage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name)
        make_files(cls.folder)
        answers = ["--responses", "first.jsonl", "second.jsonl"]
        figures = ["--metrics", "one.json", "two.json"]
        pages = {"page": ["runs/mine", *answers, "--metrics", "first.json"], "answers": [*answers, *figures]}
        for name, words in pages.items():
            made = run("report", *words, "-o", f"{name}.html", cwd=cls.folder)
            assert made.returncode == 0, made.stderr
        cls.browser = start_browser()
        cls.addClassCleanup(cls.browser.quit)

    def open(self, width=1280, theme="light", page="page"):
        command = self.browser.execute_cdp_cmd
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        command("Emulation.setDeviceMetricsOverride", screen)
        media = [{"name": "prefers-color-scheme", "value": theme}]
        command("Emulation.setEmulatedMedia", {"media": "", "features": media})
        for log in ("browser", "performance"):
            self.browser.get_log(log)  # forgets what came before
        self.browser.get((self.folder / f"{page}.html").as_uri())

    def script(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def draw(self):
        """Brings every figure near the screen, and waits until it is drawn."""
        for canvas in self.browser.find_elements(By.CSS_SELECTOR, ".canvas"):
            self.script("arguments[0].scrollIntoView()", canvas)
            WebDriverWait(self.browser, SECONDS).until(
                lambda _, canvas=canvas: self.script(
                    "return !!arguments[0].querySelector('.main-svg')", canvas
                )
            )

    def rows(self):
        """The texts of the responses' table, a list per row."""
        return self.script(
            "return [...document.querySelectorAll('#responses-table tbody tr')]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))"
        )

    def answers(self, name):
        lines = (self.folder / f"{name}.jsonl").read_text().splitlines()
        return [
            (line["prompt"], response) for line in map(json.loads, lines) for response in line["responses"]
        ]

    def find(self, name):
        return self.browser.find_element(By.ID, name)

    def test_no_error_no_request_no_overflow(self):
        for width, theme in zip(WIDTHS, ("dark", "light")):
            with self.subTest(width=width, theme=theme):
                self.open(width, theme)
                self.draw()
                self.find("filter-text").send_keys("answer")
                self.assertEqual(self.browser.get_log("browser"), [])
                events = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
                asked = [
                    event["params"]["request"]["url"]
                    for event in events
                    if event["method"] == "Network.requestWillBeSent"
                ]
                self.assertIn((self.folder / "page.html").as_uri(), asked)  # the log works
                others = [url for url in asked if not url.startswith(("data:", "blob:"))]
                self.assertEqual(len(others), 1, others)
                self.assertLessEqual(self.script("return document.documentElement.scrollWidth"), width)
                self.assertIsNone(self.script("return window.hit ?? null"))
                self.check_curves()

    def check_curves(self):
        """The figures' values are those of the files, unrounded."""
        steps = [line for line in training.metrics(self.folder, "mine") if line["event"] == "step"]
        self.assertEqual(len(steps), 4)
        for title, key in (("loss (nats)", "loss"), ("gradient norm before clipping", "grad_norm")):
            canvas = self.browser.find_element(By.CSS_SELECTOR, f'.canvas[aria-label="{title}"]')
            x, y = self.script("const d = arguments[0].data[0]; return [d.x, d.y]", canvas)
            self.assertEqual((x, y), ([1, 2, 3, 4], [line[key] for line in steps]))
        labels = self.script("return [...document.querySelectorAll('.canvas')].map((c) => c.ariaLabel)")
        self.assertIn("validation: perplexity", labels)
        self.assertTrue(any(label.startswith("Token tree of group") for label in labels), labels)
        self.assertEqual(self.script("return document.querySelector('#runs tbody data').value"), "4")

    def test_a_figure_as_a_file_has_its_intervals(self):
        self.open(page="answers")
        self.script(
            "URL.createObjectURL = (blob) =>"
            " { blob.text().then((text) => { window.csv = text; }); return '#'; }"
        )
        self.browser.find_element(By.CSS_SELECTOR, "button.values").click()
        WebDriverWait(self.browser, SECONDS).until(lambda _: self.script("return window.csv"))
        head, *rows = csv.reader(self.script("return window.csv").splitlines())
        self.assertEqual(head, ["series", "x", "y", "y_low", "y_high"])
        rows = {row[0]: [float(cell) for cell in row[1:]] for row in rows if row[0] != "Pareto front"}
        wanted = {"one": [0.5, 0.5, 0.5 / 3, 0.5 / 0.7], "two": [0.25, 0.25, 0.25 / 3, 0.25 / 0.7]}
        self.assertEqual(rows, wanted)

    def test_filters(self):
        self.open(page="answers")
        first, second = self.answers("first"), self.answers("second")
        self.assertEqual(len(self.rows()), 50)
        self.assertIn(f"1 to 50 of {len(first) + len(second)}", self.find("page-where").text)
        Select(self.find("filter-source")).select_by_visible_text("first")
        Select(self.find("filter-possibility")).select_by_visible_text("3")
        wanted = [(prompt, r) for prompt, r in first if r["possibility"] == 3]
        found = self.rows()
        shown = [(row[0], row[3], row[2]) for row in found]
        self.assertEqual(shown, [("first", prompt, r["text"]) for prompt, r in wanted])
        self.assertEqual({row[1] for row in found}, {"3"})
        exact = self.script(
            "return [...document.querySelectorAll('#responses-table td[title]')].map((c) => c.title)"
        )
        self.assertEqual([float(text) for text in exact], [r["logprob_nats"] for _, r in wanted])
        Select(self.find("filter-possibility")).select_by_visible_text("all")
        Select(self.find("filter-source")).select_by_visible_text("all")
        self.find("filter-text").send_keys("SECOND answer")
        self.assertEqual([row[2] for row in self.rows()], ["second answer 1"] * 2)
        self.find("filter-text").clear()
        self.find("filter-text").send_keys("<script>")
        self.assertEqual({row[2] for row in self.rows()}, {HOSTILE})
        self.find("filter-text").send_keys("nowhere")
        self.assertEqual((self.rows(), self.find("page-where").text), ([], "responses 0 to 0 of 0"))

    def test_pages(self):
        self.open(page="answers")
        all_of_them = [r["text"] for name in ("first", "second") for _, r in self.answers(name)]
        seen = [row[2] for row in self.rows()]
        self.assertFalse(self.find("page-previous").is_enabled())
        while self.find("page-next").is_enabled():
            self.find("page-next").click()
            seen += [row[2] for row in self.rows()]
        self.assertEqual(seen, all_of_them)
        self.find("page-first").click()
        self.assertEqual([row[2] for row in self.rows()], all_of_them[:50])

    def test_side_by_side(self):
        self.open(page="answers")
        self.browser.find_element(By.CSS_SELECTOR, "input[value=beside]").click()
        heads = [cell.text for cell in self.browser.find_elements(By.CSS_SELECTOR, "#responses-table th")]
        self.assertEqual(heads, ["prompt", "first", "second"])
        cells = self.script(
            "return [...document.querySelector('#responses-table tbody tr').cells]"
            ".map((c) => [...c.querySelectorAll('li span:last-child')].map((s) => s.textContent))"
        )
        for name, found in zip(("first", "second"), cells[1:]):
            self.assertEqual(found, [r["text"] for prompt, r in self.answers(name) if prompt == "Ask a"])
        colours = self.script(
            "return [...document.querySelectorAll('#responses-table .chip')].slice(0, 9)"
            ".map((chip) => [chip.textContent, getComputedStyle(chip).backgroundColor + chip.className])"
        )
        self.assertEqual([number for number, _ in colours], [str(i) for i in range(1, 10)])
        self.assertEqual(len({colour for _, colour in colours}), 9)

    def test_theme(self):
        back = "return getComputedStyle(document.body).backgroundColor"
        seen = {}
        for theme in ("light", "dark"):
            self.open(theme=theme)
            WebDriverWait(self.browser, SECONDS).until(
                lambda _: self.script("return !!document.querySelector('.xtitle')")
            )
            seen[theme] = self.script(back)
            text = self.script("return getComputedStyle(document.querySelector('.xtitle')).fill")
            seen[theme + " axis"] = text
            self.assertEqual(self.find("theme").get_attribute("aria-pressed"), str(theme == "dark").lower())
        self.assertLess(sum(map(int, re.findall(r"\d+", seen["dark"])[:3])), 150)
        self.assertGreater(sum(map(int, re.findall(r"\d+", seen["light"])[:3])), 700)
        self.assertNotEqual(seen["light axis"], seen["dark axis"])
        self.find("theme").click()
        self.assertEqual(self.script(back), seen["light"])
        WebDriverWait(self.browser, SECONDS).until(
            lambda _: (
                self.script("return getComputedStyle(document.querySelector('.xtitle')).fill")
                == seen["light axis"]
            )
        )

    def test_keyboard(self):
        self.open()
        reached = []
        for _ in range(150):
            self.browser.switch_to.active_element.send_keys(Keys.TAB)
            name, outline = self.script(
                "const e = document.activeElement; return [e.id || e.className || e.tagName,"
                " getComputedStyle(e).outlineStyle]"
            )
            if name == "BODY":
                break
            self.assertNotEqual(outline, "none", name)
            reached.append(name)
        self.assertEqual(reached[:2], ["skip", "theme"])
        wanted = ["filter-text", "filter-source", "filter-method", "filter-possibility", "page-next"]
        self.assertEqual([name for name in reached if name in wanted], wanted)
        self.assertIn("values", reached)
        self.find("page-next").send_keys(Keys.ENTER)
        self.assertIn("responses 51 to", self.find("page-where").text)
        unnamed = self.script(
            "return [...document.querySelectorAll('button, input, select')].filter((e) =>"
            " !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).length"
        )
        self.assertEqual(unnamed, 0)

    def test_print(self):
        self.open(theme="dark")
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        hidden = self.script(
            "return ['.controls', 'nav', '#theme']"
            ".map((s) => getComputedStyle(document.querySelector(s)).display)"
        )
        self.assertEqual(hidden, ["none"] * 3)


class Pictures(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        (self.folder / "mine").mkdir()
        lines = [
            {"event": "step", "step": i, "loss": 1 / i, "groups": 1, "seconds": 1.0} for i in range(1, 9)
        ]
        (self.folder / "mine/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def test_formats(self):
        for ending, begin in (("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<svg")):
            output = self.folder / f"loss.{ending}"
            done = run(
                "plot", "loss", self.folder / "mine", "-o", output, "--width", "300", "--height", "200"
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(output.read_bytes()[: len(begin)], begin)
        picture = (self.folder / "loss.svg").read_text()
        self.assertIn("loss (nats)", picture)
        self.assertRegex(picture, r'width="300" height="200"')

    def test_every_figure_of_a_page(self):
        page, pictures = self.folder / "page.html", self.folder / "pictures"
        done = run("report", self.folder / "mine", "-o", page, "--png", pictures)
        self.assertEqual(done.returncode, 0, done.stderr)
        names = {path.name for path in pictures.iterdir()}
        self.assertEqual(names, {"loss.png", "seconds.png", "groups_per_second.png"})

    def test_without_a_browser(self):
        environment = os.environ | {"BROWSER_PATH": "/none"}
        for words in (["plot", "loss"], ["report", "--png", self.folder / "pictures"]):
            done = run(*words, self.folder / "mine", "-o", self.folder / "x.png", env=environment)
            self.assertEqual(done.returncode, 69, done.stderr)
            self.assertIn("requirements-plot.txt", done.stderr)
            self.assertIn("Debian package chromium", done.stderr)
            self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["mine"])

    def test_a_stop_request_ends_a_browser_that_hangs(self):
        browser, begun = self.folder / "browser", self.folder / "begun"
        # Never answers; like Chromium it ends when nobody holds the pipe of its commands, descriptor 3.
        browser.write_text(f"#!/bin/sh\necho $$ > '{begun}.id'\ntouch '{begun}'\nexec cat <&3\n")
        browser.chmod(0o755)
        environment = os.environ | {"BROWSER_PATH": str(browser)}
        with running(
            "plot", "loss", self.folder / "mine", "-o", self.folder / "x.png", env=environment
        ) as process:
            deadline = time.monotonic() + SECONDS
            while not begun.exists():
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=SECONDS)
        self.assertEqual(process.returncode, 75, errors)
        self.assertFalse((self.folder / "x.png").exists())
        alive = Path("/proc", Path(f"{begun}.id").read_text().strip(), "exe")
        while alive.exists():
            self.assertLess(time.monotonic(), deadline + SECONDS)
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()

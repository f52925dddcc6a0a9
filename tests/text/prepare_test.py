"""`plural prepare` as a user calls it: results, exit codes, signals, memory, real inputs."""

import hashlib
import json
import resource
import signal
import subprocess
import time
import unittest
from unittest import mock

from plural_text.common.progress import Progress
from text.support import (
    MISTRAL_V1,
    TEKKEN,
    FolderTest,
    byte_level_folder,
    command,
    open_tokenizer,
    read_corpus,
    run,
    running,
    shared_data,
    write_lines,
)

DIALOGUES = [
    {"context": f"Hello {n}.\nI like dogs.", "candidates": ["Big dogs?", "The doctor, too."]}
    for n in range(5)
]


class Prepare(FolderTest):
    def setUp(self):
        super().setUp()
        self.corpus = self.folder / "corpus.h5"
        self.input = write_lines(self.folder / "in.jsonl", DIALOGUES)
        self.model = byte_level_folder(self.folder / "model")
        self.usual = (self.input, "--tokenizer", self.model, "--format", "dialogue")


class Results(Prepare):
    def test_bare_text_for_a_model_that_is_asked_in_a_chat_is_warned_of(self):
        words = "a model tuned for chats is then trained on bare text"
        self.assertNotIn(words, self.prepare(*self.usual).stderr)
        (self.model / "chat_template.jinja").write_text("{{ messages[-1].content }}")
        self.assertIn(words, self.prepare(*self.usual).stderr)
        self.assertNotIn(
            words, self.prepare(*self.usual, "--template", "plain-dialogue").stderr
        )  # on purpose

    def test_dialogue(self):
        done = self.prepare(*self.usual)
        attributes, groups, vocabulary = read_corpus(self.corpus)
        self.assertEqual(
            {
                k: attributes[k]
                for k in (
                    "possibilities",
                    "source_format",
                    "tokenizer_name",
                    "vocab_size",
                    "template_name",
                    "mask_modes",
                    "complete",
                    "eos_token_id",
                )
            },
            {
                "possibilities": 9,
                "source_format": "dialogue",
                "tokenizer_name": "tokenizer.json",
                "vocab_size": len(vocabulary),
                "template_name": "plain-dialogue",
                "mask_modes": "content_first,all_first,repo_compat",
                "complete": 1,
                "eos_token_id": 1,
            },
        )
        self.assertEqual(
            attributes["tokenizer_sha256"],
            hashlib.sha256((self.model / "tokenizer.json").read_bytes()).hexdigest(),
        )
        self.assertEqual(json.loads(attributes["template"])["name"], "plain-dialogue")
        self.assertEqual([g.id for g in groups], [f"in:{n}" for n in range(1, 6)])
        text = lambda ids: b"".join(vocabulary[i] for i in ids).decode()
        self.assertEqual(
            text(groups[2].full_prompt(7)),
            "<start>Person B: Hello 2.\nPerson A: I like dogs.\nPerson B, possibility #7:",
        )
        self.assertEqual([text(r) for r in groups[2].responses], ["Big dogs?<end>", "The doctor, too.<end>"])
        sha256 = hashlib.sha256(self.corpus.read_bytes()).hexdigest()
        self.assertIn(f"sha256                {sha256}\n", done.stdout)
        self.assertRegex(done.stdout, r"groups +5\nresponses +10, 2 per group\n")
        self.assertEqual(done.stderr, "")

    def test_every_tokenizer_kind_gives_the_text_back(self):
        for tokenizer in (MISTRAL_V1, TEKKEN):
            self.prepare(self.input, "--tokenizer", tokenizer, "--format", "dialogue", "--quiet")
            _, groups, vocabulary = read_corpus(self.corpus)
            text = b"".join(vocabulary[i] for i in groups[0].responses[1])
            self.assertEqual(text.strip(), b"The doctor, too.</s>")

    def test_counts_of_the_summary_by_hand(self):
        done = self.prepare(
            *self.usual, "--template", "question", "--possibilities", "2", "--max-response-words", "2"
        )
        _, groups, _ = read_corpus(self.corpus)
        count = lambda rows: sum(map(len, rows))
        tokens = (
            count(g.prompt for g in groups),
            sum(count(g.tails) for g in groups),
            sum(count(g.responses) for g in groups),
        )
        self.assertIn("tokens                {} prompts, {} tails, {} responses".format(*tokens), done.stdout)
        longest = max(len(g.prompt) + max(map(len, g.tails)) + max(map(len, g.responses)) for g in groups)
        self.assertIn(f"longest sequence      {longest} tokens", done.stdout)
        self.assertIn("responses cut         5", done.stdout)
        plain = sum(len(g.full_prompt(0)) + len(r) for g in groups for r in g.responses)
        # Rows of the token tree: different beginnings of the sequences, whose last tokens are not fed.
        shared = 0
        for g in groups:
            sequences = [[*g.full_prompt(0), *tokens] for tokens in g.responses]
            shared += len({tuple(s[:end]) for s in sequences for end in range(1, len(s))})
        self.assertIn(f"{plain / shared:.2f}x (one sequence per response)", done.stdout)
        numbered = [g for g in groups if len(g.responses) >= 2]
        self.assertEqual(len(numbered), len(groups), "else the next figure needs care")
        plain = shared = 0
        for g in groups:
            beginnings = set()
            for k in (1, 2):
                for r, tokens in enumerate(g.responses[:2]):
                    sequence = [*g.full_prompt(k), *tokens]
                    plain += len(sequence)
                    # Of a negative, what lies behind the last penalised token is not computed.
                    marked = [t + 1 for t, mask in enumerate(g.masks[r]) if mask & 1]
                    predicted = len(tokens) if r == k - 1 else max(marked, default=0)
                    last = len(sequence) - len(tokens) + predicted
                    beginnings |= {tuple(sequence[:end]) for end in range(1, last)}
            shared += len(beginnings)
        self.assertIn(f", {plain / shared:.2f}x (poexft", done.stdout)

    def test_early_number(self):
        early = self.folder / "early.json"
        early.write_text(
            json.dumps(
                {
                    "name": "early",
                    "format": "dialogue",
                    "prompt": "{context}",
                    "prompt_with_number": "{k} {context}",
                }
            )
        )
        done = self.prepare(*self.usual, "--template", early)
        self.assertRegex(
            done.stderr,
            r"^plural: warning: the template puts the possibility number before "
            r"the content: \d+\.\d prompt tokens lost per group \(mean\)",
        )
        self.corpus.unlink()
        (self.folder / "corpus.h5.sha256").unlink()
        done = self.prepare(*self.usual, "--template", early, "--strict-sharing", code=65)
        self.assertRegex(done.stderr, r"\d+\.\d prompt tokens lost per group .*move \{k\}")

    def test_notes_and_respelling(self):
        from tokenizers import Tokenizer, normalizers

        backend = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        backend.normalizer = normalizers.Lowercase()
        backend.save(str(self.model / "tokenizer.json"))
        write_lines(self.input, [{**row, "kinds": [1, 2], "topic": "x"} for row in DIALOGUES])
        done = self.prepare(*self.usual)
        self.assertEqual(done.stderr.count("\n"), 3)
        for words in (
            "'kinds' is not used",
            "unknown key 'topic'",
            "spells 10 responses other than they are written",
        ):
            self.assertIn(words, done.stderr)

    def test_help(self):
        for arguments in (["--help"], ["prepare", "--help"]):
            done = run(*arguments)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
        for word in ("--tokenizer", "dialogue", "mistral-dialogue", "--strict-sharing", '"candidates"'):
            self.assertIn(word, done.stdout)

    def test_heavy_libraries_are_not_needed_for_help(self):
        script = (
            "import sys; from plural_text.__main__ import main\ntry: main(['prepare', '--help'])\n"
            "except SystemExit: pass\nprint([m for m in ('torch', 'transformers', 'h5py', 'numpy', "
            "'tokenizers', 'sentencepiece', 'mistral_common') if m in sys.modules])"
        )
        done = subprocess.run([command()[0], "-c", script], capture_output=True, text=True, timeout=60)
        self.assertTrue(done.stdout.endswith("[]\n"), done.stdout + done.stderr)

    def test_torch_is_never_imported(self):
        script = (
            "import sys; from plural_text.__main__ import main\n"
            "code = main(sys.argv[1:]); print(code, 'torch' in sys.modules, 'transformers' in sys.modules)"
        )
        done = subprocess.run(
            [command()[0], "-c", script, "prepare", *map(str, self.usual), "-o", str(self.corpus), "--quiet"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.stdout, "0 False False\n", done.stderr)


class Errors(Prepare):
    def test_usage(self):
        for arguments, words in (
            ((self.input,), "required"),
            ((*self.usual, "--formt", "x"), "unrecognized"),
            ((self.input, "--tokenizer", self.model, "--format", "chats"), "invalid choice"),
            ((*self.usual, "--possibilities", "-1"), "not a number of 0 or more"),
            ((*self.usual, "--possibilities", "5000"), "at most 1000"),
            ((*self.usual, "--max-length", "1"), "--max-length 1: from 2"),
            ((*self.usual, "--template", "plain-targets"), "for dialogue: coherence-rating, list-dialogue"),
            (
                (self.input, "--tokenizer", self.model, "--format", "targets", "--possibilities", "3"),
                "no place for a possibility number",
            ),
            (
                (self.input, "--tokenizer", self.model, "--format", "targets", "--max-response-words", "3"),
                "cuts dialogue and chat responses only",
            ),
        ):
            self.assertIn(words, self.prepare(*arguments, code=64).stderr)
        self.assertEqual(run().returncode, 64)
        self.assertIn("'prepair' is not a text command", run("prepair").stderr)
        done = run("prepare", *self.usual, "-o", self.input)
        self.assertEqual((done.returncode, "is an input too" in done.stderr), (64, True))
        self.assertEqual(self.input.read_text().count("\n"), 5)

    def test_bad_data(self):
        lines = [json.dumps(row) for row in DIALOGUES]
        for change, words in (
            ([*lines[:3], lines[3][:-5], lines[4]], f"{self.input}:4: not valid JSON"),
            ([*lines, '{"context": "a", "candidates": [3]}'], f"{self.input}:6: candidates[0] is a number"),
            ([], "no records in the input"),
            (["", "  "], "no records in the input"),
            (['{"context": "a"}'], "no record has responses; check the keys"),
            (
                [lines[0], '{"id": "in:1", "context": "a", "candidates": ["b"]}'],
                f"{self.input}:2: id 'in:1' stands twice",
            ),
        ):
            write_lines(self.input, change)
            self.assertIn(words, self.prepare(*self.usual, code=65).stderr)

    def test_equal_file_names_in_two_folders(self):
        (self.folder / "other").mkdir()
        other = write_lines(self.folder / "other" / "in.jsonl", DIALOGUES)
        done = self.prepare(other, *self.usual, code=65)
        self.assertIn(f"{self.input}:1: id 'in:1' stands twice", done.stderr)
        self.assertIn("rename", done.stderr)

    def test_targets_that_are_not_prefix_free(self):
        write_lines(
            self.input,
            [
                {"request": "Pick.", "targets": ["{1}", "{2}"], "eos": False},
                {"request": "Pick.", "targets": ["dog", "doctor", "dog house"], "eos": False},
            ],
        )
        done = self.prepare(self.input, "--tokenizer", MISTRAL_V1, "--format", "targets", code=65)
        self.assertIn(f"{self.input}:2: of targets[0] 'dog' and targets[2] 'dog house'", done.stderr)

    def test_missing_input(self):
        missing = self.folder / "absent"
        for arguments in (
            (missing, *self.usual[1:]),
            (self.input, "--tokenizer", missing, "--format", "dialogue"),
            (*self.usual, "--template", "absent"),
            (*self.usual, "--stopwords", missing),
        ):
            self.assertIn("absent", self.prepare(*arguments, code=66).stderr)

    def test_output_that_cannot_be_created(self):
        self.assertIn("create it first", self.prepare(*self.usual, output="absent/corpus.h5", code=73).stderr)
        done = run("prepare", *self.usual, "-o", self.folder)
        self.assertEqual((done.returncode, "is a folder" in done.stderr), (73, True))
        done = run("prepare", *self.usual, "-o", "/proc/corpus.h5")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (73, 1), done.stderr)

    def test_full_disk(self):
        # A limit on the file size stands for the disk: while the table of the large vocabulary is
        # written, and while groups are.
        for tokenizer, limit in ((TEKKEN, 1 << 20), (self.model, 2 << 20)):
            write_lines(self.input, [{"context": f"{n} " + "dogs " * 400} for n in range(2000)])
            done = self.prepare(
                self.input,
                "--tokenizer",
                tokenizer,
                "--format",
                "dialogue",
                "--possibilities",
                "0",
                code=74,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
            )
            self.assertIn("cannot be written: File too large", done.stderr)


class Interrupted(Prepare):
    """Stopped in the middle of writing, with an older corpus in place."""

    def setUp(self):
        super().setUp()
        self.prepare(*self.usual, "--quiet")
        self.old = self.corpus.read_bytes()
        self.long = write_lines(
            self.folder / "long.jsonl",
            [{"context": f"{n} " + "the dogs " * 500, "candidates": ["x"]} for n in range(4_000)],
        )
        self.partial = self.folder / "corpus.h5.partial"
        # Started in the background by a shell, this process ignores SIGINT, and so would its children.
        self.addCleanup(
            signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)
        )

    def stop(self, number: int) -> tuple[int, str]:
        arguments = ("prepare", self.long, *self.usual[1:], "-o", self.corpus, "--force")
        with running(*arguments) as process:
            while process.poll() is None and not (
                self.partial.exists() and self.partial.stat().st_size > 1 << 20
            ):
                time.sleep(0.01)
            self.assertIsNone(process.poll(), "it was over before it could be stopped")
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            return process.returncode, errors

    def check_old(self, leftovers):
        self.assertEqual(self.corpus.read_bytes(), self.old)
        self.assertIn(hashlib.sha256(self.old).hexdigest(), (self.folder / "corpus.h5.sha256").read_text())
        self.assertEqual([p.name for p in self.folder.glob("*.partial")], leftovers)

    def test_killed(self):
        self.assertEqual(self.stop(signal.SIGKILL)[0], -signal.SIGKILL)
        self.check_old(["corpus.h5.partial"])
        self.corpus.unlink()
        self.prepare(*self.usual, "--quiet")
        self.check_old([])

    def test_control_c(self):
        code, errors = self.stop(signal.SIGINT)
        self.assertEqual(code, 75)  # on a slow machine the line follows one about progress
        self.assertEqual(errors.splitlines()[-1], "plural: stopped on request: nothing is left half-written")
        self.check_old([])

    def test_terminated(self):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self.assertEqual(self.stop(number)[0], 75)
            self.check_old([])

    def test_an_output_that_exists(self):
        # As it was prepared, it can be prepared again; whatever else lies there is kept.
        done = run("prepare", *self.usual, "--possibilities", "0", "-o", self.corpus)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("corpus.h5: was prepared before and is made anew", done.stderr)
        self.assertNotEqual(self.corpus.read_bytes(), self.old)
        kept = self.corpus.read_bytes() + b"more"
        self.corpus.write_bytes(kept)
        done = run("prepare", *self.usual, "-o", self.corpus)
        self.assertEqual(done.returncode, 73, done.stderr)
        self.assertIn("corpus.h5: exists; give --force to replace it", done.stderr)
        self.assertEqual(self.corpus.read_bytes(), kept)
        self.prepare(*self.usual, "--force")
        self.assertNotEqual(self.corpus.read_bytes(), kept)


class Memory(Prepare):
    def test_does_not_grow_with_the_number_of_groups(self):
        def peak_bytes(count):
            file = write_lines(
                self.folder / f"{count}.jsonl",
                ({"context": f"{n} " + "dogs " * 100, "candidates": ["the doctor"]} for n in range(count)),
            )
            # Not ru_maxrss: that one begins at the size of the process that started this one.
            script = (
                "import re, sys; from plural_text.__main__ import main\nassert main(sys.argv[1:]) == 0\n"
                "print(re.search('VmHWM:[^0-9]*([0-9]+)', open('/proc/self/status').read())[1])"
            )
            done = subprocess.run(
                [
                    command()[0],
                    "-c",
                    script,
                    "prepare",
                    file,
                    "--tokenizer",
                    self.model,
                    "--format",
                    "dialogue",
                    "--possibilities",
                    "0",
                    "--quiet",
                    "--force",
                    "-o",
                    self.corpus,
                ],
                capture_output=True,
                text=True,
                timeout=300,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return int(done.stdout) * 1024

        few, many = peak_bytes(300), peak_bytes(20_000)
        # What may differ: the writer's buffers (8 MB), HDF5's chunk caches (1 MB for each of 14 datasets),
        # ids (20,000 of some 100 bytes: 2 MB). Holding 20,000 groups of 110 tokens would take 20,000 * 110 *
        # 8 = 18 MB for list slots and as much again for every list made on the way, beside the texts of 10
        # MB.
        self.assertLess(many - few, 25e6)


class ProgressLines(unittest.TestCase):
    class Stream(list):
        def __init__(self, terminal):
            super().__init__()
            self.isatty = lambda: terminal
            self.write = self.append
            self.flush = lambda: None

    def lines(self, terminal, quiet=False):
        now, stream = [0.0], self.Stream(terminal)
        with (
            mock.patch("tqdm.std.time", lambda: now[0]),
            Progress("prepare", 1000, "groups", stream, quiet=quiet) as progress,
        ):
            for second in range(1, 31):
                now[0] = float(second)
                progress.update(second * 25, second * 10)
        return stream

    def test_a_log_gets_a_plain_line_now_and_then(self):
        self.assertEqual(
            self.lines(terminal=False),
            [
                "prepare:  25%, 100 groups, 10 groups/s, 00:30 left\n",
                "prepare:  50%, 200 groups, 10 groups/s, 00:20 left\n",
                "prepare:  75%, 300 groups, 10 groups/s, 00:10 left\n",
            ],
        )

    def test_a_terminal_gets_a_bar_that_goes_away(self):
        lines = [line for line in self.lines(terminal=True) if line.strip()]
        self.assertEqual(len(lines), 30)
        self.assertRegex(lines[19], r"^\rprepare:  50%\|#+ *\|, 200 groups, 10 groups/s, 00:20 left$")
        self.assertEqual(self.lines(terminal=True)[-2].strip(" "), "\r")  # spaces over the line

    def test_quiet(self):
        self.assertEqual(self.lines(terminal=True, quiet=True), [])

    def test_work_that_was_done_before_does_not_count_for_the_rate(self):
        now, stream = [0.0], self.Stream(terminal=False)
        with (
            mock.patch("tqdm.std.time", lambda: now[0]),
            Progress("judge", 100, "answers", stream, done=40) as progress,
        ):
            now[0] = 10.0
            progress.update(50, 10)
        self.assertEqual(stream, ["judge:  50%, 10 answers, 1 answers/s, 00:50 left\n"])


class RealInputs(Prepare):
    """Figures of these files that were counted by other means than this program."""

    def test_dialogues(self):
        source = shared_data() / "dialogues_one_to_many.jsonl"
        self.prepare(
            source, "--tokenizer", MISTRAL_V1, "--format", "dialogue", "--template", "mistral-dialogue-short"
        )
        tokenizer = open_tokenizer(MISTRAL_V1)
        _, groups, _ = read_corpus(self.corpus)
        rows = [json.loads(line) for line in source.read_bytes().splitlines()]
        self.assertEqual([len(g.responses) for g in groups], [len(row["candidates"]) for row in rows])
        for row, group in zip(rows, groups, strict=True):
            for k in (1, 9):
                prompt = (
                    f"[INST] {row['context']}\nThink of every way to reply. Give the reply for possibility "
                    f"number #{k}. [/INST]"
                )
                self.assertEqual(group.full_prompt(k), [1, *tokenizer.encode_text([prompt])[0]])
            for text, ids in zip(row["candidates"], group.responses, strict=True):
                self.assertEqual(tokenizer.decode(ids), b" " + text.removeprefix(" ").encode() + b"</s>")
            for tail in group.tails[1:]:
                self.assertLess(len(tail), 25)  # the context is shared

    def test_prompts(self):
        self.prepare(
            shared_data() / "dialogues_test.jsonl",
            "--tokenizer",
            TEKKEN,
            "--format",
            "dialogue",
            "--prompts-only",
        )
        _, groups, _ = read_corpus(self.corpus)
        self.assertEqual((len(groups), sum(len(g.responses) for g in groups)), (200, 0))

    def test_target_sets(self):
        tasks = shared_data() / "tasks"
        self.assertIn(
            "has no responses",
            self.prepare(tasks, "--tokenizer", MISTRAL_V1, "--format", "targets", code=65).stderr,
        )
        files = [f for f in sorted(tasks.glob("*.json")) if json.loads(f.read_text())["targets"]]
        self.prepare(
            *files, "--tokenizer", MISTRAL_V1, "--format", "targets", "--template", "mistral-targets"
        )
        _, groups, _ = read_corpus(self.corpus)
        for file, group in zip(files, groups, strict=True):
            task = json.loads(file.read_text())
            self.assertEqual((group.id, len(group.responses)), (file.stem, len(task["targets"])))
            self.assertEqual({r[-1] == 2 for r in group.responses}, {task.get("eos", True)})

    def test_target_sets_in_folders_of_tasks(self):
        tasks = self.folder / "tasks"
        for file in sorted((shared_data() / "tasks").glob("*.json")):  # as they are released
            folder, name = file.name.split(".", 1)
            (tasks / folder).mkdir(parents=True, exist_ok=True)
            (tasks / folder / name).symlink_to(file)
        use = (tasks, "--tokenizer", MISTRAL_V1, "--template", "mistral-targets")
        done = self.prepare(*use, "--min-responses", "1")
        left_out = "ficticious-people/ficticious-people"
        self.assertIn(f"1 prompt with fewer than 1 response left out: {left_out} (0)", done.stderr)
        _, groups, _ = read_corpus(self.corpus)
        self.assertEqual(len(groups), 17)
        by_id = {group.id: group for group in groups}
        self.assertEqual(len(by_id["day-date/day-0"].responses), 7)
        self.prepare(*use, "--prompts-only")
        _, prompts, _ = read_corpus(self.corpus)
        self.assertEqual({group.id for group in prompts} - by_id.keys(), {left_out})


if __name__ == "__main__":
    unittest.main()

"""Every command that a document shows, typed as it stands: in a folder per document, with tiny inputs under
the names that the document uses and a tiny model under the name of the one that it speaks of.

A command that is not typed here stands in NOT_TYPED with the reason. readme_test.py types README's "Your own
data" and what the page of choosing says of it, python_api_test.py docs/python.md, corpus_format_test.py
the program of docs/corpus-format.md.
"""

import json
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

import documented
import hub_models
import training
from reader import MODEL, ROOT, Reader

NOT_TYPED = {
    "builds, which the test's own build has done": [
        "launch/setup",
        "launch/setup --tests",
        "launch/setup --encoder",
        "launch/setup --gpu",
        "CMAKE_BUILD_PARALLEL_LEVEL=1 launch/setup",
        "ninja -C build plural",
        "ninja -C build tests_cpp",
        "cmake -B build -DCMAKE_UNITY_BUILD=OFF",
        "cmake -S . -B build",
        "tests/clang/build build",
    ],
    "CTest runs it, or is it": [
        "launch/quickstart",
        "launch/test",
        "ctest --test-dir build -R unit.method",
        "ctest --test-dir build -L style",
        "build/tests/method_tests --gtest_filter='*TreeEqualsPlain.*poexft*'",
        "PYTHONPATH=data/text:tests .venv/bin/python -m unittest tests/text/masks_test.py",
        "mpirun -np 3 build/tests/mpi_tests --gtest_filter='AllReduceSum.*'",
        "build/tests/threads_tests",
        "build/tests/kernel_check --look",
        "build/tests/kernel_check --device cuda",
        "build/tests/kernel_check --device cpu --tiny",
        "tests/gpu/checklist -o DIR",
        "tests/gpu/checklist -o DIR --only kernels,exactness",
        "tests/gpu/checklist -o DIR --device cpu --tiny",
        "tests/sanitize/run build",
        "tests/style/tidy build",
        "tests/style/format",
        "tests/style/python",
        "tests/style/shell",
        "tests/style/layers",
        "tests/style/references",
        "tests/style/width",
    ],
    "hours; reproduction_test.py runs launch/reproduce on less": [
        "launch/reproduce NAME [FOLDER]",
        "launch/reproduce NAME.yaml",
        "launch/plural sweep status FOLDER/STAGE.yaml",
        "launch/reproduce dialogue",
        "launch/reproduce dialogue --seeds 4,5,6",
        "launch/reproduce persona",
        "launch/reproduce story",
        "launch/reproduce ablations --seeds 4,5,6",
        "launch/reproduce distributions",
        "launch/reproduce real-text --data DIALOGUES_DIR",
    ],
    "hours; papers_test.py runs it on a tiny model": [
        "launch/reproduce TABLE --model DIR --data DIR",
        "launch/reproduce TABLE --released-code CLONE",
        "launch/reproduce middle --model TOKENIZER_DIR --data DIR",
        "launch/reproduce middle --model tokenizer --data data",
        "launch/reproduce possibility-1 --model runs/reproduce/middle/models/middle --data data "
        "--set model.dtype=fp32",
        "launch/reproduce possibility-1 --model mistralai/Mistral-7B-Instruct-v0.2 --data data "
        "--plan --tflops 400",
        "launch/reproduce possibility-1 --model mistralai/Mistral-7B-Instruct-v0.2 --data data "
        "--set model.device=cuda",
        "launch/reproduce diffuse-5-6 --model mistralai/Mistral-7B-Instruct-v0.2 --data . --submit "
        "--sbatch=--time=8:00:00",
    ],
    "hours": [
        "tests/fuzz/run build 3600",
        "tests/fuzz/run build 3600 adapter",
        "launch/bundle OUTPUT",
        "launch/bundle OUTPUT --without-torch",
        "python tests/bench/against_transformers.py WORK --peers DIR --dialogues FILE --tasks DIR",
        "python tests/bench/generate_against_transformers.py WORK --peers DIR --dialogues FILE",
    ],
    "for what a crash or a hang leaves": [
        "build/clang/fuzz/adapter build/clang/fuzz/findings/adapter-crash-...",
        "build/clang/fuzz/adapter -minimize_crash=1 FILE",
        "mpirun -np 2 gdb -q -batch -ex 'catch throw' -ex run -ex bt --args build/plural train RECIPE",
        "gdb -p PID",
    ],
    "the network": [
        f".venv/bin/hf download {MODEL}",
        ".venv/bin/hf download NAME",
        "launch/plural build-responses prompts.jsonl --endpoint https://api.openai.com/v1 --model NAME "
        "-o replies.jsonl",
        ".venv/bin/pip install --no-deps -r data/text/requirements-search.txt",
        ".venv/bin/pip install --no-deps -r data/text/requirements-plot.txt",
        ".venv/bin/pip install --no-deps -r data/text/requirements-tracking.txt",
        "pip install .",
        "pre-commit install",
        "git lfs pull",
    ],
    "a program that a machine may lack": [
        "conda env create -f launch/environment.yml",
        "conda activate plural",
        "docker build -f launch/Dockerfile -t plural .",
        'docker run --rm -it --shm-size=2g -v "$PWD/work:/work" -v "$HOME/.cache/huggingface:/hf" plural',
        "apptainer build plural.sif launch/apptainer.def",
        'apptainer exec --bind "$HOME/.cache/huggingface:/hf" plural.sif plural doctor',
        "mpirun -np 16 apptainer exec plural.sif plural train RECIPE",
    ],
    "a process goes on behind the command; track_test.py waits for it": [
        "plural train RECIPE log.tensorboard=true",
        "plural train RECIPE log.wandb.project=mine log.wandb.mode=offline",
    ],
    "an archive that minutes make; bundle_test.py makes a small one": [
        "tar xzf plural-0.1.0-x86_64.tar.gz && cd plural-0.1.0-x86_64",
        "./run plural doctor",
        "./run mpirun -np 2 --bind-to none plural train RECIPE",
        "./run tests/gpu/checklist --device cpu --tiny -o OUTPUT",
    ],
    "Slurm; slurm_test.py and sweep_slurm_test.py have it": [
        "sbatch --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --time=04:00:00 launch/slurm/train.sbatch "
        "RECIPE [a.b=c ...]",
        "scancel --batch --signal=USR1 JOB",
        "launch/plural launch RECIPE --slurm --nodes 2 --ntasks-per-node 8 --time 04:00:00 "
        "--sbatch=--gpus-per-node=8",
        "launch/plural launch recipes/poexft-mistral-7b.yaml --slurm --nodes 2 --ntasks-per-node 8 "
        "--time 04:00:00 --sbatch=--gpus-per-node=8 model.device=cuda train.groups_per_step=16",
        "launch/plural sweep submit unlikelihood.yaml",
        "launch/plural sweep submit unlikelihood.yaml --max-parallel 8 --sbatch=--time=4:00:00",
    ],
    "lists that a model of random weights does not write; build_responses_test.py has them": [
        "launch/plural build-responses prompts.jsonl --model MODEL_DIR -o replies.jsonl",
    ],
    "a setting, which no command follows": [
        "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
        "export OMPI_MCA_btl_vader_single_copy_mechanism=none",
        "export PLURAL_BINARY=/path/to/build/plural",
    ],
}

# The reader's own in place of a document's words; those of a document come before those of all.
OF_ALL = {
    "--model DIR": f"--model {MODEL}",
    "--adapter DIR": "--adapter runs/mine/adapter",
    r"\b(MODEL|MODEL_DIR|NAME)\b": MODEL,
    r"\bRECIPE\b": "new.yaml",
    r"\bCOMMAND\b": "train",
    r"\bOUT\b": "merged",
    r"--ranks N\b": "--ranks 2",
}
OF_DOCUMENT = {
    # Pages with --align load the encoder.
    "README.md": {
        "runs/starter": "runs/mine",
        "--baseline beams": "--metrics distinct,latency --baseline beams",
    },
    "coming-from.md": {r"\bRUN\b": "runs/mine"},
    "data.md": {r" data/": " released/"},
    "metrics.md": {r"distinct,semantic,?.*-o": "distinct,self-bleu -o"},
    "report.md": {"metrics tuned.jsonl": "metrics tuned.jsonl --metrics distinct"},
    "running.md": {
        r"\bRUN\b": "runs/mine --tensorboard",
        "--corpus FILE": "--corpus my.h5",
        "-o FILE": "-o figures.json",
        "--input FILE": "--input answers.jsonl",
    },
    "troubleshooting.md": {r"\.\.\.": "launch/plural doctor"},
}
TYPED_AT_ONCE = {
    "plural ask --model DIR --adapter runs/mine/adapter --chat": "Hello!\n/again\n/new\nHi.\n/quit\n",
    "plural generate --model DIR [--adapter DIR] --stream": '{"id": 7, "prompt_tokens": [1, 2, 3]}\n',
    "PYTHONPATH=data/text .venv/bin/python": "import plural; print(plural.Recipe)\n",
}


def code_blocks(document, language=""):
    return re.findall(rf"(?m)^```{language}\n(.*?)^```", document.read_text(), re.DOTALL)


class Documents(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.base = Reader(Path(cls.enterClassContext(tempfile.TemporaryDirectory())) / "base")
        elsewhere = (("README.md", "Your own data"), ("docs/choosing.md", "Choosing on your own data"))
        cls.done = {
            cls.own(command, Path(page).name).removeprefix("launch/")
            for page, heading in elsewhere
            for block in documented.blocks(page, heading)
            for command in block
        }
        hub_models.put_into_cache(cls.base.cache, "mistralai/Mistral-7B-Instruct-v0.2", cls.base.model)
        for name in ("my.jsonl", "train.jsonl", "held-out.jsonl"):
            cls.base.write_chats(name)
        for name in ("replies.jsonl", "prompts.jsonl", "test_dialogs.jsonl"):
            cls.base.write_dialogues(name)
        cls.base.write_lines("texts.jsonl", [{"text": f"The sea is {word}."} for word in ("wide", "deep")])
        cls.base.write_lines("script.jsonl", [{"ask": "How old are you?", "attribute": "age"}])
        prepare = f"plural prepare --quiet --tokenizer {MODEL}"
        for command in (
            f"{prepare} my.jsonl --format chat -o my.h5",
            f"{prepare} texts.jsonl --format text -o other.h5",
            "plural train recipes/starter.yaml name=mine data.validation=my.h5",
        ):
            done = cls.base.type(command)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        for name in ("prompts.h5", "test.h5", "held-out.h5"):
            shutil.copy(cls.base.folder / "my.h5", cls.base.folder / name)
            training.write_sidecar(cls.base.folder / name)
        for name in ("new", "x"):
            (cls.base.folder / f"{name}.yaml").write_text(f"base: recipes/starter.yaml\nname: {name}\n")

    def folder_of(self, document):
        return self.base.copy(self.base.folder.parent / document.stem)

    @staticmethod
    def own(command, document):
        """The command with the reader's words in place of the document's."""
        line = documented.without_brackets(command) if "[" in command else command
        for pattern, words in {**OF_DOCUMENT.get(document, {}), **OF_ALL}.items():
            line = re.sub(pattern, words, line)
        return line.strip()

    def type_all(self, document, before=None):
        """Types what a document shows and nothing has typed yet, after `before` has written what it needs."""
        apart = {command for commands in NOT_TYPED.values() for command in commands}
        commands = [command for command in documented.typed(document) if command not in apart]
        reader = self.folder_of(document)
        if before:
            before(reader)
        typed = 0
        for command in commands:
            line = self.own(command, document.name)
            if (key := line.removeprefix("launch/")) in self.done:
                continue
            self.done.add(key)
            with self.subTest(document=document.name, command=command):
                if " serve " in line:
                    code, output = self.serve(reader, line)
                else:
                    done = reader.type(line, TYPED_AT_ONCE.get(command))
                    code, output = done.returncode, done.stdout + done.stderr
                self.assertEqual(code, 0, f"{line}\n{output}")
                self.assertNotIn("Traceback", output)
            typed += 1
        return typed

    def serve(self, reader, line):
        """Until it serves, and a Ctrl-C."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            line = re.sub(r"--port \d+", f"--port {free.getsockname()[1]}", line)
        process = subprocess.Popen(
            ["bash", "-c", f"exec {line}"],
            cwd=reader.folder,
            env=reader.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        output = ""
        for shown in process.stdout:
            output += shown
            if "plural: serves" in shown:
                process.send_signal(signal.SIGINT)
                break
        return process.wait(60), output + process.stdout.read()

    # What a document's commands need beside what all have.

    def write_rating_template(self, reader):
        page = (ROOT / "docs/preparing-data.md").read_text()
        (text,) = re.findall(r'(?m)^    \{\n      "name": "my-rating"(?:.*\n)+?    \}\n', page)
        (reader.folder / "my-rating.json").write_text(text)

    def write_example_corpus(self, reader):
        (program,) = code_blocks(ROOT / "docs/corpus-format.md", "python")
        (reader.folder / "example.py").write_text(program)
        done = reader.type(".venv/bin/python example.py")
        self.assertEqual(done.returncode, 0, done.stderr)

    def write_ratings(self, reader):
        """Answers to rate, which a corpus of ratings asks about: the same prompts, the same ids."""
        chats = [json.loads(line) for line in (reader.folder / "my.jsonl").read_text().splitlines()]
        reader.write_lines(
            "my-dialogues.jsonl",
            (
                {"id": f"my:{at + 1}", "context": chat["messages"][0]["content"], "candidates": []}
                for at, chat in enumerate(chats)
            ),
        )
        done = reader.type(
            f"plural prepare my-dialogues.jsonl --quiet --tokenizer {MODEL} --format dialogue "
            "--template coherence-rating -o ratings.h5"
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def write_sweep(self, reader):
        """The page's sweep with one seed, one weight and no encoder."""
        text = code_blocks(ROOT / "docs/sweeps.md", "yaml")[0]
        changes = {"[0.25, 0.5, 1.0]": "[0.5]", "[1, 2, 3]": "[1]", "distinct,semantic": "distinct"}
        for old, new in changes.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        text = text.replace("metrics.semantic_diversity", "metrics.distinct_2")
        (reader.folder / "unlikelihood.yaml").write_text(text)

    def write_answers(self, reader):
        done = reader.type(
            f"plural generate --model {MODEL} --corpus my.h5 --responses 4 --max-new-tokens 8 "
            "-o answers.jsonl"
        )
        self.assertEqual(done.returncode, 0, done.stderr)

    def write_two_runs(self, reader):
        self.write_answers(reader)
        for name in ("a", "b"):
            shutil.copytree(reader.folder / "runs/mine", reader.folder / "runs" / name)
            shutil.copy(reader.folder / "answers.jsonl", reader.folder / f"{name}.jsonl")
            done = reader.type(f"plural metrics {name}.jsonl --metrics distinct -o {name}.json")
            self.assertEqual(done.returncode, 0, done.stderr)
        shutil.copy(reader.folder / "answers.jsonl", reader.folder / "tuned.jsonl")

    def write_released(self, reader):
        """Files with the names and the form of those that the papers' authors released."""
        for folder in ("corpora", "released"):
            (reader.folder / folder).mkdir()
        for name in ("train_dialogs_1k", "train_dialogs_4k", "test_dialogs"):
            reader.write_dialogues(f"released/{name}.jsonl")
        header = "storyid,storytitle," + ",".join(f"sentence{place}" for place in range(1, 6))
        story = "s1,Bread,Ann is hungry.,She has flour.,She bakes bread.,It burns.,She laughs."
        (reader.folder / "rocstories.csv").write_text(f"{header}\n{story}\n")
        tasks = "baby-names continent-countries day-date fruits numbers occupations ficticious-people"
        for task in tasks.split():
            file = reader.folder / "prompts" / task / f"{task}-train.json"
            file.parent.mkdir(parents=True)
            record = {"request": f"Give one of {task}.", "response": "", "targets": ["one", "two"]}
            file.write_text(json.dumps(record))
        answers = [{"id": "fruits/fruits-train", "prompt": "p", "responses": [{"text": "one"}]}]
        for name in ("base.jsonl", "tuned.jsonl"):
            reader.write_lines(name, answers)

    NEEDS = {
        "data.md": write_released,
        "report.md": write_two_runs,
        "preparing-data.md": write_rating_template,
        "corpus-format.md": write_example_corpus,
        "running.md": write_ratings,
        "sweeps.md": write_sweep,
        "metrics.md": write_answers,
    }

    def test_every_command_runs(self):
        typed = 0
        for document in documented.DOCUMENTS:
            needs = self.NEEDS.get(document.name)
            typed += self.type_all(document, needs and (lambda reader, needs=needs: needs(self, reader)))
        self.assertGreater(typed, 50)

    def test_what_is_not_typed_is_shown(self):
        shown = {command for document in documented.DOCUMENTS for command in documented.typed(document)}
        apart = [command for commands in NOT_TYPED.values() for command in commands]
        self.assertEqual(sorted(set(apart) - shown), [])
        self.assertEqual(len(apart), len(set(apart)))
        for command in TYPED_AT_ONCE:
            self.assertIn(command, shown)

    def test_programs_in_python_have_a_test(self):
        """docs/python.md and docs/corpus-format.md; any other would be new."""
        pages = {page.stem for page in documented.DOCUMENTS if code_blocks(page, "python")}
        self.assertEqual(pages, {"python", "corpus-format"})


if __name__ == "__main__":
    unittest.main()

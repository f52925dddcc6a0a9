"""`plural serve` asked by the openai client and by plain HTTP; with a made model."""

import http.client
import json
import re
import subprocess
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from openai import APIStatusError, OpenAI

from text.answering import CHAT, AnsweringTest
from text.support import command, open_tokenizer


class Serve(AnsweringTest):
    def serve(self, *options, **environment):
        """Starts the endpoint and returns the client."""
        arguments = ("--model", self.model, "--adapter", self.adapter, "--port", "0", "--name", "m", *options)
        self.process = subprocess.Popen(
            command("serve", *arguments),
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(self.process.communicate)
        self.addCleanup(self.process.terminate)
        line = self.process.stdout.readline()
        self.port = int(re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)[1])
        client = OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)
        self.addCleanup(client.close)
        return client

    def asked(self) -> list[list[str]]:
        """The prompts of each request but the first, which waits for the model."""
        tokenizer = open_tokenizer(self.model)
        found = []
        for request in self.requests()[1:]:
            tails = request.get("tails") or [[]] * request["responses"]
            found.append([tokenizer.decode(request["prompt_tokens"] + tail).decode() for tail in tails])
        return found

    def chat(self, *contents, **options):
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
        return self.client.chat.completions.create(model="m", messages=messages, **options)

    def http(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def test_a_chat(self):
        self.trained()
        self.client = self.serve()
        self.assertEqual([model.id for model in self.client.models.list()], ["m"])
        self.assertEqual(self.client.models.retrieve("m").id, "m")
        answer = self.chat("Hi", "Ho", "Why?", n=4, temperature=0.5, top_p=0.9, max_tokens=7, seed=3)
        (prompts,) = self.asked()
        expected = [f"<s>Person A: Hi\nPerson B: Ho\nPerson A: Why?\nPerson B, #{k}:" for k in range(1, 5)]
        self.assertEqual(sorted(prompts), expected, "a number each")
        for choice, prompt in zip(answer.choices, prompts, strict=True):
            self.assertEqual(choice.message.content, f"#{choice.possibility}:")
            self.assertEqual(prompt[-2], str(choice.possibility))
            self.assertEqual((choice.message.role, choice.finish_reason), ("assistant", "stop"))
        request = self.requests()[1]
        settings = {"temperature": 0.5, "top_p": 0.9, "max_new_tokens": 7, "seed": 3}
        self.assertEqual({key: request[key] for key in settings}, settings)
        usage = answer.usage
        prompt_tokens = len(request["prompt_tokens"]) + max(map(len, request["tails"]))
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens), (prompt_tokens, 4 * 3))
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + 12)

    def test_seeds(self):
        self.trained()
        self.client = self.serve()
        for seed in (3, 3, 4, None, None):
            self.chat("Hi", n=2, seed=seed)
        same, again, other, drawn, anew = self.requests()[1:]
        self.assertEqual(same, again)
        self.assertNotEqual(same["id"], other["id"])
        self.assertNotEqual((drawn["id"], drawn["seed"]), (anew["id"], anew["seed"]))
        with ThreadPoolExecutor(8) as threads:  # equal ones at the same time
            answers = list(
                threads.map(lambda _: self.chat("Hi", seed=3).choices[0].message.content, range(24))
            )
        self.assertEqual(len(set(answers)), 1)

    def test_many_at_once(self):
        self.trained()
        self.client = self.serve(READ="9")
        with ThreadPoolExecutor(16) as threads:
            texts = threads.map(
                lambda i: self.chat(f"T{i}E", extra_body={"possibilities": [2]}).choices[0].message.content,
                range(40),
            )
            for i, text in enumerate(texts):
                self.assertTrue(text.endswith(", #2:"), f"{i}: {text}")
        asked = sorted(prompt for (prompt,) in self.asked())
        self.assertEqual(asked, sorted(f"<s>Person A: T{i}E\nPerson B, #2:" for i in range(40)))

    def test_stop_texts_and_cut_answers(self):
        self.trained()
        self.client = self.serve()
        options = {"extra_body": {"possibilities": [2]}}
        choice = self.chat("Hi", stop=[":", "x"], **options).choices[0]
        self.assertEqual((choice.message.content, choice.finish_reason), ("#2", "stop"))
        choice = self.chat("Hi", max_completion_tokens=2, **options).choices[0]
        self.assertEqual((choice.message.content, choice.finish_reason), ("#2", "length"))

    def test_system_messages_and_parts(self):
        self.trained(CHAT)
        self.client = self.serve("--possibilities", "none")
        parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
        messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
        self.client.chat.completions.create(model="m", messages=messages)
        self.assertEqual(
            self.asked()[0],
            [
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
                "<|im_start|>assistant\n"
            ],
        )

    def test_completions(self):
        self.trained()
        self.client = self.serve()
        ids = open_tokenizer(self.model).encode_prompts(["How are you"])[0]
        self.assertGreater(len(ids), 3)  # the stand-in answers with a prompt's last three tokens
        create = self.client.completions.create
        self.assertEqual(create(model="m", prompt=["How", "are"], n=2).usage.completion_tokens, 12)
        answer = create(model="m", prompt=[ids], extra_body={"top_k": 5})
        self.assertEqual(answer.choices[0].text, open_tokenizer(self.model).decode(ids[-3:]).decode())
        self.assertEqual(self.asked(), [["<s>How"] * 2, ["<s>are"] * 2, ["How are you"]])

    def test_streams(self):
        self.trained()
        self.client = self.serve()
        options = {"n": 2, "stream": True, "extra_body": {"possibilities": "first"}}
        parts = list(self.chat("Hi", stream_options={"include_usage": True}, **options))
        texts, ends = {}, {}
        for part in parts[:-1]:
            (choice,) = part.choices
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            ends[choice.index] = choice.finish_reason
        self.assertEqual((texts, ends), ({0: "#1:", 1: "#2:"}, {0: "stop", 1: "stop"}))
        self.assertEqual((parts[-1].choices, parts[-1].usage.completion_tokens), ([], 6))
        self.assertEqual(len(list(self.chat("Hi", **options))), 4)
        parts = list(self.client.completions.create(model="m", prompt="x", stream=True))
        self.assertEqual(len(parts), 1)

    def test_what_is_not_supported(self):
        self.trained()
        self.client = self.serve()
        long = "word " * 300
        turns = [{"role": role, "content": "word " * 8} for role in ("user", "assistant", "user")]
        for param, code, options in (
            ("logprobs", "unsupported_parameter", {"logprobs": True}),
            ("frequency_penalty", "unsupported_parameter", {"frequency_penalty": 0.5}),
            ("nonsense", "unsupported_parameter", {"extra_body": {"nonsense": 1}}),
            ("tools", "unsupported_parameter", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
            ("model", "model_not_found", {"model": "other"}),
            ("n", None, {"n": 0}),
            ("n", None, {"extra_body": {"n": True}}),
            ("temperature", None, {"temperature": -1}),
            ("temperature", None, {"extra_body": {"temperature": "1"}}),
            ("top_p", None, {"top_p": 0}),
            ("stop", None, {"stop": [""]}),
            ("max_tokens", None, {"max_tokens": 0}),
            ("stream_options", None, {"stream_options": {"include_usage": True}}),
            ("possibilities", None, {"extra_body": {"possibilities": "some"}}),
            ("messages", None, {"extra_body": {"possibilities": [5]}}),
            ("messages", "context_length_exceeded", {"max_tokens": 300}),
            ("messages", "context_length_exceeded", {"messages": [{"role": "user", "content": long}]}),
            ("messages", "context_length_exceeded", {"messages": turns}),
            ("messages", None, {"messages": []}),
            ("messages[0]", None, {"messages": [{"role": "robot", "content": "x"}]}),
            (
                "messages[0]",
                None,
                {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "x"}]},
            ),
            ("messages[1]", None, {"messages": [{"role": "user", "content": "x"}] * 2}),
            ("messages[0]", None, {"messages": [{"role": "assistant", "content": "x"}]}),
            ("messages[0]", None, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
        ):
            with self.subTest(param=param, options=str(options)[:60]):
                usual = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
                with self.assertRaises(APIStatusError) as caught:
                    self.client.chat.completions.create(**{**usual, **options})
                self.assertEqual((caught.exception.param, caught.exception.code), (param, code))
                self.assertEqual(caught.exception.type, "invalid_request_error")
        self.assertEqual(self.asked(), [], "nothing of it reached the model")
        self.chat("Hi", presence_penalty=0, n=1, logprobs=False, user="me")  # what changes nothing is taken

    def test_token_ids_outside_the_vocabulary(self):
        self.trained()
        self.client = self.serve()
        for prompt in ([[1_000_000]], [[-1]], [[]], [""], [], [[1, "x"]]):
            status, body = self.http(
                "POST",
                "/v1/completions",
                json.dumps({"prompt": prompt}),
                **{"Content-Type": "application/json"},
            )
            self.assertEqual((status, body["error"]["param"]), (400, "prompt"), prompt)

    def test_http(self):
        self.trained()
        self.serve()
        typed = {"Content-Type": "application/json"}
        for status, method, path, body, headers in (
            (200, "GET", "/v1/models", None, {"Host": "localhost:1"}),
            (403, "GET", "/v1/models", None, {"Host": "rebound.example"}),
            (404, "GET", "/v1/models/other", None, {}),
            (404, "GET", "/", None, {}),
            (404, "POST", "/v1/embeddings", "{}", typed),
            (415, "POST", "/v1/completions", "{}", {"Content-Type": "text/plain"}),
            (400, "POST", "/v1/completions", "{", typed),
            (400, "POST", "/v1/completions", "[]", typed),
            (413, "POST", "/v1/completions", None, {**typed, "Content-Length": "99999999999"}),
            (413, "POST", "/v1/completions", None, {**typed, "Content-Length": "-1"}),
        ):
            with self.subTest(path=path, headers=headers):
                found, answer = self.http(method, path, body, **headers)
                self.assertEqual(found, status, answer)
                self.assertEqual("error" in answer, status != 200)

    def test_this_machine_alone(self):
        self.trained()
        self.serve()
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{self.port:04X}")]
        self.assertEqual(listening, [f"0100007F:{self.port:04X}"])

    def test_a_port_that_is_taken(self):
        self.trained()
        self.serve()
        done = subprocess.run(
            command("serve", "--model", self.model, "--port", str(self.port)),
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 69, done.stderr)
        self.assertIn("give another --port", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)

    def test_ends(self):
        """With the model's process, with its code; by Ctrl-C as something ordinary."""
        self.trained()
        self.client = self.serve("--quiet")
        self.process.send_signal(2)
        self.assertEqual(self.process.wait(30), 0, self.process.stderr.read())
        program = self.folder / "program"
        program.write_text(
            program.read_text().replace("    count =", '    if "tails" in request: sys.exit(77)\n    count =')
        )
        self.client = self.serve("--quiet")
        with self.assertRaises(APIStatusError) as caught:
            self.chat("Hi")
        self.assertEqual((caught.exception.status_code, caught.exception.type), (500, "server_error"))
        self.assertEqual(self.process.wait(30), 77)
        self.assertIn("the model's process ended with code 77", self.process.stderr.read())


if __name__ == "__main__":
    unittest.main()

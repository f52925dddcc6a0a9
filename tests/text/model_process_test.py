"""The process that answers: much asked and much answered at a time."""

import sys
import threading
import unittest

from plural_text.common.model_process import ModelProcess

# Answers each request at once with more than a pipe holds, and reads no other before that is read.
ANSWERS = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"id": request["id"], "responses": [{"tokens": [1] * 30000}]}), flush=True)
"""
REQUESTS = 8


class ModelProcessTest(unittest.TestCase):
    def test_full_pipes_of_both_directions(self):
        with ModelProcess([sys.executable, "-c", ANSWERS]) as model:
            answers = []

            def ask():
                for n in range(REQUESTS):
                    answers.append(model.send({"id": str(n), "prompt_tokens": [1] * 30000}))

            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            asking.join(60)
            if asking.is_alive():
                model._process.kill()  # else leaving the block would wait for ever
            self.assertFalse(asking.is_alive(), "neither side reads")
            for n, answer in enumerate(answers):
                self.assertEqual(answer.result(60)["id"], str(n))


if __name__ == "__main__":
    unittest.main()

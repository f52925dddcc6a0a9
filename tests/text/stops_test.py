"""A stop reaches a command at whatever instant it comes."""

import signal
import subprocess
import sys
import unittest

# The signal comes while a finalizer runs, where Python drops what is raised.
DROPPED = """
import os, signal, time
from plural_text.__main__ import take_stops

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), {number})
        time.sleep(0)

take_stops()
try:
    value = Finalized()
    del value
    time.sleep(60)
except KeyboardInterrupt:
    print("stopped")
"""


class Stops(unittest.TestCase):
    def test_a_stop_inside_a_finalizer_is_not_lost(self):
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            with self.subTest(number=number.name):
                done = subprocess.run(
                    [sys.executable, "-c", DROPPED.format(number=int(number))],
                    capture_output=True,
                    text=True,
                    timeout=50,
                )
                self.assertEqual((done.stdout, done.stderr, done.returncode), ("stopped\n", "", 0))


if __name__ == "__main__":
    unittest.main()

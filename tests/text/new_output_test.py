"""What -o may name."""

import os
import tempfile
import unittest
from pathlib import Path

from plural_text.common.errors import CannotCreate
from plural_text.common.kept_lines import KeptLines
from plural_text.common.new_output import require_new


class NewOutputTest(unittest.TestCase):
    def test_only_files_are_replaced_and_only_by_force(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "file").write_text("x")
            (folder / "link").symlink_to("file")
            os.mkfifo(folder / "pipe")
            (folder / "dangling").symlink_to("nowhere")
            (folder / "device").symlink_to("/dev/null")
            (folder / "folder").mkdir()
            require_new(folder / "new", False)
            for output in ("file", "link"):
                require_new(folder / output, True)
                with self.assertRaisesRegex(CannotCreate, "exists; give --force"):
                    require_new(folder / output, False)
            for output in ("pipe", "dangling", "device"):
                for force in (False, True):
                    with self.assertRaisesRegex(CannotCreate, "is no regular file"):
                        require_new(folder / output, force)
                with self.assertRaisesRegex(CannotCreate, "is no regular file"):
                    KeptLines(folder / output, "id")
            with self.assertRaisesRegex(CannotCreate, "is a folder"):
                require_new(folder / "folder", True)
            with self.assertRaisesRegex(CannotCreate, "does not exist"):
                require_new(folder / "none" / "new", True)


if __name__ == "__main__":
    unittest.main()

"""What -o may name."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from plural_text.common.errors import CannotCreate, WriteFailed
from plural_text.common.kept_lines import KeptLines
from plural_text.common.new_output import require_new, write_whole


class NewOutputTest(unittest.TestCase):
    def test_only_files_are_replaced_and_only_by_force(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "mine").write_text("x")
            (folder / "link").symlink_to("mine")
            os.mkfifo(folder / "pipe")
            (folder / "dangling").symlink_to("nowhere")
            (folder / "device").symlink_to("/dev/null")
            (folder / "folder").mkdir()
            require_new(folder / "new", False)
            for output in ("mine", "link"):
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

    def test_a_file_appears_whole_or_not_at_all(self):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "mine")
            write_whole(path, "é")
            self.assertEqual(path.read_bytes(), "é".encode())
            mask = os.umask(0o027)
            self.addCleanup(os.umask, mask)
            write_whole(path, b"new")
            self.assertEqual((path.read_text(), path.stat().st_mode & 0o777), ("new", 0o640))
            full = mock.patch("os.fsync", side_effect=OSError(28, "No space left on device"))
            with full, self.assertRaisesRegex(WriteFailed, "mine: cannot be written: No space left"):
                write_whole(path, b"half")
            self.assertEqual((path.read_text(), os.listdir(name)), ("new", ["mine"]))
            with self.assertRaises(WriteFailed):
                write_whole(path / "x", b"")


if __name__ == "__main__":
    unittest.main()

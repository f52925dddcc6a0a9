"""Event files for TensorBoard, in log/tensorboard of the run.

Owns: the folder, its files: one per start, cut to what was committed when the next one begins. Does not own:
the format, which is the library's. Thread rule: one thread; the library writes in one of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from plural_text.common.errors import WriteFailed
from plural_text.track.tracker import not_installed


class TensorBoard:
    """own: {"files": {name: committed bytes}}. Errors: NotInstalled, WriteFailed."""

    counts_before_sending = False

    def __init__(self, folder: Path, recipe_text: str, own: dict):
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.plugins.text import metadata
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
            from tensorboard.util import tensor_util
        except ImportError as missing:
            raise not_installed("tensorboard", missing) from None
        self._event, self._summary = event_pb2.Event, summary_pb2.Summary
        self.where = f"for tensorboard --logdir {folder}"
        self._files: dict[str, int] = dict(own.get("files", {}))
        try:
            self._cut_to_committed(folder)
            before = set(folder.glob("events.*"))
            self._writer = EventFileWriter(str(folder))
            (self._path,) = set(folder.glob("events.*")) - before
        except OSError as error:
            raise _failed(folder, error) from None
        if not self._files:  # the first start: the recipe as a text, in a block of code
            lines = "".join(f"    {line}\n" for line in recipe_text.splitlines())
            value = self._summary.Value(
                tag="recipe",
                metadata=metadata.create_summary_metadata(display_name="", description=""),
                tensor=tensor_util.make_tensor_proto([lines.encode()]),
            )
            self._writer.add_event(self._event(step=0, summary=self._summary(value=[value])))

    def send(self, step: int, figures: dict[str, float], time_unix_seconds: float) -> None:
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._writer.add_event(
            self._event(step=step, wall_time=time_unix_seconds, summary=self._summary(value=values))
        )

    def commit(self) -> dict:
        try:
            self._writer.flush()
            self._files[self._path.name] = self._path.stat().st_size
        except OSError as error:
            raise _failed(self._path, error) from None
        return {"files": self._files}

    def close(self) -> None:
        self._writer.close()

    def _cut_to_committed(self, folder: Path) -> None:
        """Removes what an earlier start wrote and did not live to count: it will be sent again."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("events.*"):
            committed = self._files.get(path.name, 0)
            if committed == 0:
                path.unlink()
            elif path.stat().st_size > committed:
                os.truncate(path, committed)


def _failed(path: Path, error: OSError) -> WriteFailed:
    return WriteFailed(
        f"{path}: cannot be written: {error.strerror or error}; free space, then start it again"
    )

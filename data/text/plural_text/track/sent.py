"""What a run's trackers have got, so that every line is sent once, by however many starts.

Owns: log/track.json, the lock of those who write it. Does not own: what is sent. Thread rule: one thread; one
process per run, by the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from plural_text.common.errors import BadData, CannotCreate
from plural_text.common.json_lines import read_object
from plural_text.common.metrics_file import Place
from plural_text.common.new_output import write_whole


@dataclass
class Sent:
    """Of one tracker. `steps`: event -> the largest step sent, which tells what is new in a file that was cut
    back and has grown again. `own`: what the tracker itself must remember."""

    place: Place = field(default_factory=Place)
    steps: dict[str, int] = field(default_factory=dict)
    own: dict = field(default_factory=dict)

    def has(self, event: str, step: int) -> bool:
        return step <= self.steps.get(event, -1)


class SentFile:
    """Errors of reading: BadData, MissingInput; of writing: WriteFailed."""

    def __init__(self, logs: Path):
        self._path = logs / "track.json"

    def read(self, tracker: str) -> Sent:
        """Nothing where the tracker has got nothing yet."""
        fields = self._all().get(tracker)
        if fields is None:
            return Sent()
        try:
            return Sent(Place(**fields["place"]), dict(fields["steps"]), dict(fields["own"]))
        except (TypeError, KeyError, ValueError):
            raise BadData(
                f"{self._path}: '{tracker}' is damaged; remove the file, and every line is sent again"
            ) from None

    def write(self, tracker: str, sent: Sent) -> None:
        """The file appears whole: a kill leaves this one or the one before."""
        fields = {**self._all(), tracker: asdict(sent)}
        write_whole(self._path, json.dumps(fields, indent=1))

    def _all(self) -> dict:
        return read_object(self._path) if self._path.exists() else {}


@contextlib.contextmanager
def only_tracker(logs: Path) -> Iterator[bool]:
    """Whether this process alone sends the run's figures until the end of the block; False where another one
    does. Errors: CannotCreate."""
    path = logs / "track.lock"
    try:
        logs.mkdir(exist_ok=True)
        stream = open(path, "a")
    except OSError as error:
        advice = "track a copy of the run in a folder that can be written"
        raise CannotCreate(f"{path}: cannot be opened for writing: {error.strerror}; {advice}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # A file system without locks has one tracker by the run's own lock.
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                yield False
                return
        yield True

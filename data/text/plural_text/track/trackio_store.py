"""Figures in trackio's store of this user, which `trackio show` reads.

Owns: how the library is called, the id by which later starts go on with the same run. Does not own: where the
store is: the library's own folder, or that of the variable TRACKIO_DIR. Thread rule: one thread. Nothing is
sent over a network: rows are written straight into the store, where writing a row again changes nothing.
"""

from __future__ import annotations

import sqlite3
import uuid
from datetime import UTC, datetime

from plural_text.common.errors import WriteFailed
from plural_text.track.tracker import not_installed

PROJECT = "plural"
# The last second that a date has, of the year 9999.
_LATEST = 253_402_300_799
_EXACT = 1 << 53  # larger whole numbers are more than the store's JSON has room for


class Trackio:
    """own: {"id": of the run there}. Errors: NotInstalled, WriteFailed."""

    counts_before_sending = False

    def __init__(self, name: str, config: dict, own: dict):
        try:
            from trackio.sqlite_storage import SQLiteStorage
        except ImportError as missing:
            raise not_installed("trackio", missing) from None
        self._store, self._name, self._config = SQLiteStorage, name, config
        self._id = own.get("id") or uuid.uuid4().hex
        self._rows: list[tuple[int, dict, str, str]] = []  # step, figures, time, the row's id
        self.where = f"for trackio show --project {PROJECT}"

    def send(self, step: int, figures: dict[str, float], time_unix_seconds: float) -> None:
        values = {key: float(v) if abs(v) > _EXACT else v for key, v in figures.items()}
        time = datetime.fromtimestamp(min(max(time_unix_seconds, 0), _LATEST), UTC).isoformat()
        event = min(figures).partition("/")[0]
        self._rows.append((step, values, time, f"{self._id}-{event}-{step}"))

    def commit(self) -> dict:
        if self._rows:
            steps, figures, times, ids = map(list, zip(*self._rows))
            try:
                self._store.bulk_log(
                    PROJECT,
                    self._name,
                    figures,
                    steps=steps,
                    timestamps=times,
                    config=self._config,
                    log_ids=ids,
                    run_id=self._id,
                )
            except (OSError, sqlite3.Error) as error:
                advice = "free space, or name a folder that can be written with the variable TRACKIO_DIR"
                raise WriteFailed(f"trackio: its store cannot be written: {error}; {advice}") from None
            self._rows.clear()
        return {"id": self._id}

    def close(self) -> None:
        """Rows are in the store since commit()."""

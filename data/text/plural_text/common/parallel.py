"""Applies a function to many items in a few threads and gives the results in the order of completion.

Owns: the threads. They are daemons, unlike those of concurrent.futures, which Python joins at its exit: a
command that is interrupted while threads wait for a server ends at once. Thread rule: iterate and stop in one
thread; the function runs in others.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from plural_text.common.errors import CommandError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Parallel(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], items: Iterable[Item], workers: int):
        self._function = function
        self._items: queue.SimpleQueue = queue.SimpleQueue()
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        self._stopped = False
        self._count = 0
        for item in items:
            self._items.put(item)
            self._count += 1
        for _ in range(min(workers, self._count)):
            threading.Thread(target=self._work, daemon=True).start()

    def __iter__(self) -> Iterator[tuple[Item, Result | None, CommandError | None]]:
        """(item, result, None) or (item, None, error) of each item that was begun. Other exceptions of the
        function are raised here."""
        for _ in range(self._count):
            begun, item, result, error = self._done.get()
            if error is not None and not isinstance(error, CommandError):
                self.stop()
                raise error
            if begun:
                yield item, result, error

    def stop(self) -> None:
        """Begins no further item; those under way still come."""
        self._stopped = True

    def _work(self) -> None:
        while True:
            try:
                item = self._items.get_nowait()
            except queue.Empty:
                return
            if self._stopped:
                self._done.put((False, item, None, None))
                continue
            try:
                self._done.put((True, item, self._function(item), None))
            except BaseException as error:  # the iterating thread decides
                self._done.put((True, item, None, error))

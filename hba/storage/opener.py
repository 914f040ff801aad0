"""Opening stores while an adapter runs, in threads: a server that does not answer, a name server, a hung file system or
a disk that spins up must not hold up the loop, in which the guest's register accesses wait.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Generic, TypeVar

from hba.clock import S, Timer
from hba.errors import HbaError, StorageError
from hba.loop import EventLoop
from hba.storage.backend import Backend
from hba.storage.sg import ScsiPassThrough
from hba.storage.workers import WorkerPool

Store = Backend | ScsiPassThrough  # what a logical unit may stand on

AT_ONCE = 8  # stores being opened together; more would only wait for the same hung file system
LIMIT = 30 * S  # after which whoever asked is told; an NBD server has its own, shorter `connect_timeout`


T = TypeVar("T", bound=Store)
Result = Callable[[], T]  # what was opened, or it raises why not


class Opener:
    """Runs what opens a store (a back end's constructor) in a thread. All methods are for the loop's thread."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop
        self._pool = WorkerPool(loop, threads=AT_ONCE, name="hba-open")

    def open(self, make: Callable[[], T], opened: Callable[[Result[T]], None]) -> None:
        """`make()` in a thread, then `opened(result)` in the loop, once.

        What takes longer than `LIMIT` is given up with a `StorageError`, and closed should it open after all. Raises
        `StorageError` when `AT_ONCE` others are under way.
        """
        if self._pool.busy >= AT_ONCE:
            raise StorageError(
                f"{AT_ONCE} stores are being opened already, and none of them has answered; try again when one has",
                errno.EBUSY,
            )
        attempt = _Attempt(make, opened)
        attempt.timer = self._loop.clock.call_later(LIMIT, attempt.give_up)
        self._pool.submit(attempt.run, attempt.ended)

    def close(self) -> None:
        """Nobody is waited for: a call that hangs ends with the process."""
        self._pool.shutdown(0)


class _Attempt(Generic[T]):
    """One store that is being opened."""

    def __init__(self, make: Callable[[], T], opened: Callable[[Result[T]], None]) -> None:
        self._make = make
        self._opened: Callable[[Result[T]], None] | None = opened
        self._store: T | None = None
        self._error: HbaError | None = None
        self.timer: Timer | None = None

    def run(self) -> None:
        try:
            self._store = self._make()
        except HbaError as error:  # kept as it is: the pool knows storage errors only
            self._error = error

    def ended(self, error: StorageError | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self._error = self._error or error
        opened, self._opened = self._opened, None
        if opened is not None:
            opened(self._result)
        elif self._store is not None:
            self._store.close()

    def give_up(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            self._error = StorageError(
                f"the store has not opened within {LIMIT // S} s, and is given up; "
                "look whether its server or file system answers",
                errno.ETIMEDOUT,
            )
            opened(self._result)

    def _result(self) -> T:
        if self._error is not None:
            raise self._error
        assert self._store is not None, "it has ended, and well"
        return self._store

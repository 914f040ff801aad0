"""A store that goes wrong when told to: for testing what is above it.

backend = FaultyBackend(MemoryBackend(1 << 20), clock)
backend.inject(Fault("read", errno=errno.EIO, offset=4096, length=512))   # this sector cannot be read
backend.inject(Fault("write", errno=errno.ENOSPC, skip=9, count=1))       # the tenth write fails
backend.inject(Fault("flush", delay=3 * S))                               # flushes take 3 s of the clock
backend.inject(Fault("read", count=1, hang=True))                         # the next read hangs until release()
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hba.clock import Clock
from hba.errors import StorageError
from hba.storage.backend import Backend, Done
from hba.storage.vectors import length_of

OPERATIONS = ("read", "write", "flush", "zero", "discard")


@dataclass
class Fault:
    """What happens to the calls of one kind that touch a range.

    `operation`  one of OPERATIONS, or "any"
    `errno`      the call fails with it; 0: it succeeds (after `delay`, or when released)
    `offset`, `length`  bytes; only calls that overlap the range (flushes always do). Length None: to the end
    `skip`, `count`     let so many matching calls pass first, then hit so many (None: all that follow)
    `delay`      ns of the clock before the outcome; None: at once
    `hang`       the outcome comes when `FaultyBackend.release` is called
    `hits`       how often it happened
    """

    operation: str
    errno: int = 0
    offset: int = 0
    length: int | None = None
    skip: int = 0
    count: int | None = None
    delay: int | None = None
    hang: bool = False
    hits: int = 0

    def __post_init__(self) -> None:
        if self.operation not in (*OPERATIONS, "any"):
            raise ValueError(f"unknown operation {self.operation!r}; one of {', '.join(OPERATIONS)}, any")

    def takes(self, operation: str, offset: int, length: int) -> bool:
        """Does this fault hit the call? Counts it."""
        if self.operation not in (operation, "any"):
            return False
        if operation != "flush" and (
            offset + length <= self.offset or (self.length is not None and offset >= self.offset + self.length)
        ):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        self.hits += 1
        return True


class FaultyBackend(Backend):
    """`inner`, except where a fault of `plan` says otherwise; the first that matches counts."""

    kind = "faulty"

    def __init__(self, inner: Backend, clock: Clock, plan: Sequence[Fault] = ()) -> None:
        self.inner = inner
        self.plan = list(plan)
        self._clock = clock
        self._hung: list[Callable[[], None]] = []
        self._settled = 0  # how often; what was held back before the last time does nothing any more
        self._copy()
        inner.on_event = self.event

    def _copy(self) -> None:
        self.size = self.inner.size
        self.read_only = self.inner.read_only
        self.can_discard = self.inner.can_discard
        self.physical_block_size = self.inner.physical_block_size
        self.granule = self.inner.granule
        self.medium_block = self.inner.medium_block

    def inject(self, fault: Fault) -> Fault:
        self.plan.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; what hangs or waits already still does."""
        self.plan.clear()

    def release(self) -> int:
        """Let everything that hangs have its outcome; returns how many that were."""
        hung, self._hung = self._hung, []
        for outcome in hung:
            outcome()
        return len(hung)

    def event(self, event: str) -> None:
        """Report "gone", "back", "resized" ... as if the store had."""
        self._copy()
        if self.on_event is not None:
            self.on_event(event)

    def _call(self, operation: str, offset: int, length: int, start: Callable[[Done], bool], done: Done) -> bool:
        fault = next((fault for fault in self.plan if fault.takes(operation, offset, length)), None)
        if fault is None:
            return start(done)
        error: StorageError | None = None
        if fault.errno:
            error = StorageError(
                f"injected: {operation} of {length} bytes at {offset}: {os.strerror(fault.errno)}", fault.errno
            )

        settled = self._settled

        def outcome() -> None:
            if error is not None:
                done(error)
                return
            if settled != self._settled:
                done(StorageError(f"injected: {operation} of {length} bytes at {offset}: withdrawn", errno.ECANCELED))
                return
            try:
                finished = start(done)
            except StorageError as problem:
                done(problem)
                return
            if finished:
                done(None)

        if fault.hang:
            self._hung.append(outcome)
            return False
        if fault.delay is not None:
            self._clock.call_later(fault.delay, outcome)
            return False
        if error is not None:
            raise error
        return start(done)

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        return self._call("read", offset, length_of(views), lambda done: self.inner.read(views, offset, done), done)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        return self._call(
            "write", offset, length_of(views), lambda done: self.inner.write(views, offset, done, fua), done
        )

    @property
    def unstable(self) -> bool:
        """Also when a flush would do nothing but what a fault has in store for it."""
        return self.inner.unstable or any(fault.operation in ("flush", "any") for fault in self.plan)

    def flush(self, done: Done) -> bool:
        return self._call("flush", 0, self.size, self.inner.flush, done)

    def forget_lost(self) -> None:
        self.inner.forget_lost()

    def discard(self, offset: int, length: int, done: Done) -> bool:
        return self._call("discard", offset, length, lambda done: self.inner.discard(offset, length, done), done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        return self._call("zero", offset, length, lambda done: self.inner.zero(offset, length, done), done)

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        return self.inner.allocated(offset, length)

    def resize(self, size: int) -> None:
        self.inner.resize(size)
        self._copy()

    def settle(self, timeout: float) -> bool:
        self._settled += 1
        return self.inner.settle(timeout)

    def close(self) -> None:
        self.inner.close()

    def describe(self) -> dict[str, object]:
        faults = [vars(fault) for fault in self.plan]
        return super().describe() | {"inner": self.inner.describe(), "faults": faults, "hanging": len(self._hung)}

"""The one interface every back end has.

Each data call tries to finish at once without blocking and says so: it returns True when done, False when `done` will
be called later, in the loop's thread, with None or the error. It raises `StorageError` (with errno) for an error it
knows at once. So the common case (page cache, memory) costs no callback, and nothing blocks the event loop.

`views` are writable (read) or readable (write) memoryviews of guest memory: data is never copied on the way.
A store that has gone (server left, disk pulled) answers ENODEV until it is back; `on_event` tells both.
Offsets and lengths are bytes, of whole blocks of the unit above (so of 512 bytes at least); the views need not be
blocks. A back end never reads or writes less than asked: short is an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from hba.errors import StorageError
from hba.storage.transfer import Transfer

Done = Callable[[StorageError | None], None]
Allocation = Callable[["tuple[bool, int] | StorageError"], None]
Event = Callable[[str], None]  # "resized", "gone", "back", "error: ..."


class Backend(ABC):
    """Blocks somewhere. One LUN owns one back end."""

    kind: str = ""  # "memory", "file", "nbd", ... as the configuration spells it
    size: int = 0  # bytes
    read_only: bool = False
    can_discard: bool = False
    physical_block_size: int = 512  # bytes; what the store would like to be written in
    granule: int = 1  # bytes; the least it reads and writes at all, at a multiple of itself (`hba.storage.granules`)
    medium_block: int = 1  # bytes; the least its medium takes at once: a unit reports no smaller physical block
    lasting = True  # who opens it after us finds what was written to it
    _lost = False  # it went before a flush had covered all it acknowledged; the next flush says so
    on_event: Event | None = None  # called in the loop's thread when something happens to the store by itself

    @abstractmethod
    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool: ...

    def read_batch(self, reads: Sequence[Transfer]) -> Sequence[Transfer]:
        """Read for one or more; returns those that wait. Of the others each has its data, or was told why not."""
        late: list[Transfer] = []
        for read in reads:
            assert read.data is not None
            try:
                if not self.read(read.data.views, read.offset, read.answered):
                    read.waits()
                    late.append(read)
            except StorageError as error:
                read.failed(error)
        return late

    @abstractmethod
    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        """`fua`: on stable storage before it is done."""

    @abstractmethod
    def flush(self, done: Done) -> bool:
        """Everything written before is on stable storage (fdatasync) when done."""

    @property
    def unstable(self) -> bool:
        """Whether it may hold what it has acknowledged and a loss of power would take, as far as it knows."""
        return not self.read_only

    def forget_lost(self) -> None:
        """Who wrote to it was told that it went, and starts over with it: no `flush` need fail for what is lost."""
        self._lost = False

    def discard(self, offset: int, length: int, done: Done) -> bool:
        """Give the range up; it reads as zeros afterwards. Back ends that cannot write zeros instead."""
        return self.zero(offset, length, done)

    @abstractmethod
    def zero(self, offset: int, length: int, done: Done) -> bool: ...

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        """(mapped?, bytes from `offset` that share this state, at most `length`) for GET LBA STATUS."""
        return True, length

    def allocation(self, offset: int, length: int, done: Allocation) -> tuple[bool, int] | None:
        """`allocated` for stores that may have to ask first: the answer, or None when `done` will be called with it."""
        return self.allocated(offset, length)

    def resize(self, size: int) -> None:
        """Grow or shrink. Raises `StorageError` when the store cannot."""
        raise StorageError(f"a {self.kind} back end cannot be resized")

    def settle(self, timeout: float) -> bool:
        """Wait until no call made so far touches its caller's memory, or the store, any more.

        For commands that are aborted or reset: the guest takes their memory back, and may write the same blocks again.
        Holds up the loop, for at most `timeout` s; False when a call hangs for longer. Outcomes are delivered later, as
        ever; a call may be ended with an error.
        """
        return True

    @abstractmethod
    def close(self) -> None:
        """Flush and release. Idempotent."""

    def describe(self) -> dict[str, object]:
        """For `hba show`: kind, size, path, state, counters."""
        return {"kind": self.kind, "size": self.size, "read_only": self.read_only}

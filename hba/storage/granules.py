"""A store that takes larger blocks than the unit has: what is smaller is read, changed and written back.

The store's `granule` is the least it reads and writes, at a multiple of itself (an NBD export's minimum block size,
say). Whatever fills granules goes straight through. A change that does not excludes every other change of the same
granules until it has been written back, in the order in which they came, so that none is lost or undone by another.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Sequence

from hba.errors import ConfigError, StorageError
from hba.storage.backend import Allocation, Backend, Done
from hba.storage.join import Join
from hba.storage.vectors import length_of


def fit(store: Backend, block_size: int) -> Backend:
    """The store as a unit with blocks of `block_size` bytes can use it: the one place where that is settled, whether it
    comes at the start, is added, inserted, or lies under an overlay. Raises `ConfigError` with both numbers."""
    if store.size < block_size:
        raise ConfigError(f"the store has {store.size} bytes, less than a block of {block_size}; make it larger")
    if store.granule <= block_size:
        return store
    if store.size < store.granule:
        raise ConfigError(f"the store has {store.size} bytes, less than the {store.granule} it can read at once")
    return Granular(store)


class _Change:
    """Something that changes granules [first, end), once nothing else does."""

    __slots__ = ("done", "end", "first", "start")

    def __init__(self, first: int, end: int, start: Callable[[Done], bool], done: Done) -> None:
        self.first = first
        self.end = end
        self.start = start
        self.done = done

    def overlaps(self, other: _Change) -> bool:
        return self.first < other.end and other.first < self.end


class _BouncedRead:
    """A read whose data has to be copied out of a larger one."""

    __slots__ = ("_data", "_views", "copied", "withdrawn")

    def __init__(self, data: memoryview, views: Sequence[memoryview]) -> None:
        self._data = data
        self._views = views
        self.copied = False
        self.withdrawn = False  # whoever asked may have taken the views back

    def copy(self) -> None:
        if not self.copied:
            self.copied = True
            at = 0
            for view in self._views:
                view[:] = self._data[at : at + len(view)]
                at += len(view)


class Granular(Backend):
    """`inner` without its granule. Owns it."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.kind = inner.kind
        self.lasting = inner.lasting
        self.bounced = 0  # reads and writes that did not fill granules
        self._granule = inner.granule
        self._active: list[_Change] = []
        self._waiting: deque[_Change] = deque()
        self._reads: set[_BouncedRead] = set()
        self._copy()
        inner.on_event = self._event

    def _copy(self) -> None:
        inner = self.inner
        self.size = inner.size // self._granule * self._granule
        self.read_only = inner.read_only
        self.can_discard = inner.can_discard
        self.physical_block_size = inner.physical_block_size
        self.medium_block = inner.medium_block

    def _event(self, event: str) -> None:
        self._copy()
        if self.on_event is not None:
            self.on_event(event)

    def _around(self, offset: int, length: int) -> tuple[int, int]:
        """The granules that hold a range, as bytes [first, end)."""
        granule = self._granule
        return offset // granule * granule, -(-(offset + length) // granule) * granule

    def _check(self, what: str, offset: int, length: int) -> None:
        if length < 0 or not 0 <= offset <= self.size - length:
            raise StorageError(
                f"cannot {what} {length} bytes at {offset}: the store has {self.size} bytes", errno.EINVAL
            )

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = length_of(views)
        self._check("read", offset, length)
        first, end = self._around(offset, length)
        if not length:
            return True
        if (first, end) == (offset, offset + length):
            return self.inner.read(views, offset, done)
        self.bounced += 1
        data = memoryview(bytearray(end - first))
        bounced = _BouncedRead(data[offset - first :], views)

        def ended(error: StorageError | None) -> None:
            self._reads.discard(bounced)
            if error is None and bounced.withdrawn:
                error = StorageError(f"cannot read {length} bytes at {offset}: withdrawn", errno.ETIMEDOUT)
            if error is None:
                bounced.copy()
            done(error)

        if self.inner.read([data], first, ended):
            bounced.copy()
            return True
        self._reads.add(bounced)
        return False

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        first, end = self._around(offset, length)
        mapped, count = self.inner.allocated(first, end - first)
        return mapped, min(length, max(1, count - (offset - first)))

    def allocation(self, offset: int, length: int, done: Allocation) -> tuple[bool, int] | None:
        first, end = self._around(offset, length)

        def within(answer: tuple[bool, int]) -> tuple[bool, int]:
            return answer[0], min(length, max(1, answer[1] - (offset - first)))

        def answered(answer: tuple[bool, int] | StorageError) -> None:
            done(answer if isinstance(answer, StorageError) else within(answer))

        answer = self.inner.allocation(first, end - first, answered)
        return None if answer is None else within(answer)

    # -- changing -----------------------------------------------------------------------------------------------------

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = length_of(views)
        self._check("write", offset, length)
        if (offset | length) % self._granule == 0:
            return self._change(offset, length, lambda done: self.inner.write(views, offset, done, fua), done)
        # A copy: it may have to wait, and its caller may take the memory back meanwhile.
        data = b"".join(views)
        return self._change(offset, length, lambda done: self._write_back(data, offset, done, fua), done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        return self._erase("zero", self.inner.zero, offset, length, done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        return self._erase("discard", self.inner.discard, offset, length, done)

    def _erase(self, what: str, erase: Callable[[int, int, Done], bool], offset: int, length: int, done: Done) -> bool:
        """The granules in the range are left to the store; what is left over at its ends becomes zeros."""
        self._check(what, offset, length)
        if not length:
            return True
        end = offset + length
        whole_first, whole_end = self._around(offset, 0)[1], end // self._granule * self._granule

        def start(done: Done) -> bool:
            join = Join(done)
            if whole_first >= whole_end:  # no granule is in it whole; it may have a part of two
                join.start(lambda done: self._write_back(bytes(length), offset, done, False))
                return join.finish()
            if offset < whole_first:
                join.start(lambda done: self._write_back(bytes(whole_first - offset), offset, done, False))
            join.start(lambda done: erase(whole_first, whole_end - whole_first, done))
            if whole_end < end:
                join.start(lambda done: self._write_back(bytes(end - whole_end), whole_end, done, False))
            return join.finish()

        return self._change(offset, length, start, done)

    def _write_back(self, data: bytes, offset: int, done: Done, fua: bool) -> bool:
        """Read the granules that `data` fills in part, and write all that it touches. Nobody else changes them."""
        self.bounced += 1
        granule = self._granule
        first, end = self._around(offset, len(data))
        whole = memoryview(bytearray(end - first))
        before, after = offset - first, end - offset - len(data)

        def merged(done: Done) -> bool:
            whole[before : before + len(data)] = data
            return self.inner.write([whole], first, done, fua)

        def read(error: StorageError | None) -> None:
            if error is None:
                try:
                    if not merged(done):
                        return
                except StorageError as problem:
                    error = problem
            done(error)

        join = Join(lambda error: read(None if error is None else error.during("read")))  # not the write it is for
        if before:
            join.start(lambda done: self.inner.read([whole[:granule]], first, done))
        if after and (not before or end - first > granule):
            join.start(lambda done: self.inner.read([whole[-granule:]], end - granule, done))
        try:
            at_once = join.finish()
        except StorageError as problem:
            raise problem.during("read") from problem.__cause__
        return at_once and merged(done)

    def _change(self, offset: int, length: int, start: Callable[[Done], bool], done: Done) -> bool:
        """`start` it once no other change of its granules is under way or was asked for before."""
        change = _Change(*self._around(offset, length), start, done)
        if any(change.overlaps(other) for other in (*self._active, *self._waiting)):
            self._waiting.append(change)
            return False
        return self._begin(change)

    def _begin(self, change: _Change) -> bool:
        self._active.append(change)
        finished = True
        try:
            finished = change.start(lambda error: self._ended(change, error))
        finally:
            if finished:  # or it raised
                self._active.remove(change)
        return finished

    def _ended(self, change: _Change, error: StorageError | None) -> None:
        self._active.remove(change)
        change.done(error)
        self._next()

    def _next(self) -> None:
        """Begin what waits for nobody any more, in order."""
        waiting, self._waiting = self._waiting, deque()
        ended: list[tuple[_Change, StorageError | None]] = []  # told when the queue is whole again
        while waiting:
            change = waiting.popleft()
            if any(change.overlaps(other) for other in (*self._active, *self._waiting)):
                self._waiting.append(change)
                continue
            error: StorageError | None = None
            try:
                if not self._begin(change):
                    continue
            except StorageError as problem:
                error = problem
            ended.append((change, error))
        for change, error in ended:
            change.done(error)

    # -- the rest -----------------------------------------------------------------------------------------------------

    @property
    def unstable(self) -> bool:
        return self.inner.unstable

    def flush(self, done: Done) -> bool:
        return self.inner.flush(done)

    def forget_lost(self) -> None:
        self.inner.forget_lost()

    def resize(self, size: int) -> None:
        self.inner.resize(size)
        self._copy()

    def settle(self, timeout: float) -> bool:
        """What was read is copied now; later it may not be. Changes have their data already, and their order."""
        settled = self.inner.settle(timeout)
        for bounced in self._reads:
            if settled:
                bounced.copy()
            else:
                bounced.withdrawn = True
        return settled

    def close(self) -> None:
        self.inner.close()

    def describe(self) -> dict[str, object]:
        return self.inner.describe() | {
            "size": self.size,
            "granule": self._granule,
            "read_modify_writes": self.bounced,
            "changes_waiting": len(self._waiting),
        }

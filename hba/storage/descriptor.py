"""Blocks behind a file descriptor: what raw files and host block devices have in common.

Data moves straight between the descriptor and the given views. What the kernel can do without waiting is done at
once (RWF_NOWAIT: the page cache has it); everything else goes to the worker pool. Whether a file system offers
RWF_NOWAIT is learned from its first answer and not asked again: ext4, for one, has it for buffered reads but not for
buffered writes. There `inline.py` says which writes may run in the loop all the same.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from os import preadv, pwritev
from pathlib import Path
from time import monotonic_ns

from hba.clock import S, Timer
from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import linux
from hba.storage.backend import Done
from hba.storage.counters import CountingBackend
from hba.storage.inline import LARGEST, PAGE, InlineWrites
from hba.storage.transfer import Late, Transfer, read_at_once
from hba.storage.vectors import IOV_MAX, EndOfFile, length_of, skip, transfer, write_zeros
from hba.storage.workers import Work, WorkerPool

SECTOR = 512  # bytes; a store is a whole number of these
WATCH = 2 * S  # how often the file's size is compared with ours
CLOSE_TIMEOUT = 10.0  # s; how long close() waits for calls that are still in a worker

LONG = 256 << 10  # bytes; of a batch of reads as long as this a second thread copies a part
NEVER = -1  # instead of flags: this call may always block, hand it to a worker


def _length(transfer: Transfer) -> int:
    return 0 if transfer.data is None else transfer.data.length


class _OneRead(Transfer):
    """A read that somebody wants by itself."""

    def __init__(self, views: Sequence[memoryview], offset: int, done: Done) -> None:
        self.data = DmaBuffer((), list(views), length_of(views))
        self.offset = offset
        self.error: StorageError | None = None
        self._done = done

    def failed(self, error: StorageError) -> None:
        self.error = error

    def waits(self) -> None:
        """Whoever asked hears of it by `read`'s answer."""

    def answered(self, error: StorageError | None) -> None:
        self._done(error)


class DescriptorBackend(CountingBackend):
    """Reads, writes and flushes through one descriptor.

    A subclass opens the descriptor, then calls `_start`; it says how to measure the store.
    """

    def __init__(self, path: Path, loop: EventLoop, workers: WorkerPool) -> None:
        self.path = path
        self._loop = loop
        self._workers = workers
        self._fd = -1
        self._cached_fd = -1  # with direct I/O: the same store through the page cache, for what is not aligned
        self._read_flags = NEVER
        self._write_flags = NEVER
        self._at_once = False  # nothing blocks here: the store is in memory
        self._inline: InlineWrites | None = None  # for a file system without NOWAIT; None: such writes go to workers
        self._changing = 0  # calls in workers that may hold the file's lock for long
        self.inline_writes = 0  # writes done in the loop by `_inline`'s leave
        self.in_flight = 0  # calls in workers; `close` waits for them
        self.erase_granule = 1  # bytes; what the kernel zeroes or gives up for us begins and ends at a multiple of it
        self._changes = 0  # completed writes, discards, zeroes
        self._stable = -1  # value of `_changes` that the last good flush covered
        self._dsync = os.RWF_DSYNC
        self._timer: Timer | None = None
        self._zeroes_ranges = True
        self._checking = False
        self._closed = False

    def _start(self, fd: int, size: int, direct: bool, inline_writes: str = "never") -> None:
        """Take over `fd`. `direct`: it was opened with O_DIRECT, where NOWAIT still waits for the device.

        `inline_writes`: "never", "always" or "auto" (see `hba.storage.inline`).
        """
        self._fd = fd
        self.size = size
        if self._at_once:
            self._read_flags = self._write_flags = 0
        elif not direct:
            self._read_flags = os.RWF_NOWAIT
            self._write_flags = 0 if inline_writes == "always" else os.RWF_NOWAIT
            if inline_writes == "auto":
                self._inline = InlineWrites()
        self._loop.in_loop(self._watch_later)

    def _watch_later(self) -> None:
        if not self._closed:
            self._timer = self._loop.clock.call_later(WATCH, self._watch)

    # -- data -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        read = _OneRead(views, offset, done)
        late = self.read_batch((read,))
        if read.error is not None:
            raise read.error
        return not late

    def read_batch(self, reads: Sequence[Transfer]) -> Sequence[Transfer]:
        flags = self._read_flags
        late: list[Late] = []
        if flags == NEVER:
            late = [(read, 0, 0) for read in reads]
        elif len(reads) > 1 and _length(reads[0]) >= LONG and self._workers.assistant.useful:
            # Long ones on two processors.
            self._workers.assistant.share(deque(partial(self._read_at_once, (read,), flags, late) for read in reads))
            self.bytes_read += sum(map(_length, reads)) - sum(_length(read) for read, _, _ in late)
        else:
            self.bytes_read += self._read_at_once(reads, flags, late)
        self.reads += len(reads)
        return self._read_later(late, flags) if late else ()

    def _read_at_once(self, reads: Sequence[Transfer], flags: int, late: list[Late]) -> int:
        """In either thread: touches nothing of ours but `late`."""
        return read_at_once(preadv, self._fd, self.size, reads, flags, late)

    def _read_later(self, late: list[Late], flags: int) -> list[Transfer]:
        """What did not end at once: a worker goes on with it, unless it cannot be."""
        waiting: list[Transfer] = []
        for read, count, code in late:
            data, offset = read.data, read.offset
            assert data is not None
            views, length = data.views, data.length
            try:
                if not 0 <= offset <= self.size - length:
                    self.reads -= 1
                    raise self._outside("read", offset, length)
                if code and code != errno.EAGAIN:
                    self._read_flags = self._not_at_once(code, "read", offset, views, flags)
                rest = skip(views, count) if count else views
                ended = partial(self._read_done, read.answered, offset, length)
                self._submit(partial(self._read_blocking, rest, offset + count), ended)
            except StorageError as error:
                read.failed(error)
                continue
            read.waits()
            waiting.append(read)
        return waiting

    def _read_blocking(self, views: Sequence[memoryview], offset: int) -> None:
        try:
            transfer(preadv, self._fd, views, offset)
        except OSError as problem:
            if problem.errno != errno.EINVAL or self._cached_fd < 0:
                raise
            transfer(preadv, self._cached_fd, views, offset)

    def _read_done(self, done: Done, offset: int, length: int, error: StorageError | None) -> None:
        self.in_flight -= 1
        if error is None:
            self.bytes_read += length
        else:
            error = self._explain(error, "read", offset, length)
        done(error)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        if self.read_only or not 0 <= offset <= self.size - length:
            raise self._outside("write", offset, length)
        self.writes += 1
        flags = self._write_flags
        count = 0
        if flags >= 0 and (not fua or self._at_once):
            try:
                count = pwritev(self._fd, views, offset, flags)
            except OSError as problem:
                if problem.errno != errno.EAGAIN:
                    self._write_flags = self._not_at_once(problem.errno, "write", offset, views, flags)
            if count == length:
                self._changes += 1
                self.bytes_written += length
                return True
        elif not fua and self._inline is not None and not self._changing:
            begin = monotonic_ns()
            if self._inline.permits(offset, length, begin):
                try:
                    count = pwritev(self._fd, views, offset)
                except OSError as problem:
                    self._not_at_once(problem.errno, "write", offset, views, 0)
                self._inline.took(begin, monotonic_ns())
                if count == length:
                    self._changes += 1
                    self.inline_writes += 1
                    self.bytes_written += length
                    return True
        # A part that is done already is written once more with FUA, because it is not stable yet.
        rest, start = (skip(views, count), offset + count) if count and not fua else (views, offset)
        heavy = length > LARGEST or (offset | length) % PAGE != 0
        self._changing += heavy
        self._submit(
            partial(self._write_blocking, rest, start, fua), partial(self._write_done, done, offset, length, heavy)
        )
        return False

    def _write_blocking(self, views: Sequence[memoryview], offset: int, fua: bool) -> None:
        flags = self._dsync if fua else 0
        try:
            transfer(pwritev, self._fd, views, offset, flags)
        except OSError as problem:
            if problem.errno == errno.EINVAL and self._cached_fd >= 0:
                transfer(pwritev, self._cached_fd, views, offset)
            elif problem.errno == errno.EOPNOTSUPP and flags:
                self._dsync = 0
                transfer(pwritev, self._fd, views, offset)
            else:
                raise
            flags = 0
        if fua and not flags:
            os.fdatasync(self._fd)

    def _write_done(self, done: Done, offset: int, length: int, heavy: bool, error: StorageError | None) -> None:
        self.in_flight -= 1
        self._changing -= heavy
        self._changes += 1  # also after an error: part of it may have been written
        if error is None:
            self.bytes_written += length
        else:
            error = self._explain(error, "write", offset, length)
        done(error)

    @property
    def unstable(self) -> bool:
        return self._stable != self._changes and not (self.read_only or self._at_once)

    def flush(self, done: Done) -> bool:
        self.flushes += 1
        if self._closed:
            raise self._outside("flush", 0, 0)
        if not self.unstable:  # a guest flushes far more often than there is something to flush
            return True
        self._submit(partial(os.fdatasync, self._fd), partial(self._flush_done, done, self._changes), moves=False)
        return False

    def _flush_done(self, done: Done, covered: int, error: StorageError | None) -> None:
        self.in_flight -= 1
        if error is None:
            self._stable = max(self._stable, covered)
        else:
            # The kernel has dropped what it could not write and would call the next flush a success, so what was
            # acknowledged before is lost: this answer is the only one that says so.
            error = self._explain(error, "flush", 0, self.size)
        done(error)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        return self._erase("discard", self._discard_blocking if self.can_discard else None, offset, length, done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        return self._erase("zero", None, offset, length, done)

    def _erase(self, what: str, work: Callable[[int, int], None] | None, offset: int, length: int, done: Done) -> bool:
        if self.read_only or length < 0 or not 0 <= offset <= self.size - length:
            raise self._outside(what, offset, length)
        if what == "zero":
            self.zeroes += 1
        else:
            self.discards += 1
        if length == 0:
            return True
        self._changing += 1
        self._submit(
            partial(self._erase_blocking, work or self._zero_blocking, offset, length),
            partial(self._erase_done, done, what, offset, length),
        )
        return False

    def _erase_done(self, done: Done, what: str, offset: int, length: int, error: StorageError | None) -> None:
        self.in_flight -= 1
        self._changing -= 1
        self._changes += 1
        done(None if error is None else self._explain(error, what, offset, length))

    def _erase_blocking(self, work: Callable[[int, int], None], offset: int, length: int) -> None:
        """`work` on the whole granules of a range, zeros on what is left over at its ends."""
        granule, end = self.erase_granule, offset + length
        first, last = -(-offset // granule) * granule, end // granule * granule
        if first >= last:
            write_zeros(self._first_fd(), offset, length)
            return
        write_zeros(self._first_fd(), offset, first - offset)
        work(first, last - first)
        write_zeros(self._first_fd(), last, end - last)

    # fallocate does the same for block devices: a hole there is a discard that reads as zeros (unlike BLKDISCARD,
    # which promises nothing about the content), a zeroed range keeps its space (as BLKZEROOUT does).

    def _discard_blocking(self, offset: int, length: int) -> None:
        try:
            linux.punch_hole(self._first_fd(), offset, length)
        except OSError as problem:
            if problem.errno not in (errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            self._zero_blocking(offset, length)  # it could when we asked (a device mapper's table may change)

    def _zero_blocking(self, offset: int, length: int) -> None:
        if self._zeroes_ranges:
            try:
                linux.zero_range(self._first_fd(), offset, length)
                return
            except OSError as problem:
                if problem.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
                    raise
                self._zeroes_ranges = False
        write_zeros(self._first_fd(), offset, length)

    def _first_fd(self) -> int:
        """The descriptor through the page cache, opened first. On a block device it is the one that holds the device
        exclusively; through another one the kernel refuses fallocate (EBUSY) while cached pages are dirty."""
        return self._cached_fd if self._cached_fd >= 0 else self._fd

    def _submit(self, work: Work, done: Done, moves: bool = True) -> None:
        """`moves`: it moves data, so that `settle` must wait for it."""
        self._workers.submit(work, done, self if moves else None)
        self.in_flight += 1
        self.hand_offs += 1

    def settle(self, timeout: float) -> bool:
        return self._workers.settle(self, timeout)

    # -- errors -----------------------------------------------------------------------------------------------

    def _not_at_once(self, code: int | None, what: str, offset: int, views: Sequence[memoryview], flags: int) -> int:
        """The call at once failed with this error number: returns the flags for the next one, or raises the error."""
        code = code or errno.EIO
        if code in (errno.EOPNOTSUPP, errno.ENOSYS) and flags:
            return NEVER
        if len(views) > IOV_MAX and code == errno.EINVAL:
            return flags  # the worker takes it in pieces
        self.errors += 1
        raise StorageError(f"{self.path}: cannot {what} at {offset}: {os.strerror(code)}", code) from None

    def _outside(self, what: str, offset: int, length: int) -> StorageError:
        self.errors += 1
        if self._closed:
            return StorageError(f"{self.path}: the back end is closed", errno.ENODEV)
        if self.read_only and what != "read":
            return StorageError(f"{self.path} is open read-only", errno.EROFS)
        return StorageError(
            f"{self.path}: cannot {what} {length} bytes at {offset}: it has {self.size} bytes", errno.EINVAL
        )

    def _explain(self, error: StorageError, what: str, offset: int, length: int) -> StorageError:
        """Put the place and, for a file that ended early, the reason into the message."""
        self.errors += 1
        code = error.errno or errno.EIO
        why = os.strerror(code) if error.errno else str(error)
        if isinstance(error.__cause__, EndOfFile):
            why = f"it ended at or before byte {error.__cause__.offset}; someone made it smaller while it was in use"
            self.check_size()
        return StorageError(f"{self.path}: cannot {what} {length} bytes at {offset}: {why}", code)

    # -- the size of the store, as others change it -----------------------------------------------------------

    def _measure(self) -> int:
        """The size of the store now, in bytes, rounded down to sectors. May block."""
        raise NotImplementedError

    def _watch(self) -> None:
        self._watch_later()
        self.check_size()

    def check_size(self) -> None:
        """Compare the store's size with ours (in a worker); "resized" is reported when it differs."""
        if self._checking or self._closed:
            return
        self._checking = True
        found: list[int] = []
        self.in_flight += 1
        self._workers.submit(lambda: found.append(self._measure()), partial(self._checked, found))

    def _checked(self, found: list[int], error: StorageError | None) -> None:
        self.in_flight -= 1
        self._checking = False
        if error is None and not self._closed and found[0] != self.size:
            self.size = found[0]
            self._tell("resized")

    def _tell(self, event: str) -> None:
        if self.on_event is not None:
            self.on_event(event)

    # -- the end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Flush and release; waits for calls in workers. Flush first (`flush`) to keep the loop free meanwhile."""
        if self._closed:
            return
        self._closed = True
        self.size = 0
        if self._timer is not None:
            self._timer.cancel()
        if not self._workers.wait(lambda: self.in_flight == 0, CLOSE_TIMEOUT):
            return  # a worker hangs on the descriptor: closing it could let that worker write into another file
        if self.unstable:
            try:
                os.fdatasync(self._fd)
                self._stable = self._changes
            except OSError as problem:
                self._tell(f"error: {self.path}: the last flush failed: {problem.strerror}")
        for fd in (self._fd, self._cached_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._cached_fd = -1
        self._read_flags = self._write_flags = NEVER

    def describe(self) -> dict[str, object]:
        return super().describe() | {
            "path": str(self.path),
            "state": "closed" if self._closed else "open",
            "direct": self._cached_fd >= 0,
            "can_discard": self.can_discard,
            "in_workers": self.in_flight,
            "inline_writes": self.inline_writes,
            "slow_inline_writes": 0 if self._inline is None else self._inline.slow,
        }

"""Blocks in memory: gone when the adapter ends, never blocks, uses only what was written.

A file in memory (memfd) without a name, read and written by system calls and never mapped: what was never written takes
no page, also when it is read, and where data begins and ends is one call (lseek), however large the store is. So a
store may be larger than the machine's memory; `limit` is what it may use of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from hba.errors import StorageError
from hba.storage import linux
from hba.storage.backend import Done
from hba.storage.counters import CountingBackend
from hba.storage.extents import Extents
from hba.storage.vectors import length_of, transfer

PAGE = 4096  # bytes; what is allocated and given up as one
_SECTOR = 512  # st_blocks counts these (stat(2))


def default_limit() -> int:
    """Bytes a store in memory may use unless the configuration says otherwise: half of the machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


class MemoryBackend(CountingBackend):
    """Sparse memory of `size` bytes.

    `limit`  bytes it may use; a write that needs more fails with ENOSPC and changes nothing. None: `default_limit`.
    Raises `StorageError` when the kernel has no such file.
    """

    kind = "memory"
    lasting = False
    can_discard = True

    def __init__(self, size: int, read_only: bool = False, limit: int | None = None) -> None:
        self.size = size
        self.read_only = read_only
        self.limit = default_limit() if limit is None else limit
        self._fd = os.memfd_create("hba-memory", os.MFD_CLOEXEC)
        self._closed = False
        self._extents = Extents()
        try:
            self._truncate(size)
        except StorageError:
            self.close()
            raise

    def _truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._fd, size)
        except (OSError, OverflowError) as problem:
            raise StorageError(
                f"the kernel has no memory file of {size} bytes ({problem}); make it smaller",
                getattr(problem, "errno", 0) or errno.EFBIG,
            ) from None

    @property
    def used(self) -> int:
        """Bytes of memory it takes."""
        return 0 if self._closed else os.fstat(self._fd).st_blocks * _SECTOR

    # -- data -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = length_of(views)
        if not 0 <= offset <= self.size - length:
            raise self._outside("read", offset, length)
        self._transfer("read", views, offset, length)
        self.reads += 1
        self.bytes_read += length
        return True

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = length_of(views)
        if self.read_only or not 0 <= offset <= self.size - length:
            raise self._outside("write", offset, length)
        if self.limit < self.size:
            self._check_room(offset, length)
        self._transfer("write", views, offset, length)
        self.writes += 1
        self.bytes_written += length
        return True

    def _transfer(self, what: str, views: Sequence[memoryview], offset: int, length: int) -> None:
        call = os.preadv if what == "read" else os.pwritev
        try:
            if len(views) > 1024 or call(self._fd, views, offset) != length:
                transfer(call, self._fd, views, offset)
        except OSError as problem:
            self.errors += 1
            raise StorageError(
                f"cannot {what} {length} bytes at {offset} of the memory back end: {problem.strerror}",
                problem.errno or errno.EIO,
            ) from None

    def _check_room(self, offset: int, length: int) -> None:
        """Whether a write may take the pages it needs, counting those that are there already only when that matters."""
        first, end = offset // PAGE * PAGE, -(-(offset + length) // PAGE) * PAGE
        used = self.used
        if used + end - first <= self.limit:
            return
        needed = end - first - self._present(first, end)
        if used + needed > self.limit:
            self.errors += 1
            raise StorageError(
                f"the memory back end has used {used} bytes and may not use more than {self.limit}: raise `limit`, "
                "or have the guest give blocks back (UNMAP)",
                errno.ENOSPC,
            )

    def _present(self, first: int, end: int) -> int:
        """Bytes of the range that take memory."""
        found, position = 0, first
        while position < end:
            present, length = self._extent(position, end - position)
            found += length if present else 0
            position += length
        return found

    def flush(self, done: Done) -> bool:
        self.flushes += 1
        return True

    @property
    def unstable(self) -> bool:
        return False  # nothing survives anyway

    def zero(self, offset: int, length: int, done: Done) -> bool:
        """Whole pages go back to the kernel, so zeros cost nothing."""
        if self.read_only or length < 0 or not 0 <= offset <= self.size - length:
            raise self._outside("zero", offset, length)
        self.zeroes += 1
        if length:
            end = offset + length
            if end == self.size:
                end = -(-end // PAGE) * PAGE  # the last page goes, too
            linux.punch_hole(self._fd, offset, end - offset)
            self._extents.forget()
        return True

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        return self._extent(offset, min(length, self.size - offset))

    def _extent(self, offset: int, length: int) -> tuple[bool, int]:
        return self._extents.look(self._fd, offset, length)

    def resize(self, size: int) -> None:
        self._truncate(size)
        self._extents.forget()
        self.size = size

    def _outside(self, what: str, offset: int, length: int) -> StorageError:
        self.errors += 1
        if self._closed:
            return StorageError("the memory back end is closed", errno.ENODEV)
        if self.read_only and what != "read":
            return StorageError("the memory back end is read-only", errno.EROFS)
        return StorageError(
            f"cannot {what} {length} bytes at {offset}: the memory back end has {self.size} bytes", errno.EINVAL
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.size = 0
            os.close(self._fd)

    def __del__(self) -> None:
        # Memory goes with its last user, as it does anywhere; a descriptor would stay.
        if not getattr(self, "_closed", True):
            self.close()

    def describe(self) -> dict[str, object]:
        return super().describe() | {"used": self.used, "limit": self.limit}

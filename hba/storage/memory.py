"""Blocks in memory: gone when the adapter ends, never blocks, uses only what was written.

One anonymous mapping as large as the store. The kernel gives it pages when they are written, so a store may be
larger than the machine's memory; what was never written reads as zeros.
"""

from __future__ import annotations

import errno
import mmap
from collections.abc import Sequence

from hba.errors import StorageError
from hba.storage.backend import Done
from hba.storage.counters import CountingBackend

BLOCK = 65536  # bytes; what is allocated and given up as one
_LOOK = 1 << 30  # bytes `allocated` looks at, so that its time is bounded
_MAP_NORESERVE = 0x4000  # sys/mman.h; `mmap` does not name it before Python 3.13
_ZEROS = memoryview(bytes(BLOCK))


class MemoryBackend(CountingBackend):
    """Sparse memory of `size` bytes. Raises `StorageError` when the kernel does not grant the address space."""

    kind = "memory"
    can_discard = True

    def __init__(self, size: int, read_only: bool = False) -> None:
        self.size = size
        self.read_only = read_only
        self._map, self._bytes = _map(size)
        self._present: set[int] = set()  # numbers of the blocks that were written
        self._closed = False

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        if not 0 <= offset <= self.size - length:
            raise self._outside("read", offset, length)
        data = self._bytes
        for view in views:
            end = offset + len(view)
            view[:] = data[offset:end]
            offset = end
        self.reads += 1
        self.bytes_read += length
        return True

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        if self.read_only or not 0 <= offset <= self.size - length:
            raise self._outside("write", offset, length)
        data = self._bytes
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        for view in views:
            end = offset + len(view)
            data[offset:end] = view
            offset = end
        self.writes += 1
        self.bytes_written += length
        if first == last:
            self._present.add(first)
        else:
            self._present.update(range(first, last + 1))
        return True

    @property
    def unstable(self) -> bool:
        return False  # nothing survives anyway

    def flush(self, done: Done) -> bool:
        self.flushes += 1
        return True

    def zero(self, offset: int, length: int, done: Done) -> bool:
        """Whole blocks go back to the kernel, so zeros cost nothing."""
        if self.read_only or length < 0 or not 0 <= offset <= self.size - length:
            raise self._outside("zero", offset, length)
        self.zeroes += 1
        end = offset + length
        first, last = -(-offset // BLOCK), end // BLOCK
        if end == self.size:
            last = -(-end // BLOCK)
        if first >= last:
            self._clear(offset, end)
            return True
        self._clear(offset, first * BLOCK)
        self._clear(last * BLOCK, end)
        # Walk whichever is shorter: a huge range of a nearly empty store must not cost its length.
        if last - first <= len(self._present):
            gone = [number for number in range(first, last) if number in self._present]
        else:
            gone = [number for number in self._present if first <= number < last]
        if gone:
            self._map.madvise(mmap.MADV_DONTNEED, first * BLOCK, min(last * BLOCK, len(self._map)) - first * BLOCK)
            self._present.difference_update(gone)
        return True

    def _clear(self, offset: int, end: int) -> None:
        """Write zeros into at most two neighbouring blocks, as far as they were ever written."""
        while offset < end:
            stop = min(end, (offset // BLOCK + 1) * BLOCK)
            if offset // BLOCK in self._present:
                self._bytes[offset:stop] = _ZEROS[: stop - offset]
            offset = stop

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        end = min(offset + length, self.size, offset + _LOOK)
        state = offset // BLOCK in self._present
        position = (offset // BLOCK + 1) * BLOCK
        if not state and not self._present:
            position = end
        while position < end and (position // BLOCK in self._present) == state:
            position += BLOCK
        return state, min(position, end) - offset

    def resize(self, size: int) -> None:
        mapping, data = _map(size)
        for number in sorted(self._present):
            start, end = number * BLOCK, min((number + 1) * BLOCK, self.size, size)
            if start < end:
                data[start:end] = self._bytes[start:end]
        self._release()
        self._map, self._bytes, self.size = mapping, data, size
        self._present = {number for number in self._present if number * BLOCK < size}

    def _outside(self, what: str, offset: int, length: int) -> StorageError:
        self.errors += 1
        if self._closed:
            return StorageError("the memory back end is closed", errno.ENODEV)
        if self.read_only and what != "read":
            return StorageError("the memory back end is read-only", errno.EROFS)
        return StorageError(
            f"cannot {what} {length} bytes at {offset}: the memory back end has {self.size} bytes", errno.EINVAL
        )

    def _release(self) -> None:
        self._bytes.release()
        self._map.close()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.size = 0
            self._release()
            self._bytes = memoryview(bytearray())
            self._present.clear()

    def describe(self) -> dict[str, object]:
        used = len(self._present) * BLOCK
        return super().describe() | {"used": used}


def _map(size: int) -> tuple[mmap.mmap, memoryview]:
    length = max(mmap.PAGESIZE, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
    try:
        mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
    except (OSError, OverflowError) as problem:
        raise StorageError(
            f"the kernel does not grant {size} bytes of address space for a memory back end ({problem}); "
            'make it smaller, raise `ulimit -v`, or use kind = "file" with a sparse file',
            errno.ENOMEM,
        ) from None
    return mapping, memoryview(mapping)

"""What the adapter is held against: the same transfers on the same file in a plain loop of system calls."""

from __future__ import annotations

import mmap
import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path

from hba.adapters.bench import Transfer
from hba.errors import StorageError

TRANSFERS = 1024  # different ones of a case, before the first comes again


class PlainLoop:
    """`os.preadv` and `os.pwritev`, one after the other, into as much memory as the adapter's data area has, and of the
    same kind: shared, as a guest's RAM is (private memory would be of larger pages, and copies into it faster).

    A context manager. Raises `StorageError` when the file cannot be opened.
    """

    def __init__(self, path: Path, data_size: int, writable: bool) -> None:
        try:
            self._fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{path}: the plain loop cannot open the file behind the unit ({error}); measure as the user of the "
                "adapter, on its machine"
            ) from error
        memory = os.memfd_create("hba-bench-loop", os.MFD_CLOEXEC)
        try:
            os.ftruncate(memory, data_size)
            self._memory = mmap.mmap(memory, data_size)
        finally:
            os.close(memory)
        self._view = memoryview(self._memory)

    def run(self, transfers: Sequence[Transfer], seconds: float) -> tuple[int, float, array[int]]:
        """Over and over through `transfers` for `seconds`: (calls, seconds, latencies in ns)."""
        room = len(self._view) // max(length for _, _, length in transfers)
        calls = []
        for slot in range(TRANSFERS):
            write, offset, length = transfers[slot % len(transfers)]
            at = slot % room * length
            calls.append((os.pwritev if write else os.preadv, [self._view[at : at + length]], offset, length))
        fd = self._fd
        clock = time.perf_counter_ns
        latencies: array[int] = array("Q")
        count = 0
        begin = now = clock()
        end = begin + int(seconds * 1e9)
        while now < end:
            for call, views, offset, length in calls:
                if call(fd, views, offset) != length:
                    raise OSError("the file is shorter than the unit")
            before, now = now, clock()
            latencies.append((now - before) // len(calls))
            count += len(calls)
        return count, (now - begin) / 1e9, latencies

    def close(self) -> None:
        os.close(self._fd)
        self._view = memoryview(b"")

    def __enter__(self) -> PlainLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

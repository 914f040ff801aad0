"""The file of an overlay that is kept.

Its format, all integers little-endian:

    0        header: magic "HBA-COW", version, sector size, size of the base in bytes
    4096     the map: one bit per sector, 256 bytes per MiB of the base
    ...      the sectors, each at its own place (sparse); starts at the next multiple of 4096

A flush makes the data stable, then the map that points to it, then says so: after a crash a sector is the old one or
the new one, never a hole.
"""

from __future__ import annotations

import errno
import os
import struct
from functools import partial
from pathlib import Path

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.backend import Done
from hba.storage.descriptor import CLOSE_TIMEOUT
from hba.storage.file import FileBackend
from hba.storage.sectors import ENTRY, REGION, SECTOR, SectorMap
from hba.storage.workers import WorkerPool

_HEADER = struct.Struct("<8sIIQ")
_MAGIC = b"HBA-COW\0"
_VERSION = 1
_MAP = 4096  # where the map starts
_CHUNK = 1 << 20  # bytes of the map read at a time


class OverlayFile:
    """Opens or makes the overlay `path` for a base of `base_size` bytes.

    `file` is the store its sectors are in, `data` the offset of sector 0 in it, `map` which sectors it has.
    Raises `StorageError` when the file is not an overlay, or one of another base.
    """

    def __init__(self, path: Path, base_size: int, loop: EventLoop, workers: WorkerPool) -> None:
        self.path = path
        self.map = SectorMap()
        self._regions = -(-base_size // (REGION * SECTOR))
        self.data = _MAP + -(-self._regions * ENTRY // 4096) * 4096
        fresh = not path.exists()
        if not fresh:
            self._check_header(base_size)
        self.file = FileBackend(path, loop, workers, size=self.data + base_size, create=True)
        try:
            if fresh:
                header = _HEADER.pack(_MAGIC, _VERSION, SECTOR, base_size)
                with path.open("r+b") as file:
                    file.write(header)
                    file.flush()
                    os.fsync(file.fileno())
            else:
                self._load()
        except OSError as problem:
            self.file.close()
            raise StorageError(f"{path}: {problem.strerror}", problem.errno or 0) from None
        self.problem: StorageError | None = None  # of the last flush
        self._loop = loop
        self._workers = workers
        self._entries: list[tuple[int, memoryview]] = []  # (first region, bits): what the running flush has to write
        self._waiting: list[Done] = []  # flushes that want what the running one may not cover
        self._running: list[Done] = []
        self._writing: set[int] = set()  # regions of the running flush

    def _check_header(self, base_size: int) -> None:
        try:
            with self.path.open("rb") as file:
                header = file.read(_HEADER.size)
        except OSError as problem:
            raise StorageError(f"{self.path}: {problem.strerror}", problem.errno or 0) from None
        if len(header) < _HEADER.size or not header.startswith(_MAGIC):
            raise StorageError(
                f"{self.path} exists and is not an overlay of ours; name another path, or delete it", errno.EINVAL
            )
        _, version, sector, size = _HEADER.unpack(header)
        if (version, sector) != (_VERSION, SECTOR):
            raise StorageError(f"{self.path} is an overlay of another version ({version})", errno.EINVAL)
        if size != base_size:
            raise StorageError(
                f"{self.path} is an overlay over {size} bytes, but its base has {base_size}; "
                "give it the base it was made for, or name another path",
                errno.EINVAL,
            )

    def _load(self) -> None:
        end = _MAP + self._regions * ENTRY
        with self.path.open("rb", buffering=0) as file:
            position = _MAP
            while position < end:
                try:
                    position = max(position, os.lseek(file.fileno(), position, os.SEEK_DATA) // ENTRY * ENTRY)
                except OSError as problem:
                    if problem.errno == errno.ENXIO:
                        return
                    if problem.errno != errno.EINVAL:
                        raise
                data = os.pread(file.fileno(), min(_CHUNK, max(0, end - position)), position)
                if not data:
                    return
                for start in range(0, len(data), ENTRY):
                    self.map.load((position - _MAP + start) // ENTRY, data[start : start + ENTRY])
                position += len(data)

    # -- making it stable -------------------------------------------------------------------------------------

    @property
    def unstable(self) -> bool:
        return bool(self.map.dirty or self._running) or self.file.unstable

    def flush(self, done: Done) -> bool:
        """Data first, then the map. One at a time: a second one waits, because the first may have begun too early."""
        if self._running:
            self._waiting.append(done)
            return False
        if not self.map.dirty:
            return self.file.flush(done)
        self._running = [done]
        self._begin()
        return False

    def _begin(self) -> None:
        self._writing, self.map.dirty = self.map.dirty, set()
        # The bits as they are now belong to data that is written already; later ones are not covered by this flush.
        self._entries = [
            (first, memoryview(b"".join(map(self.map.pack, range(first, end)))))
            for first, end in _ranges(self._writing)
        ]
        try:
            if self.file.flush(self._write_map):
                self._write_map(None)
        except StorageError as problem:
            self._finish(problem)

    def _write_map(self, error: StorageError | None) -> None:
        if error is not None:
            self._finish(error)
            return
        try:
            while self._entries:
                first, data = self._entries.pop()
                if not self.file.write([data], _MAP + first * ENTRY, self._write_map):
                    return
            if self.file.flush(self._finish):
                self._finish(None)
        except StorageError as problem:
            self._finish(problem)

    def _finish(self, error: StorageError | None) -> None:
        self.problem = error
        if error is not None:
            self.map.dirty |= self._writing
        finished, self._running, self._waiting = self._running, self._waiting, []
        for done in finished:
            self._loop.call_soon(partial(done, error))
        if self._running:
            self._begin()

    def save(self) -> StorageError | None:
        """Everything on stable storage, now. Blocks; for closing. Returns what went wrong."""
        wait = self._workers.wait
        wait(lambda: self.file.in_flight == 0, CLOSE_TIMEOUT)
        try:
            self.flush(lambda error: None)
        except StorageError as problem:
            return problem
        wait(lambda: not self._running and self.file.in_flight == 0, CLOSE_TIMEOUT)
        return self.problem


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    """{1, 2, 3, 7} -> [(1, 4), (7, 8)]"""
    result: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if result and result[-1][1] == number:
            result[-1] = (result[-1][0], number + 1)
        else:
            result.append((number, number + 1))
    return result

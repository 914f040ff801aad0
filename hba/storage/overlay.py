"""Copy-on-write over any other store: writes go to the top, reads come from wherever the sector is newest.

The unit is the sector (512 bytes). Every request is whole sectors, so no write ever has to read its surroundings
first, and two writes never meet in one unit.

A temporary overlay lives in memory or in an unnamed file and is gone when it is closed, however the process ends.
One that is kept is a file of its own format: see `overlay_file.py`.
"""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.backend import Allocation, Backend, Done
from hba.storage.counters import CountingBackend
from hba.storage.file import FileBackend
from hba.storage.join import Join
from hba.storage.memory import MemoryBackend
from hba.storage.overlay_file import OverlayFile
from hba.storage.sectors import SECTOR, SectorMap
from hba.storage.vectors import cut, length_of
from hba.storage.workers import WorkerPool


class OverlayBackend(CountingBackend):
    """`top` over `base`; owns both. `kept` is the file that `top` is, or None for a temporary overlay."""

    kind = "overlay"
    can_discard = True

    def __init__(self, base: Backend, top: Backend, kept: OverlayFile | None = None) -> None:
        self.base = base
        self.top = top
        self.size = base.size
        self.physical_block_size = base.physical_block_size
        self.medium_block = base.medium_block
        self._kept = kept
        self.lasting = kept is not None and base.lasting
        self._shift = 0 if kept is None else kept.data
        self._map = SectorMap() if kept is None else kept.map
        self._closed = False
        base.on_event = self._base_event
        top.on_event = self._top_event

    # -- data -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        length = length_of(views)
        self._check("read", offset, length)
        self.reads += 1
        self.bytes_read += length
        runs = self._map.runs(offset // SECTOR, (offset + length) // SECTOR)
        if len(runs) <= 1:
            if runs and runs[0][0]:
                return self.top.read(views, offset + self._shift, done)
            return self.base.read(views, offset, done)
        join = Join(done)
        for present, first, end in runs:
            part = cut(views, first * SECTOR - offset, (end - first) * SECTOR)
            if present:
                join.start(lambda done, part=part, at=first * SECTOR + self._shift: self.top.read(part, at, done))  # type: ignore[misc]
            else:
                join.start(lambda done, part=part, at=first * SECTOR: self.base.read(part, at, done))  # type: ignore[misc]
        return join.finish()

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        length = length_of(views)
        self._check("write", offset, length)
        self.writes += 1
        self.bytes_written += length
        return self._change(lambda after: self.top.write(views, offset + self._shift, after), offset, length, done, fua)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        self._check("zero", offset, length)
        self.zeroes += 1
        return self._change(lambda after: self.top.zero(offset + self._shift, length, after), offset, length, done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        self._check("discard", offset, length)
        self.discards += 1
        return self._change(lambda after: self.top.discard(offset + self._shift, length, after), offset, length, done)

    @property
    def unstable(self) -> bool:
        # Nothing of a temporary overlay survives the process.
        return self._kept is not None and self._kept.unstable

    def flush(self, done: Done) -> bool:
        self.flushes += 1
        self._check("flush", 0, 0)
        # Nothing of a temporary overlay survives the process, so there is nothing to make stable.
        return True if self._kept is None else self._kept.flush(done)

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        first = offset // SECTOR
        end = (offset + length) // SECTOR
        present, first, end = self._map.runs(first, end, limit=1)[0]
        length = (end - first) * SECTOR
        return self.top.allocated(offset + self._shift, length) if present else self.base.allocated(offset, length)

    def allocation(self, offset: int, length: int, done: Allocation) -> tuple[bool, int] | None:
        first = offset // SECTOR
        end = (offset + length) // SECTOR
        present, first, end = self._map.runs(first, end, limit=1)[0]
        if present:
            return self.top.allocated(offset + self._shift, (end - first) * SECTOR)
        return self.base.allocation(offset, (end - first) * SECTOR, done)

    def _change(self, start: Callable[[Done], bool], offset: int, length: int, done: Done, fua: bool = False) -> bool:
        """Change the top, then mark the sectors: a read meanwhile still sees what was there before."""
        first, end = offset // SECTOR, (offset + length) // SECTOR
        kept = self._kept if fua else None  # stable means the data and the map that points to it

        def changed(error: StorageError | None) -> None:
            if error is None:
                self._map.mark(first, end)
                if kept is not None:
                    try:
                        if not kept.flush(done):
                            return
                    except StorageError as problem:
                        error = problem
            if error is not None:
                self.errors += 1
            done(error)

        if not start(changed):
            self.hand_offs += 1
            return False
        self._map.mark(first, end)
        return True if kept is None else kept.flush(done)

    def _check(self, what: str, offset: int, length: int) -> None:
        if length >= 0 and 0 <= offset <= self.size - length and not (offset | length) % SECTOR and not self._closed:
            return
        self.errors += 1
        if self._closed:
            raise StorageError("the overlay is closed", errno.ENODEV)
        raise StorageError(
            f"cannot {what} {length} bytes at {offset} of an overlay with {self.size} bytes in sectors of {SECTOR}",
            errno.EINVAL,
        )

    # -- events of the parts ----------------------------------------------------------------------------------

    def _base_event(self, event: str) -> None:
        if event == "resized":
            if self._kept is not None:
                event = "error: the base of a kept overlay changed its size; the overlay no longer fits it"
            else:
                try:
                    self.top.resize(self.base.size)
                    self.size = self.base.size
                except StorageError as problem:
                    event = f"error: the base changed its size and the overlay cannot follow: {problem}"
        if self.on_event is not None:
            self.on_event(event)

    def _top_event(self, event: str) -> None:
        if event == "resized":
            event = "error: someone changed the size of the overlay's own file"
        if self.on_event is not None:
            self.on_event(event)

    def settle(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        settled = self.top.settle(timeout)
        return self.base.settle(max(0.0, deadline - time.monotonic())) and settled

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.size = 0
        if self._kept is not None:
            problem = self._kept.save()
            if problem is not None and self.on_event is not None:
                self.on_event(f"error: the overlay could not be saved: {problem}")
        self.top.close()
        self.base.close()

    def describe(self) -> dict[str, object]:
        return super().describe() | {
            "kept": None if self._kept is None else str(self._kept.path),
            "changed": self._map.count * SECTOR,
            "base": self.base.describe(),
            "top": self.top.describe(),
        }


def open_overlay(
    base: Backend,
    loop: EventLoop,
    workers: WorkerPool,
    *,
    path: Path | None = None,
    memory: bool = False,
    limit: int | None = None,
    directory: Path | None = None,
) -> OverlayBackend:
    """An overlay over `base`: kept in `path`, in memory, or in an unnamed file in `directory` (None: the system's).

    `limit`: bytes it may use of memory (see `MemoryBackend`).
    """
    if path is not None:
        kept = OverlayFile(path, base.size, loop, workers)
        return OverlayBackend(base, kept.file, kept)
    if memory:
        return OverlayBackend(base, MemoryBackend(base.size, limit=limit))
    where = directory if directory is not None else Path(tempfile.gettempdir())
    try:
        handle, name = tempfile.mkstemp(prefix="hba-overlay-", dir=where)
    except OSError as problem:
        raise StorageError(
            f"cannot make a temporary overlay in {where}: {problem.strerror}; choose another with directory",
            problem.errno or 0,
        ) from None
    try:
        os.truncate(handle, base.size)
        return OverlayBackend(base, FileBackend(name, loop, workers, unnamed=True))
    except OSError as problem:
        raise StorageError(
            f"cannot make a temporary overlay of {base.size} bytes in {where}: {problem.strerror}", problem.errno or 0
        ) from None
    finally:
        os.close(handle)
        Path(name).unlink()  # the open descriptor keeps it; a killed process leaves nothing behind

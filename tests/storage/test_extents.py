"""An extent is looked for once, and what was given up is not called data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hba.loop import EventLoop
from hba.storage import linux
from hba.storage.extents import Extents
from hba.storage.file import FileBackend
from hba.storage.memory import PAGE, MemoryBackend
from hba.storage.overlay import open_overlay
from hba.storage.workers import WorkerPool
from tests.storage.util import Sync

PIECES = 256


class Asked:
    """os.lseek, counted."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._real = os.lseek
        patch.setattr(os, "lseek", self._lseek)

    def _lseek(self, fd: int, offset: int, whence: int) -> int:
        self.count += 1
        return self._real(fd, offset, whence)


def test_an_overlay_in_small_pieces_has_an_extent_below_walked_once(
    loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second sector of the overlay, over a memory full of data."""
    base = MemoryBackend(PIECES * 1024)
    Sync(loop, base).write(0, b"b" * base.size)
    overlay = open_overlay(base, loop, workers, memory=True)
    sync = Sync(loop, overlay)
    for piece in range(PIECES):
        sync.write(piece * 1024, b"o" * 512)
    asked = Asked(monkeypatch)
    for sector in range(2 * PIECES):
        assert overlay.allocated(sector * 512, overlay.size - sector * 512) == (True, 512)
    assert asked.count <= 4
    overlay.close()


def test_what_a_memory_gave_up_is_no_data(loop: EventLoop) -> None:
    memory = MemoryBackend(8 * PAGE)
    sync = Sync(loop, memory)
    sync.write(0, b"m" * 8 * PAGE)
    assert memory.allocated(0, 8 * PAGE) == (True, 8 * PAGE)
    sync.zero(4 * PAGE, PAGE)
    assert memory.allocated(4 * PAGE, PAGE) == (False, PAGE)
    assert memory.allocated(0, 8 * PAGE) == (True, 4 * PAGE)
    memory.resize(2 * PAGE)
    memory.resize(8 * PAGE)
    assert memory.allocated(0, 8 * PAGE) == (True, 2 * PAGE)
    assert memory.allocated(3 * PAGE, 5 * PAGE) == (False, 5 * PAGE)
    memory.close()


def test_what_somebody_else_punched_out_of_a_file_is_no_data(
    tmp_path: Path, loop: EventLoop, workers: WorkerPool
) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"f" * 16 * PAGE)
    backend = FileBackend(path, loop, workers)
    whole = backend.allocated(0, 16 * PAGE)
    assert whole == (True, 16 * PAGE)
    with path.open("r+b") as file:
        linux.punch_hole(file.fileno(), 4 * PAGE, 4 * PAGE)
        os.utime(path, ns=(1, 1))  # the clock of a file system may not have gone on
    assert backend.allocated(0, 16 * PAGE) == (True, 4 * PAGE)
    backend.close()


def test_a_file_that_cannot_be_asked_is_all_data() -> None:
    read, write = os.pipe()
    assert Extents().look(read, 0, 512) == (True, 512)
    os.close(read)
    os.close(write)

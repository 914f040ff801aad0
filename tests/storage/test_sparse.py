"""Huge stores of which little was written: no question about them takes a step for each block."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.loop import EventLoop
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.server import Identity
from hba.scsi.task import Task
from hba.storage.backend import Backend
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.overlay import open_overlay
from hba.storage.sectors import REGION, SPAN, SectorMap
from hba.storage.workers import WorkerPool
from tests.scsi.util import be, make_task, run, settle
from tests.storage.test_nbd import until
from tests.storage.util import Sync

TIB = 1 << 40
SIZE = 15 * TIB  # ext4's largest file is a little less than 16


def memory(folder: Path, loop: EventLoop, workers: WorkerPool) -> Backend:
    return MemoryBackend(SIZE)


def file(folder: Path, loop: EventLoop, workers: WorkerPool) -> Backend:
    path = folder / "disk"
    path.touch()
    try:
        os.truncate(path, SIZE)
    except OSError:
        pytest.skip(f"the file system of {folder} has no files of 15 TiB")
    return FileBackend(path, loop, workers)


def overlay(folder: Path, loop: EventLoop, workers: WorkerPool) -> Backend:
    return open_overlay(MemoryBackend(SIZE, read_only=True), loop, workers, memory=True)


KINDS = pytest.mark.parametrize("make", [memory, file, overlay])
Make = Callable[[Path, EventLoop, WorkerPool], Backend]


def status(unit: Disk, lba: int = 0, room: int = 8 + 16 * 20) -> list[tuple[int, int, int]]:
    """(LBA, blocks, provisioning status) of GET LBA STATUS."""
    data = run(unit, f"9e12{be(lba, 8)}{be(room, 4)}0000", room).data
    return [
        (int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big"), data[at + 12])
        for at in range(8, len(data), 16)
    ]


@KINDS
def test_get_lba_status_of_a_huge_unit(tmp_path: Path, loop: EventLoop, workers: WorkerPool, make: Make) -> None:
    store = make(tmp_path, loop, workers)
    Sync(loop, store).write(14 * TIB, b"x" * 4096)
    unit = Disk(store, Identity(), loop.clock, DiskOptions())
    ScsiBus().attach(0, 0, unit)
    settle(unit)
    found = status(unit)
    assert [(lba, what) for lba, _, what in found if what == 0] == [(14 * TIB // 512, 0)]
    assert sum(blocks for _, blocks, _ in found) > 14 * TIB // 512
    assert status(unit, 14 * TIB // 512, 24)[0][2] == 0
    unit.close()


@pytest.mark.parametrize("make", [memory, overlay])
def test_get_lba_status_of_a_unit_in_small_pieces(
    tmp_path: Path, loop: EventLoop, workers: WorkerPool, make: Make
) -> None:
    """Every other page, under large blocks: the answer ends early, after a bounded number of looks."""
    store = make(tmp_path, loop, workers)
    sync = Sync(loop, store)
    for page in range(0, 20000, 2):
        sync.write(page * 512 if make is overlay else page * 4096, b"x" * 512)
    unit = Disk(store, Identity(), loop.clock, DiskOptions(block_size=4096))
    ScsiBus().attach(0, 0, unit)
    settle(unit)
    found = status(unit, room=8 + 16 * 256)
    assert found and found[0][0] == 0
    for (lba, blocks, _), (following, _, _) in pairwise(found):
        assert lba + blocks == following
    unit.close()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 6 * SPAN * REGION), st.sampled_from((1, 7, REGION, 3 * REGION, SPAN * REGION))),
        max_size=6,
    ),
    st.integers(0, 5 * SPAN * REGION),
)
def test_runs_are_those_of_the_ranges_that_were_marked(marks: list[tuple[int, int]], first: int) -> None:
    end = 7 * SPAN * REGION
    chosen = SectorMap()
    edges = {first, end}
    ranges = []
    for start, length in marks:
        if length == SPAN * REGION:
            start -= start % length
        stop = start + length
        chosen.mark(start, stop)
        ranges.append((start, stop))
        edges |= {edge for edge in (start, stop) if first < edge < end}
    ordered = sorted(edges)
    expected: list[tuple[bool, int, int]] = []
    for low, high in pairwise(ordered):
        present = any(start <= low < stop for start, stop in ranges)
        if expected and expected[-1][0] == present:
            expected[-1] = (present, expected[-1][1], high)
        else:
            expected.append((present, low, high))
    assert chosen.runs(first, end) == expected
    assert chosen.runs(first, end, limit=1)[0][:2] == expected[0][:2]
    assert chosen.count == sum(high - low for present, low, high in chosen.runs(0, end + SPAN * REGION) if present)


def test_zeroing_a_hole_of_a_file_takes_no_space(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 64 << 20)
    store = FileBackend(path, loop, workers)
    sync = Sync(loop, store)
    sync.write(1 << 20, b"x" * 65536)
    before = path.stat().st_blocks
    sync.zero(0, 64 << 20)
    sync.flush()
    assert path.stat().st_blocks <= before
    assert sync.read(1 << 20, 65536) == bytes(65536)
    store.close()


def test_giving_up_much_memory_is_done_in_pieces(loop: EventLoop) -> None:
    """Under the watchdog: 1 GiB that was written is freed by one UNMAP."""
    store = MemoryBackend(8 << 30)
    data = memoryview(random.Random(1).randbytes(4 << 20))
    for at in range(0, 1 << 30, len(data)):
        store.write([data], at, lambda error: None)
    unit = Disk(store, Identity(), loop.clock, DiskOptions(block_size=4096))
    ScsiBus().attach(0, 0, unit)
    settle(unit)
    unmap = bytes((0, 22, 0, 16, 0, 0, 0, 0)) + bytes(8) + (1 << 18).to_bytes(4, "big") + bytes(4)
    task = make_task("42000000000000001800", out=unmap)
    ended: list[Task] = []
    task.done = ended.append
    if not unit.execute([task]):
        until(loop, lambda: bool(ended))
    assert task.status == 0 and store.used == 0
    unit.close()

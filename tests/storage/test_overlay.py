from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.backend import Backend
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.overlay import OverlayBackend, open_overlay
from hba.storage.sectors import REGION, SectorMap
from hba.storage.workers import WorkerPool
from tests.storage.util import Sync, operations, run_against_model

SIZE = 3 * REGION * 512 // 2  # a region and a half: a run can cross the border between two


def pattern(size: int) -> bytes:
    return bytes(range(1, 252)) * (size // 251 + 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3 * REGION - 1), st.integers(0, REGION * 2)), max_size=12), st.data())
def test_sector_map_against_a_set(marks: list[tuple[int, int]], data: st.DataObject) -> None:
    sectors = SectorMap()
    model: set[int] = set()
    for first, count in marks:
        sectors.mark(first, first + count)
        model.update(range(first, first + count))
    first = data.draw(st.integers(0, 4 * REGION))
    end = data.draw(st.integers(first, 5 * REGION))
    runs = sectors.runs(first, end)
    assert sectors.count == len(model)
    assert [position for _, start, stop in runs for position in range(start, stop)] == list(range(first, end))
    for present, start, stop in runs:
        assert all((position in model) == present for position in range(start, stop))
    assert all(one[0] != two[0] for one, two in itertools.pairwise(runs)), "neighbours of equal state"


@pytest.mark.parametrize("where", ["memory", "temporary", "kept"])
def test_behaves_like_a_bytearray_and_leaves_the_base_alone(where: str, tmp_path: Path) -> None:
    golden = tmp_path / "golden"
    content = pattern(SIZE)[:SIZE]
    golden.write_bytes(content)

    @settings(max_examples=25, deadline=None)
    @given(operations(SIZE, longest=200), operations(SIZE))
    def check(first: list[tuple[str, int, int, int]], second: list[tuple[str, int, int, int]]) -> None:
        loop = EventLoop()
        workers = WorkerPool(loop, threads=2)

        def start() -> OverlayBackend:
            base = FileBackend(golden, loop, workers, read_only=True)
            path = tmp_path / "kept" if where == "kept" else None
            return open_overlay(base, loop, workers, path=path, memory=where == "memory", directory=tmp_path)

        model = bytearray(content)
        overlay = start()
        run_against_model(Sync(loop, overlay), model, first)
        overlay.close()
        if where != "kept":
            model = bytearray(content)
        overlay = start()
        run_against_model(Sync(loop, overlay), model, second)
        overlay.close()
        assert golden.read_bytes() == content
        (tmp_path / "kept").unlink(missing_ok=True)
        assert os.listdir(tmp_path) == ["golden"]  # noqa: PTH208
        assert workers.shutdown()
        loop.close()

    check()


def test_kept_only_what_was_flushed_is_promised_and_that_is_there(tmp_path: Path, loop: EventLoop) -> None:
    """The process is gone without closing: the map in the file covers the flushed write."""
    workers = WorkerPool(loop)
    path = tmp_path / "kept"
    overlay = open_overlay(MemoryBackend(SIZE, read_only=True), loop, workers, path=path)
    sync = Sync(loop, overlay)
    sync.write(1024, b"a" * 512)
    sync.flush()
    sync.write(4096, b"b" * 512, fua=True)
    sync.write(8192, b"c" * 512)
    copy = tmp_path / "after-the-crash"
    copy.write_bytes(path.read_bytes())
    overlay.close()
    again = open_overlay(MemoryBackend(SIZE, read_only=True), loop, workers, path=copy)
    sync = Sync(loop, again)
    assert sync.read(1024, 512) == b"a" * 512
    assert sync.read(4096, 512) == b"b" * 512
    assert sync.read(8192, 512) in (bytes(512), b"c" * 512)
    again.close()
    assert workers.shutdown()


def test_flushes_at_the_same_time_all_finish(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    overlay = open_overlay(MemoryBackend(SIZE, read_only=True), loop, workers, path=tmp_path / "kept")
    outcomes: list[object] = []
    for number in range(5):
        if overlay.write([memoryview(b"x" * 512)], number * 1024 * 256, outcomes.append, fua=True):
            outcomes.append(None)
        if overlay.flush(outcomes.append):
            outcomes.append(None)
    while len(outcomes) < 10:
        loop.run_once(None)
    assert outcomes == [None] * 10
    overlay.close()


def test_another_base_and_a_strange_file_are_refused(tmp_path: Path, loop: EventLoop, workers: WorkerPool) -> None:
    path = tmp_path / "kept"
    open_overlay(MemoryBackend(SIZE), loop, workers, path=path).close()
    with pytest.raises(StorageError, match="its base has"):
        open_overlay(MemoryBackend(SIZE + 512), loop, workers, path=path)
    path.write_bytes(b"somebody's photographs")
    with pytest.raises(StorageError, match="not an overlay of ours"):
        open_overlay(MemoryBackend(SIZE), loop, workers, path=path)
    assert path.read_bytes() == b"somebody's photographs"


def test_a_failed_write_leaves_the_old_sector(loop: EventLoop) -> None:
    clock = VirtualClock()
    base = MemoryBackend(SIZE)
    Sync(loop, base).write(0, b"o" * 4096)
    top = FaultyBackend(MemoryBackend(SIZE), clock)
    overlay = OverlayBackend(base, top)
    sync = Sync(loop, overlay)
    top.inject(Fault("write", errno=errno.ENOSPC, count=1))
    with pytest.raises(StorageError) as caught:
        sync.write(0, b"n" * 512)
    assert caught.value.errno == errno.ENOSPC
    assert sync.read(0, 4096) == b"o" * 4096
    overlay.close()


def test_a_read_from_both_reports_the_error_of_either(loop: EventLoop) -> None:
    clock = VirtualClock()
    base = FaultyBackend(MemoryBackend(SIZE), clock)
    overlay = OverlayBackend(base, MemoryBackend(SIZE))
    sync = Sync(loop, overlay)
    sync.write(512, b"t" * 512)
    for fault in (Fault("read", errno=errno.EIO, count=1), Fault("read", errno=errno.EIO, count=1, delay=5)):
        base.inject(fault)
        outcomes: list[object] = []
        target = memoryview(bytearray(1536))
        try:
            assert not overlay.read([target], 0, outcomes.append)
        except StorageError as problem:
            outcomes.append(problem)
        clock.advance(10)
        assert [getattr(outcome, "errno", None) for outcome in outcomes] == [errno.EIO]
    assert sync.read(0, 1536) == bytes(512) + b"t" * 512 + bytes(512)
    overlay.close()


def test_events_of_the_base_come_through(loop: EventLoop) -> None:
    base = MemoryBackend(SIZE)
    overlay = OverlayBackend(base, MemoryBackend(SIZE))
    events: list[str] = []
    overlay.on_event = events.append
    base.resize(SIZE * 2)
    assert base.on_event is not None
    base.on_event("resized")
    base.on_event("gone")
    assert (events, overlay.size) == (["resized", "gone"], SIZE * 2)
    assert Sync(loop, overlay).read(SIZE, 512) == bytes(512)
    overlay.close()


@pytest.mark.parametrize(("offset", "length"), [(1, 512), (0, 100), (SIZE, 512), (-512, 512)])
def test_anything_but_sectors_inside_is_refused(loop: EventLoop, offset: int, length: int) -> None:
    overlay: Backend = OverlayBackend(MemoryBackend(SIZE), MemoryBackend(SIZE))
    with pytest.raises(StorageError) as caught:
        Sync(loop, overlay).read(offset, length)
    assert caught.value.errno == errno.EINVAL
    overlay.close()

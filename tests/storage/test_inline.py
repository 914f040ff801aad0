"""Which buffered writes run in the loop, and what sends them to the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hba.clock import MS
from hba.loop import EventLoop
from hba.storage import inline, linux
from hba.storage.file import FileBackend
from hba.storage.inline import CREDIT, LARGEST, PAGE, REST, SLOW, VALID, InlineWrites, dirty_room
from hba.storage.workers import WorkerPool
from tests.storage.util import Sync

SIZE = 1 << 20
PLENTY = 1 << 40


class Room:
    """What `dirty_room` would say, and how often it was asked."""

    def __init__(self, size: int = PLENTY) -> None:
        self.size = size
        self.asked = 0

    def __call__(self) -> int:
        self.asked += 1
        return self.size


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


def test_only_whole_pages_and_not_too_many() -> None:
    writes = InlineWrites(Room())
    assert writes.permits(0, PAGE, 1)
    assert writes.permits(PAGE, LARGEST, 1)
    assert not writes.permits(512, PAGE, 1)
    assert not writes.permits(0, 512, 1)
    assert not writes.permits(0, LARGEST + PAGE, 1)


def test_the_kernel_is_asked_again_after_the_credit_and_after_a_while() -> None:
    room = Room()
    writes = InlineWrites(room)
    for _ in range(CREDIT // LARGEST):
        assert writes.permits(0, LARGEST, 1)
    assert room.asked == 1
    assert writes.permits(0, PAGE, 2)
    assert room.asked == 2
    assert writes.permits(0, PAGE, 2 + VALID)
    assert room.asked == 3


def test_no_room_means_no_write_and_no_new_question_for_a_while() -> None:
    room = Room(0)
    writes = InlineWrites(room)
    assert not writes.permits(0, PAGE, 1)
    room.size = PLENTY
    assert not writes.permits(0, PAGE, VALID)
    assert room.asked == 1
    assert writes.permits(0, PAGE, VALID + 1)


def test_half_of_the_room_is_left_alone() -> None:
    writes = InlineWrites(Room(4 * PAGE))
    assert writes.permits(0, PAGE, 1)
    assert writes.permits(0, PAGE, 1)
    assert writes.permits(0, PAGE, 1)  # the kernel was asked once more, and has counted the first two by now
    assert not InlineWrites(Room(PAGE)).permits(0, PAGE, 1)


def test_one_slow_write_sends_all_to_the_workers() -> None:
    writes = InlineWrites(Room())
    assert writes.permits(0, PAGE, 1)
    writes.took(1, 1 + SLOW)
    assert writes.permits(0, PAGE, 2)
    end = 2 + SLOW + 1
    writes.took(2, end)
    assert writes.slow == 1
    assert not writes.permits(0, PAGE, end)
    assert not writes.permits(0, PAGE, end + REST - 1)
    assert writes.permits(0, PAGE, end + REST)


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("nr_dirty 10\nnr_writeback 5\nnr_dirty_threshold 200\nnr_dirty_background_threshold 100\nother 1\n", 135),
        ("nr_dirty 170\nnr_writeback 5\nnr_dirty_threshold 200\nnr_dirty_background_threshold 100\n", -25),
        ("nr_dirty 1\n", 0),
        ("nr_dirty many\n", 0),
        ("", 0),
    ],
)
def test_the_room_is_the_distance_to_the_free_run_ceiling(tmp_path: Path, text: str, pages: int) -> None:
    file = tmp_path / "vmstat"
    file.write_text(text)
    assert dirty_room(file) == pages * PAGE


def test_without_the_counters_there_is_no_room(tmp_path: Path) -> None:
    assert dirty_room(tmp_path / "missing") == 0


class Watched(InlineWrites):
    """Says how often it was asked; never slow, whatever this machine does meanwhile."""

    asked = 0

    def permits(self, offset: int, length: int, now: int) -> bool:
        self.asked += 1
        return super().permits(offset, length, 1)

    def took(self, begin: int, end: int) -> None:
        pass


@pytest.fixture
def backend(disk: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> FileBackend:
    """A file on a file system without NOWAIT for writes, whatever this one is."""
    monkeypatch.setattr(linux, "writes_to_page_cache", lambda fd: True)
    monkeypatch.setattr(linux, "lives_in_memory", lambda fd: False)
    backend = FileBackend(disk, loop, workers)
    backend._write_flags = -1
    backend._inline = Watched(Room())
    return backend


def test_an_aligned_write_is_done_at_once(backend: FileBackend, loop: EventLoop) -> None:
    sync = Sync(loop, backend)
    sync.write(PAGE, b"x" * PAGE)
    assert (backend.inline_writes, sync.later) == (1, 0)
    sync.write(512, b"y" * 512)
    assert (backend.inline_writes, sync.later) == (1, 1)
    assert sync.read(0, 2 * PAGE)[512:1024] == b"y" * 512
    assert sync.read(PAGE, PAGE) == b"x" * PAGE
    backend.close()


def test_fua_needs_a_worker(backend: FileBackend, loop: EventLoop) -> None:
    sync = Sync(loop, backend)
    sync.write(0, b"x" * PAGE, fua=True)
    assert (backend.inline_writes, sync.later) == (0, 1)
    backend.close()


def test_a_flush_covers_what_was_written_inline(backend: FileBackend, loop: EventLoop) -> None:
    sync = Sync(loop, backend)
    sync.flush()
    later = sync.later
    sync.write(0, b"x" * PAGE)
    sync.flush()
    assert sync.later == later + 1
    backend.close()


def test_none_while_a_worker_changes_the_file(backend: FileBackend, loop: EventLoop) -> None:
    """It may hold the file's lock, for as long as the kernel makes it wait."""
    ended: list[object] = []
    view = memoryview(bytes(PAGE))
    assert isinstance(backend._inline, Watched)
    for start in (
        lambda: backend.zero(2 * PAGE, PAGE, ended.append),
        lambda: backend.write([view[:512]], 512, ended.append),
        lambda: backend.write([memoryview(bytes(2 * LARGEST))], 0, ended.append),
    ):
        ended.clear()
        assert not start()
        asked = backend._inline.asked
        assert not backend.write([view], PAGE, ended.append)
        assert backend._inline.asked == asked
        while len(ended) < 2:
            loop.run_once(None)
        assert ended == [None, None]
        assert backend.write([view], 0, ended.append)


def test_small_writes_in_workers_do_not_keep_the_others_there(backend: FileBackend, loop: EventLoop) -> None:
    ended: list[object] = []
    view = memoryview(bytes(PAGE))
    assert not backend.write([view], 0, ended.append, True)
    assert backend.write([view], PAGE, ended.append)
    while not ended:
        loop.run_once(None)
    assert ended == [None]
    backend.close()


def test_an_error_is_known_at_once(backend: FileBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    from hba.errors import StorageError
    from hba.storage import descriptor

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(descriptor, "pwritev", full)
    with pytest.raises(StorageError, match="No space left"):
        backend.write([memoryview(bytes(PAGE))], 0, lambda error: None)
    assert backend.errors == 1
    monkeypatch.undo()
    backend.close()


def test_elsewhere_nothing_changes(disk: Path, loop: EventLoop, workers: WorkerPool) -> None:
    for choice in ("never", "always"):
        backend = FileBackend(disk, loop, workers, inline_writes=choice)
        assert backend._inline is None
        backend.close()
    direct = FileBackend(disk, loop, workers)
    assert direct._inline is None or linux.writes_to_page_cache(direct._fd)
    direct.close()


def test_the_times_fit_together() -> None:
    assert inline.SLOW < inline.VALID < inline.REST
    assert MS <= inline.SLOW

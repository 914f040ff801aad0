"""Reads of a batch: what is done at once, what waits or fails, and who does it when it is long."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import descriptor
from hba.storage.assistant import Assistant
from hba.storage.backend import Done
from hba.storage.descriptor import LONG
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.transfer import Transfer
from hba.storage.workers import WorkerPool

SIZE = 8 * LONG


class Reading(Transfer):
    """Says what it was told."""

    def __init__(self, offset: int, length: int) -> None:
        self.data = self.memory = DmaBuffer.of(bytearray(length))
        self.offset = offset
        self.told: list[object] = []

    def failed(self, error: StorageError) -> None:
        self.told.append(error.errno)

    def waits(self) -> None:
        self.told.append("waits")

    def answered(self, error: StorageError | None) -> None:
        self.told.append(error)


class Disk:
    """A file of random bytes as a back end."""

    def __init__(self, path: Path) -> None:
        self.content = os.urandom(SIZE)
        path.write_bytes(self.content)
        self.path = path
        self.loop = EventLoop()
        self.workers = WorkerPool(self.loop)
        self.store = FileBackend(path, self.loop, self.workers)

    def right(self, reads: list[Reading]) -> bool:
        return all(read.memory.read() == self.content[read.offset : read.offset + read.memory.length] for read in reads)

    def wait(self) -> None:
        assert self.workers.wait(lambda: self.store.in_flight == 0, 30)

    def close(self) -> None:
        self.store.close()
        assert self.workers.shutdown()
        self.loop.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    yield disk
    disk.close()


def test_what_the_page_cache_has_is_read_at_once(disk: Disk) -> None:
    reads = [Reading(at * 4096, 4096) for at in (7, 3, 5)]
    assert not disk.store.read_batch(reads)
    assert disk.right(reads)
    assert [read.told for read in reads] == [[]] * 3
    assert disk.store.reads == 3
    assert disk.store.bytes_read == 3 * 4096
    assert disk.store.hand_offs == 0


def test_what_ends_short_waits_and_fails_alone(disk: Disk) -> None:
    os.truncate(disk.path, 4096 + 512)
    reads = [Reading(0, 4096), Reading(4096, 4096), Reading(0, 512)]
    assert list(disk.store.read_batch(reads)) == [reads[1]]
    assert disk.right([reads[0], reads[2]])
    assert reads[1].memory.read(0, 512) == disk.content[4096 : 4096 + 512]  # and is not read again
    assert disk.store.reads == 3
    assert disk.store.bytes_read == 4096 + 512
    disk.wait()
    assert reads[1].told[0] == "waits"
    assert isinstance(reads[1].told[1], StorageError)
    assert [reads[0].told, reads[2].told] == [[], []]
    assert disk.store.bytes_read == 4096 + 512


def test_what_the_page_cache_does_not_have_waits_for_a_worker(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_the_second(fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags and offset == 4096:
            raise OSError(errno.EAGAIN, "would block")
        return os.preadv(fd, views, offset, flags)

    monkeypatch.setattr(descriptor, "preadv", without_the_second)
    reads = [Reading(at * 4096, 4096) for at in range(3)]
    assert list(disk.store.read_batch(reads)) == [reads[1]]
    assert disk.store.bytes_read == 2 * 4096
    disk.wait()
    assert [read.told for read in reads] == [[], ["waits", None], []]
    assert disk.right(reads)
    assert disk.store.bytes_read == 3 * 4096


def test_a_worker_goes_on_where_the_call_at_once_ended(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []

    def half(fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            return os.preadv(fd, [views[0][:512]], offset, flags)
        calls.append((offset, sum(map(len, views))))
        return os.preadv(fd, views, offset)

    monkeypatch.setattr(descriptor, "preadv", half)
    read = Reading(4096, 4096)
    assert list(disk.store.read_batch([read])) == [read]
    disk.wait()
    assert calls == [(4096 + 512, 4096 - 512)]
    assert disk.right([read])


def test_an_error_at_once_is_told_to_the_one_it_is_about(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_second(fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if offset == 4096:
            raise OSError(errno.EIO, "broken")
        return os.preadv(fd, views, offset, flags)

    monkeypatch.setattr(descriptor, "preadv", broken_second)
    reads = [Reading(at * 4096, 4096) for at in range(3)]
    assert not disk.store.read_batch(reads)
    assert [read.told for read in reads] == [[], [errno.EIO], []]
    assert disk.store.errors == 1
    assert (disk.store.reads, disk.store.bytes_read) == (3, 2 * 4096)


def test_a_file_system_without_nowait_is_asked_once(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def without(fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            asked.append(offset)
            raise OSError(errno.EOPNOTSUPP, "not here")
        return os.preadv(fd, views, offset)

    monkeypatch.setattr(descriptor, "preadv", without)
    for _ in range(2):
        reads = [Reading(at * 4096, 4096) for at in range(2)]
        assert list(disk.store.read_batch(reads)) == reads
        disk.wait()
        assert [read.told for read in reads] == [["waits", None]] * 2
        assert disk.right(reads)
    assert asked == [0, 4096]


@pytest.mark.parametrize("offset", [-512, SIZE, SIZE - 512])
def test_what_is_outside_fails_without_a_call(disk: Disk, offset: int) -> None:
    with disk.path.open("ab") as file:
        file.write(bytes(8192))  # there, but not the store's yet
    reads = [Reading(0, 512), Reading(offset, 1024)]
    assert not disk.store.read_batch(reads)
    assert [read.told for read in reads] == [[], [errno.EINVAL]]
    assert (disk.store.reads, disk.store.bytes_read, disk.store.errors) == (1, 512, 1)


def test_a_closed_store_fails_everything(disk: Disk) -> None:
    disk.store.close()
    reads = [Reading(0, 512), Reading(512, 512)]
    assert not disk.store.read_batch(reads)
    assert [read.told for read in reads] == [[errno.ENODEV]] * 2
    assert disk.store.reads == 0


def test_one_alone_is_a_batch_of_one(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[StorageError | None] = []
    view = memoryview(bytearray(4096))
    assert disk.store.read([view], 4096, answers.append)
    assert bytes(view) == disk.content[4096:8192]
    with pytest.raises(StorageError) as refused:
        disk.store.read([view], SIZE, answers.append)
    assert refused.value.errno == errno.EINVAL
    assert answers == []

    def nothing_at_once(fd: int, views: Sequence[memoryview], offset: int, flags: int = 0) -> int:
        if flags:
            raise OSError(errno.EAGAIN, "would block")
        return os.preadv(fd, views, offset)

    monkeypatch.setattr(descriptor, "preadv", nothing_at_once)
    assert not disk.store.read([view], 0, answers.append)
    disk.wait()
    assert answers == [None]
    assert bytes(view) == disk.content[:4096]


def test_direct_reads_all_wait(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.store.close()
    disk.store = FileBackend(disk.path, disk.loop, disk.workers, direct=True)
    reads = [Reading(0, 4096), Reading(4096, 4096)]
    assert list(disk.store.read_batch(reads)) == reads
    disk.wait()
    assert [read.told for read in reads] == [["waits", None]] * 2
    assert disk.right(reads)
    assert disk.store.reads == 2
    assert disk.store.bytes_read == 2 * 4096
    disk.close()


def test_a_store_that_reads_one_by_one_takes_batches() -> None:
    store = MemoryBackend(1 << 20)
    store.write([memoryview(b"a" * 512)], 512, lambda error: None)
    reads = [Reading(0, 512), Reading(1 << 20, 512), Reading(512, 512)]
    assert not store.read_batch(reads)
    assert [read.told for read in reads] == [[], [errno.EINVAL], []]
    assert reads[2].memory.read() == b"a" * 512


def test_who_waits_hears_of_it_before_the_next_is_asked_for() -> None:
    """The next one may be what ends it: a lost connection fails all that wait."""
    store = MemoryBackend(1 << 20)
    waiting: list[Done] = []

    def read(views: Sequence[memoryview], offset: int, done: Done) -> bool:
        if waiting:
            waiting.pop()(StorageError("lost", errno.ENOTCONN))
            raise StorageError("lost", errno.ENOTCONN)
        waiting.append(done)
        return False

    store.read = read  # type: ignore[method-assign]
    first, second = Reading(0, 512), Reading(512, 512)
    store.read_batch([first, second])
    assert [str(told) for told in first.told] == ["waits", "lost"]
    assert second.told == [errno.ENOTCONN]


def test_long_reads_are_shared_with_the_assistant(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    assistant = disk.workers.assistant
    share = assistant.share

    def watched(calls: deque[object]) -> None:
        shared.append(len(calls))
        share(calls)  # type: ignore[arg-type]

    monkeypatch.setattr(assistant, "useful", True)
    monkeypatch.setattr(assistant, "share", watched)
    reads = [Reading(at * LONG, LONG) for at in range(4)]
    assert not disk.store.read_batch(reads)
    assert disk.right(reads)
    assert shared == [4]
    assert disk.store.reads == 4
    assert disk.store.bytes_read == 4 * LONG

    assert not disk.store.read_batch(reads[:1])  # one alone is not
    assert shared == [4]


def test_long_reads_that_end_short_wait(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.workers.assistant, "useful", True)
    os.truncate(disk.path, 2 * LONG)
    reads = [Reading(at * LONG, LONG) for at in range(4)]
    late = disk.store.read_batch(reads)
    assert sorted(map(id, late)) == sorted(map(id, reads[2:]))
    assert disk.right(reads[:2])
    assert disk.store.reads == 4
    assert disk.store.bytes_read == 2 * LONG
    disk.wait()
    assert [read.told[:1] for read in reads] == [[], [], ["waits"], ["waits"]]
    assert disk.store.bytes_read == 2 * LONG


def test_the_assistant_takes_part_and_share_waits_for_it() -> None:
    assistant = Assistant()
    here, there = threading.Event(), threading.Event()
    threads: list[str] = []
    ended: list[str] = []

    def call() -> None:
        # Neither goes on before the other has begun: so both threads have one.
        name = threading.current_thread().name
        threads.append(name)
        (here if name == "MainThread" else there).set()
        assert (there if name == "MainThread" else here).wait(30)
        if name != "MainThread":
            sum(range(2_000_000))  # the other is ready long before this
            ended.append(name)

    assistant.share(deque([call, call]))
    assert sorted(threads) == ["MainThread", "hba-copies"]
    assert ended == ["hba-copies"]
    assistant.close()


def test_without_the_assistant_the_caller_does_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The assistant gets no processor: it is still waiting to begin when everything is done."""
    assistant = Assistant()
    monkeypatch.setattr(assistant, "_run", lambda: None)
    done: list[int] = []
    assistant.share(deque([lambda: done.append(1), lambda: done.append(2)]))
    assert done == [1, 2]


def test_the_assistant_ends_when_it_is_closed() -> None:
    assistant = Assistant()
    assistant.close()  # never started: nothing to end
    assistant.share(deque())
    assert "hba-copies" in [thread.name for thread in threading.enumerate()]
    assistant.close()
    assert "hba-copies" not in [thread.name for thread in threading.enumerate()]

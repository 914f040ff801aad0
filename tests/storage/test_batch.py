"""Reads of a batch: what is done at once, what is left, and who does it when it is long."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.loop import EventLoop
from hba.storage.assistant import Assistant
from hba.storage.backend import Read
from hba.storage.descriptor import LONG
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool

SIZE = 8 * LONG


class Disk:
    """A file of random bytes as a back end; `read` makes the reads of a batch."""

    def __init__(self, path: Path) -> None:
        self.content = os.urandom(SIZE)
        path.write_bytes(self.content)
        self.path = path
        self.loop = EventLoop()
        self.workers = WorkerPool(self.loop)
        self.store = FileBackend(path, self.loop, self.workers)

    def read(self, offset: int, length: int) -> Read:
        return [memoryview(bytearray(length))], offset, length, None

    def right(self, reads: list[Read]) -> bool:
        return all(b"".join(views) == self.content[offset : offset + length] for views, offset, length, _ in reads)

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
    reads = [disk.read(at * 4096, 4096) for at in (7, 3, 5)]
    assert list(disk.store.read_batch(reads)) == []
    assert disk.right(reads)
    assert disk.store.reads == 3
    assert disk.store.bytes_read == 3 * 4096


def test_what_ends_short_is_left_for_read_and_not_counted(disk: Disk) -> None:
    os.truncate(disk.path, 4096)
    reads = [disk.read(0, 4096), disk.read(4096, 4096), disk.read(0, 512)]
    assert list(disk.store.read_batch(reads)) == [reads[1]]
    assert disk.right([reads[0], reads[2]])
    assert disk.store.reads == 2
    assert disk.store.bytes_read == 4096 + 512


def test_direct_reads_are_all_left(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    disk.store.close()
    disk.store = FileBackend(disk.path, disk.loop, disk.workers, direct=True)
    reads = [disk.read(0, 4096), disk.read(4096, 4096)]
    assert disk.store.read_batch(reads) == reads
    assert disk.store.reads == 0
    disk.close()


def test_a_store_without_batches_leaves_everything() -> None:
    store = MemoryBackend(1 << 20)
    reads: list[Read] = [([memoryview(bytearray(512))], 0, 512, None)]
    assert store.read_batch(reads) is reads


def test_long_reads_are_shared_with_the_assistant(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []
    assistant = disk.workers.assistant
    share = assistant.share

    def watched(calls: deque[object]) -> None:
        shared.append(len(calls))
        share(calls)  # type: ignore[arg-type]

    monkeypatch.setattr(assistant, "useful", True)
    monkeypatch.setattr(assistant, "share", watched)
    reads = [disk.read(at * LONG, LONG) for at in range(4)]
    assert list(disk.store.read_batch(reads)) == []
    assert disk.right(reads)
    assert shared == [4]
    assert disk.store.bytes_read == 4 * LONG

    assert list(disk.store.read_batch(reads[:1])) == []  # one alone is not
    assert shared == [4]


def test_long_reads_that_end_short_are_left(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.workers.assistant, "useful", True)
    os.truncate(disk.path, 2 * LONG)
    reads = [disk.read(at * LONG, LONG) for at in range(4)]
    left = disk.store.read_batch(reads)
    assert sorted(map(id, left)) == sorted(map(id, reads[2:]))
    assert disk.right(reads[:2])
    assert disk.store.reads == 2
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

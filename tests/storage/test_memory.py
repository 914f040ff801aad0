from __future__ import annotations

import errno

import pytest
from hypothesis import given, settings

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.memory import PAGE, MemoryBackend
from tests.storage.util import Sync, operations, run_against_model

BLOCK = 65536
SIZE = 3 * BLOCK + 1536


@settings(max_examples=60, deadline=None)
@given(operations(SIZE, longest=300))
def test_behaves_like_a_bytearray(todo: list[tuple[str, int, int, int]]) -> None:
    loop = EventLoop()
    backend = MemoryBackend(SIZE)
    sync = Sync(loop, backend)
    run_against_model(sync, bytearray(SIZE), todo)
    assert sync.later == 0
    backend.close()
    loop.close()


def test_is_sparse_and_gives_memory_back(loop: EventLoop) -> None:
    backend = MemoryBackend(4 << 40)
    sync = Sync(loop, backend)
    sync.write(3 << 40, b"x" * 4096)
    assert backend.describe()["used"] == PAGE
    assert backend.allocated(0, 4 << 40) == (False, 3 << 40)
    assert backend.allocated(3 << 40, 1 << 20) == (True, PAGE)
    sync.discard(0, 4 << 40)
    assert backend.describe()["used"] == 0
    assert sync.read(3 << 40, 4096) == bytes(4096)
    backend.close()


def test_resize_keeps_what_stays_and_shows_zeros_in_what_comes(loop: EventLoop) -> None:
    backend = MemoryBackend(2 * BLOCK)
    sync = Sync(loop, backend)
    sync.write(0, b"a" * 2 * BLOCK)
    backend.resize(BLOCK + 512)
    backend.resize(2 * BLOCK)
    assert sync.read(0, 2 * BLOCK) == b"a" * (BLOCK + 512) + bytes(BLOCK - 512)
    backend.close()


@pytest.mark.parametrize("offset", [-512, SIZE - 512, SIZE, 1 << 62])
def test_outside_is_refused_and_changes_nothing(loop: EventLoop, offset: int) -> None:
    backend = MemoryBackend(SIZE)
    sync = Sync(loop, backend)
    for call in (
        lambda: sync.read(offset, 1024),
        lambda: sync.write(offset, b"x" * 1024, 512),
        lambda: sync.zero(offset, 1024),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.errno == errno.EINVAL
    assert sync.read(0, SIZE) == bytes(SIZE)
    backend.close()


def test_read_only_and_closed_say_so(loop: EventLoop) -> None:
    backend = MemoryBackend(SIZE, read_only=True)
    sync = Sync(loop, backend)
    with pytest.raises(StorageError) as caught:
        sync.write(0, bytes(512))
    assert caught.value.errno == errno.EROFS
    assert sync.read(0, 512) == bytes(512)
    backend.close()
    backend.close()
    with pytest.raises(StorageError, match="closed"):
        sync.read(0, 512)


@pytest.mark.parametrize("size", [1 << 63, 1 << 70])
def test_more_than_a_file_can_be_is_refused_clearly(size: int) -> None:
    with pytest.raises(StorageError, match="make it smaller"):
        MemoryBackend(size)


def test_reading_what_was_never_written_takes_no_memory(loop: EventLoop) -> None:
    backend = MemoryBackend(1 << 40)
    into = memoryview(bytearray(1 << 20))
    for place in range(0, 1 << 40, 1 << 34):
        assert backend.read([into], place, lambda error: None)
    assert backend.used == 0
    backend.close()


def test_the_limit(loop: EventLoop) -> None:
    backend = MemoryBackend(1 << 30, limit=64 * PAGE)
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 60 * PAGE)
    with pytest.raises(StorageError, match=f"may not use more than {64 * PAGE}: raise `limit`") as caught:
        sync.write(1 << 20, b"y" * 8 * PAGE)
    assert caught.value.errno == errno.ENOSPC
    assert backend.used == 60 * PAGE and sync.read(1 << 20, PAGE) == bytes(PAGE)
    sync.write(0, b"z" * 60 * PAGE)  # what is there may be written again
    sync.write(58 * PAGE, b"w" * 6 * PAGE)  # and partly so
    with pytest.raises(StorageError):
        sync.write(1 << 20, b"y" * 512)
    sync.discard(0, 8 * PAGE)
    sync.write(1 << 20, b"y" * 8 * PAGE)
    sync.zero(0, 1 << 30)
    assert backend.used == 0
    backend.close()


def test_zero_over_whole_blocks_and_the_edges(loop: EventLoop) -> None:
    backend = MemoryBackend(SIZE)
    sync = Sync(loop, backend)
    sync.write(0, b"x" * SIZE)
    sync.zero(512, 2 * BLOCK)
    assert sync.read(0, SIZE) == b"x" * 512 + bytes(2 * BLOCK) + b"x" * (SIZE - 512 - 2 * BLOCK)
    sync.zero(BLOCK, SIZE - BLOCK)
    assert sync.read(0, SIZE) == b"x" * 512 + bytes(SIZE - 512)
    assert backend.describe()["used"] == PAGE
    backend.close()

"""Large maps are given back a piece a turn."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.clock import VirtualClock
from hba.loop import EventLoop
from hba.pci.release import MOST, PIECE, Release


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop(VirtualClock())
    yield loop
    loop.close()


def mapped(size: int) -> mmap.mmap:
    fd = os.memfd_create("guest")
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)


def resident() -> int:
    """Bytes of shared memory this process has in its page tables."""
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssShmem"))


def touch(memory: mmap.mmap) -> None:
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1


def test_a_small_map_goes_at_once(loop: EventLoop) -> None:
    memory = mapped(PIECE)
    Release(loop).add(memory)
    assert memory.closed


def test_a_large_one_goes_in_pieces(loop: EventLoop) -> None:
    memory, other = mapped(2 * PIECE + 4096), mapped(PIECE + 4096)
    touch(memory)
    release = Release(loop)
    before = resident()
    release.add(memory)
    release.add(other)
    for piece in (1, 2):
        loop.run_once(0)
        assert not memory.closed
        assert before - resident() == piece * PIECE
    loop.run_once(0)
    assert memory.closed and not other.closed
    for _ in range(2):
        loop.run_once(0)
    assert other.closed


def test_who_still_has_a_view_keeps_what_is_in_it(loop: EventLoop) -> None:
    memory = mapped(PIECE + 4096)
    memory[0] = memory[PIECE] = 7
    view = memoryview(memory)
    Release(loop).add(memory)
    for _ in range(3):
        loop.run_once(0)
    assert (view[0], view[PIECE]) == (7, 7)
    view.release()


def test_a_client_that_lets_go_of_too_many_waits_itself(loop: EventLoop) -> None:
    release = Release(loop)
    maps = [mapped(PIECE + 4096) for _ in range(MOST + 1)]
    for memory in maps:
        release.add(memory)
    assert [memory.closed for memory in maps] == [False] * MOST + [True]
    for _ in range(2 * MOST):
        loop.run_once(0)
    assert all(memory.closed for memory in maps)

from __future__ import annotations

import errno

import pytest

from hba.clock import S, VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.memory import MemoryBackend
from tests.storage.util import Sync


@pytest.fixture
def faulty() -> FaultyBackend:
    return FaultyBackend(MemoryBackend(65536), VirtualClock())


def test_without_a_plan_it_is_the_store_itself(loop: EventLoop, faulty: FaultyBackend) -> None:
    sync = Sync(loop, faulty)
    sync.write(512, b"x" * 512, fua=True)
    sync.zero(512, 100)
    sync.discard(0, 512)
    sync.flush()
    assert sync.read(512, 512) == bytes(100) + b"x" * 412
    assert sync.later == 0


def test_nth_call_and_range(loop: EventLoop, faulty: FaultyBackend) -> None:
    sync = Sync(loop, faulty)
    third = faulty.inject(Fault("write", errno=errno.ENOSPC, skip=2, count=1))
    outcomes = []
    for _ in range(4):
        try:
            sync.write(0, bytes(512))
            outcomes.append(0)
        except StorageError as problem:
            outcomes.append(problem.errno)
    assert outcomes == [0, 0, errno.ENOSPC, 0]
    assert third.hits == 1
    faulty.inject(Fault("read", errno=errno.EIO, offset=1024, length=512))
    sync.read(0, 1024)
    sync.read(1536, 512)
    for offset, length in ((1024, 512), (512, 1024), (1535, 1)):
        with pytest.raises(StorageError, match="injected"):
            sync.read(offset, length)
    faulty.clear()
    sync.read(1024, 512)


def test_delay_is_the_clocks(loop: EventLoop) -> None:
    clock = VirtualClock()
    faulty = FaultyBackend(MemoryBackend(65536), clock, [Fault("any", delay=3 * S)])
    outcomes: list[StorageError | None] = []
    assert not faulty.flush(outcomes.append)
    clock.advance(3 * S - 1)
    assert outcomes == []
    clock.advance(1)
    assert outcomes == [None]


def test_hang_until_released(loop: EventLoop, faulty: FaultyBackend) -> None:
    faulty.inject(Fault("write", count=1, hang=True))
    faulty.inject(Fault("read", errno=errno.EIO, hang=True))
    outcomes: list[StorageError | None] = []
    assert not faulty.write([memoryview(b"z" * 512)], 0, outcomes.append)
    assert not faulty.read([memoryview(bytearray(512))], 0, outcomes.append)
    assert outcomes == []
    assert faulty.release() == 2
    assert outcomes[0] is None
    assert outcomes[1] is not None and outcomes[1].errno == errno.EIO
    faulty.clear()
    assert Sync(loop, faulty).read(0, 512) == b"z" * 512


def test_events(faulty: FaultyBackend) -> None:
    events: list[str] = []
    faulty.on_event = events.append
    faulty.inner.resize(1024)
    faulty.event("resized")
    faulty.event("gone")
    assert (events, faulty.size) == (["resized", "gone"], 1024)

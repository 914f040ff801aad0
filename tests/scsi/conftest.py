from __future__ import annotations

from collections.abc import Iterator

import pytest

from hba.loop import EventLoop
from hba.storage.workers import WorkerPool


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def workers(loop: EventLoop) -> Iterator[WorkerPool]:
    pool = WorkerPool(loop, threads=2)
    yield pool
    assert pool.shutdown(), "a storage call hangs"

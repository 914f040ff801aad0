"""Stores that take long to open, or never do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from hba.clock import VirtualClock
from hba.errors import ConfigError, StorageError
from hba.loop import EventLoop
from hba.storage.memory import MemoryBackend
from hba.storage.opener import AT_ONCE, LIMIT, Opener


class Store(MemoryBackend):
    def __init__(self) -> None:
        super().__init__(4096)
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class Opening:
    """An opener with its loop, whose calls wait for `gate`; `outcomes` are stores and errors."""

    def __init__(self) -> None:
        self.clock = VirtualClock(1)
        self.loop = EventLoop(self.clock)
        self.opener = Opener(self.loop)
        self.gate = threading.Event()
        self.outcomes: list[object] = []

    def start(self, make: Callable[[], Store]) -> None:
        def work() -> Store:
            self.gate.wait()
            return make()

        self.opener.open(work, self.opened)

    def opened(self, result: Callable[[], Store]) -> None:
        try:
            self.outcomes.append(result())
        except (StorageError, ConfigError) as error:
            self.outcomes.append(error)

    def until(self, count: int) -> None:
        while len(self.outcomes) < count:
            self.loop.run_once(None)


@pytest.fixture
def opening() -> Iterator[Opening]:
    opening = Opening()
    yield opening
    opening.gate.set()
    opening.opener.close()
    opening.loop.close()


def test_the_loop_goes_on_while_a_store_opens(opening: Opening) -> None:
    store = Store()
    opening.start(lambda: store)
    turns: list[int] = []
    opening.loop.call_soon(lambda: turns.append(1))
    opening.loop.run_once(0)
    assert turns == [1] and opening.outcomes == []
    opening.gate.set()
    opening.until(1)
    assert opening.outcomes == [store]
    opening.clock.advance(2 * LIMIT)  # the limit was for the opening
    assert opening.outcomes == [store] and not store.closed.is_set()


@pytest.mark.parametrize("error", [StorageError("no such file", 2), ConfigError("no such size")])
def test_an_error_comes_as_it_is(opening: Opening, error: Exception) -> None:
    def fail() -> Store:
        raise error

    opening.gate.set()
    opening.start(fail)
    opening.until(1)
    assert opening.outcomes == [error]


def test_a_store_that_does_not_open_is_given_up_and_closed_when_it_does(opening: Opening) -> None:
    store = Store()
    opening.start(lambda: store)
    opening.clock.advance(LIMIT)
    (error,) = opening.outcomes
    assert isinstance(error, StorageError) and "has not opened within 30 s" in str(error)
    opening.gate.set()
    while not store.closed.is_set():
        opening.loop.run_once(None)
    assert opening.outcomes == [error]


def test_only_so_many_at_once(opening: Opening) -> None:
    for _ in range(AT_ONCE):
        opening.start(Store)
    with pytest.raises(StorageError, match=f"{AT_ONCE} stores are being opened already"):
        opening.start(Store)
    opening.gate.set()
    opening.until(AT_ONCE)
    opening.start(Store)
    opening.until(AT_ONCE + 1)


def test_the_end_waits_for_nobody(opening: Opening) -> None:
    opening.start(Store)
    opening.opener.close()  # would hang, or take its time-out
    with pytest.raises(StorageError, match="shut down"):
        opening.start(Store)

"""The event loop: descriptors, timers, calls from this thread and from others."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from hba.clock import MS, S, VirtualClock
from hba.loop import EventLoop
from tests.descriptors import open_fds


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def loop(clock: VirtualClock) -> Iterator[EventLoop]:
    loop = EventLoop(clock)
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, two = socket.socketpair()
    yield one, two
    one.close()
    two.close()


class TestDescriptors:
    def test_a_reader_is_called_as_long_as_there_is_data(
        self, loop: EventLoop, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        one, two = pair
        seen: list[bytes] = []
        loop.add_reader(one.fileno(), lambda: seen.append(one.recv(1)))
        loop.run_once()
        two.send(b"ab")
        loop.run_once()
        loop.run_once()
        loop.run_once()
        assert seen == [b"a", b"b"]

    def test_a_reader_hears_of_a_hang_up(self, loop: EventLoop, pair: tuple[socket.socket, socket.socket]) -> None:
        one, two = pair
        seen: list[bytes] = []
        loop.add_reader(one.fileno(), lambda: seen.append(one.recv(1)))
        two.close()
        loop.run_once()
        assert seen == [b""]

    def test_a_second_reader_replaces_the_first(
        self, loop: EventLoop, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        one, two = pair
        seen: list[str] = []
        loop.add_reader(one.fileno(), lambda: seen.append("first"))
        loop.add_reader(one.fileno(), lambda: seen.append("second"))
        two.send(b"x")
        loop.run_once()
        assert seen == ["second"]

    def test_reader_and_writer_of_one_descriptor(
        self, loop: EventLoop, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        one, two = pair
        seen: list[str] = []
        loop.add_reader(one.fileno(), lambda: seen.append("read"))
        loop.add_writer(one.fileno(), lambda: seen.append("write"))
        loop.run_once()
        assert seen == ["write"]
        two.send(b"x")
        loop.run_once()
        assert seen == ["write", "read", "write"]
        loop.remove_writer(one.fileno())
        loop.run_once()
        assert seen == ["write", "read", "write", "read"]
        loop.remove_reader(one.fileno())
        loop.remove_reader(one.fileno())
        loop.run_once()
        assert len(seen) == 4

    def test_removed_by_an_earlier_callback_of_the_same_turn(self, loop: EventLoop) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        seen: list[int] = []

        def first_come(number: int) -> None:
            seen.append(number)
            loop.remove_reader(pairs[1 - number][0].fileno())

        for number, (one, two) in enumerate(pairs):
            loop.add_reader(one.fileno(), lambda number=number: first_come(number))  # type: ignore[misc]
            two.send(b"x")
        loop.run_once()
        assert len(seen) == 1
        for one, two in pairs:
            one.close()
            two.close()

    def test_removing_a_descriptor_its_owner_closed(self, loop: EventLoop) -> None:
        one, two = socket.socketpair()
        number = one.fileno()
        loop.add_reader(number, lambda: None)
        one.close()
        loop.remove_reader(number)
        two.close()
        loop.run_once()

    def test_a_number_used_again_after_its_owner_closed_it(self, loop: EventLoop) -> None:
        """Close, then open something that gets the same number, without telling the loop in between."""
        first = os.eventfd(0, os.EFD_NONBLOCK)
        loop.add_reader(first, lambda: pytest.fail("the first owner is gone"))
        os.close(first)
        second = os.eventfd(1, os.EFD_NONBLOCK)
        assert second == first
        seen: list[int] = []
        loop.add_reader(second, lambda: seen.append(os.eventfd_read(second)))
        loop.run_once()
        assert seen == [1]
        loop.remove_reader(second)
        os.close(second)

    def test_what_cannot_be_watched_is_refused_and_forgotten(self, loop: EventLoop) -> None:
        fd = os.memfd_create("file")
        with pytest.raises(OSError, match="not permitted"):
            loop.add_reader(fd, lambda: None)
        with pytest.raises(OSError, match="not permitted"):
            loop.add_writer(fd, lambda: None)
        loop.remove_reader(fd)
        loop.remove_writer(fd)
        os.close(fd)


class TestCalls:
    def test_call_soon_runs_in_order_within_one_turn(self, loop: EventLoop) -> None:
        seen: list[int] = []
        for number in range(3):
            loop.call_soon(lambda number=number: seen.append(number))  # type: ignore[misc]
        loop.run_once(None)
        assert seen == [0, 1, 2]

    def test_what_a_call_asks_for_waits_for_the_next_turn(self, loop: EventLoop) -> None:
        """So descriptors get their turn however busy the callers are."""
        seen: list[int] = []

        def again() -> None:
            seen.append(len(seen))
            loop.call_soon(again)

        loop.call_soon(again)
        loop.run_once(None)
        assert seen == [0]
        loop.run_once(None)
        assert seen == [0, 1]

    def test_call_from_a_thread_wakes_the_loop(self, loop: EventLoop) -> None:
        seen: list[int] = []
        here = threading.get_ident()

        def report() -> None:
            seen.append(threading.get_ident())
            loop.stop()

        thread = threading.Thread(target=lambda: loop.call_from_thread(report))
        thread.start()
        loop.run()
        thread.join()
        assert seen == [here]

    def test_no_call_from_a_thread_is_lost(self, loop: EventLoop) -> None:
        total = 2_000
        seen: list[int] = []

        def count(number: int) -> None:
            seen.append(number)
            if len(seen) == 2 * total:
                loop.stop()

        def caller() -> None:
            for number in range(total):
                loop.call_from_thread(lambda number=number: count(number))  # type: ignore[misc]

        threads = [threading.Thread(target=caller) for _ in range(2)]
        for thread in threads:
            thread.start()
        loop.run()
        for thread in threads:
            thread.join()
        assert sorted(seen) == sorted([*range(total), *range(total)])

    def test_stop_before_run_is_not_lost(self, loop: EventLoop) -> None:
        """A signal may come between the end of the set-up and the first turn."""
        loop.stop()
        loop.run()

    def test_run_again_after_stop(self, loop: EventLoop) -> None:
        seen: list[int] = []
        for number in range(2):
            loop.call_soon(lambda number=number: seen.append(number))  # type: ignore[misc]
            loop.call_soon(loop.stop)
            loop.run()
        assert seen == [0, 1]

    def test_a_call_that_raises_does_not_take_the_others_with_it(self, loop: EventLoop) -> None:
        seen: list[str] = []

        def fail() -> None:
            raise RuntimeError("a defect of ours")

        loop.call_from_thread(fail)
        loop.call_from_thread(lambda: seen.append("foreign"))
        loop.call_soon(lambda: seen.append("soon"))
        with pytest.raises(RuntimeError):
            loop.run_once()
        loop.run_once()
        assert seen == ["foreign", "soon"] or seen == ["soon", "foreign"]


class TestTimers:
    def test_timers_run_in_the_turn_they_are_due(self, loop: EventLoop, clock: VirtualClock) -> None:
        seen: list[int] = []
        clock.call_later(0, lambda: seen.append(clock.now()))
        clock.call_later(5 * S, lambda: seen.append(clock.now()))
        loop.run_once(None)
        assert seen == [0]

    def test_a_timer_set_by_a_reader_is_not_forgotten(
        self, loop: EventLoop, clock: VirtualClock, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        one, two = pair
        seen: list[str] = []

        def read() -> None:
            one.recv(1)
            clock.call_later(0, lambda: seen.append("timer"))

        loop.add_reader(one.fileno(), read)
        two.send(b"x")
        loop.run_once(None)
        loop.run_once(None)
        assert seen == ["timer"]

    def test_the_real_clock_is_the_default(self) -> None:
        loop = EventLoop()
        seen: list[str] = []
        loop.clock.call_later(1, lambda: seen.append("timer"))
        loop.clock.call_later(2, loop.stop)
        loop.run()
        loop.close()
        assert seen == ["timer"]


def test_close_leaves_no_descriptor() -> None:
    before = open_fds()
    EventLoop().close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_what_belongs_in_the_loop_runs_there_at_once_or_soon() -> None:
    loop = EventLoop(VirtualClock())
    ran: list[int] = []

    def note() -> None:
        ran.append(threading.get_ident())

    loop.in_loop(note)
    assert ran == [threading.get_ident()]
    thread = threading.Thread(target=lambda: loop.in_loop(note))
    thread.start()
    thread.join()
    assert len(ran) == 1, "not in that thread"
    loop.run_once(0)
    assert ran == [threading.get_ident()] * 2
    loop.close()


class TestShortWaits:
    def test_a_wait_of_less_than_a_millisecond_is_not_made_one(
        self, loop: EventLoop, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """epoll(7) would; what waits for a shorter time ends with an event all the same."""
        waits: list[float] = []
        real = select.select

        def counted(*arguments: Any) -> Any:
            waits.append(arguments[3])
            return real(*arguments)

        monkeypatch.setattr(select, "select", counted)
        one, two = pair
        seen: list[bytes] = []
        loop.add_reader(one.fileno(), lambda: seen.append(one.recv(1)))
        two.send(b"x")
        loop.run_once(MS // 4)
        assert seen == [b"x"]
        loop.run_once(MS // 4)
        assert waits == [0.00025, 0.00025]

    def test_turns_are_counted(self, loop: EventLoop) -> None:
        before = loop.turns
        loop.run_once()
        loop.run_once()
        assert loop.turns == before + 2

"""RequestTimerCall (hba.port.timer): one request, which a new one replaces; never early, on the raster (IN-05)."""

from __future__ import annotations

import pytest

from hba.clock import MS, US, VirtualClock
from hba.port.timer import MiniportTimer, Routine


class Timed:
    """The timer as a port has it: what expires is called."""

    def __init__(self, resolution: int = 10) -> None:
        self.clock = VirtualClock()
        self.timer = MiniportTimer(self.clock, resolution, self.expired)
        self.called: list[tuple[str, int]] = []
        self.expiries = 0

    def expired(self) -> None:
        self.expiries += 1
        routine = self.timer.take()
        if routine is not None:
            routine()

    def routine(self, name: str) -> Routine:
        return lambda: self.called.append((name, self.clock.now() // MS))

    def request(self, name: str, microseconds: int) -> None:
        self.timer.request(self.routine(name), microseconds)


@pytest.mark.parametrize(
    ("since", "microseconds", "due"),
    [
        (0, 1, 10),
        (0, 9_999, 10),
        (0, 10_000, 10),
        (0, 10_001, 20),
        (3 * MS, 7_000, 10),
        (3 * MS, 7_001, 20),
        (3 * MS, 1_000_000, 1010),
    ],
)
def test_IN_05_never_early_and_on_the_raster(since: int, microseconds: int, due: int) -> None:
    timed = Timed()
    timed.clock.advance(since)
    timed.request("a", microseconds)
    assert timed.timer.armed
    timed.clock.advance(due * MS - timed.clock.now() - 1)
    assert timed.called == []
    timed.clock.advance(1)
    assert timed.called == [("a", due)] and not timed.timer.armed


@pytest.mark.parametrize("resolution", [1, 16])
def test_IN_05_the_raster_is_an_option(resolution: int) -> None:
    timed = Timed(resolution)
    timed.request("a", resolution * 1000 + 1)
    timed.clock.advance(100 * MS)
    assert timed.called == [("a", 2 * resolution)]


@pytest.mark.parametrize("microseconds", [0, -1])
def test_IN_05_no_time_cancels(microseconds: int) -> None:
    timed = Timed()
    assert not timed.timer.armed
    timed.request("a", 20_000)
    timed.request("b", microseconds)
    assert not timed.timer.armed
    timed.clock.advance(100 * MS)
    assert timed.called == [] and timed.expiries == 0


def test_IN_05_a_later_one_does_not_come_at_the_time_of_the_one_it_replaced() -> None:
    timed = Timed()
    timed.request("a", 20_000)
    timed.request("b", 50_000)
    timed.clock.advance(100 * MS)
    assert timed.called == [("b", 50)] and timed.expiries == 1


def test_IN_05_cancelled_while_its_expiry_waits() -> None:
    """A port that is busy when the time has come asks again later; there may be nothing to call then."""
    timed = Timed()
    timed.timer = MiniportTimer(timed.clock, 10, lambda: None)
    timed.request("a", 10_000)
    timed.clock.advance(10 * MS + 5 * US)
    assert timed.timer.armed
    timed.timer.cancel()
    assert not timed.timer.armed and timed.timer.take() is None

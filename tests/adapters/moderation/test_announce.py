"""When completions are announced: the policy alone, with a driver of the test's on a virtual clock."""

from __future__ import annotations

import random
from typing import Any

import pytest

from hba.adapters.moderation.announce import GAPS, PATIENCE, REST, SLOWEST, Announcer, Driver
from hba.adapters.moderation.options import InterruptOptions
from hba.clock import US, VirtualClock
from hba.loop import EventLoop

DELAY = 100 * US  # the default


class Scripted(Driver):
    """A driver that keeps `depth` requests in flight and takes completions when told to."""

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock()
        self.announcer = Announcer(EventLoop(self.clock), self, InterruptOptions(**options))
        self.submitted = self.completed = self.taken = 0
        self.interrupts: list[int] = []  # completions unseen at each

    def standing(self) -> tuple[int, int]:
        return self.submitted - self.taken, self.completed - self.taken

    def interrupt(self) -> None:
        self.interrupts.append(self.completed - self.taken)

    def submit(self, count: int = 1) -> None:
        self.submitted += count
        self.announcer.arrived()

    def complete(self, count: int = 1, size: int = 512) -> None:
        self.completed += count
        self.announcer.posted(count, size)

    def take(self) -> None:
        self.taken = self.completed


def test_one_request_at_a_time_is_announced_at_once() -> None:
    driver = Scripted()
    for _ in range(10):
        driver.submit()
        driver.complete()
        driver.take()
    assert driver.interrupts == [1] * 10
    assert driver.announcer.held == 0


def test_the_last_of_a_burst_is_announced_at_once() -> None:
    driver = Scripted(count=8)
    driver.submit(30)
    for _ in range(30):
        driver.complete()
    assert driver.interrupts == [8, 16, 24, 30]  # it has taken none yet, and there are no more to come
    assert driver.clock.next_deadline() is None


def test_many_in_flight_share_an_interrupt() -> None:
    """Each request is done as soon as it is there, and the driver goes on submitting: nothing is outstanding here."""
    driver = Scripted(count=8)
    driver.submit(32)
    driver.complete(32)
    driver.take()
    driver.interrupts.clear()
    for _ in range(64):
        driver.submit()
        driver.complete()
        driver.clock.advance(50 * US)
        if driver.interrupts and driver.interrupts[-1] == driver.completed - driver.taken:
            driver.take()
    assert driver.interrupts == [8] * 8


def test_few_in_flight_do_not_wait_for_a_count_they_never_reach() -> None:
    driver = Scripted(count=8)
    driver.submit(4)
    driver.complete(1)
    assert driver.interrupts == []
    driver.complete(1)
    assert driver.interrupts == [2]  # half of them: the driver works on these while we work on the rest


def test_bytes_are_enough_too() -> None:
    driver = Scripted(count=8, bytes=1 << 20)
    driver.submit(32)
    driver.complete(1, 1 << 19)
    assert driver.interrupts == []
    driver.complete(1, 1 << 19)
    assert driver.interrupts == [2]


def test_a_driver_that_stops_submitting_hears_after_the_delay() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(3)
    driver.clock.advance(DELAY - 1)
    assert driver.interrupts == []
    driver.clock.advance(1)
    assert driver.interrupts == [3]


def test_requests_that_keep_coming_put_it_off_but_not_for_ever() -> None:
    driver = Scripted(count=1000)
    driver.submit(2000)
    driver.complete(1)
    waited = 0
    while not driver.interrupts:
        driver.submit()
        driver.clock.advance(DELAY // 2)
        waited += DELAY // 2
        assert waited <= (PATIENCE + 1) * DELAY
    assert waited > 2 * DELAY


def test_waits_in_vain_become_fewer_and_end() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(32)
    driver.take()
    driver.interrupts.clear()
    held = []
    for _ in range(20):
        driver.submit()
        driver.complete()
        driver.clock.advance(SLOWEST * DELAY)  # from now on one at a time
        driver.take()
        held.append(driver.announcer.held)
    assert len(driver.interrupts) == 20
    assert held == [1, 2, 3, 4, *[5] * 16]  # as for 32, which may have been chance, and again, 16, 8 and 4 in flight


def test_a_request_without_data_is_announced_at_once() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(1, 0)
    assert driver.interrupts == [1]


def test_a_slow_driver_is_given_longer() -> None:
    """It goes on submitting, each request done at once, but takes more than the delay from one to the next."""
    driver = Scripted(count=8)
    driver.submit(32)
    driver.complete(32)
    driver.take()
    driver.clock.advance(1000 * DELAY)
    driver.interrupts.clear()
    for _ in range(400):
        driver.submit()
        driver.complete()
        driver.clock.advance(DELAY * 5 // 4)
        if driver.interrupts and driver.interrupts[-1] == driver.completed - driver.taken:
            driver.take()
    assert len(driver.interrupts) < 400 // 3


def test_one_that_is_too_slow_is_not_waited_for() -> None:
    driver = Scripted()
    for _ in range(100):
        driver.clock.advance(2 * SLOWEST * DELAY)
        driver.submit(32)
    driver.complete(1)
    assert driver.announcer.gap * GAPS > SLOWEST * DELAY
    driver.clock.advance(SLOWEST * DELAY - 1)
    assert driver.interrupts == []
    driver.clock.advance(1)
    assert driver.interrupts == [1]


class Busy(Driver):
    """One processor that runs a program with `depth` requests outstanding, and the driver.

    It sends a request every `work` microseconds while the program has one left, else it sleeps. It takes completions
    when interrupted, the program takes them from it one by one. A share `away` of the requests comes a millisecond
    late: somebody else has the processor. A request is done after 20 us.
    """

    def __init__(self, depth: int, work: int, away: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.announcer = Announcer(EventLoop(self.clock), self, InterruptOptions())
        self.work, self.away = work * US, away
        self.free = depth
        self.submitted = self.completed = self.taken = 0
        self.interrupts = self.asleep = 0
        self.pending = False

    def standing(self) -> tuple[int, int]:
        return self.submitted - self.taken, self.completed - self.taken

    def interrupt(self) -> None:
        self.interrupts += 1
        self.pending = True

    def _complete(self) -> None:
        self.completed += 1
        self.announcer.posted(1, 4096)

    def run(self, count: int) -> tuple[float, float]:
        """(interrupts a request, share of the time asleep)"""
        chance = random.Random(1)
        while self.submitted < count:
            if self.pending:
                self.clock.advance(100 * US)
                self.pending = False
                self.free += self.completed - self.taken
                self.taken = self.completed
            elif self.free:
                self.clock.advance(self.work + (1000 * US if chance.random() < self.away else 0))
                self.free -= 1
                self.submitted += 1
                self.announcer.arrived()
                self.clock.call_later(20 * US, self._complete)
            else:
                due = self.clock.next_deadline()
                assert due is not None
                self.asleep += due - self.clock.now()
                self.clock.advance(due - self.clock.now())
        return self.interrupts / count, self.asleep / self.clock.now()


@pytest.mark.parametrize("work", [30, 60, 200])
@pytest.mark.parametrize("away", [0.0, 0.01])
def test_a_program_with_many_outstanding_is_found_to_have_them(work: int, away: float) -> None:
    """Each request is done before the next is there: never more than two are in flight as far as we see."""
    interrupts, asleep = Busy(32, work, away).run(4000)
    assert interrupts < 0.35
    assert asleep < 0.01


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("work", [30, 60, 200])
def test_trying_for_more_takes_a_small_share_of_the_time(depth: int, work: int) -> None:
    _, asleep = Busy(depth, work).run(4000)
    assert asleep < 0.04


def test_one_outstanding_is_not_tried_for_more() -> None:
    driver = Busy(1, 30)
    driver.run(400)
    assert driver.interrupts == driver.submitted - 1  # the last is still on its way
    assert driver.announcer.held == 0


@pytest.mark.parametrize("count", [1, 2, 8])
def test_one_more_is_tried_up_to_twice_the_count(count: int) -> None:
    """From the very beginning of time on. One alone is not."""
    for depth in range(1, 2 * count + 2):
        driver = Scripted(count=count)
        driver.submit(depth)
        driver.complete(depth)
        assert driver.interrupts == [depth]
        assert driver.announcer.depth == (depth + 1 if 1 < depth < 2 * count else depth)


def test_waits_in_vain_in_a_row_halve_the_depth_down_to_what_there_is() -> None:
    """The first may be chance. An announcement of enough between two of them makes the next the first again."""
    driver = Scripted(count=8)
    announcer = driver.announcer

    def waited(count: int, announced: int = 0) -> int:
        driver.submit(announced + count)
        if announced:
            driver.complete(announced)
            announcer.now()
        driver.complete(count)
        assert driver.clock.next_deadline() is not None
        driver.clock.advance(SLOWEST * DELAY)
        driver.take()
        return announcer.depth

    driver.submit(32)
    driver.complete(32)
    driver.take()
    assert [waited(1), waited(1), waited(3), waited(3, announced=3), waited(1)] == [32, 16, 8, 6, 3]
    assert driver.interrupts == [32, 1, 1, 3, 3, 6, 1]
    driver.submit(3)
    driver.complete(3)
    driver.take()
    driver.submit(40)
    assert [waited(1), waited(1)] == [41, 20]


def test_more_is_not_tried_again_for_a_while_after_a_wait_in_vain() -> None:
    """For as long as REST such waits, one after the other: from the end of the first on."""
    driver = Scripted(count=8)
    announcer = driver.announcer

    def enough() -> int:
        driver.submit(announcer.depth)
        driver.complete(announcer.depth)
        driver.take()
        return announcer.depth

    driver.submit(4)
    driver.complete(1)
    driver.clock.advance(DELAY)
    assert driver.interrupts == [1]
    driver.take()
    driver.complete(3)
    driver.take()
    driver.clock.advance(REST * DELAY - 1)
    assert enough() == 4
    driver.clock.advance(1)
    assert enough() == 5


def test_the_time_between_requests_is_an_average() -> None:
    """An eighth of each counts, none for more than the driver would be waited for."""
    driver = Scripted()
    gaps = []
    for gap in (8 * US, 8 * US + 1, 0, 0, 2 * SLOWEST * DELAY):
        driver.clock.advance(gap)
        driver.submit()
        gaps.append(driver.announcer.gap)
    assert gaps == [1000, 1875, 1640, 1435, 63755]
    driver = Scripted()
    driver.clock.advance(8 * US + 1)
    driver.submit()
    assert driver.announcer.gap == 1000


def test_a_request_that_came_a_moment_after_the_wait_began_makes_it_that_moment_longer() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(3)
    driver.clock.advance(1)
    driver.submit()
    driver.clock.advance(DELAY - 1)
    assert driver.interrupts == []
    driver.clock.advance(1)
    assert driver.interrupts == [3]


def test_patience_ends_to_the_nanosecond() -> None:
    """A request comes every quarter of the delay, so that each look finds that the last came three quarters ago."""
    driver = Scripted(count=1000)
    driver.submit(2000)
    driver.complete(1)
    while driver.clock.now() < PATIENCE * DELAY - DELAY // 4:
        driver.clock.advance(DELAY // 4)
        driver.submit()
    driver.clock.advance(DELAY // 4 - 1)
    assert driver.interrupts == []
    driver.clock.advance(1)
    assert driver.interrupts == [1]


def test_what_is_shown() -> None:
    driver = Scripted()
    assert driver.announcer.snapshot() == {"waiting": 0, "depth": 1, "held": 0, "spared": 0}
    driver.submit(32)
    driver.complete(1)
    driver.complete(2)
    assert driver.announcer.snapshot() == {"waiting": 3, "depth": 32, "held": 1, "spared": 0}
    driver.take()
    driver.clock.advance(DELAY)
    driver.submit(2)
    driver.complete(1)
    assert driver.announcer.snapshot() == {"waiting": 1, "depth": 32, "held": 2, "spared": 1}
    driver.announcer.forget()
    assert driver.announcer.snapshot() == {"waiting": 0, "depth": 1, "held": 2, "spared": 1}


def test_what_the_driver_has_taken_already_is_not_announced() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(2)
    driver.take()
    driver.clock.advance(DELAY)
    assert driver.interrupts == []
    assert driver.announcer.spared == 1
    driver.complete(1)
    driver.clock.advance(DELAY)
    assert driver.interrupts == [1]


@pytest.mark.parametrize("options", [{"count": 1}, {"delay": 0}])
def test_off_is_an_interrupt_a_batch(options: dict[str, int]) -> None:
    driver = Scripted(**options)
    driver.submit(32)
    for _ in range(8):
        driver.complete(1)
    assert driver.interrupts == list(range(1, 9))


def test_now_is_now_and_nothing_follows() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(1)
    driver.announcer.now()
    driver.announcer.now()
    assert driver.interrupts == [1]
    assert driver.clock.next_deadline() is None


def test_nobody_hears_of_what_was_forgotten() -> None:
    driver = Scripted()
    driver.submit(32)
    driver.complete(1)
    driver.announcer.forget()
    driver.clock.advance(10 * DELAY)
    assert driver.interrupts == []

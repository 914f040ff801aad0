"""The clock and its timers, in virtual time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hba.clock import MS, US, MonotonicClock, S, VirtualClock


def test_units() -> None:
    assert (1_000 * US, 1_000 * MS) == (MS, S)


def test_timers_fire_at_their_own_time() -> None:
    clock = VirtualClock(5)
    seen: list[tuple[str, int]] = []
    clock.call_later(20, lambda: seen.append(("late", clock.now())))
    clock.call_at(10, lambda: seen.append(("early", clock.now())))
    clock.advance(4)
    assert seen == []
    clock.advance(100)
    assert seen == [("early", 10), ("late", 25)]
    assert clock.now() == 109


def test_equal_deadlines_fire_in_the_order_they_were_set() -> None:
    clock = VirtualClock()
    seen: list[int] = []
    for number in range(5):
        clock.call_at(7, lambda number=number: seen.append(number))  # type: ignore[misc]
    clock.advance(7)
    assert seen == [0, 1, 2, 3, 4]


def test_a_cancelled_timer_never_fires() -> None:
    clock = VirtualClock()
    seen: list[str] = []
    timer = clock.call_later(1, lambda: seen.append("no"))
    clock.call_later(2, lambda: seen.append("yes"))
    pending = [timer.pending]
    timer.cancel()
    timer.cancel()
    pending.append(timer.pending)
    assert pending == [True, False]
    assert clock.next_deadline() == 2
    clock.advance(10)
    assert seen == ["yes"]


def test_one_callback_may_cancel_another_that_is_due_too() -> None:
    clock = VirtualClock()
    seen: list[str] = []
    clock.call_at(1, lambda: second.cancel())
    second = clock.call_at(1, lambda: seen.append("no"))
    clock.advance(1)
    assert seen == []


def test_a_fired_timer_is_no_longer_pending() -> None:
    clock = VirtualClock()
    inside: list[bool] = []
    timer = clock.call_later(1, lambda: inside.append(timer.pending))
    clock.advance(1)
    assert (inside, timer.pending) == ([False], False)


def test_a_timer_set_by_a_callback_waits_for_the_next_turn() -> None:
    clock = VirtualClock()
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        clock.call_later(0, lambda: seen.append("second"))

    clock.call_later(0, first)
    assert clock.run_due() == 1
    assert seen == ["first"]
    assert clock.run_due() == 1
    assert seen == ["first", "second"]


def test_advance_follows_timers_that_set_timers() -> None:
    clock = VirtualClock()
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(clock.now())
        clock.call_later(10, tick)

    clock.call_later(10, tick)
    clock.advance(45)
    assert ticks == [10, 20, 30, 40]
    assert clock.next_deadline() == 50


def test_a_negative_delay_is_now() -> None:
    clock = VirtualClock(100)
    assert clock.call_later(-50, lambda: None).deadline == 100


def test_a_deadline_in_the_past_does_not_turn_time_back() -> None:
    clock = VirtualClock(100)
    seen: list[int] = []
    clock.call_at(10, lambda: seen.append(clock.now()))
    clock.advance(0)
    assert (seen, clock.now()) == ([100], 100)


def test_a_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        VirtualClock().advance(-1)


def test_a_timer_behind_one_that_raises_is_not_lost() -> None:
    clock = VirtualClock()
    seen: list[str] = []

    def fail() -> None:
        raise RuntimeError("a defect of ours")

    clock.call_at(1, fail)
    clock.call_at(1, lambda: seen.append("after"))
    with pytest.raises(RuntimeError):
        clock.advance(1)
    clock.advance(0)
    assert seen == ["after"]


def test_the_monotonic_clock_is_the_systems() -> None:
    before = time.monotonic_ns()
    now = MonotonicClock().now()
    assert before <= now <= time.monotonic_ns()


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=20), st.lists(st.integers(0, 20), max_size=8))
def test_every_live_timer_fires_once_in_order(timers: list[tuple[int, bool]], steps: list[int]) -> None:
    clock = VirtualClock()
    fired: list[tuple[int, int]] = []
    for number, (deadline, cancelled) in enumerate(timers):
        timer = clock.call_at(deadline, lambda key=(deadline, number): fired.append(key))  # type: ignore[misc]
        if cancelled:
            timer.cancel()
    for step in steps:
        clock.advance(step)
        assert all(deadline <= clock.now() for deadline, _ in fired)
    clock.advance(50)
    live = sorted((deadline, number) for number, (deadline, cancelled) in enumerate(timers) if not cancelled)
    assert fired == live
    assert clock.next_deadline() is None

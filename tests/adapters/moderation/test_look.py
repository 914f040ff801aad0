"""When a ring is looked at: the policy alone, with a ring of the test's and a clock that moves only when told to."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable

import pytest

from hba.adapters.moderation.look import KICKED, ONCE_MORE, PERIOD, REST, SHORTEST, SHRINK, STEADY, Ring, Window
from hba.adapters.moderation.options import PollOptions
from hba.clock import MS, US, S, VirtualClock
from hba.loop import EventLoop

LONGEST = 1 * MS  # the default
SHUT = {"open": False, "kicks_suppressed": False, "window_us": 0, "looks": 0, "found": 0, "late": 0}


class Scripted(Ring):
    """A ring with `waiting` requests. `events` is what the window did to it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.taken = 0
        self.events: list[str] = []
        self.supports_suppression = True
        self.reachable = True
        self.looked: Callable[[], None] = lambda: None

    def can_look(self) -> bool:
        return self.reachable

    def has_work(self) -> bool:
        self.looked()
        return self.waiting > 0

    def take(self) -> None:
        self.window.arrived()
        self.taken += self.waiting
        self.waiting = 0
        self.window.worked()

    def suppress(self) -> bool:
        if self.supports_suppression:
            self.events.append("suppress")
        return self.supports_suppression

    def restore(self) -> bool:
        self.events.append("restore" if self.reachable else "restore failed")
        return self.reachable

    window: Window


class Rig:
    """A window with its ring on a loop."""

    def __init__(self, options: PollOptions | None = None) -> None:
        self.clock = VirtualClock()
        self.loop = EventLoop(self.clock)
        self.ring = Scripted()
        self.window = self.ring.window = Window(self.loop, self.ring, options or PollOptions())

    def kick(self, requests: int = 1) -> None:
        self.ring.waiting += requests
        self.ring.take()

    def learn(self, gap: int = 100 * US) -> None:
        """Requests come in quick succession, so the window becomes as long as it may."""
        for _ in range(8):
            self.kick()
            self.clock.advance(gap)

    def pass_time(self, total: int, step: int = 10 * US) -> None:
        for _ in range(total // step):
            self.clock.advance(step)
            self.loop.run_once(0)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_requests_far_apart_are_never_looked_for(rig: Rig) -> None:
    for _ in range(20):
        rig.kick()
        rig.pass_time(5 * MS, 1 * MS)
    assert rig.window.looks == 0
    assert rig.ring.events == []


def test_the_window_grows_with_requests_that_come_soon_and_shrinks_to_nothing_with_late_ones(rig: Rig) -> None:
    lengths = []
    for _ in range(7):
        rig.kick()
        lengths.append(rig.window.length)
        rig.clock.advance(200 * US)
    assert lengths[0] == 0
    assert lengths[1] == SHORTEST
    assert lengths == sorted(lengths)
    assert lengths[-1] == LONGEST
    lengths.clear()
    for _ in range(4):
        rig.clock.advance(50 * MS)
        rig.kick()
        lengths.append(rig.window.length)
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 0


def kicks_of_a_slow_guest(rig: Rig, requests: int, gap: int, kick: int) -> int:
    """How many of so many requests are kicked for: each is in the ring `gap` after the one before it has ended, and its
    kick, if there is one, takes `kick` to arrive."""
    kicks = 0
    for _ in range(requests):
        rig.pass_time(gap)
        if rig.window.is_open:
            rig.ring.waiting += 1
            rig.loop.run_once(0)
        else:
            kicks += 1
            rig.pass_time(kick)
            rig.kick()
    return kicks


def test_a_guest_whose_kicks_take_longer_than_the_window_is_looked_for(rig: Rig) -> None:
    assert kicks_of_a_slow_guest(rig, 100, 700 * US, 600 * US) < 10
    assert kicks_of_a_slow_guest(rig, 100, 700 * US, 600 * US) == 0


def test_and_again_after_it_had_nothing_to_do(rig: Rig) -> None:
    kicks_of_a_slow_guest(rig, 50, 700 * US, 600 * US)
    rig.pass_time(100 * MS, 1 * MS)  # the longest window was in vain
    for _ in range(4):
        rig.pass_time(20 * MS, 1 * MS)
        rig.kick()
    assert rig.window.length == 0
    assert REST <= kicks_of_a_slow_guest(rig, REST + 50, 700 * US, 600 * US) < REST + 10


@pytest.mark.parametrize("found", [False, True])
def test_one_that_is_found_says_that_windows_are_not_in_vain(rig: Rig, found: bool) -> None:
    rig.learn()
    rig.kick()
    rig.pass_time(3 * LONGEST)  # the longest window was in vain
    rig.kick()
    if found:
        rig.clock.advance(100 * US)
        rig.kick()
    rig.window.length = SHORTEST
    rig.clock.advance(KICKED * LONGEST)
    rig.kick()
    assert (rig.window.length == 2 * SHORTEST) == found


def test_a_window_that_ends_for_want_of_credit_says_nothing() -> None:
    rig = Rig(PollOptions(share=0.005))  # half a window
    rig.learn()
    rig.kick()
    assert rig.window.is_open and rig.window.length == LONGEST
    rig.pass_time(LONGEST - 100 * US)
    assert not rig.window.is_open
    rig.window.length = SHORTEST
    rig.clock.advance(LONGEST)
    rig.kick()
    assert rig.window.length == 2 * SHORTEST


def test_requests_too_late_for_any_window_are_looked_for_now_and_then_only(rig: Rig) -> None:
    kicks_of_a_slow_guest(rig, 20, 1500 * US, 10 * US)
    before = rig.window.looks
    kicks_of_a_slow_guest(rig, 500, 1500 * US, 10 * US)
    assert 0 < (rig.window.looks - before) * 10 * US < 0.06 * 500 * 1500 * US


@pytest.mark.parametrize(("in_time", "shrinks"), [(STEADY - 1, True), (STEADY, False), (STEADY + 1, False)])
def test_one_late_request_after_several_in_time_changes_nothing(rig: Rig, in_time: int, shrinks: bool) -> None:
    rig.learn()
    for _ in range(3):
        rig.clock.advance(3 * LONGEST)
        rig.kick()  # late
        for _ in range(in_time):
            rig.clock.advance(100 * US)
            rig.kick()
        rig.window.length = LONGEST
    rig.clock.advance(3 * LONGEST)
    rig.kick()
    assert rig.window.length == (LONGEST // SHRINK if shrinks else LONGEST)
    rig.clock.advance(3 * LONGEST)
    rig.kick()  # the second one in a row
    assert rig.window.length < LONGEST // (SHRINK if shrinks else 1)


def test_a_driver_that_pauses_now_and_then_is_kicked_for_once_each_time(rig: Rig) -> None:
    """A guest that is never quick: a request 400 us after the last one has ended, every twentieth after 3 ms."""
    rig.learn()
    rig.pass_time(400 * US)
    kicks = 0
    for number in range(100):
        if rig.window.is_open:
            rig.ring.waiting += 1
            rig.loop.run_once(0)
        else:
            kicks += 1
            rig.kick()
        rig.pass_time(3 * MS if number % 20 == 19 else 400 * US)
    assert kicks == 4


def test_a_request_that_comes_in_the_window_is_taken_without_a_kick(rig: Rig) -> None:
    rig.learn()
    before = rig.ring.taken
    rig.ring.waiting = 3
    rig.loop.run_once(0)
    assert rig.ring.taken == before + 3
    assert rig.window.found == 1
    assert rig.window.is_open


def test_kicks_are_suppressed_exactly_while_the_window_is_open(rig: Rig) -> None:
    rig.learn()
    assert rig.ring.events == ["suppress"]
    rig.pass_time(2 * LONGEST)
    assert not rig.window.is_open
    assert rig.ring.events == ["suppress", "restore"]
    rig.kick()
    assert rig.ring.events == ["suppress", "restore", "suppress"]


def test_a_driver_that_cannot_be_kept_from_kicking_gets_the_window_alone(rig: Rig) -> None:
    rig.ring.supports_suppression = False
    rig.learn()
    rig.ring.waiting = 1
    rig.loop.run_once(0)
    assert rig.ring.waiting == 0
    rig.pass_time(2 * LONGEST)
    assert rig.ring.events == []
    assert rig.clock.next_deadline() is None  # nothing was suppressed, so nothing can have been lost


@pytest.mark.parametrize("options", [PollOptions(window=0), PollOptions(share=0)])
def test_off_is_off(options: PollOptions) -> None:
    rig = Rig(options)
    for _ in range(4):
        rig.kick()  # at once
    rig.learn()
    rig.pass_time(5 * MS)
    assert rig.window.looks == 0
    assert rig.ring.events == []


def test_the_window_ends_after_its_length_and_nothing_is_left_to_wake_up_for(rig: Rig) -> None:
    rig.learn()
    rig.kick()
    ended = rig.clock.now()
    while rig.window.is_open:
        rig.pass_time(10 * US)
    assert LONGEST <= rig.clock.now() - ended <= LONGEST + 20 * US
    rig.pass_time(ONCE_MORE)
    turns = rig.loop.turns
    assert rig.clock.next_deadline() is None
    rig.clock.advance(10 * S)
    assert not rig.loop._soon
    assert rig.loop.turns == turns


def test_work_that_takes_long_does_not_close_the_window_before_its_completions(rig: Rig) -> None:
    rig.learn()
    rig.pass_time(2 * LONGEST)
    assert not rig.window.is_open
    rig.window.worked()
    assert rig.window.is_open
    rig.ring.waiting = 1
    rig.loop.run_once(0)
    assert rig.ring.waiting == 0


def test_sockets_and_timers_have_their_turn_at_every_look(rig: Rig) -> None:
    one, two = socket.socketpair()
    with one, two:
        heard: list[int] = []
        rig.loop.add_reader(one.fileno(), lambda: heard.append(len(one.recv(1))))
        rig.learn()
        for number in range(1, 6):
            two.send(b"x")
            rig.clock.call_later(0, lambda: heard.append(0))
            looks = rig.window.looks
            rig.loop.run_once(0)
            assert rig.window.looks == looks + 1
            assert heard == [1, 0] * number
        rig.loop.remove_reader(one.fileno())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_looks_in_vain_take_no_more_than_their_share(share: float) -> None:
    """Requests that come just soon enough to be looked for, one after the other."""
    rig = Rig(PollOptions(window=1000, share=share))
    spent = 0

    def looked() -> None:
        nonlocal spent
        if not rig.ring.waiting:
            rig.clock.advance(10 * US)
            spent += 10 * US

    rig.ring.looked = looked
    begin = rig.clock.now()
    due = begin
    while rig.clock.now() - begin < 1 * S:
        if rig.clock.now() >= due:
            rig.kick()
            due = rig.clock.now() + 900 * US
        elif rig.window.is_open:
            rig.loop.run_once(0)
        else:
            rig.clock.advance(min(100 * US, due - rig.clock.now()))
    elapsed = rig.clock.now() - begin
    assert spent <= share * (elapsed + PERIOD) + LONGEST
    assert spent >= share * elapsed / 2  # it is used, too


def test_a_ring_that_is_gone_is_not_touched(rig: Rig) -> None:
    rig.learn()
    rig.ring.events.clear()
    looks = rig.window.looks
    rig.window.forget()
    rig.pass_time(5 * MS)
    assert rig.ring.events == []
    assert rig.window.looks == looks
    assert rig.clock.next_deadline() is None


def test_a_driver_whose_memory_is_away_hears_that_it_has_to_kick_once_that_is_back(rig: Rig) -> None:
    rig.learn()
    rig.ring.reachable = False
    rig.pass_time(3 * MS)
    assert rig.window.unsettled
    assert rig.ring.events == ["suppress", "restore failed"]
    rig.ring.reachable = True
    rig.ring.waiting = 1
    rig.window.settle()
    assert rig.ring.events[-2:] == ["restore", "suppress"]  # what was found opens the next window
    assert rig.ring.waiting == 0


# -- to the nanosecond -------------------------------------------------------------------------------------------------


def test_before_there_was_any_work(rig: Rig) -> None:
    rig.window.settle()
    rig.window.worked()
    rig.window.close()
    assert not rig.window.unsettled and rig.ring.events == []
    assert rig.window.snapshot() == SHUT
    assert rig.clock.next_deadline() is None and not rig.loop._soon


def test_what_counts_as_soon() -> None:
    """The longest window after the last work, as much again for the kick, no moment later. What is left of one is the
    shortest, or none."""
    lengths = []
    for since in (LONGEST, KICKED * LONGEST, KICKED * LONGEST + 1):
        rig = Rig()
        rig.window.worked()
        rig.clock.advance(since)
        rig.window.arrived()
        lengths.append(rig.window.length)
    assert lengths == [SHORTEST, SHORTEST, 0]
    lengths.clear()
    rig = Rig()
    for _ in range(4):
        rig.kick()
        lengths.append(rig.window.length)
    for _ in range(3):
        rig.clock.advance(3 * LONGEST)
        rig.kick()
        lengths.append(rig.window.length)
    assert lengths == [0, SHORTEST, 2 * SHORTEST, 4 * SHORTEST, 4 * SHORTEST, SHORTEST, 0]


def test_requests_that_take_long_open_the_window_when_they_come(rig: Rig) -> None:
    rig.window.arrived()
    assert not rig.window.is_open
    rig.window.arrived()
    assert rig.window.is_open and rig.ring.events == ["suppress"]


def test_the_window_is_as_long_as_it_says(rig: Rig) -> None:
    """And what comes a moment after it is found by one more look, and counted."""
    rig.learn()
    rig.kick()
    rig.clock.advance(LONGEST - 1)
    rig.loop.run_once(0)
    assert rig.window.is_open
    rig.clock.advance(1)
    rig.loop.run_once(0)
    assert not rig.window.is_open
    looks = rig.window.looks
    rig.clock.advance(ONCE_MORE - 1)
    rig.ring.waiting = 2
    assert rig.ring.taken == 9 and rig.window.late == 0
    rig.clock.advance(1)
    assert rig.ring.taken == 11 and rig.window.late == 1
    assert rig.window.snapshot() == {
        "open": True,
        "kicks_suppressed": True,
        "window_us": LONGEST // US,
        "looks": looks,
        "found": 0,
        "late": 1,
    }
    rig.loop.run_once(0)
    rig.pass_time(2 * LONGEST)
    assert rig.window.late == 1


def test_a_window_that_opens_anew_is_looked_at_once_a_turn(rig: Rig) -> None:
    rig.learn()
    rig.window.close()
    rig.kick()
    looks = rig.window.looks
    for turn in range(1, 4):
        rig.loop.run_once(0)
        assert rig.window.looks == looks + turn


def test_one_more_look_is_of_no_use_to_the_next_window(rig: Rig) -> None:
    """Its own end has one; what is there meanwhile is not late."""
    rig.learn()
    rig.pass_time(2 * LONGEST, 2 * LONGEST)
    rig.loop.run_once(0)
    assert not rig.window.is_open
    rig.kick()
    assert rig.window.is_open
    rig.ring.waiting = 1
    rig.clock.advance(ONCE_MORE)
    assert rig.window.late == 0 and rig.ring.waiting == 1
    rig.loop.run_once(0)
    assert rig.window.late == 0 and rig.ring.waiting == 0


@pytest.mark.parametrize("end", [Window.close, Window.forget])
def test_after_the_end_nobody_looks_once_more(rig: Rig, end: Callable[[Window], None]) -> None:
    rig.learn()
    while rig.window.is_open:
        rig.pass_time(10 * US)
    assert rig.clock.next_deadline() is not None
    end(rig.window)
    assert rig.clock.next_deadline() is None


def test_a_ring_that_is_gone_leaves_nothing_behind(rig: Rig) -> None:
    rig.learn()
    rig.window.looks = 0
    rig.window.forget()
    rig.window.worked()
    assert rig.window.snapshot() == SHUT
    rig.kick()
    assert rig.window.length == SHORTEST


def test_a_window_that_is_open_again_is_not_closed_by_memory_that_is_back(rig: Rig) -> None:
    rig.learn()
    rig.ring.reachable = False
    rig.window.close()
    assert rig.window.unsettled
    rig.ring.reachable = True
    rig.kick()
    assert rig.window.is_open and not rig.window.unsettled
    rig.window.settle()
    assert rig.window.is_open
    assert rig.ring.events == ["suppress", "restore failed"]  # it has not heard otherwise since


@pytest.mark.parametrize(("looked", "is_open"), [(PERIOD // 2 - 2, True), (PERIOD // 2, False)])
def test_a_window_lasts_as_long_as_its_credit(looked: int, is_open: bool) -> None:
    """Half of what there is at the beginning goes at once. The rest lasts twice as long: half of the time is earned."""
    rig = learned(PollOptions(window=1_000_000, share=0.5))
    rig.clock.advance(PERIOD // 4)
    rig.loop.run_once(0)
    rig.clock.advance(looked)
    rig.loop.run_once(0)
    assert rig.window.is_open == is_open


@pytest.mark.parametrize(("waited", "is_open"), [(PERIOD // 2 - 1, False), (PERIOD // 2, True)])
def test_a_credit_that_is_used_up_is_earned_again_by_half(waited: int, is_open: bool) -> None:
    rig = learned(PollOptions(window=1_000_000, share=0.5))
    rig.clock.advance(PERIOD // 2)
    rig.loop.run_once(0)
    assert not rig.window.is_open
    rig.clock.advance(waited)
    rig.kick()
    assert rig.window.is_open == is_open


def learned(options: PollOptions) -> Rig:
    """A window that would last a second."""
    rig = Rig(options)
    while rig.window.length < S:
        rig.kick()
    rig.loop.run_once(0)
    return rig


def test_who_is_given_all_the_time_never_runs_out_of_it() -> None:
    rig = learned(PollOptions(window=1_000_000, share=1))
    for _ in range(9):
        rig.clock.advance(PERIOD)
        rig.loop.run_once(0)
        assert rig.window.is_open


# -- the race at the end of a window -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", sorted(set(itertools.permutations(["restored", "looked", "loaded", "stored"]))))
def test_no_order_of_loads_and_stores_loses_a_request(order: tuple[str, ...]) -> None:
    """As the memory bus sees it: our store of the threshold (restored) and our last look at the index; the driver's
    load of the threshold (loaded) and its store of the index (stored). Each side may see its own in the wrong order.
    """
    rig = Rig()
    rig.learn()
    before = rig.ring.taken
    kicks = []

    def driver_until(event: str) -> None:
        """What the driver does before our `event`."""
        for step in order[: order.index(event)]:
            driver(step)

    done: set[str] = set()

    def driver(step: str) -> None:
        if step in done:
            return
        done.add(step)
        if step == "loaded" and order.index("restored") < order.index("loaded"):
            kicks.append(step)
        elif step == "stored":
            rig.ring.waiting += 1

    original = rig.ring.restore

    def restore() -> bool:
        driver_until("restored")
        return original()

    def looked() -> None:
        if "restore" in rig.ring.events:
            driver_until("looked")

    rig.ring.restore = restore  # type: ignore[method-assign]
    rig.ring.looked = looked
    while "restore" not in rig.ring.events:
        rig.pass_time(10 * US)
    for step in order:
        driver(step)  # a moment later all of it can be seen
    if kicks and rig.ring.waiting:
        rig.ring.take()
    rig.pass_time(1 * MS)
    assert rig.ring.taken == before + 1

"""Looks and announcements on a PVSCSI adapter: what the driver finds in its memory, and what it is interrupted for."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.clock import MS, US, S
from tests.adapters.pvscsi.driver import BUS_MASTER, COMMAND_REGISTER, DATA, MEMORY_ENABLE, RAM, STATE, Driver

KICK = 0x4018
THRESHOLD = STATE + st.REQ_CALL_THRESHOLD
MOMENT = 1 * MS  # in which a request that was put on the ring is taken, whatever has happened


def ask_for_threshold(driver: Driver, enable: int = 1) -> None:
    assert driver.command(r.CMD_SETUP_REQCALLTHRESHOLD, enable.to_bytes(4, "little")) == enable


def busy(driver: Driver) -> None:
    """Requests in quick succession, until the window is as long as it may be, and open."""
    driver.port.at_once = lambda srb: None
    for _ in range(8):
        driver.put()
        driver.kick()
        driver.completions()
        driver.clock.advance(20 * US)
    assert driver.adapter.moderation.window.is_open


def run(driver: Driver, length: int, step: int = 10 * US) -> int:
    """Let time pass as it does for a server: in turns while there is something to do. Returns the turns."""
    end = driver.clock.now() + length
    turns = driver.loop.turns
    while driver.clock.now() < end:
        if driver.loop._soon:
            driver.loop.run_once(0)
            driver.clock.advance(min(step, end - driver.clock.now()))
            continue
        deadline = driver.clock.next_deadline()
        if deadline is None or deadline > end:
            driver.clock.advance(end - driver.clock.now())
        else:
            driver.clock._now = max(driver.clock._now, deadline)
            driver.loop.run_once(0)
    return driver.loop.turns - turns


@pytest.fixture
def linux(driver: Driver) -> Driver:
    """A driver with what Linux asks for: a threshold, and interrupts."""
    ask_for_threshold(driver)
    driver.write(0x2010, 0xF)
    return driver


# -- kicks -------------------------------------------------------------------------------------------------------------


def test_the_threshold_is_beyond_the_ring_while_it_is_looked_at_and_0_otherwise(linux: Driver) -> None:
    assert linux.u32(THRESHOLD) == 0
    busy(linux)
    assert linux.u32(THRESHOLD) == linux.entries + 1  # more than can be on the ring
    run(linux, 3 * MS)
    assert linux.u32(THRESHOLD) == 0


def test_a_driver_that_has_not_asked_for_a_threshold_gets_none(driver: Driver) -> None:
    busy(driver)
    assert driver.u32(THRESHOLD) == 0
    assert driver.adapter.moderation.window.snapshot()["kicks_suppressed"] is False
    driver.put(context=77)
    driver.turn()
    assert [context for context, *_ in driver.completions()] == [77]  # without a kick


def test_a_request_without_a_kick_is_taken_while_the_window_is_open(linux: Driver) -> None:
    busy(linux)
    kicks = linux.adapter.kicks
    for context in range(10, 20):
        linux.put(context=context)
        run(linux, 100 * US)
        assert [found for found, *_ in linux.completions()] == [context]
    assert linux.adapter.kicks == kicks


def test_the_trace_says_who_took_a_request(make: Callable[..., Driver]) -> None:
    """And nothing of looks that found none."""
    driver = make(trace=True)
    assert driver.setup() == 0
    driver.port.at_once = lambda srb: None
    driver.put()
    driver.put()
    driver.kick()
    driver.kick()
    assert [event[1:] for event in driver.recorder.events] == [("ring.take", 0, {"why": "kick", "requests": 2})]
    busy(driver)
    driver.put()
    driver.turn()
    assert driver.recorder.events[-1][1:] == ("ring.take", 0, {"why": "look", "requests": 1})


def test_no_look_overtakes_a_register_write_on_its_way(make: Callable[..., Driver]) -> None:
    """Posted writes: SeaBIOS acknowledges one completion, and its next request is in memory before that has arrived."""
    driver = make(posted_writes=True)
    assert driver.setup() == 0
    ask_for_threshold(driver)
    driver.port.at_once = lambda srb: None
    for _ in range(20):
        driver.put()
        driver.kick()
        assert driver.read(0x100C) == r.INTR_CMPL_0
        driver.completions()
        driver.put()
        run(driver, 100 * US)
        driver.write(0x100C, r.INTR_CMPL_0)  # which was sent before `put`
        driver.kick()
        assert driver.read(0x100C) == r.INTR_CMPL_0
        driver.completions()
        driver.write(0x100C, r.INTR_CMPL_0)


def test_a_full_request_ring_is_not_looked_at_in_circles(linux: Driver) -> None:
    """As many in flight as may be: what is on the ring besides cannot be taken, and no look tries to."""
    busy(linux)
    linux.port.at_once = None
    for context in range(linux.entries):
        linux.put(context=context)
    run(linux, 100 * US)
    assert linux.adapter.in_flight.outstanding == linux.entries
    for context in range(5):
        linux.put(context=100 + context)
    found = linux.adapter.moderation.window.found
    run(linux, 3 * MS)
    assert linux.adapter.moderation.window.found == found
    linux.port.complete(linux.port.srbs[0])
    run(linux, MS)
    assert linux.adapter.in_flight.outstanding == linux.entries  # room for one: it was taken


# -- reset, set-up, memory that goes away, with a window open ----------------------------------------------------------


def spoil(driver: Driver, address: int = STATE) -> None:
    driver.poke(address, b"\xaa" * 4096)


def test_a_reset_closes_the_window_and_touches_no_ring_memory_afterwards(linux: Driver) -> None:
    busy(linux)
    linux.command(r.CMD_ADAPTER_RESET)
    spoil(linux)
    linux.put()  # moves reqProdIdx of a ring that is none any more
    before = linux.peek(STATE, 4096)
    run(linux, 5 * MS)
    assert linux.peek(STATE, 4096) == before
    assert linux.port.srbs == []


def test_rings_set_up_anew_begin_with_a_threshold_of_0_and_a_closed_window(linux: Driver) -> None:
    busy(linux)
    old = linux.peek(STATE, 4096)
    assert linux.setup(state=0x3000) == 0
    assert linux.u32(0x3000 + st.REQ_CALL_THRESHOLD) == 0
    assert not linux.adapter.moderation.window.is_open
    run(linux, 5 * MS)
    assert linux.peek(STATE, 4096)[st.REQ_CALL_THRESHOLD :] == old[st.REQ_CALL_THRESHOLD :]
    assert linux.setup() == 0  # and the same page again: it starts with 0, too
    assert linux.u32(THRESHOLD) == 0


def test_a_reset_of_the_function_closes_the_window(linux: Driver) -> None:
    busy(linux)
    linux.adapter.function.reset()
    spoil(linux)
    before = linux.peek(STATE, 4096)
    run(linux, 5 * MS)
    assert linux.peek(STATE, 4096) == before


def test_the_driver_may_change_its_mind_about_the_threshold_with_the_window_open(linux: Driver) -> None:
    busy(linux)
    ask_for_threshold(linux, 0)
    run(linux, 3 * MS)
    assert linux.u32(THRESHOLD) == 0
    busy(linux)
    assert linux.u32(THRESHOLD) == 0


def test_bus_mastering_that_ends_with_the_window_open_leaves_no_threshold_behind(linux: Driver) -> None:
    busy(linux)
    linux.write_config(COMMAND_REGISTER, MEMORY_ENABLE, 2)
    assert run(linux, 10 * S) < 300  # the rest of the window, and then nothing
    linux.write_config(COMMAND_REGISTER, MEMORY_ENABLE | BUS_MASTER, 2)
    linux.turn()
    assert linux.u32(THRESHOLD) == 0


def test_a_request_of_the_time_without_bus_mastering_is_taken_when_that_is_back(linux: Driver) -> None:
    busy(linux)
    linux.write_config(COMMAND_REGISTER, MEMORY_ENABLE, 2)
    run(linux, 5 * MS)
    linux.put(context=5)  # not kicked for: the threshold is as the window has left it
    linux.write_config(COMMAND_REGISTER, MEMORY_ENABLE | BUS_MASTER, 2)
    run(linux, MOMENT)
    assert [context for context, *_ in linux.completions()] == [5]


def test_memory_that_is_mapped_elsewhere_with_the_window_open(linux: Driver) -> None:
    busy(linux)
    linux.memory.unmap(0, RAM)
    run(linux, 5 * MS)
    assert not linux.adapter.moderation.window.is_open
    assert linux.u32(THRESHOLD) != 0
    linux.memory.map(0, RAM, 3, os.dup(linux.fd), 0)
    run(linux, 5 * MS)
    assert linux.u32(THRESHOLD) == 0
    linux.put(context=5)
    linux.kick()
    assert [context for context, *_ in linux.completions()] == [5]


# -- a wake-up is never lost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("honours", [True, False])
def test_no_request_waits_longer_than_a_moment(linux: Driver, honours: bool) -> None:
    """The driver puts a request on the ring at any time, and kicks as the threshold it finds then says, or always."""
    source = random.Random(honours)
    busy(linux)
    kicked = 0
    for number in range(10_000):
        run(linux, source.choice((source.randrange(400), source.randrange(2000), source.randrange(5000))) * US, 7 * US)
        linux.put(context=number)
        waiting = linux.prod - linux.u32(STATE + st.REQ_CONS_IDX)
        if not honours or waiting >= linux.u32(THRESHOLD):
            kicked += 1
            linux.write(KICK, 0)
        put_at = linux.clock.now()
        while not (found := linux.completions()):
            assert linux.clock.now() - put_at < MOMENT
            run(linux, 10 * US)
        assert [context for context, *_ in found] == [number]
    assert kicked == 10_000 if not honours else 1000 < kicked < 9000


@pytest.mark.parametrize("verify", [False, True])
def test_an_idle_guest_costs_nothing(make: Callable[..., Driver], verify: bool) -> None:
    driver = make(verify=verify)
    assert driver.setup() == 0
    ask_for_threshold(driver)
    busy(driver)
    run(driver, 5 * S)  # the window ends, the verifier has its last tick
    assert run(driver, 10 * S) == 0
    assert driver.clock.next_deadline() is None
    if verify:
        assert driver.found() == {}


# -- interrupts --------------------------------------------------------------------------------------------------------


def signals(driver: Driver) -> int:
    return driver.adapter.function.interrupts.signals


def test_one_request_at_a_time_has_its_interrupt_at_once(linux: Driver) -> None:
    linux.port.at_once = lambda srb: None
    for number in range(1, 20):
        linux.put()
        linux.kick()
        assert signals(linux) == number
        linux.completions()


def test_many_requests_share_an_interrupt_and_the_last_is_not_forgotten(linux: Driver) -> None:
    linux.port.at_once = lambda srb: None
    for _ in range(32):
        linux.put(length=512)
    linux.kick()
    linux.completions()
    before = signals(linux)
    for number in range(32):  # the driver goes on with others in flight, and looks when it is interrupted
        linux.put(context=number, length=512)
        linux.kick()
        linux.clock.advance(20 * US)
    assert 1 <= signals(linux) - before <= 32 * 0.3
    before = signals(linux)
    linux.put(length=512)
    linux.kick()
    run(linux, MS)
    assert signals(linux) == before + 1


def test_a_held_interrupt_sets_the_status_when_it_comes(linux: Driver) -> None:
    """INTx: INTR_STATUS and the line go together, and an acknowledgement takes both back."""
    interrupts = linux.adapter.function.interrupts
    for context in range(32):
        linux.put(context=context, length=512)
    linux.kick()
    linux.port.complete(linux.port.srbs[0])
    linux.turn()
    assert linux.u32(STATE + st.CMP_PROD_IDX) == 1  # posted
    assert linux.read(0x100C) == 0
    assert not interrupts.asserted
    run(linux, MS)
    assert linux.read(0x100C) == r.INTR_CMPL_0
    assert interrupts.asserted
    linux.write(0x100C, r.INTR_CMPL_0)
    assert not interrupts.asserted
    linux.completions()
    before = signals(linux)
    run(linux, 10 * MS)
    assert not interrupts.asserted
    assert signals(linux) == before


def test_a_driver_that_polls_sees_the_status_at_once(driver: Driver) -> None:
    for context in range(32):
        driver.put(context=context)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert driver.read(0x100C) == r.INTR_CMPL_0
    assert signals(driver) == 0


def test_a_reset_announces_what_it_has_ended(linux: Driver) -> None:
    for context in range(32):
        linux.put(context=context)
    linux.kick()
    for srb in linux.port.srbs[:29]:
        linux.port.complete(srb)
    linux.turn()
    linux.completions()
    before = signals(linux)
    linux.command(r.CMD_ADAPTER_RESET)
    assert signals(linux) == before + 1
    assert len(linux.completions()) == 3
    run(linux, 10 * MS)
    assert signals(linux) == before + 1
    assert linux.read(0x100C) == 0


# -- the verifier ------------------------------------------------------------------------------------------------------


@pytest.fixture
def watched_linux(watched: Driver) -> Driver:
    ask_for_threshold(watched)
    busy(watched)
    return watched


def test_requests_that_a_look_took_are_no_finding(watched_linux: Driver) -> None:
    for context in range(50):
        watched_linux.put(context=context, length=512, address=DATA)
        run(watched_linux, 900 * US)
        watched_linux.completions()
        if watched_linux.u32(THRESHOLD) == 0:
            watched_linux.kick()
    run(watched_linux, 10 * S)
    assert watched_linux.found() == {}


def test_GD_15_does_not_apply_to_what_the_next_look_takes(watched_linux: Driver) -> None:
    """Requests that are on the ring at the moment of the verifier's tick, long after the last kick."""
    for context in range(3 * S // (900 * US)):
        watched_linux.put(context=context)
        watched_linux.clock.advance(900 * US)
        watched_linux.turn()
        assert len(watched_linux.completions()) == 1
    assert watched_linux.found() == {}


def test_GD_14_idle_kicks_are_found_after_looks_too(watched_linux: Driver) -> None:
    for context in range(50):
        watched_linux.put(context=context)
        run(watched_linux, 100 * US)
        watched_linux.completions()
    run(watched_linux, 5 * S)
    watched_linux.kick()
    watched_linux.kick()
    run(watched_linux, 5 * S)
    assert watched_linux.found() == {"GD-14": 2}


def test_GD_15_a_request_without_a_kick_is_found_although_a_look_took_it(watched: Driver) -> None:
    busy(watched)  # has not asked for a threshold: it has to kick
    watched.put()
    run(watched, 100 * US)
    assert len(watched.completions()) == 1
    assert watched.found() == {}
    run(watched, 5 * S)
    assert watched.found() == {"GD-15": 1}


def test_GD_15_does_not_apply_to_a_kick_that_comes_after_the_look(watched: Driver) -> None:
    busy(watched)
    for _ in range(5):
        watched.put()
        run(watched, 100 * US)
        watched.kick()
        watched.completions()
    run(watched, 5 * S)
    assert watched.found() == {}

"""The verifier of the guest's driver over time: what it remembers, what it forgets, when it looks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.watch import MOST_TOLD
from hba.adapters.ring.turn import BATCH
from hba.clock import S
from tests.adapters.pvscsi.driver import DATA, RAM, REQ, STATE, Driver
from tests.adapters.pvscsi.test_saved import keep, other, saved, stop, unit
from tests.adapters.pvscsi.test_words import LIST, SG, at_once, said, where

Make = Callable[..., Driver]
STATUS, MASK = 0x100C, 0x2010


def rules(driver: Driver) -> list[str]:
    return [rule for rule, _ in said(driver)]


# -- requests


@pytest.mark.parametrize("plain", [True, False])
def test_GD_01_which_of_a_batch_has_changed(watched: Driver, plain: bool) -> None:
    """The others of it have not."""
    flags = st.FLAG_DIR_TOHOST if plain else SG
    watched.scatter(LIST, [(DATA, 512, 0)])
    for context in range(BATCH + 5):
        watched.put(context=context, address=LIST, length=512, flags=flags)
    changed = REQ + (BATCH + 3) * st.REQUEST_SIZE
    watched.port.at_once = lambda srb: watched.poke(changed + 40, b"\xff")
    watched.kick()
    assert said(watched) == [("GD-01", "the descriptor changed after reqProdIdx had passed it")]
    assert where(watched) == [f"request ring slot {BATCH + 3}"]


def test_GD_01_over_the_end_of_the_ring(make: Make) -> None:
    driver = make(verify=True)
    assert driver.setup(2, 1) == 0
    at_once(driver)
    for context in range(3 * 64 + 7):
        driver.put(context=context, flags=st.FLAG_DIR_TOHOST, length=512)
        if context % 13 == 12:
            driver.kick()
            driver.completions()
    driver.kick()
    assert said(driver) == []


def test_what_was_refused_is_no_matter_for_the_next_with_its_name(watched: Driver) -> None:
    watched.put(context=5, flags=st.FLAG_OUT_OF_BAND_CDB)
    watched.kick()
    watched.put(context=5, length=512)
    watched.kick()
    assert len(watched.port.srbs) == 1
    assert said(watched) == []


def test_GD_02_only_of_lists(watched: Driver) -> None:
    """Data changes in flight: that is what it is for."""
    watched.put(context=1, length=512, flags=st.FLAG_DIR_TOHOST | st.FLAG_DIR_TODEVICE)
    watched.kick()
    watched.poke(DATA, b"\xee" * 512)
    watched.port.complete(watched.port.srbs[0])
    assert said(watched) == [("GD-18", "flags 0x18 with 512 bytes of data")]


@pytest.mark.parametrize(("at", "changed"), [(0xFE0, True), (0xFF0, True), (0x1000, False), (0x5000, False)])
def test_GD_02_ends_with_the_page(watched: Driver, at: int, changed: bool) -> None:
    """A list that goes on elsewhere: what is behind the first page of it is not of it."""
    watched.scatter(LIST + 0xFE0, [(DATA, 512, 0), (LIST + 0x5000, 0, st.SG_FLAG_CHAIN_ELEMENT)])
    watched.scatter(LIST + 0x5000, [(DATA + 0x1000 * number, 512, 0) for number in range(1, 4)])
    watched.put(address=LIST + 0xFE0, length=2048, flags=SG)
    watched.kick()
    assert len(watched.port.srbs) == 1
    watched.poke(LIST + at, b"\xee")
    watched.port.complete(watched.port.srbs[0])
    assert rules(watched) == ["GD-02"] * changed


def test_GD_10_a_list_that_went_in_flight(watched: Driver) -> None:
    watched.memory.unmap(0, RAM)
    watched.memory.map(0, LIST, 3, os.dup(watched.fd), 0)
    watched.memory.map(LIST, RAM - LIST, 3, os.dup(watched.fd), LIST)
    watched.scatter(LIST, [(DATA, 512, 0)])
    watched.put(context=0xA, address=LIST, length=512, flags=SG)
    watched.kick()
    watched.memory.unmap(LIST, RAM - LIST)
    watched.port.complete(watched.port.srbs[0])
    assert said(watched) == [("GD-10", "scatter list: DMA to 0x300000+0x10: not mapped")]
    assert where(watched) == ["request with context 0xa"]


# -- indices


def test_GD_04_of_so_many_indices(watched: Driver) -> None:
    """A guest that makes up ever others fills no memory."""
    for index in range(MOST_TOLD + 10):
        watched.set_u32(STATE + st.CMP_CONS_IDX, 1000 + index)
        watched.adapter.look("command")
    assert watched.found() == {"GD-04": MOST_TOLD}
    watched.clock.advance(20 * S)
    assert watched.clock.next_deadline() is None  # and is not looked at for ever because of it


def test_GD_15_only_of_what_could_be_taken(watched: Driver) -> None:
    for context in range(20):
        watched.put(context=context)
    watched.kick()
    for context in range(20, 33):
        watched.put(context=context)
    watched.clock.advance(5 * S)
    assert said(watched) == []  # 13 are on the ring, and there is room for 12: a completion makes the device look
    watched.prod -= 2
    watched.set_u32(STATE + st.REQ_PROD_IDX, watched.prod)
    watched.clock.advance(1 * S)
    assert said(watched) == [("GD-15", "11 requests on the ring, last kick 6.0 s ago")]


def test_GD_15_a_ring_full_to_the_last(watched: Driver) -> None:
    for context in range(32):
        watched.put(context=context)
    watched.clock.advance(1 * S)
    assert said(watched) == [("GD-15", "32 requests on the ring, last kick 1.0 s ago")]


def test_GD_15_time_begins_with_the_rings(watched: Driver) -> None:
    """And each set-up begins anew, also with what was said."""
    for _ in range(2):
        watched.clock.advance(7 * S + S // 2)
        assert watched.command(r.CMD_ADAPTER_RESET) == 0
        watched.poke(STATE, bytes(64))
        assert watched.setup() == 0
        watched.put()
        watched.clock.advance(1 * S)
        watched.clock.advance(1 * S)
    # the second time the tick was armed half a second before
    assert said(watched) == [("GD-15", f"1 requests on the ring, last kick {since} s ago") for since in (1.0, 1.5)]


# -- kicks for what a look took


def look(driver: Driver) -> None:
    driver.put()
    driver.adapter.look("look")
    driver.turn()
    driver.completions()


def test_GD_15_a_second_after_the_look(watched: Driver) -> None:
    at_once(watched)
    watched.clock.advance(5 * S)  # the tick of the set-up is over
    look(watched)
    watched.clock.advance(1 * S - 1)
    assert said(watched) == []
    watched.clock.advance(1)
    assert said(watched) == [("GD-15", "a look took requests nobody kicked for, nor since")]


def test_GD_15_also_of_a_request_that_does_not_end(watched: Driver) -> None:
    watched.clock.advance(5 * S)
    look(watched)
    watched.clock.advance(1 * S)
    assert rules(watched) == ["GD-15"] and len(watched.port.srbs) == 1


def test_GD_15_not_before_the_second_is_over(watched: Driver) -> None:
    """The tick comes half a second after the look, and the next one finds it."""
    at_once(watched)
    watched.clock.advance(5 * S)
    watched.put()
    watched.kick()
    watched.completions()
    watched.clock.advance(S // 2)
    look(watched)
    watched.clock.advance(S // 2)
    assert said(watched) == []
    watched.clock.advance(1 * S)
    assert rules(watched) == ["GD-15"]


def test_GD_14_a_late_kick_for_what_a_look_took(watched: Driver) -> None:
    """It may come until the second tick, and is no excuse for another."""
    at_once(watched)
    watched.command(r.CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little"))  # then it need not kick
    look(watched)
    watched.clock.advance(1 * S)
    watched.kick()
    watched.clock.advance(3 * S)
    watched.put()
    watched.kick()
    watched.completions()
    watched.clock.advance(3 * S)
    assert said(watched) == []
    watched.kick()
    watched.clock.advance(3 * S)
    assert said(watched) == [("GD-14", "1 kicks without a request")]


def test_GD_14_a_kick_that_comes_too_late(watched: Driver) -> None:
    at_once(watched)
    watched.command(r.CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little"))
    look(watched)
    watched.clock.advance(2 * S)
    watched.kick()
    watched.clock.advance(3 * S)
    assert said(watched) == [("GD-14", "1 kicks without a request")]


def test_GD_14_what_a_reset_leaves(watched: Driver) -> None:
    """A driver that kicks before it resets, and does not come back."""
    at_once(watched)
    watched.put()
    watched.kick()
    watched.kick()
    watched.command(r.CMD_ADAPTER_RESET)
    watched.clock.advance(5 * S)
    assert said(watched) == []


# -- when it looks


def test_GD_03_of_what_completes_after_bus_mastering_came_back(watched: Driver) -> None:
    """Nothing can be looked at meanwhile, and no time is kept then."""
    watched.put()
    watched.kick()
    watched.write_config(4, 2, 2)
    watched.clock.advance(3 * S)
    assert watched.clock.next_deadline() is None
    watched.write_config(4, 6, 2)
    watched.turn()
    watched.clock.advance(3 * S)
    watched.port.complete(watched.port.srbs[0])
    watched.turn()
    watched.clock.advance(12 * S)
    assert rules(watched) == ["GD-03"]


# -- the line


@pytest.fixture
def line(watched: Driver) -> Driver:
    watched.adapter.function.interrupts.configure("intx")
    watched.write(MASK, 0xF)
    watched.clock.advance(5 * S)
    return watched


def test_GD_17_not_of_a_line_that_is_masked_or_not_used(line: Driver) -> None:
    line.adapter.announce_completions()
    line.clock.advance(5 * S)
    line.write(MASK, 0)
    line.clock.advance(3 * S)
    line.write(MASK, 0xF)  # time begins anew
    line.clock.advance(10 * S - 1)
    assert said(line) == []
    line.clock.advance(2 * S)
    assert rules(line) == ["GD-17"]
    line.write(MASK, 0)
    line.clock.advance(3 * S)
    line.write(MASK, 0xF)
    line.clock.advance(12 * S)
    assert rules(line) == ["GD-17"] * 2
    line.write(STATUS, 0xF)
    line.adapter.announce_completions()
    line.clock.advance(5 * S)
    line.adapter.function.interrupts.configure("msi")
    line.clock.advance(20 * S)
    assert rules(line) == ["GD-17"] * 2


def test_GD_17_again_of_the_next(line: Driver) -> None:
    for number in (1, 2, 3):
        line.adapter.announce_completions()
        line.clock.advance(11 * S)
        assert rules(line) == ["GD-17"] * number
        line.write(STATUS, 0xF)


# -- rings of another adapter


def restored(make: Make, change: Callable[[Driver], Any]) -> Driver:
    """A watched adapter that has said something already and goes on with rings in whose middle its indices are."""
    source = keep(make(), None, unit())
    assert source.setup() == 0
    for context in range(40):
        source.put(context=context)
        source.kick()
        source.port.complete(source.port.srbs[0])
        source.turn()
        source.completions()
    change(source)
    state = saved(source)
    driver = other(make, source, verify=True)
    driver.write_config(4, 6, 2)
    own = bytes(source.peek(STATE, 64))
    driver.poke(STATE, bytes(64))
    assert driver.setup() == 0
    at_once(driver)
    driver.put()
    driver.kick()
    driver.clock.advance(12 * S)
    assert rules(driver) == ["GD-03"]
    driver.poke(STATE, own)
    driver.prod, driver.cons = source.prod, source.cons
    assert stop(driver) is None
    driver.adapter.function.restore(state)
    snapshot: Any = driver.adapter.snapshot()
    assert snapshot["rings"] is None and snapshot["rings_unreachable"]  # by the client's will, until it runs
    driver.adapter.function.resume()
    driver.turn()
    return driver


def test_indices_go_on(make: Make) -> None:
    driver = restored(make, lambda source: None)
    for context in range(30):
        driver.put(context=context, flags=st.FLAG_DIR_TOHOST, length=512)
        if context % 3 == 0:
            driver.kick()
            driver.completions()
    driver.kick()
    driver.completions()
    assert rules(driver) == ["GD-03"]
    driver.clock.advance(2 * S)
    driver.kick()
    driver.clock.advance(2 * S)
    assert rules(driver) == ["GD-03", "GD-14"]


def test_GD_14_kicks_are_held_against_requests_that_came_here(make: Make) -> None:
    driver = restored(make, lambda source: None)
    driver.put()
    driver.kick()
    driver.kick()
    driver.completions()
    driver.clock.advance(1 * S)
    assert said(driver)[1:] == [("GD-14", "1 kicks without a request")]


def test_GD_03_of_what_waited_there(make: Make) -> None:
    """From the time on at which the rings are used here."""
    driver = restored(make, lambda source: source.adapter.completions.wait([77, 0, 0, 0, 0]))
    assert [done[0] for done in driver.completions(consume=False)] == [77]
    driver.clock.advance(10 * S - 1)
    assert rules(driver) == ["GD-03"]
    driver.clock.advance(1)
    assert rules(driver) == ["GD-03"] * 2

"""The message ring: what the guest is told of units arrives, in order, or somebody is told that it does not."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.options import PvscsiOptions
from hba.adapters.ring.hotplug import RETRY, STALE, TICK
from hba.clock import S
from hba.errors import DmaFault
from hba.scsi.unit import LogicalUnit
from tests.adapters.pvscsi.driver import CMP, DATA, MSG, RAM, STATE, Driver
from tests.scsi.util import disk, run

Make = Callable[..., Driver]
Message = tuple[str, int, int]

INQUIRY = "120000006000"
NAMES = {st.MSG_DEV_ADDED: "added", st.MSG_DEV_REMOVED: "removed"}


@pytest.fixture
def listening(driver: Driver) -> Driver:
    """A driver with a message ring of one page, and its interrupt."""
    assert driver.setup_messages() == 0
    driver.write(0x2010, 0xF)
    return driver


def take(driver: Driver, most: int = 1 << 20) -> list[Message]:
    """The guest takes messages: (what, target, LUN); nothing but memory is touched."""
    prod, cons = driver.u32(STATE + st.MSG_PROD_IDX), driver.u32(STATE + st.MSG_CONS_IDX)
    entries = 1 << driver.u32(STATE + st.MSG_NUM_ENTRIES_LOG2)
    taken = []
    while cons != prod and len(taken) < most:
        kind, bus, target, lun = st.MESSAGE.unpack(driver.peek(MSG + cons % entries * 128, 128))
        assert bus == 0 and not lun[0] and not any(lun[2:])
        taken.append((NAMES[kind], target, lun[1]))
        cons = (cons + 1) & 0xFFFFFFFF
    driver.set_u32(STATE + st.MSG_CONS_IDX, cons)
    return taken


def waiting(driver: Driver) -> object:
    counters = driver.adapter.snapshot()["counters"]
    assert isinstance(counters, dict)
    return counters["messages_waiting"]


def heard(driver: Driver) -> list[str]:
    """What the host is told from now on."""
    told: list[str] = []
    driver.adapter.on_untold = told.append
    return told


def fill(driver: Driver) -> None:
    """The ring is full of messages about targets 100 to 131."""
    for target in range(100, 132):
        driver.adapter.hot_plug("added", target, 0)


def test_a_message_says_what_and_where(listening: Driver) -> None:
    listening.adapter.hot_plug("added", 5, 1)
    listening.adapter.hot_plug("removed", 6, 0)
    assert listening.u32(STATE + st.MSG_PROD_IDX) == 2
    assert st.MESSAGE.unpack(listening.peek(MSG, 128)) == (0, 0, 5, bytes((0, 1, 0, 0, 0, 0, 0, 0)))
    assert st.MESSAGE.unpack(listening.peek(MSG + 128, 128)) == (1, 0, 6, bytes(8))
    assert listening.read(0x100C) & r.INTR_MSG_0
    assert listening.adapter.announcement(5, 1) == {"state": "posted", "why": ""}


def test_fifty_of_them_find_room_for_thirty_two_and_all_arrive(listening: Driver) -> None:
    for change in ("added", "removed"):
        for target in range(50):
            listening.adapter.hot_plug(change, target, 0)
        assert waiting(listening) == 18
        assert listening.adapter.announcement(31, 0)["state"] == "posted"
        assert listening.adapter.announcement(32, 0)["state"] == "waiting"
        first = take(listening)
        assert len(first) == 32
        listening.clock.advance(RETRY)  # no register is touched: the guest only moved its index
        assert first + take(listening) == [(change, target, 0) for target in range(50)]
        assert waiting(listening) == 0


def test_every_message_posted_later_interrupts_anew(listening: Driver) -> None:
    raised: list[int] = []
    listening.adapter.function.interrupts.signal = raised.append  # type: ignore[method-assign]
    for target in range(34):
        listening.adapter.hot_plug("added", target, 0)
    assert len(raised) == 32
    for left in (1, 0):
        listening.write(0x100C, r.INTR_MSG_0)
        take(listening, 1)
        listening.clock.advance(RETRY)
        assert waiting(listening) == left
        assert listening.read(0x100C) & r.INTR_MSG_0
    assert len(raised) == 34
    listening.clock.advance(RETRY)
    assert len(raised) == 34  # nothing was posted


def test_a_kick_is_a_reason_to_look(listening: Driver) -> None:
    fill(listening)
    listening.adapter.hot_plug("added", 1, 0)
    take(listening, 1)
    listening.kick()
    assert waiting(listening) == 0


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ("a", ["added"]),
        ("ar", []),  # nobody ever asked the unit what it is
        ("aR", ["removed"]),  # the guest found it by scanning
        ("aRa", ["removed", "added"]),
        ("R", ["removed"]),
        ("Ra", ["removed", "added"]),  # another disk: the guest must let the old one go
        ("Rar", ["removed"]),
        ("RaR", ["removed"]),
        ("RaRaRara", ["removed", "added"]),
    ],
)
def test_what_waits_is_merged(listening: Driver, changes: str, left: list[str]) -> None:
    """a: added, r: removed and unknown to the guest, R: removed and perhaps known."""
    fill(listening)
    listening.adapter.hot_plug("added", 90, 0)
    for change in changes:
        if change == "a":
            listening.adapter.hot_plug("added", 1, 2)
        else:
            listening.adapter.hot_plug("removed", 1, 2, change == "R")
    listening.adapter.hot_plug("added", 91, 0)
    take(listening)
    listening.clock.advance(RETRY)
    assert take(listening) == [("added", 90, 0), *((what, 1, 2) for what in left), ("added", 91, 0)]


def test_what_waits_is_bounded_by_the_addresses(listening: Driver) -> None:
    fill(listening)
    for _ in range(100):
        for target in range(8):
            listening.adapter.hot_plug("removed", target, 0)
            listening.adapter.hot_plug("added", target, 0)
    assert waiting(listening) == 16


def test_memory_out_of_reach_is_waited_for(listening: Driver) -> None:
    listening.write_config(4, 2, 2)  # bus mastering off
    listening.adapter.hot_plug("added", 1, 0)
    assert listening.adapter.announcement(1, 0)["state"] == "waiting"
    listening.write_config(4, 6, 2)
    listening.clock.advance(RETRY)
    assert take(listening) == [("added", 1, 0)]
    listening.memory.unmap(0, RAM)
    listening.adapter.hot_plug("removed", 1, 0)
    listening.clock.advance(5 * RETRY)
    listening.memory.map(0, RAM, 3, os.dup(listening.fd), 0)
    listening.clock.advance(RETRY)
    assert take(listening) == [("removed", 1, 0)]


def test_without_a_message_ring_the_guest_is_not_told(make: Make) -> None:
    for options, setup, why in (
        (PvscsiOptions(), False, "no driver has set up the adapter's rings"),
        (PvscsiOptions(), True, "no message ring"),
        (PvscsiOptions(message_ring=False), True, "no message ring"),
    ):
        driver = make(options=options)
        if setup:
            assert driver.setup() == 0
        driver.adapter.hot_plug("added", 1, 0)
        said = driver.adapter.announcement(1, 0)
        assert said["state"] == "none" and why in said["why"]
        assert waiting(driver) == 0
        assert driver.clock.next_deadline() is None
    driver = make()
    driver.setup()
    driver.adapter.hot_plug("added", 1, 0)
    driver.setup_messages()  # it scans now
    assert take(driver) == []


@pytest.mark.parametrize("how", ["reset", "rings", "messages"])
def test_a_driver_that_sets_its_rings_up_anew_scans_and_the_host_hears_of_what_it_missed(
    listening: Driver, how: str
) -> None:
    told = heard(listening)
    fill(listening)
    listening.adapter.hot_plug("removed", 1, 0)
    take(listening, 30)
    listening.adapter.hot_plug("removed", 2, 0)
    take(listening, 1)
    before = listening.u32(STATE + st.MSG_PROD_IDX)
    if how == "reset":
        listening.command(r.CMD_ADAPTER_RESET)
    elif how == "rings":
        listening.setup()
    else:
        listening.setup_messages()
    assert waiting(listening) == 0
    (said,) = told
    assert "before it took 3 messages" in said
    listening.clock.advance(2 * STALE)
    if how == "reset":
        assert listening.u32(STATE + st.MSG_PROD_IDX) == before  # no ring memory is touched any more
    else:
        assert listening.u32(STATE + st.MSG_PROD_IDX) == 0
    assert len(told) == 1


def test_a_full_ring_is_missed_whole_and_one_that_makes_no_sense_is_not_counted(listening: Driver) -> None:
    told = heard(listening)
    for consumed, missed in ((0, 33), (1, 1)):  # with the index of the second, more than the ring has would be unread
        listening.set_u32(STATE + st.MSG_CONS_IDX, 0)
        listening.setup_messages()
        told.clear()
        fill(listening)
        listening.adapter.hot_plug("removed", 1, 0)
        listening.set_u32(STATE + st.MSG_CONS_IDX, -consumed)
        listening.command(r.CMD_ADAPTER_RESET)
        (said,) = told
        assert f"before it took {missed} messages" in said
        for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX, st.MSG_CONS_IDX):
            listening.set_u32(STATE + offset, 0)
        listening.setup()


def test_a_machine_that_starts_over_misses_nothing(listening: Driver) -> None:
    told = heard(listening)
    fill(listening)
    listening.adapter.hot_plug("added", 1, 0)
    listening.adapter.function.reset()
    assert waiting(listening) == 0 and told == []
    assert listening.clock.next_deadline() is None


def test_a_reset_with_nothing_unheard_says_nothing(listening: Driver) -> None:
    told = heard(listening)
    listening.adapter.hot_plug("added", 1, 0)
    take(listening)
    listening.command(r.CMD_ADAPTER_RESET)
    assert told == []


def test_a_guest_that_takes_no_message_is_told_of_once(listening: Driver) -> None:
    told = heard(listening)
    listening.clock.advance(100 * S)  # the time before does not count
    fill(listening)
    for target in (1, 2):
        listening.adapter.hot_plug("added", target, 0)
    listening.clock.advance(STALE - S)
    take(listening, 1)
    listening.clock.advance(RETRY)
    listening.clock.advance(STALE - S)
    assert told == []
    listening.clock.advance(10 * STALE)
    assert told == ["the guest has taken no message about its units for 10 s: 32 on its message ring, 1 behind"]
    shown = listening.adapter.snapshot()["messages"]
    assert shown == {"waiting": 1, "next": ["added 0:2:0"], "stuck": told[0]}
    assert told[0] in listening.adapter.announcement(2, 0)["why"]
    take(listening)  # at last
    listening.clock.advance(TICK)
    assert take(listening) == [("added", 2, 0)]
    listening.clock.advance(TICK)
    assert listening.adapter.snapshot()["messages"] == {"waiting": 0, "next": [], "stuck": ""}
    assert listening.clock.next_deadline() is None  # an idle guest costs nothing
    listening.adapter.hot_plug("removed", 2, 0)
    listening.clock.advance(STALE + TICK)
    assert len(told) == 2 and "1 on its message ring, 0 behind" in told[1]


def stuck(driver: Driver) -> object:
    messages = driver.adapter.snapshot()["messages"]
    assert isinstance(messages, dict)
    return messages["stuck"]


def next_look(driver: Driver) -> int | None:
    """When the mailbox is looked at again, from now."""
    deadline = driver.clock.next_deadline()
    return None if deadline is None else deadline - driver.clock.now()


def test_how_often_the_ring_is_looked_at_and_when_the_guest_is_given_up(listening: Driver) -> None:
    """Often while something waits and the driver goes on, else seldom, and not at all when there is nothing to see."""
    told = heard(listening)
    assert next_look(listening) is None
    listening.adapter.hot_plug("added", 99, 0)
    assert next_look(listening) == TICK
    listening.clock.advance(STALE - 1)
    assert (told, stuck(listening)) == ([], "")
    listening.clock.advance(1)
    assert told == ["the guest has taken no message about its units for 10 s: 1 on its message ring, 0 behind"]
    assert next_look(listening) == TICK
    fill(listening)
    assert listening.adapter.counters()["messages"] == 32
    assert (stuck(listening), next_look(listening)) == (told[0], TICK)
    take(listening, 2)
    listening.clock.advance(TICK)  # one of the two messages that waited has found room, and both have
    assert (waiting(listening), stuck(listening), next_look(listening)) == (0, "", TICK)
    for target in (1, 2, 3):
        listening.adapter.hot_plug("added", target, 0)
    assert (waiting(listening), next_look(listening)) == (2, RETRY)
    assert listening.adapter.counters()["messages"] == 34
    listening.clock.advance(STALE)
    assert len(told) == 2 and stuck(listening) == told[1]
    assert told[1].endswith("for 10 s: 32 on its message ring, 2 behind")
    take(listening, 1)
    listening.clock.advance(TICK)  # it goes on, although there is more that it has not taken
    assert (waiting(listening), stuck(listening), next_look(listening)) == (1, "", RETRY)
    take(listening)
    listening.clock.advance(RETRY)
    take(listening)
    listening.clock.advance(TICK)
    assert (waiting(listening), stuck(listening), next_look(listening)) == (0, "", None)
    assert listening.adapter.counters()["messages"] == 36
    assert len(told) == 2


def test_out_of_reach_there_is_nothing_to_look_at_until_it_is_back(listening: Driver) -> None:
    told = heard(listening)
    listening.adapter.hot_plug("added", 1, 0)
    listening.clock.advance(STALE)
    assert len(told) == 1
    listening.write_config(4, 2, 2)  # bus mastering off
    listening.clock.advance(TICK)
    assert (next_look(listening), stuck(listening)) == (None, "")
    listening.clock.advance(STALE)
    listening.write_config(4, 6, 2)
    assert next_look(listening) == TICK
    take(listening)
    listening.clock.advance(TICK)
    assert next_look(listening) is None
    assert len(told) == 2


def test_a_guest_that_has_never_taken_any_is_not_given_more_time_by_its_memory_coming_back(listening: Driver) -> None:
    told = heard(listening)
    listening.write_config(4, 2, 2)
    listening.adapter.hot_plug("added", 1, 0)
    listening.clock.advance(STALE - S)
    listening.write_config(4, 6, 2)
    assert told == []
    listening.clock.advance(S + RETRY)
    assert len(told) == 1


def test_an_index_that_makes_no_sense_is_a_full_ring(listening: Driver) -> None:
    told = heard(listening)
    listening.set_u32(STATE + st.MSG_CONS_IDX, 7)
    listening.adapter.hot_plug("added", 1, 0)
    assert listening.u32(STATE + st.MSG_PROD_IDX) == 0
    listening.clock.advance(STALE + TICK)
    (said,) = told
    assert said.endswith("its msgConsIdx is 7 with msgProdIdx 0")
    listening.set_u32(STATE + st.MSG_CONS_IDX, 0)
    listening.clock.advance(TICK)
    assert take(listening) == [("added", 1, 0)]


def test_memory_that_stays_out_of_reach_is_told_of(listening: Driver) -> None:
    told = heard(listening)
    listening.write_config(4, 2, 2)
    listening.adapter.hot_plug("added", 1, 0)
    listening.clock.advance(STALE + TICK)
    (said,) = told
    assert "cannot be reached" in said


def test_kicks_while_messages_wait_do_not_pile_up_timers(listening: Driver) -> None:
    fill(listening)
    listening.adapter.hot_plug("added", 1, 0)
    listening.clock.advance(STALE + TICK)
    before = len(listening.clock._timers)
    for _ in range(200):
        listening.kick()
    assert len(listening.clock._timers) <= before + 1


# -- rings that are only reached by message


class ByMessage:
    """The client's memory behind DMA messages; `refuse` fails the next writes at these addresses."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.refuse: list[int] = []

    def dma_read(self, address: int, length: int) -> bytes:
        return self.driver.peek(address, length)

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        if address in self.refuse:
            self.refuse.remove(address)
            raise DmaFault(address, len(data), "refused")
        self.driver.poke(address, bytes(data))


@pytest.fixture
def remote(make: Make) -> tuple[Driver, ByMessage]:
    driver = make(ram=False)
    client = ByMessage(driver)
    driver.memory.client = client  # type: ignore[assignment]
    driver.memory.map(0, RAM, 3, None, 0)
    driver.setup()
    driver.setup_messages()
    return driver, client


@pytest.mark.parametrize("address", [MSG, MSG + 128, STATE + st.MSG_PROD_IDX])
def test_a_message_whose_write_fails_is_posted_again_and_once(remote: tuple[Driver, ByMessage], address: int) -> None:
    driver, client = remote
    client.refuse = [address]
    for target in (1, 2, 3):
        driver.adapter.hot_plug("added", target, 0)
    driver.clock.advance(RETRY)
    assert take(driver) == [("added", target, 0) for target in (1, 2, 3)]


@pytest.mark.parametrize("address", [CMP, CMP + st.COMPLETION_SIZE, STATE + st.CMP_PROD_IDX])
def test_a_completion_whose_write_fails_is_posted_again_and_once(
    remote: tuple[Driver, ByMessage], address: int
) -> None:
    driver, client = remote
    driver.port.at_once = lambda srb: None
    client.refuse = [address]
    for context in (1, 2, 3):
        driver.put(context=context)
    driver.kick()
    driver.clock.advance(RETRY)
    assert [completion[0] for completion in driver.completions()] == [1, 2, 3]
    assert "refused" in driver.adapter.access.fault


def test_a_message_that_cannot_be_written_is_told_of_with_the_reason(remote: tuple[Driver, ByMessage]) -> None:
    driver, client = remote
    told = heard(driver)
    client.refuse = [MSG] * 10_000
    driver.adapter.hot_plug("added", 1, 0)
    driver.clock.advance(STALE)
    (said,) = told
    assert "its message ring cannot be reached: " in said and "refused" in said
    assert driver.adapter.counters()["messages"] == 0


# -- a driver as vmw_pvscsi is


class Linux:
    """What the guest has: the unit it found at each address. A message makes it look, a rescan finds only new ones."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.has: dict[int, LogicalUnit] = {}

    def probe(self, target: int) -> None:
        unit = self.driver.bus.units.get(target, {}).get(0)
        if target not in self.has and unit is not None:
            run(unit, INQUIRY, 96)
            self.has[target] = unit

    def hear(self, most: int) -> None:
        for what, target, _ in take(self.driver, most):
            if what == "added":
                self.probe(target)
            else:
                self.has.pop(target, None)

    def scan(self) -> None:
        for target in range(64):
            self.probe(target)


STEPS = hs.one_of(
    hs.tuples(hs.just("switch"), hs.integers(0, 2)),
    hs.tuples(hs.just("switch"), hs.integers(0, 63)),
    hs.tuples(hs.just("hear"), hs.integers(1, 3)),
    hs.tuples(hs.just("scan"), hs.just(0)),
    hs.tuples(hs.just("wait"), hs.just(0)),
    hs.tuples(hs.just("bus master"), hs.booleans()),
)


@settings(max_examples=60, deadline=None)
@given(steps=hs.lists(STEPS, max_size=80))
def test_whatever_happens_the_guest_has_the_units_there_are(steps: list[tuple[str, int]]) -> None:
    driver = Driver()
    try:
        driver.setup()
        driver.setup_messages()
        guest = Linux(driver)
        for step, argument in [("switch", target) for target in range(8, 40)] + steps:
            if step == "switch" and argument in driver.bus.units:
                driver.bus.detach(argument, 0)
            elif step == "switch":
                driver.bus.attach(argument, 0, disk(4096, attentions=True))
            elif step == "hear":
                guest.hear(argument)
            elif step == "scan":
                guest.scan()
            elif step == "wait":
                driver.clock.advance(RETRY)
            else:
                driver.write_config(4, 6 if argument else 2, 2)
        driver.write_config(4, 6, 2)
        for _ in range(8):
            driver.clock.advance(TICK)
            guest.hear(40)
        assert waiting(driver) == 0
        assert guest.has == {target: units[0] for target, units in driver.bus.units.items()}
    finally:
        driver.close()


def test_what_could_only_be_written_after_the_answer_is_not_written(remote: tuple[Driver, ByMessage]) -> None:
    """A driver gives the configuration page back, and may give the rings back, as soon as the command is answered."""
    driver, _ = remote
    driver.poke(DATA, b"\xcc" * 512)
    assert driver.command(r.CMD_CONFIG, st.CONFIG.pack(DATA, 0x2120 << 32, 0x1958, 0)) == r.STATUS_FAILED
    assert driver.peek(DATA, 512) == b"\xcc" * 512
    driver.put()
    driver.kick()
    before = driver.peek(CMP, st.PAGE_SIZE), driver.peek(STATE, st.PAGE_SIZE)
    driver.command(r.CMD_ADAPTER_RESET, b"")
    driver.turn()
    assert not driver.adapter.in_flight.outstanding
    assert (driver.peek(CMP, st.PAGE_SIZE), driver.peek(STATE, st.PAGE_SIZE)) == before

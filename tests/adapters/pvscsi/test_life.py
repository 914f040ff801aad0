"""An adapter from power on to power off: what it counts, what a reset leaves of it, what it gives back."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.ring.adapter import RingAdapter
from hba.clock import MS, US
from hba.pci.interrupts import MSI
from hba.srb import SRB_FUNCTION_ABORT_COMMAND, SRB_STATUS_SUCCESS
from hba.vfio_user import device as dev
from tests.adapters.pvscsi.driver import CMP, MEMORY_ENABLE, RAM, STATE, Driver
from tests.adapters.pvscsi.test_memory import Heard
from tests.adapters.pvscsi.test_messages import ByMessage
from tests.adapters.pvscsi.test_moderation import busy
from tests.scsi.util import disk

Make = Callable[..., Driver]
LIST = 0x300000


def counted(driver: Driver, *names: str) -> list[object]:
    counters = driver.adapter.counters()
    return [counters[name] for name in names]


# -- what is counted --------------------------------------------------------------------------------------------------


def test_everything_is_counted_from_nothing(make: Make) -> None:
    driver = make()
    assert set(driver.adapter.counters().values()) == {0}
    assert driver.setup() == 0
    rings = driver.adapter.access.rings
    assert rings is not None and rings.most_pending == 0
    driver.port.at_once = lambda srb: None
    for context, length in enumerate((512, 1024, 0)):
        driver.put(context=context, length=length)
    driver.scatter(LIST, [(LIST, 0, st.SG_FLAG_CHAIN_ELEMENT)])
    driver.put(address=LIST, length=512, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    driver.kick()
    driver.write(0x4018, 0)
    driver.kick()
    assert driver.adapter.counters() == {
        "kicks": 3,
        "requests": 4,
        "completions": 4,
        "bytes": 1536,
        "outstanding": 0,
        "pieces": 0,
        "bad_requests": 1,
        "completions_waiting": 0,
        "messages": 0,
        "messages_waiting": 0,
        "dma_faults": 0,
    }
    assert rings.most_pending == 4


def test_a_turn_looks_once_whatever_completes_in_it(make: Make) -> None:
    driver = make()
    heard = Heard(driver)
    driver.setup()
    driver.port.at_once = lambda srb: None
    for context in range(20):
        driver.put(context=context)
    driver.kick()
    assert heard.events == ["set up", ("kick", 20), [*range(16)], [*range(16, 20)]]
    driver.port.at_once = None
    heard.events.clear()
    for context in range(3):
        driver.put(context=context)
    driver.kick()
    assert heard.events == [("kick", 3), [0, 1, 2]]
    heard.events.clear()
    driver.adapter.moderation.forget()  # no look by itself
    for srb in list(driver.port.srbs):
        driver.port.complete(srb)
    driver.turn()
    assert heard.events == [("room", 0)]


def test_completions_that_wait_take_the_room_of_requests(driver: Driver) -> None:
    """A driver that takes none of them: as many are kept as its completion ring has, and no request is taken then."""
    driver.setup(8, 1)
    driver.port.at_once = lambda srb: None
    for batch in range(4):
        for context in range(100):
            if driver.prod - driver.u32(STATE + st.REQ_CONS_IDX) < driver.entries:
                driver.put(context=batch * 100 + context)
        driver.kick()
    assert counted(driver, "requests", "completions", "completions_waiting") == [256, 128, 128]
    while driver.completions():
        driver.clock.advance(2 * MS)
        driver.turn()
    assert counted(driver, "requests", "completions", "completions_waiting") == [400, 400, 0]
    assert not driver.adapter.completions.is_due


def test_who_has_posted_need_not_be_reminded(driver: Driver) -> None:
    """A ring that was full is tried again; when a new completion came first, not besides."""
    driver.setup(8, 1)
    driver.port.at_once = lambda srb: None
    for context in range(130):
        driver.put(context=context)
    driver.kick()
    driver.turn()
    assert driver.adapter.completions.is_due and driver.clock.next_deadline() is not None
    assert len(driver.completions()) == 128
    driver.put(context=200)
    driver.kick()
    assert [done[0] for done in driver.completions()] == [128, 129, 200]
    assert not driver.adapter.completions.is_due and driver.clock.next_deadline() is None


def test_an_ended_request_holds_no_memory_and_leaves_the_name_to_the_next(driver: Driver) -> None:
    driver.put(context=7, length=512)
    driver.put(context=7, length=512)
    driver.kick()
    first, second = driver.port.srbs
    driver.port.complete(first)
    assert first.mdl is None and second.mdl is not None
    driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(7, 0, 0))
    task = driver.port.srbs[-1]
    assert task.function == SRB_FUNCTION_ABORT_COMMAND and task.next_srb is second


def test_which_memory_requests_use_in_place(make: Make) -> None:
    driver = make(ram=False)
    driver.memory.client = ByMessage(driver)
    driver.memory.map(0, RAM, 3, os.dup(driver.fd), 0)
    driver.memory.map(RAM, 0x1000, 3, None, 0)
    assert driver.setup() == 0
    driver.put(context=1)  # no data
    driver.put(context=2, address=RAM, length=512)  # by message
    driver.kick()
    assert len(driver.port.srbs) == 2 and not driver.adapter.uses(0, 1 << 64)
    driver.put(context=3, address=0x100000, length=512)
    driver.kick()
    assert driver.adapter.uses(0x1001FF, 1) and driver.adapter.uses(0, 0x100001)
    assert not driver.adapter.uses(0x100200, 1 << 32) and not driver.adapter.uses(0, 0x100000)


# -- resets -----------------------------------------------------------------------------------------------------------


def by_command(driver: Driver) -> None:
    driver.command(r.CMD_ADAPTER_RESET)


def by_function(driver: Driver) -> None:
    driver.adapter.function.reset()
    driver.write_config(4, 6, 2)


RESETS = pytest.mark.parametrize("reset", [by_command, by_function])
Reset = Callable[[Driver], None]


def set_up_anew(driver: Driver) -> None:
    for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX):
        driver.set_u32(STATE + offset, 0)
    assert driver.setup() == 0


def no_room(driver: Driver) -> None:
    """Two completions have found no room, and two requests are in flight."""
    driver.setup(8, 1)
    driver.port.at_once = lambda srb: None
    for context in range(130):
        driver.put(context=context)
    driver.kick()
    driver.turn()
    assert counted(driver, "completions_waiting") == [2]
    driver.port.at_once = None
    for context in (500, 501):
        driver.put(context=context)
    driver.kick()


@RESETS
def test_nothing_of_the_time_before_is_posted_to_new_rings(make: Make, reset: Reset) -> None:
    """Not what found no room, nor what is on its way."""
    driver = make()
    no_room(driver)
    driver.port.complete(driver.port.srbs[0])
    reset(driver)
    assert driver.port.resets == 1 and driver.port.srbs == []
    assert counted(driver, "outstanding", "completions_waiting") == [0, 0]
    assert not driver.adapter.completions.is_due and driver.clock.next_deadline() is None
    set_up_anew(driver)
    driver.turn()
    assert counted(driver, "outstanding", "completions_waiting") == [0, 0]
    driver.put(context=77)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert [done[0] for done in driver.completions()] == [77]


def test_a_kick_is_for_the_rings_it_found(make: Make) -> None:
    """Nor does what a reset has ended make anybody look at those that are set up behind it."""
    driver = make()
    heard = Heard(driver)
    no_room(driver)
    driver.write(0x4018, 0)
    by_command(driver)
    heard.events.clear()
    set_up_anew(driver)
    driver.put(context=77)  # without a kick
    driver.turn()
    assert heard.events == ["set up"]


def test_a_reset_of_the_function_is_as_power_on(driver: Driver) -> None:
    driver.write(0x2010, 0xF)
    driver.command(r.CMD_SETUP_REQCALLTHRESHOLD, (1).to_bytes(4, "little"))
    driver.put()
    driver.kick()
    before = driver.peek(CMP, st.PAGE_SIZE), driver.peek(STATE, st.PAGE_SIZE)
    driver.adapter.function.reset()
    driver.turn()
    assert driver.port.resets == 1 and driver.port.srbs == []
    driver.write_config(4, MEMORY_ENABLE, 2)
    assert driver.read(0x2010) == 0 and not driver.adapter.commands.threshold_enabled
    assert (driver.peek(CMP, st.PAGE_SIZE), driver.peek(STATE, st.PAGE_SIZE)) == before


def held(driver: Driver, completed: int = 1) -> int:
    """A completion is posted and not announced: of a driver that has had many in flight. Interrupts so far."""
    driver.write(0x2010, 0xF)
    for context in range(32):
        driver.put(context=context, length=512)
    driver.kick()
    for srb in driver.port.srbs[:completed]:
        driver.port.complete(srb)
    driver.turn()
    if completed == 32:
        driver.completions()
        driver.put(length=512)
        driver.kick()
        driver.port.complete(driver.port.srbs[0])
        driver.turn()
    assert driver.adapter.moderation.announcer.snapshot()["waiting"] == 1
    return driver.adapter.function.interrupts.signals


def test_a_reset_announces_what_was_posted_before_it(driver: Driver) -> None:
    before = held(driver, completed=32)
    assert driver.port.srbs == []
    by_command(driver)
    assert driver.adapter.function.interrupts.signals == before + 1


def test_after_a_reset_of_the_function_nothing_is_announced(driver: Driver) -> None:
    before = held(driver)
    driver.adapter.function.reset()
    driver.clock.advance(10 * MS)
    driver.turn()
    assert driver.adapter.function.interrupts.signals == before
    assert driver.adapter.moderation.announcer.snapshot()["waiting"] == 0


def test_an_adapter_that_goes_on_elsewhere_owes_its_driver_no_interrupt(driver: Driver) -> None:
    before = held(driver, completed=32)
    driver.adapter.settle()
    assert driver.adapter.function.interrupts.signals == before + 1


@RESETS
def test_what_one_driver_had_in_flight_is_nothing_to_the_next(driver: Driver, reset: Reset) -> None:
    held(driver)
    reset(driver)
    set_up_anew(driver)
    driver.write(0x2010, 0xF)
    before = driver.adapter.function.interrupts.signals
    driver.put(length=512)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert driver.adapter.function.interrupts.signals == before + 1


# -- moderation -------------------------------------------------------------------------------------------------------


def test_one_request_at_a_time_is_announced_at_once_with_data_too(driver: Driver) -> None:
    """However far the indices are."""
    rings = driver.adapter.access.rings
    assert rings is not None
    start = 0xFFFFFFF0
    driver.prod = driver.cons = rings.request_cons = rings.completion_prod = start
    for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX):
        driver.set_u32(STATE + offset, start)
    driver.write(0x2010, 0xF)
    driver.port.at_once = lambda srb: None
    for number in range(1, 41):
        driver.put(length=512)
        driver.kick()
        assert driver.adapter.function.interrupts.signals == number
        assert driver.adapter.moderation.announcer.snapshot()["depth"] == 1
        driver.completions()
        driver.clock.advance(100 * US)


def test_who_has_no_way_to_ask_for_fewer_kicks_does_not_say_that_it_has(driver: Driver) -> None:
    rings = driver.adapter.access.rings
    assert rings is not None
    assert not RingAdapter.suppress_kicks(driver.adapter, rings)


def test_a_completion_opens_a_window(driver: Driver) -> None:
    """The next request may come soon after it, however long this one took."""
    busy(driver)
    driver.port.at_once = None
    driver.put()
    driver.kick()
    for _ in range(50):
        driver.clock.advance(100 * US)
        driver.turn()
    window = driver.adapter.moderation.window
    assert not window.is_open
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert window.is_open
    driver.put(context=99)
    driver.turn()
    assert [srb.context[0] for srb in driver.port.srbs] == [99]


# -- its parts --------------------------------------------------------------------------------------------------------


def test_what_comes_and_goes_on_the_bus_is_announced(driver: Driver) -> None:
    assert driver.setup_messages() == 0
    driver.bus.attach(3, 0, disk(4096))
    driver.bus.detach(3, 0)
    assert counted(driver, "messages") == [2]


def test_those_that_end_together_come_back_together(driver: Driver) -> None:
    """As the port was told they may, by both models."""
    for context in range(3):
        driver.put(context=context)
    driver.kick()
    one, many = driver.port._one, driver.port._many
    assert one is not None and all(srb.completion is one for srb in driver.port.srbs)
    for srb in driver.port.srbs:
        srb.srb_status = SRB_STATUS_SUCCESS
    many(driver.port.srbs)
    driver.turn()
    assert [done[0] for done in driver.completions()] == [0, 1, 2]


def test_power_on_and_off_go_through_to_the_port_and_the_function(make: Make) -> None:
    driver = make()
    assert driver.port.calls == ["start"]
    event = os.eventfd(0)
    flags = dev.IRQ_SET_DATA_EVENTFD | dev.IRQ_SET_ACTION_TRIGGER
    driver.adapter.function.set_irqs(MSI, flags, 0, 1, [event], b"")
    assert driver.setup() == 0
    driver.adapter.stop()
    assert driver.port.calls == ["start", "stop", "unload"]
    assert driver.adapter.access.rings is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(event)

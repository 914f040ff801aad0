"""Rings whose memory changes under them, can only be read, or is reached by message; who hears that there are rings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.registers import CMD_ADAPTER_RESET, STATUS_FAILED
from hba.adapters.ring.watcher import RingWatcher
from hba.clock import MS, US
from hba.errors import DmaFault
from hba.srb import Srb
from hba.vfio_user.device import DMA_READ
from tests.adapters.pvscsi.driver import CMP, COMMAND_REGISTER, RAM, REQ, STATE, Driver
from tests.adapters.pvscsi.test_messages import ByMessage, take
from tests.adapters.pvscsi.test_moderation import ask_for_threshold, busy
from tests.adapters.pvscsi.test_saved import keep, other, saved, source, stop, unit

__all__ = ["source"]  # a fixture

Make = Callable[..., Driver]
PAGE = 0x1000


class Heard(RingWatcher):
    """`events`: rings that were set up, looks with what they found, requests that were taken."""

    def __init__(self, driver: Driver) -> None:
        self.events: list[object] = []
        driver.adapter.watch(self)

    def set_up(self) -> None:
        self.events.append("set up")

    def looked(self, ready: int, why: str) -> None:
        self.events.append((why, ready))

    def took(self, srbs: Sequence[Srb]) -> None:
        self.events.append([srb.context[0] for srb in srbs])


def test_what_was_refused_is_told_though_a_watcher_fails(driver: Driver) -> None:
    class Fails(RingWatcher):
        def took(self, srbs: Sequence[Srb]) -> None:
            raise ZeroDivisionError

    driver.adapter.watch(Fails())
    driver.put(context=7, bus=1)
    driver.write(0x4018, 0)
    with pytest.raises(ZeroDivisionError):
        driver.turn()
    assert [done[0] for done in driver.completions()] == [7]


def other_memory(driver: Driver) -> None:
    """What the guest's memory was is not it any more: from now on it is a copy elsewhere."""
    content = driver.peek(0, RAM)
    driver.memory.unmap(0, RAM)
    os.close(driver.fd)
    driver.fd = os.memfd_create("moved")
    os.pwrite(driver.fd, content, 0)
    driver.memory.map(0, RAM, 3, os.dup(driver.fd), 0)


def with_page(driver: Driver, address: int, prot: int, shared: bool = True) -> None:
    """All memory as it was, but for one page."""
    driver.memory.unmap(0, RAM)
    driver.memory.map(0, address, 3, os.dup(driver.fd), 0)
    driver.memory.map(address, PAGE, prot, os.dup(driver.fd) if shared else None, address if shared else 0)
    driver.memory.map(address + PAGE, RAM - address - PAGE, 3, os.dup(driver.fd), address + PAGE)


# -- memory that is elsewhere -----------------------------------------------------------------------------------------


def test_rings_follow_memory_that_moves(driver: Driver) -> None:
    assert driver.setup_messages() == 0
    driver.port.at_once = lambda srb: None
    for context in range(1, 4):
        other_memory(driver)
        driver.put(context=context)
        driver.kick()
        assert [done[0] for done in driver.completions()] == [context]
        driver.adapter.hot_plug("added", context, 0)
        assert take(driver) == [("added", context, 0)]


def test_a_look_follows_memory_that_moves(driver: Driver) -> None:
    busy(driver)
    for context in range(50, 53):
        other_memory(driver)
        driver.put(context=context)
        kicks = driver.adapter.kicks
        driver.loop.run_once(0)
        assert [done[0] for done in driver.completions()] == [context]
        assert driver.adapter.kicks == kicks


def test_whether_the_driver_has_seen_its_completions_is_looked_up_where_they_are_now(driver: Driver) -> None:
    driver.write(0x2010, 0xF)
    for context in range(32):
        driver.put(context=context, length=512)
    driver.kick()
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    before = driver.adapter.function.interrupts.signals
    other_memory(driver)
    assert len(driver.completions()) == 1
    driver.clock.advance(MS)
    assert driver.adapter.function.interrupts.signals == before
    shown = driver.adapter.moderation.announcer.snapshot()
    assert (shown["held"], shown["spared"]) == (1, 1)


def test_the_last_that_has_room_is_taken_by_a_look(driver: Driver) -> None:
    busy(driver)
    driver.port.at_once = None
    for context in range(driver.entries - 1):
        driver.put(context=context)
    driver.turn()
    assert driver.adapter.in_flight.outstanding == driver.entries - 1
    driver.put(context=99)
    driver.turn()
    assert driver.adapter.in_flight.outstanding == driver.entries


# -- memory that is only read, or reached by message ------------------------------------------------------------------


def test_the_request_ring_is_only_read(make: Make) -> None:
    driver = make()
    with_page(driver, REQ, DMA_READ)
    assert driver.setup() == 0
    driver.put(context=5)
    driver.kick()
    assert [srb.context[0] for srb in driver.port.srbs] == [5]


@pytest.mark.parametrize("page", [STATE, CMP])
def test_the_others_are_written(make: Make, page: int) -> None:
    driver = make()
    with_page(driver, page, DMA_READ)
    assert driver.setup() == STATUS_FAILED


@pytest.mark.parametrize("page", [STATE, REQ, CMP])
def test_a_ring_that_is_nowhere_is_not_set_up(make: Make, page: int) -> None:
    driver = make()
    with_page(driver, page, 3)
    driver.memory.unmap(page, PAGE)
    assert driver.setup() == STATUS_FAILED
    assert driver.adapter.access.rings is None


@pytest.mark.parametrize("page", [STATE, CMP])
def test_a_reset_writes_no_completions_when_it_takes_a_message_for_any_part(make: Make, page: int) -> None:
    """They would arrive after the answer, when the driver may have given the memory back."""
    driver = make()
    driver.memory.client = ByMessage(driver)
    with_page(driver, page, 3, shared=False)
    assert driver.setup() == 0
    driver.put()
    driver.kick()
    before = driver.peek(CMP, PAGE), driver.peek(STATE, PAGE)
    driver.command(CMD_ADAPTER_RESET)
    driver.turn()
    assert driver.port.srbs == [] and driver.adapter.in_flight.outstanding == 0
    assert (driver.peek(CMP, PAGE), driver.peek(STATE, PAGE)) == before


@pytest.fixture
def remote(make: Make) -> tuple[Driver, ByMessage]:
    driver = make(ram=False)
    driver.memory.client = client = ByMessage(driver)
    driver.memory.map(0, RAM, 3, None, 0)
    return driver, client


def test_by_message_the_last_slot_is_used_too(remote: tuple[Driver, ByMessage]) -> None:
    driver, _ = remote
    driver.setup(8, 1)
    driver.port.at_once = lambda srb: None
    for context in range(130):
        driver.put(context=context)
    for _ in range(3):
        driver.kick()
    assert len(driver.completions()) == 128
    driver.clock.advance(MS)
    assert [done[0] for done in driver.completions()] == [128, 129]


def test_by_message_nothing_is_looked_at_and_each_batch_is_announced(remote: tuple[Driver, ByMessage]) -> None:
    """Each look would be a message, and so would asking what the driver has seen."""
    driver, _ = remote
    driver.setup()
    ask_for_threshold(driver)
    driver.write(0x2010, 0xF)
    for context in range(32):
        driver.put(context=context, length=512)
        driver.kick()
        driver.clock.advance(20 * US)
    assert not driver.adapter.moderation.window.is_open
    for number in range(1, 33):
        driver.port.complete(driver.port.srbs[0])
        driver.turn()
        assert driver.adapter.function.interrupts.signals == number
    shown = driver.adapter.moderation.announcer.snapshot()
    assert (shown["depth"], shown["held"]) == (1, 0)


def test_indices_that_no_message_reaches(remote: tuple[Driver, ByMessage]) -> None:
    driver, client = remote
    driver.setup()
    told: list[str] = []
    driver.adapter.on_unreachable = told.append

    def refused(address: int, length: int) -> bytes:
        raise DmaFault(address, length, "refused")

    driver.put()
    client.dma_read = refused  # type: ignore[method-assign]
    driver.kick()
    assert "refused" in driver.adapter.access.fault and driver.port.srbs == []
    assert len(told) == 1 and told[0].startswith("its rings: ") and "refused" in told[0]
    driver.kick()
    assert len(told) == 1


def test_rings_that_are_given_up_in_the_middle_of_a_pass(driver: Driver) -> None:
    """Whatever makes that happen: nothing more is taken from them, and nothing written to them."""
    first: list[Srb] = []

    def give_up(srb: Srb) -> None:
        if not first:
            driver.adapter.forget_rings()
        first.append(srb)

    driver.port.at_once = give_up
    for context in range(30):
        driver.put(context=context)
    before = driver.peek(0, RAM)
    driver.kick()
    assert len(first) == 16  # the batch that was taken
    assert driver.peek(0, RAM) == before
    assert driver.adapter.in_flight.outstanding == 0


# -- who hears of it --------------------------------------------------------------------------------------------------


def test_a_set_up_is_told_once(make: Make) -> None:
    driver = make()
    heard = Heard(driver)
    assert driver.setup() == 0
    assert heard.events == ["set up"]
    other_memory(driver)
    driver.put(context=1)
    driver.kick()
    assert heard.events == ["set up", ("kick", 1), [1]]


def test_rings_of_an_adapter_that_was_saved_are_told_of_when_they_are_used_first(make: Make, source: Driver) -> None:
    state = saved(source)
    driver = other(make, source)
    heard = Heard(driver)
    assert stop(driver) is None
    driver.adapter.function.restore(state)
    driver.turn()
    assert heard.events == []
    driver.adapter.function.resume()
    driver.turn()
    assert heard.events == ["set up", ("kick", 0)]
    other_memory(driver)
    driver.put(context=1)
    driver.kick()
    assert heard.events == ["set up", ("kick", 0), ("kick", 1), [1]]


def test_rings_that_were_there_before_are_not_those_of_the_adapter_that_was_saved(make: Make) -> None:
    """Which had none."""
    state = saved(keep(make(), None, unit()))
    driver = keep(make(), None, unit())
    assert driver.setup() == 0
    assert stop(driver) is None
    driver.write_config(COMMAND_REGISTER, 0, 2)
    driver.adapter.function.restore(state)
    assert driver.adapter.snapshot()["rings"] is None


def test_what_could_not_be_reached_is_told_again_when_it_was_there_meanwhile(driver: Driver) -> None:
    told: list[str] = []
    driver.adapter.on_unreachable = told.append
    for number in (1, 2):
        driver.memory.unmap(0, RAM)
        driver.kick()
        assert len(told) == number and driver.adapter.snapshot()["unreachable"] == told[-1]
        driver.memory.map(0, RAM, 3, os.dup(driver.fd), 0)
        driver.kick()
        assert driver.adapter.snapshot()["unreachable"] == ""


def test_a_reset_forgets_what_was_wrong(driver: Driver) -> None:
    driver.set_u32(STATE + st.REQ_PROD_IDX, 1000)
    driver.kick()
    assert driver.adapter.snapshot()["ring_fault"]
    driver.command(r.CMD_ADAPTER_RESET)
    assert driver.adapter.snapshot()["ring_fault"] == ""
    assert driver.adapter.what_waits().fault == ""


def test_part_of_a_completion_does_not_wait(driver: Driver) -> None:
    with pytest.raises(ValueError, match="3 numbers are no completions of 5 each"):
        driver.adapter.completions.wait([1, 2, 3])
    assert driver.adapter.completions.waiting == 0


def test_a_fault_of_any_length_can_be_saved(driver: Driver) -> None:
    driver.adapter.access.stop("x" * 5000)
    assert driver.adapter.what_waits().fault == "x" * 1000

"""Bus mastering off and on again, and D3hot and back, lose nothing; nor does an abort of what was never announced."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.clock import S
from hba.srb import SRB_FUNCTION_ABORT_COMMAND, SRB_STATUS_ABORTED
from tests.adapters.pvscsi.driver import BUS_MASTER, COMMAND_REGISTER, MEMORY_ENABLE, Driver


def bus_master(driver: Driver, on: bool) -> None:
    driver.write_config(COMMAND_REGISTER, MEMORY_ENABLE | (BUS_MASTER if on else 0), 2)


def power(driver: Driver, on: bool) -> None:
    driver.write_config(driver.adapter.function.config.cell("PM_CONTROL").register.offset, 0 if on else 3, 2)


WAYS = pytest.mark.parametrize("switch", [bus_master, power], ids=["bus master", "D3hot"])
Switch = Callable[[Driver, bool], None]


@WAYS
def test_requests_that_were_put_on_the_ring_meanwhile_are_taken(driver: Driver, switch: Switch) -> None:
    switch(driver, False)
    for context in range(16):
        driver.put(context=context)
        driver.kick()
    assert not driver.port.srbs
    switch(driver, True)
    driver.turn()
    assert [srb.context[0] for srb in driver.port.srbs] == list(range(16))


@WAYS
def test_what_completes_meanwhile_is_posted_and_announced(driver: Driver, switch: Switch) -> None:
    driver.write(0x2010, 0x3)  # INTR_MASK: completions
    for context in range(4):
        driver.put(context=context)
    driver.kick()
    switch(driver, False)
    for srb in list(driver.port.srbs):
        driver.port.complete(srb)
    driver.turn()
    assert driver.completions() == []
    driver.clock.advance(60 * S)
    driver.turn()
    assert driver.completions() == []
    raised = driver.adapter.function.interrupts.signals
    switch(driver, True)
    driver.turn()
    assert [done[0] for done in driver.completions()] == list(range(4))
    assert driver.adapter.function.interrupts.signals > raised
    assert driver.adapter.in_flight.outstanding == 0


@WAYS
def test_nobody_looks_in_vain_while_memory_is_out_of_reach(driver: Driver, switch: Switch) -> None:
    driver.put()
    driver.kick()
    switch(driver, False)
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert not driver.adapter.completions.is_due


@WAYS
def test_messages_about_units_wait_as_well(driver: Driver, switch: Switch) -> None:
    assert driver.setup_messages() == 0
    switch(driver, False)
    driver.adapter.hot_plug("added", 3, 0)
    assert driver.u32(0x1000 + st.MSG_PROD_IDX) == 0
    switch(driver, True)
    driver.turn()
    assert driver.u32(0x1000 + st.MSG_PROD_IDX) == 1


def test_rings_that_were_given_up_meanwhile_stay_given_up(driver: Driver) -> None:
    driver.put()
    bus_master(driver, False)
    driver.command(r.CMD_ADAPTER_RESET)
    bus_master(driver, True)
    driver.turn()
    assert not driver.port.srbs and driver.completions() == []


@pytest.mark.parametrize("number", [r.CMD_ABORT_CMD, r.CMD_RESET_DEVICE, r.CMD_RESET_BUS])
def test_a_command_finds_requests_that_were_never_announced(driver: Driver, number: int) -> None:
    descriptor = {
        r.CMD_ABORT_CMD: st.ABORT_CMD.pack(7, 0, 0),
        r.CMD_RESET_DEVICE: st.RESET_DEVICE.pack(0, bytes(8)),
        r.CMD_RESET_BUS: b"",
    }[number]
    driver.put(context=7)
    assert driver.command(number, descriptor) == 0
    victim, task = driver.port.srbs
    assert victim.context[0] == 7
    if number == r.CMD_ABORT_CMD:
        assert task.function == SRB_FUNCTION_ABORT_COMMAND and task.next_srb is victim
        driver.port.complete(victim, SRB_STATUS_ABORTED)
        driver.turn()
        assert [done[0] for done in driver.completions()] == [7]


def test_an_abort_after_bus_mastering_came_back_finds_its_request(driver: Driver) -> None:
    bus_master(driver, False)
    driver.put(context=7)
    driver.kick()
    bus_master(driver, True)  # the driver aborts before the device has had a turn
    driver.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(7, 0, 0))
    assert [srb.function for srb in driver.port.srbs][-1] == SRB_FUNCTION_ABORT_COMMAND

"""The guest driver's rules, one test each, named after the rule."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.registry import ADAPTERS
from hba.adapters.ring.turn import BATCH
from hba.adapters.ring.verifier import RingVerifier
from hba.clock import S
from hba.srb import SRB_STATUS_SUCCESS
from tests.adapters.pvscsi.driver import DATA, RAM, REQ, STATE, Driver

LIST = 0x300000


def test_a_well_behaved_driver_has_no_findings(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.write(0x2010, 0xF)
    for round_ in range(5):
        watched.scatter(LIST, [(DATA, 512, 0), (DATA + 0x1000, 512, 0)])
        for context in range(10):
            watched.put(context=context, length=1024, address=LIST, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
        watched.kick()
        assert len(watched.completions()) == 10, round_
        watched.write(0x100C, watched.read(0x100C))
        watched.clock.advance(3 * S)
    assert watched.found() == {}


def test_GD_01_request_descriptor_rewritten(watched: Driver) -> None:
    for context in range(BATCH + 1):
        watched.put(context=context)
    # The first batch's execution rewrites a descriptor of the next, which the device owns by then.
    watched.port.at_once = lambda srb: watched.poke(REQ + 128 * BATCH + 40, b"\xff")
    watched.kick()
    assert watched.found() == {"GD-01": 1}


def test_GD_02_scatter_list_rewritten(watched: Driver) -> None:
    watched.scatter(LIST, [(DATA, 512, 0), (DATA + 0x1000, 512, 0)])
    watched.put(address=LIST, length=1024, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    watched.kick()
    watched.scatter(LIST, [(DATA, 256, 0)])
    watched.port.complete(watched.port.srbs[0])
    assert watched.found() == {"GD-02": 1}


def test_GD_03_completions_not_consumed(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.put()
    watched.kick()
    watched.clock.advance(9 * S)
    assert watched.found() == {}
    watched.clock.advance(3 * S)
    assert watched.found() == {"GD-03": 1}
    watched.clock.advance(60 * S)
    assert watched.found() == {"GD-03": 1}  # once


def test_GD_04_consumer_index_makes_no_sense(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.set_u32(STATE + st.CMP_CONS_IDX, 500)
    watched.put()
    watched.kick()
    assert watched.found() == {"GD-04": 1}


def test_GD_05_producer_jumped(watched: Driver) -> None:
    watched.set_u32(STATE + st.REQ_PROD_IDX, 33)
    watched.kick()
    assert watched.found() == {"GD-05": 1}


def test_GD_06_context_reused_in_flight(watched: Driver) -> None:
    watched.put(context=9)
    watched.put(context=9)
    watched.kick()
    assert watched.found() == {"GD-06": 1}


def test_GD_07_dma_outside_guest_memory(watched: Driver) -> None:
    watched.put(address=RAM, length=512)
    watched.kick()
    assert watched.found() == {"GD-07": 1}


def test_GD_08_scatter_entries_overlap(watched: Driver) -> None:
    watched.scatter(LIST, [(DATA, 1024, 0), (DATA + 512, 1024, 0)])
    watched.put(address=LIST, length=2048, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    watched.kick()
    assert watched.found() == {"GD-08": 1}


def test_GD_08_does_not_apply_to_data_the_device_only_reads(watched: Driver) -> None:
    watched.scatter(LIST, [(DATA, 1024, 0), (DATA + 512, 1024, 0)])
    watched.put(address=LIST, length=2048, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TODEVICE)
    watched.kick()
    assert watched.found() == {}


def test_GD_09_malformed_scatter_list(watched: Driver) -> None:
    watched.scatter(LIST, [(LIST, 0, st.SG_FLAG_CHAIN_ELEMENT)])
    watched.put(address=LIST, length=2048, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    watched.kick()
    assert watched.found() == {"GD-09": 1}


def test_GD_10_memory_removed_in_flight(watched: Driver) -> None:
    watched.memory.unmap(0, RAM)
    watched.memory.map(0, 0x100000, 3, os.dup(watched.fd), 0)
    watched.memory.map(0x100000, RAM - 0x100000, 3, os.dup(watched.fd), 0x100000)
    watched.put(length=512)
    watched.put(context=2)
    watched.kick()
    watched.memory.unmap(0x100000, RAM - 0x100000)
    watched.port.complete(watched.port.srbs[0])
    assert watched.found() == {"GD-10": 1}
    watched.port.complete(watched.port.srbs[0])  # it had no data there
    assert watched.found() == {"GD-10": 1}


@pytest.mark.parametrize("together", [False, True])
def test_GD_10_is_found_for_each_request(watched: Driver, together: bool) -> None:
    watched.memory.unmap(0, RAM)
    watched.memory.map(0, 0x100000, 3, os.dup(watched.fd), 0)
    watched.memory.map(0x100000, RAM - 0x100000, 3, os.dup(watched.fd), 0x100000)
    for context in (1, 2, 3):
        watched.put(context=context, length=512)
    watched.kick()
    watched.memory.unmap(0x100000, RAM - 0x100000)
    first, second, third = watched.port.srbs[:3]
    if together:
        for srb in (first, second):
            srb.srb_status = SRB_STATUS_SUCCESS
        watched.adapter.complete_all([first, second])
    else:
        watched.port.complete(first)
        watched.port.complete(second)
    assert watched.found() == {"GD-10": 2}
    (removed,) = [watcher._removed for watcher in watched.adapter.access.watchers if isinstance(watcher, RingVerifier)]
    assert removed.ranges
    watched.port.complete(third)
    assert watched.found() == {"GD-10": 3}
    assert not removed.ranges  # nobody is left whom it could concern


@pytest.mark.parametrize(
    ("address", "removed", "found"),
    [
        (0x17FE00, (0x100000, 0x180000), 1),  # up to the end of the one, which is the beginning of the other
        (0x180000, (0x100000, 0x180000), 1),
        (0x17FE00, (0x180000,), 0),
        (0x180000, (0x100000,), 0),
        (0x17FE01, (0x100000, 0x180000), 2),  # one byte beyond
    ],
)
def test_GD_10_is_about_the_memory_of_the_request(
    watched: Driver, address: int, removed: tuple[int, ...], found: int
) -> None:
    watched.memory.unmap(0, RAM)
    watched.memory.map(0, 0x100000, 3, os.dup(watched.fd), 0)
    for at in (0x100000, 0x180000):
        watched.memory.map(at, 0x80000, 3, os.dup(watched.fd), at)
    watched.put(address=address, length=512)
    watched.kick()
    for at in removed:
        watched.memory.unmap(at, 0x80000)
    watched.port.complete(watched.port.srbs[0])
    assert watched.found().get("GD-10", 0) == found


def test_GD_10_is_about_requests_in_flight(watched: Driver) -> None:
    """What is unmapped when there are none concerns nobody, wherever the next one has its data."""
    watched.memory.unmap(0, RAM)
    watched.memory.map(0, 0x100000, 3, os.dup(watched.fd), 0)
    watched.memory.map(0x100000, 0x80000, 3, os.dup(watched.fd), 0x100000)
    watched.memory.unmap(0x100000, 0x80000)
    (removed,) = [watcher._removed for watcher in watched.adapter.access.watchers if isinstance(watcher, RingVerifier)]
    assert not removed.ranges


def test_GD_11_undefined_register(watched: Driver) -> None:
    watched.read(0x500)
    watched.read(0x500)
    watched.write(0x5000, 1)
    assert watched.found() == {"GD-11": 2}


def test_GD_12_wrong_width(watched: Driver) -> None:
    watched.read(0x2010, 1)
    watched.write(0x2010, 1, 2)
    assert watched.found() == {"GD-12": 2}


def test_GD_13_wrong_direction(watched: Driver) -> None:
    watched.write(0x8, 1)
    watched.read(0x4018)
    assert watched.found() == {"GD-13": 2}


def test_GD_14_kick_without_work(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.put()
    watched.kick()
    watched.kick()
    watched.kick()
    watched.completions()
    assert watched.found() == {"GD-14": 1}
    watched.clock.advance(2 * S)
    assert watched.found() == {"GD-14": 2}


def test_GD_14_is_said_once_of_a_kick(watched: Driver) -> None:
    """It was said again of every request after it: 18,940 times of fio behind one reset."""
    watched.port.at_once = lambda srb: None
    watched.kick()
    for _ in range(50):
        watched.put()
        watched.kick()
        watched.completions()
    assert watched.found() == {"GD-14": 1}


@pytest.mark.parametrize("number", [r.CMD_ABORT_CMD, r.CMD_RESET_DEVICE, r.CMD_RESET_BUS, r.CMD_ADAPTER_RESET])
def test_GD_14_a_driver_that_drains_its_ring_does_nothing_wrong(watched: Driver, number: int) -> None:
    descriptor = {
        r.CMD_ABORT_CMD: st.ABORT_CMD.pack(7, 0, 0),
        r.CMD_RESET_DEVICE: st.RESET_DEVICE.pack(0, bytes(8)),
    }.get(number, b"")
    watched.port.at_once = lambda srb: None
    watched.put()
    watched.kick()
    watched.kick()
    watched.command(number, descriptor)
    if number == r.CMD_ADAPTER_RESET:
        watched.setup()
    watched.put()
    watched.kick()
    watched.completions()
    watched.clock.advance(3 * S)
    assert watched.found() == {}


def test_GD_15_work_without_kick(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.put()
    watched.kick()
    watched.put()
    watched.clock.advance(S - 1)
    assert watched.found() == {}
    watched.clock.advance(1)
    assert watched.found() == {"GD-15": 1}
    watched.clock.advance(3 * S)
    watched.completions()
    assert watched.found() == {"GD-15": 1}


def test_GD_16_reset_with_requests_outstanding(watched: Driver) -> None:
    watched.put()
    watched.kick()
    watched.command(1)
    assert watched.found() == {"GD-16": 1}


def test_GD_17_interrupt_not_acknowledged(watched: Driver) -> None:
    watched.port.at_once = lambda srb: None
    watched.adapter.function.interrupts.configure("intx")
    watched.write(0x2010, 0xF)
    watched.put()
    watched.kick()
    watched.completions()
    watched.clock.advance(12 * S)
    assert watched.found() == {"GD-17": 1}


@pytest.mark.parametrize(
    ("step", "in_vain"),
    [
        (lambda driver: driver.read(0x100C), True),
        (lambda driver: driver.read(0x2010), True),
        (lambda driver: driver.write(0x2010, 0xF), True),
        (lambda driver: driver.write(0x100C, r.INTR_MSG_0), False),  # which leaves the line up, and time begins anew
        (lambda driver: driver.write(0x100C, r.INTR_CMPL_0), False),
    ],
)
def test_GD_17_what_acknowledges(watched: Driver, step: Callable[[Driver], object], in_vain: bool) -> None:
    interrupts = watched.adapter.function.interrupts
    interrupts.configure("intx")
    watched.write(0x2010, 0xF)
    watched.clock.advance(20 * S)  # with nothing to acknowledge
    watched.adapter.announce_completions()
    watched.clock.advance(5 * S)
    step(watched)
    watched.clock.advance(5 * S - 1)
    assert watched.found() == {}
    watched.clock.advance(1)
    assert watched.found() == ({"GD-17": 1} if in_vain else {})
    watched.clock.advance(5 * S)
    left_up = interrupts.asserted
    assert watched.found() == ({"GD-17": 1} if left_up else {})
    assert watched.verifier is not None
    assert [finding.message for finding in watched.verifier.findings] == [
        "INTR_STATUS 0x1 not cleared for 10 s"
    ] * left_up
    watched.clock.advance(60 * S)
    assert len(watched.verifier.findings) == left_up


def test_GD_18_malformed_request(watched: Driver) -> None:
    watched.put(context=1, flags=st.FLAG_DIR_TOHOST | st.FLAG_DIR_TODEVICE, length=512)
    watched.put(context=2, flags=0x40)
    watched.kick()
    assert watched.found() == {"GD-18": 2}


def test_GD_19_kick_before_rings(watched: Driver) -> None:
    watched.command(1)
    watched.write(0x4018, 0)
    assert watched.found() == {"GD-19": 1}


def test_GD_20_dma_with_bus_mastering_off(watched: Driver) -> None:
    watched.write_config(4, 2, 2)
    assert watched.command(7, st.CONFIG.pack(DATA, 0x2120 << 32, 0x1958, 0)) == 0xFFFFFFFF
    watched.kick()
    assert watched.found() == {"GD-20": 2}


def test_every_rule_of_the_guest_has_a_test_here() -> None:
    tests = "\n".join(name for name in globals() if name.startswith("test_GD"))
    for rule in [rule for rule in ADAPTERS.rules.values() if rule.model == "guest"]:
        assert f"test_{rule.id.replace('-', '_')}_" in tests, rule.id

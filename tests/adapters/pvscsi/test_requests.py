from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

from hba.adapters.moderation.options import InterruptOptions
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.adapter import MAX_TRANSFER
from hba.adapters.pvscsi.status import HOST_STATUS
from hba.clock import MS
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUSY,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_ERROR,
    SRB_STATUS_SELECTION_TIMEOUT,
    Srb,
)
from tests.adapters.pvscsi.driver import DATA, RAM, REQ, SENSE, STATE, Driver
from tests.scsi.util import disk

Make = Callable[..., Driver]
LIST = 0x300000
SG = st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST


def test_a_descriptor_becomes_an_srb(driver: Driver) -> None:
    driver.put(
        bytes.fromhex("28000000000800000800"), context=0, length=4096, target=3, lun=bytes((0, 2, 0, 0, 0, 0, 0, 0))
    )
    driver.kick()
    (srb,) = driver.port.srbs
    assert (srb.path_id, srb.target_id, srb.lun) == (0, 3, 2)
    assert srb.cdb == bytes.fromhex("28000000000800000800")
    assert srb.srb_flags & SRB_FLAGS_DATA_IN
    assert srb.data_transfer_length == 4096
    assert srb.mdl is not None
    assert list(srb.mdl.segments) == [(DATA, 4096)]
    assert driver.u32(STATE + st.REQ_CONS_IDX) == 1


def test_data_goes_straight_into_guest_memory_and_completes(driver: Driver) -> None:
    def read(srb: Srb) -> None:
        assert srb.mdl is not None
        srb.mdl.write(b"x" * 4096)

    driver.port.at_once = read
    driver.put(length=4096, context=0xABC)
    driver.kick()
    assert driver.completions() == [(0xABC, 4096, 0, 0, 0)]
    assert driver.peek(DATA, 4096) == b"x" * 4096
    assert driver.read(0x100C) == 1


def test_a_short_transfer_is_success_with_the_bytes_moved(driver: Driver) -> None:
    driver.put(length=4096)
    driver.kick()
    (srb,) = driver.port.srbs
    srb.data_transfer_length = 36
    driver.port.complete(srb, SRB_STATUS_DATA_OVERRUN)
    driver.turn()
    assert driver.completions() == [(1, 36, 0, 0, 0)]


@pytest.mark.parametrize("length", [512, 0])
def test_more_than_there_is_room_for_is_an_overrun(driver: Driver, length: int) -> None:
    driver.put(length=length)
    driver.kick()
    (srb,) = driver.port.srbs
    driver.port.complete(srb, SRB_STATUS_DATA_OVERRUN)
    driver.turn()
    assert driver.completions() == [(1, length, 0, 0x12, 0)]


def test_check_condition_carries_sense_cut_to_the_guests_buffer(driver: Driver) -> None:
    driver.put(sense_length=10)
    driver.kick()
    (srb,) = driver.port.srbs
    srb.scsi_status = 2
    srb.sense_info_buffer = bytes(range(18))
    driver.port.complete(srb, SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID)
    driver.turn()
    assert driver.completions() == [(1, 0, 10, 0, 2)]
    assert driver.peek(SENSE, 11) == bytes(range(10)) + b"\0"


def test_selection_timeout_and_busy(driver: Driver) -> None:
    driver.put(context=1)
    driver.put(context=2)
    driver.kick()
    first, second = driver.port.srbs
    driver.port.complete(first, SRB_STATUS_SELECTION_TIMEOUT)
    driver.port.complete(second, SRB_STATUS_BUSY)
    driver.turn()
    assert driver.completions() == [(1, 0, 0, 0x11, 0), (2, 0, 0, 0, 8)]


@pytest.mark.parametrize("status", [*range(0x40)])
def test_every_srb_status_has_an_end_for_the_guest(driver: Driver, status: int) -> None:
    driver.put()
    driver.kick()
    driver.port.complete(driver.port.srbs[0], status)
    driver.turn()
    ((_context, _length, _sense, host, _scsi),) = driver.completions()
    overrun = status == SRB_STATUS_DATA_OVERRUN  # of a request without data: see below
    assert host == (0x12 if overrun else HOST_STATUS.get(status, 0x27))


def test_a_lun_or_bus_this_adapter_cannot_have_is_nobody(driver: Driver) -> None:
    driver.put(context=1, lun=bytes((0, 0, 0, 1, 0, 0, 0, 0)))
    driver.put(context=2, bus=1)
    driver.kick()
    assert [(c[0], c[3]) for c in driver.completions()] == [(1, 0x11), (2, 0x11)]
    assert not driver.port.srbs


@pytest.mark.parametrize(("flags", "length"), [(2, 6), (st.FLAG_DIR_NONE, 17), (st.FLAG_DIR_NONE, 0)])
def test_a_cdb_the_interface_does_not_allow_is_refused(driver: Driver, flags: int, length: int) -> None:
    driver.put(flags=flags, cdb_length=length)
    driver.kick()
    assert [c[3] for c in driver.completions()] == [0x1A]


@pytest.mark.parametrize(
    ("descriptor", "host_status", "bad"),
    [
        ({"flags": st.FLAG_OUT_OF_BAND_CDB}, 0x1A, 1),
        ({"flags": st.FLAG_OUT_OF_BAND_CDB | st.FLAG_DIR_TOHOST, "length": 512}, 0x1A, 1),
        ({"cdb_length": 0}, 0x1A, 1),
        ({"cdb_length": 17}, 0x1A, 1),
        ({"length": MAX_TRANSFER + 1}, 0x12, 1),
        ({"length": MAX_TRANSFER + 1, "address": LIST, "flags": SG}, 0x12, 1),
        ({"length": 512, "address": RAM}, 0x20, 1),
        ({"length": 512, "address": 0x280000, "flags": SG}, 0x12, 1),  # of nothing
        ({"length": 512, "address": RAM, "flags": SG}, 0x20, 1),
        ({"bus": 1}, 0x11, 0),
        ({"lun": bytes((1, 0, 0, 0, 0, 0, 0, 0))}, 0x11, 0),
        ({"lun": bytes((0, 0, 1, 0, 0, 0, 0, 0))}, 0x11, 0),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    driver: Driver, descriptor: dict[str, Any], host_status: int, bad: int
) -> None:
    driver.scatter(LIST, [(DATA, MAX_TRANSFER + 1, 0)])
    driver.put(context=77, **descriptor)
    driver.kick()
    assert driver.completions() == [(77, 0, 0, host_status, 0)]
    assert not driver.port.srbs
    counters = driver.adapter.counters()
    assert (counters["bad_requests"], counters["outstanding"], counters["pieces"]) == (bad, 0, 0)


@pytest.mark.parametrize(("tag", "action"), [(0, 0x20), (0x20, 0x20), (0x21, 0x21), (0x22, 0x22), (0x23, 0x20)])
def test_what_a_tag_asks_for(driver: Driver, tag: int, action: int) -> None:
    driver.put(tag=tag)
    driver.kick()
    assert [srb.queue_action for srb in driver.port.srbs] == [action]


def test_what_is_refused_was_for_nobody_and_what_is_taken_for_its_unit(driver: Driver) -> None:
    driver.bus.attach(3, 2, disk())
    driver.put(target=3, lun=bytes((0, 2, 0, 0, 0, 0, 0, 0)))
    driver.put(target=3, lun=bytes((0, 2, 0, 1, 0, 0, 0, 0)))
    driver.kick()
    traffic = driver.adapter.in_flight.traffic.snapshot()
    assert [(unit["unit"], unit["outstanding"]) for unit in traffic] == [("0:3:2", 1)]


@pytest.mark.parametrize("flags", [st.FLAG_DIR_NONE, st.FLAG_DIR_NONE | st.FLAG_DIR_TOHOST])
def test_without_a_direction_there_is_no_data(driver: Driver, flags: int) -> None:
    driver.put(context=1, length=512, flags=flags)
    driver.put(context=2, length=0, flags=st.FLAG_DIR_TOHOST)
    driver.kick()
    assert [(srb.srb_flags, srb.data_transfer_length, srb.mdl) for srb in driver.port.srbs] == [
        (SRB_FLAGS_QUEUE_ACTION_ENABLE, 0, None)
    ] * 2


def test_what_the_guest_lets_be_read_only_is_not_written(driver: Driver) -> None:
    """In the middle of other memory, so that all of a request is looked at piece by piece."""
    driver.memory.map(RAM, RAM, 1, os.dup(driver.fd), 0)
    for context, flags in ((1, st.FLAG_DIR_TODEVICE), (2, st.FLAG_DIR_TOHOST)):
        driver.put(context=context, address=RAM + DATA, length=512, flags=flags)
    driver.kick()
    assert [srb.context[0] for srb in driver.port.srbs] == [1]
    assert [done[:4] for done in driver.completions()] == [(2, 0, 0, 0x20)]


def test_a_sense_buffer_out_of_reach_is_told_of_and_the_request_ends_without(watched: Driver) -> None:
    watched.put()
    descriptor = bytearray(watched.peek(REQ, st.REQUEST_SIZE))
    descriptor[24:32] = (1 << 40).to_bytes(8, "little")
    watched.poke(REQ, bytes(descriptor))
    watched.kick()
    (srb,) = watched.port.srbs
    srb.scsi_status = 2
    srb.sense_info_buffer = bytes(range(18))
    watched.port.complete(srb, SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID)
    watched.turn()
    assert watched.completions() == [(1, 0, 0, 0, 2)]
    assert watched.found() == {"GD-07": 1}


@pytest.mark.parametrize(("requests", "interrupts"), [(1, 1), (16, 1), (17, 2), (32, 2)])
def test_one_interrupt_for_a_batch(make: Make, requests: int, interrupts: int) -> None:
    driver = make(interrupts=InterruptOptions(delay=0))
    driver.setup()
    driver.write(0x2010, 0xF)
    driver.port.at_once = lambda srb: None
    for context in range(requests):
        driver.put(context=context)
    driver.kick()
    assert len(driver.completions()) == requests
    assert driver.adapter.function.interrupts.signals == interrupts


def test_rings_wrap(driver: Driver) -> None:
    driver.port.at_once = lambda srb: None
    for round_ in range(10):
        for context in range(30):
            driver.put(context=round_ * 100 + context)
        driver.kick()
        assert [c[0] for c in driver.completions()] == [round_ * 100 + context for context in range(30)]


def test_indices_wrap_at_32_bits(make: Make) -> None:
    driver = make()
    driver.setup()
    rings = driver.adapter.access.rings
    assert rings is not None
    start = 0xFFFFFFF0
    driver.prod = driver.cons = rings.request_cons = rings.completion_prod = start
    for offset in (st.REQ_PROD_IDX, st.REQ_CONS_IDX, st.CMP_PROD_IDX, st.CMP_CONS_IDX):
        driver.set_u32(STATE + offset, start)
    driver.port.at_once = lambda srb: None
    for _ in range(4):
        for context in range(8):
            driver.put(context=context)
        driver.kick()
        assert len(driver.completions()) == 8
    assert driver.u32(STATE + st.REQ_CONS_IDX) == 0x10


def test_a_producer_that_jumps_stops_the_ring_until_reset(driver: Driver) -> None:
    driver.set_u32(STATE + st.REQ_PROD_IDX, 1000)
    driver.kick()
    assert "reqProdIdx" in driver.adapter.access.fault
    assert not driver.port.srbs
    assert driver.command(1) == 0
    driver.set_u32(STATE + st.REQ_PROD_IDX, 0)
    assert driver.setup() == 0
    driver.put()
    driver.kick()
    assert len(driver.port.srbs) == 1


def test_more_requests_than_completions_fit_are_left_on_the_ring(driver: Driver) -> None:
    for context in range(32):
        driver.put(context=context)
    driver.kick()
    assert len(driver.port.srbs) == 32
    for context in range(5):
        driver.put(context=100 + context)
    driver.kick()
    assert len(driver.port.srbs) == 32
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert len(driver.port.srbs) == 32  # one out, one in
    assert driver.port.srbs[-1].context[0] == 100


def test_completions_wait_for_a_driver_that_does_not_consume(make: Make) -> None:
    driver = make()
    driver.setup(8, 1)  # 256 requests, 128 completions
    driver.port.at_once = lambda srb: None
    for batch in range(2):
        for context in range(100):
            driver.put(context=batch * 100 + context)
        driver.kick()
    assert len(driver.completions()) == 128
    driver.clock.advance(2 * MS)
    driver.turn()
    assert len(driver.completions()) == 72


def test_no_dma_without_bus_master(driver: Driver) -> None:
    driver.put()
    driver.write_config(4, 2, 2)
    driver.kick()
    assert not driver.port.srbs
    driver.write_config(4, 6, 2)
    driver.kick()
    assert len(driver.port.srbs) == 1


def test_rings_survive_a_remap_of_guest_memory(driver: Driver) -> None:
    """Firmware moves memory around: maps go and come back while the rings stay where they are."""
    driver.put(context=5)
    driver.kick()
    driver.memory.unmap(0, RAM)
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    assert driver.completions() == []
    driver.memory.map(0, RAM, 3, os.dup(driver.fd), 0)
    driver.clock.advance(2 * MS)
    driver.turn()
    assert [c[0] for c in driver.completions()] == [5]


# -- scatter lists


def test_scatter_list(driver: Driver) -> None:
    driver.scatter(LIST, [(DATA, 512, 0), (DATA + 0x2000, 1024, 0), (DATA + 0x2400, 512, 0)])
    driver.put(address=LIST, length=2048, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TODEVICE)
    driver.kick()
    (srb,) = driver.port.srbs
    assert srb.srb_flags & SRB_FLAGS_DATA_OUT
    assert srb.mdl is not None
    assert list(srb.mdl.segments) == [(DATA, 512), (DATA + 0x2000, 1536)]
    assert srb.mdl.length == 2048


def test_chained_scatter_list(driver: Driver) -> None:
    driver.scatter(LIST + 0xFE0, [(DATA, 512, 0), (LIST + 0x3000, 0, st.SG_FLAG_CHAIN_ELEMENT)])
    driver.scatter(LIST + 0x3000, [(DATA + 0x1000, 512, 0)])
    driver.put(address=LIST + 0xFE0, length=1024, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    driver.kick()
    (srb,) = driver.port.srbs
    assert srb.mdl is not None
    assert list(srb.mdl.segments) == [(DATA, 512), (DATA + 0x1000, 512)]


def test_a_scatter_list_longer_than_the_transfer_is_cut(driver: Driver) -> None:
    driver.scatter(LIST, [(DATA, 4096, 0)])
    driver.put(address=LIST, length=36, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    driver.kick()
    mdl = driver.port.srbs[0].mdl
    assert mdl is not None
    assert mdl.length == 36


@pytest.mark.parametrize(
    "elements",
    [
        [(LIST, 0, st.SG_FLAG_CHAIN_ELEMENT)],  # to itself, for ever
        [(DATA, 512, 0)] + [(0, 0, 0)] * 255,  # ends before the transfer does
        [(0, 0, 0)] * 256,
    ],
)
def test_a_scatter_list_that_does_not_describe_the_transfer_fails(
    driver: Driver, elements: list[tuple[int, int, int]]
) -> None:
    driver.scatter(LIST, elements)
    driver.put(address=LIST, length=1024, flags=st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST)
    driver.kick()
    assert [c[3] for c in driver.completions()] == [0x12]
    assert not driver.port.srbs


def test_data_outside_memory_fails_the_request_only(driver: Driver) -> None:
    driver.put(context=1, address=RAM - 100, length=4096)
    driver.put(context=2)
    driver.kick()
    assert [(c[0], c[3]) for c in driver.completions()] == [(1, 0x20)]
    assert [s.context[0] for s in driver.port.srbs] == [2]


def test_a_length_beyond_reason_fails(driver: Driver) -> None:
    driver.put(length=1 << 60)
    driver.kick()
    assert [c[3] for c in driver.completions()] == [0x12]


# -- hostile guests


@settings(max_examples=60, deadline=None)
@given(descriptor=hs.binary(min_size=128, max_size=128), scatter=hs.binary(max_size=256))
def test_any_descriptor_ends_exactly_once_or_reaches_the_port(descriptor: bytes, scatter: bytes) -> None:
    driver = Driver(verify=True)
    try:
        driver.setup()
        driver.poke(DATA, scatter)
        driver.port.at_once = lambda srb: None
        driver.poke(0x10000, descriptor)
        driver.set_u32(STATE + st.REQ_PROD_IDX, 1)
        driver.kick()
        completions = driver.completions()
        assert len(completions) == 1
        assert completions[0][0] == int.from_bytes(descriptor[:8], "little")
    finally:
        driver.close()


@settings(max_examples=40, deadline=None)
@given(
    accesses=hs.lists(
        hs.tuples(
            hs.one_of(hs.sampled_from([0, 4, 8, 0x100C, 0x2010, 0x3014, 0x4018]), hs.integers(0, 0x7FFC)),
            hs.one_of(hs.integers(0, 12), hs.integers(0, 0xFFFFFFFF)),
        ),
        max_size=200,
    )
)
def test_any_sequence_of_register_accesses_is_survived(accesses: list[tuple[int, int]]) -> None:
    driver = Driver(verify=True)
    try:
        driver.setup()
        for offset, value in accesses:
            driver.write(offset & ~3, value)
            driver.read(offset & ~3)
            driver.loop.run_once(0)
        driver.turn()
    finally:
        driver.close()


def test_requests_are_submitted_as_a_batch_one_is_a_batch_of_one(driver: Driver) -> None:
    seen: list[str] = []
    submit_all = driver.port.submit_all

    def batch(srbs: Sequence[Srb]) -> None:
        seen.append("begin")
        submit_all(srbs)
        seen.append("end")

    driver.port.submit_all = batch  # type: ignore[method-assign]
    driver.port.at_once = lambda srb: seen.append("srb")
    driver.put(context=1)
    driver.kick()
    assert seen == ["begin", "srb", "end"]
    seen.clear()
    driver.put(context=2)
    driver.put(context=3)
    driver.kick()
    assert seen == ["begin", "srb", "srb", "end"]
    assert len(driver.completions()) == 3

"""What the findings about a guest's driver say: words, place, numbers of each rule, and to the tick when it is said."""

from __future__ import annotations

from typing import Any

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.clock import S
from hba.srb import SRB_STATUS_SUCCESS
from tests.adapters.pvscsi.driver import DATA, STATE, Driver

LIST = 0x300000
SG = st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST


def said(driver: Driver) -> list[tuple[str, str]]:
    assert driver.verifier is not None
    return [(finding.rule, finding.message) for finding in driver.verifier.findings]


def where(driver: Driver) -> list[str]:
    assert driver.verifier is not None
    return [finding.where for finding in driver.verifier.findings]


def details(driver: Driver) -> list[Any]:
    assert driver.verifier is not None
    return [finding.details for finding in driver.verifier.findings]


def at_once(driver: Driver) -> None:
    driver.port.at_once = lambda srb: None


def test_GD_03_once_for_each_time_nothing_is_consumed(watched: Driver) -> None:
    at_once(watched)
    expected: list[tuple[str, str]] = []
    for count in (1, 2, 3):
        for context in range(count):
            watched.put(context=context)
        watched.kick()
        watched.clock.advance(10 * S - 1)
        assert said(watched) == expected
        watched.clock.advance(1)
        expected.append(("GD-03", f"{count} completions not consumed for 10 s"))
        assert said(watched) == expected
        watched.clock.advance(30 * S)
        assert said(watched) == expected
        if count == 2:
            watched.command(r.CMD_ADAPTER_RESET)
            watched.poke(STATE, bytes(64))
            assert watched.setup() == 0
        else:
            watched.completions()
            watched.clock.advance(1 * S)


def test_GD_04_each_index_is_told_once(watched: Driver) -> None:
    at_once(watched)
    for index in (-128 & 0xFFFFFFFF, -129 & 0xFFFFFFFF, 1, -129 & 0xFFFFFFFF, 7):
        watched.set_u32(STATE + st.CMP_CONS_IDX, index)
        watched.clock.advance(1 * S)
        watched.clock.advance(1 * S)
        watched.command(r.CMD_RESET_BUS)
    assert said(watched) == [("GD-04", f"cmpConsIdx {index} with cmpProdIdx 0") for index in (-129 & 0xFFFFFFFF, 1, 7)]


def test_GD_05_and_GD_06_and_GD_16(watched: Driver) -> None:
    watched.put(context=9)
    watched.put(context=9)
    watched.kick()
    watched.set_u32(STATE + st.REQ_PROD_IDX, 40)
    watched.kick()
    watched.command(r.CMD_ADAPTER_RESET)
    assert said(watched) == [
        ("GD-06", "context 0x9 names a request in flight already"),
        ("GD-05", "reqProdIdx is 38 ahead of reqConsIdx; the ring has 32 entries"),
        ("GD-16", "reset with 2 requests outstanding"),
    ]
    assert where(watched) == ["request with context 0x9", "request ring", ""]
    assert details(watched)[-1] == {"outstanding": 2}


def test_a_context_is_free_when_its_request_has_completed(watched: Driver) -> None:
    for _ in range(3):
        watched.put(context=9)
        watched.kick()
        watched.port.complete(watched.port.srbs[0], SRB_STATUS_SUCCESS)
        watched.turn()
        watched.completions()
    assert said(watched) == []


def test_GD_08_which_overlap_and_how_many_more(watched: Driver) -> None:
    for elements, length in (
        ([(DATA + 512, 512, 0), (DATA, 512, 0)], 1024),  # neighbours, the second first
        ([(DATA, 512, 0), (DATA + 511, 512, 0)], 1024),
        ([(DATA, 1024, 0), (DATA + 512, 1024, 0), (DATA + 1024, 512, 0)], 2560),
    ):
        watched.scatter(LIST, elements)
        watched.put(length=length, address=LIST, flags=SG)
        watched.kick()
        watched.port.complete(watched.port.srbs[0])
        watched.turn()
        watched.completions()
    assert said(watched) == [
        ("GD-08", "0x100000+0x200 and 0x1001ff overlap"),
        ("GD-08", "0x100000+0x400 and 0x100200 overlap, and 1 more"),
    ]
    assert where(watched) == ["request ring slot 1", "request ring slot 2"]


@pytest.mark.parametrize(("at", "changed"), [(LIST, True), (LIST + 16, True), (LIST + 32, False), (LIST - 16, False)])
def test_GD_02_what_belongs_to_the_list(watched: Driver, at: int, changed: bool) -> None:
    """As many elements as there are pieces."""
    watched.scatter(LIST, [(DATA, 512, 0), (DATA + 0x1000, 512, 0)])
    watched.put(context=5, address=LIST, length=1024, flags=SG)
    watched.kick()
    watched.poke(at, b"\xee")
    watched.port.complete(watched.port.srbs[0])
    watched.port.srbs.clear()
    assert said(watched) == [("GD-02", "the scatter list at 0x300000 changed in flight")] * changed
    assert where(watched) == ["request with context 0x5"] * changed


def test_GD_14_how_many_kicks_for_how_many_requests(watched: Driver) -> None:
    at_once(watched)
    watched.put()
    watched.kick()
    for _ in range(3):
        watched.kick()
    watched.completions()
    watched.clock.advance(1 * S)
    assert said(watched) == [("GD-14", "1 kicks without a request")] * 3
    assert details(watched) == [{"kicks": 2, "requests": 1}] * 3


def test_GD_15_how_many_requests_and_since_when(watched: Driver) -> None:
    """Told again only of others."""
    at_once(watched)
    watched.put()
    watched.kick()
    watched.completions()
    for context in range(3):
        watched.put(context=context)
    watched.clock.advance(4 * S)
    assert said(watched) == [("GD-15", "3 requests on the ring, last kick 1.0 s ago")]
    watched.kick()
    watched.completions()
    watched.put()
    watched.clock.advance(1 * S - 1)
    assert len(said(watched)) == 1
    watched.clock.advance(1 * S)
    assert said(watched)[1:] == [("GD-15", "1 requests on the ring, last kick 1.0 s ago")]


def test_GD_18_which_flags(watched: Driver) -> None:
    both = st.FLAG_DIR_TOHOST | st.FLAG_DIR_TODEVICE
    for context, (flags, length) in enumerate(
        ((both, 512), (0x40 | st.FLAG_DIR_TOHOST, 512), (st.FLAG_DIR_NONE, 512), (0, 0), (4, 0))
    ):
        watched.put(context=context, flags=flags, length=length)
    watched.kick()
    assert said(watched) == [
        ("GD-18", "flags 0x18 with 512 bytes of data"),
        ("GD-18", "flags 0x48 with 512 bytes of data"),
        ("GD-18", "flags 0x4 with 512 bytes of data"),
        ("GD-18", "flags 0x0 with 0 bytes of data"),
    ]
    assert where(watched) == [f"request ring slot {slot}" for slot in range(4)]


def test_GD_19_when_a_kick_is_for_nothing(watched: Driver) -> None:
    """After a reset of the device a kick may still be on its way; after one of the adapter the driver knows."""
    watched.adapter.function.reset()
    watched.write_config(4, 6, 2)
    watched.write(0x4018, 0)
    assert said(watched) == []
    assert watched.setup() == 0
    watched.command(r.CMD_ADAPTER_RESET)
    watched.write(0x4018, 0)
    assert said(watched) == [("GD-19", "kick, but no rings are set up")]
    fresh = Driver(verify=True)
    fresh.write(0x4018, 0)
    assert said(fresh) == [("GD-19", "kick, but no rings are set up")]
    fresh.close()


def test_an_idle_guest_is_not_looked_at(watched: Driver) -> None:
    at_once(watched)
    watched.put()
    watched.kick()
    watched.completions()
    watched.clock.advance(20 * S)
    assert watched.clock.next_deadline() is None
    assert said(watched) == []

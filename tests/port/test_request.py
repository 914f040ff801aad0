"""What a port knows of a request and of a unit (hba.port.request)."""

from __future__ import annotations

from typing import Any

import pytest

from hba.clock import S
from hba.port.request import (
    ALL,
    COMPLETED,
    ISSUED,
    NOTIFIED,
    QUEUED,
    PortUnit,
    RequestOf,
    in_words,
    live_request,
    owned,
    state_of,
)
from hba.srb import SRB_FUNCTION_RESET_BUS, SRB_STATUS_SUCCESS, Srb


def request(unit: PortUnit | None = None, state: int = ISSUED) -> RequestOf[PortUnit]:
    made: RequestOf[PortUnit] = RequestOf(Srb())
    made.srb._port = made
    made.state = state
    if unit is not None:
        made.unit = unit
        unit.active[made] = None
    return made


def test_a_new_request_has_done_nothing_yet() -> None:
    made = RequestOf[PortUnit](Srb())
    assert (made.state, made.number, made.issued_at, made.retries, made.stage, made.tag) == (QUEUED, 0, 0, 0, 0, 0)
    assert (made.length_at_issue, made.sense_at_issue, made.moved) == (0, 0, 0)
    assert not made.frozen and not made.late and not made.logged
    assert made.story() == ()


def test_its_story_in_the_order_of_time() -> None:
    made = request()
    made.history = [(S, "submit", None), (3 * S, "notification", "RequestComplete")]
    assert made.story() == ("1.000000 submit", "3.000000 notification RequestComplete")
    made.issued_at = 2 * S + 1000
    assert made.story() == ("1.000000 submit", "2.000001 start_io", "3.000000 notification RequestComplete")
    assert len(made.history) == 2


def test_a_new_unit() -> None:
    unit = PortUnit(1, 2, 3)
    assert (unit.name, unit.timeout_left, unit.started, unit.completed) == ("1:2:3", -1, 0, 0)
    assert unit.active == {} and unit.locked_at is None and unit.lock_owner is None and unit.extension is None


def test_Q_11_who_has_locked_a_queue_first_keeps_it() -> None:
    unit = PortUnit(0, 0, 0)
    assert not unit.is_anothers("a")
    unit.lock(0, "a")
    unit.lock(5, "b")
    assert (unit.locked_at, unit.lock_owner) == (0, "a")
    assert unit.is_anothers("b") and not unit.is_anothers("a") and not unit.is_anothers(None)
    unit.unlock()
    assert unit.locked_at is None and not unit.is_anothers("b")
    unit.lock(7, None)
    assert unit.locked_at == 7 and not unit.is_anothers("b")  # nobody said whose it is


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ((0, 0, 0), ["0:0:0"]),
        ((0, 0, 1), ["0:0:1"]),
        ((0, 1, 0), ["0:1:0"]),
        ((1, 0, 0), ["1:0:0"]),
        ((0, 0), ["0:0:0", "0:0:1"]),
        ((0,), ["0:0:0", "0:0:1", "0:1:0"]),
        ((ALL,), ["0:0:0", "0:0:1", "0:1:0", "1:0:0"]),
        ((0, ALL, 0), ["0:0:0", "0:1:0"]),
        ((2, 0, 0), []),
    ],
)
def test_ER_15_what_the_miniport_owns_at_an_address(address: tuple[int, ...], found: list[str]) -> None:
    units = [PortUnit(0, 0, 0), PortUnit(0, 0, 1), PortUnit(0, 1, 0), PortUnit(1, 0, 0)]
    for unit in units:
        for state in (ISSUED, NOTIFIED):
            request(unit, state)
    mine = owned(units, *address)
    assert [request.unit.name for request in mine if request.unit is not None] == found
    assert {request.state for request in mine} <= {ISSUED}


def test_the_request_behind_an_srb() -> None:
    assert live_request(None) is None and live_request(Srb()) is None
    whole, part = request(), request()
    assert live_request(whole.srb) is whole
    whole.child = part.srb
    assert live_request(whole.srb) is part
    part.srb._port = None
    assert live_request(whole.srb) is None


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"cdb": b"\x28\0\x01"}, "1:2:3 cdb 280001 length 512 status 0x01/0x02"),
        ({"function": SRB_FUNCTION_RESET_BUS}, "1:2:3 function 0x12 length 512 status 0x01/0x02"),
    ],
)
def test_an_srb_in_words(members: dict[str, Any], words: str) -> None:
    srb = Srb(0, 1, 2, 3)
    srb.data_transfer_length, srb.srb_status, srb.scsi_status = 512, SRB_STATUS_SUCCESS, 2
    for name, value in members.items():
        setattr(srb, name, value)
    assert in_words(state_of(srb)) == words


def test_the_life_cycle_goes_forward() -> None:
    assert QUEUED < ISSUED < NOTIFIED < COMPLETED

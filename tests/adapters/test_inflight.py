"""Requests in flight: pieces of memory are given to as many as may have them, and taken back from each."""

from __future__ import annotations

import pytest

from hba.adapters.pvscsi.scatter import MAX_ELEMENTS
from hba.adapters.ring.inflight import MAX_PIECES, InFlight
from hba.adapters.traffic import Traffic
from hba.clock import VirtualClock
from hba.srb import SRB_FUNCTION_EXECUTE_SCSI, Srb


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight(Traffic(VirtualClock(), lambda target, lun: True))


def request(in_flight: InFlight, handle: int = 0) -> Srb:
    srb = Srb(SRB_FUNCTION_EXECUTE_SCSI)
    srb.context = (handle, in_flight.traffic.taking(0, 0))
    in_flight.by_handle[handle] = srb
    return srb


def test_as_many_pieces_as_may_be_and_not_one_more(in_flight: InFlight) -> None:
    first, second, third = (request(in_flight, handle) for handle in range(3))
    assert in_flight.room_for(first, MAX_PIECES - 100)
    assert not in_flight.room_for(second, 101) and in_flight.full
    assert in_flight.pieces == MAX_PIECES - 100
    assert in_flight.room_for(second, 100) and not in_flight.full
    assert in_flight.pieces == MAX_PIECES
    assert not in_flight.room_for(third, 65) and in_flight.full
    in_flight.let_go(third)  # which has none
    assert in_flight.pieces == MAX_PIECES
    assert not in_flight.room_for(third, 65)
    in_flight.ended([second])
    assert (in_flight.pieces, in_flight.full) == (MAX_PIECES - 100, False)
    in_flight.ended([first])
    assert in_flight.pieces == 0


def test_one_alone_has_always_room() -> None:
    """Or it would wait for ever."""
    assert MAX_ELEMENTS <= MAX_PIECES


def test_of_two_with_one_name_the_latest_is_meant(in_flight: InFlight) -> None:
    first = request(in_flight, 7)
    second = request(in_flight, 7)
    in_flight.ended([first])
    assert in_flight.by_handle == {7: second}
    in_flight.ended([second])
    assert in_flight.by_handle == {}

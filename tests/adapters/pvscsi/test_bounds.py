"""What a guest can make the adapter do in one turn, and keep, is bounded."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.registers import CMD_ADAPTER_RESET
from hba.adapters.pvscsi.scatter import MAX_ELEMENTS
from hba.adapters.pvscsi.status import BTSTAT_INVPARAM
from hba.adapters.ring import turn
from hba.adapters.ring.inflight import MAX_PIECES
from hba.srb import Srb
from tests.adapters.pvscsi.driver import DATA, REQ, STATE, Driver

LIST = 0x300000  # a scatter list of many pieces, which all requests use


def pieces(driver: Driver, count: int, size: int = 1) -> int:
    """A scatter list of `count` pieces that do not touch each other; bytes in all."""
    at = LIST
    left = count
    while left:
        room = (0x1000 - at % 0x1000) // st.SG_ELEMENT_SIZE
        here = min(left, room if left <= room else room - 1)
        for index in range(here):
            driver.poke(at + index * 16, struct.pack("<QII", DATA + (index % 2) * 0x8000, size, 0))
        at += here * 16
        left -= here
        if left:
            following = (at // 0x1000 + 1) * 0x1000
            driver.poke(at, struct.pack("<QII", following, 0, st.SG_FLAG_CHAIN_ELEMENT))
            at = following
    return count * size


def put_many(driver: Driver, requests: int, count: int) -> None:
    length = pieces(driver, count)
    for context in range(requests):
        driver.put(
            b"\x28" + bytes(9),
            context=context,
            address=LIST,
            length=length,
            flags=st.FLAG_DIR_TOHOST | st.FLAG_WITH_SG_LIST,
        )


def test_pieces_of_all_requests_are_bounded_and_the_rest_waits_on_the_ring(make: object) -> None:
    driver = make()  # type: ignore[operator]
    driver.setup(8, 8)
    put_many(driver, 40, 8000)
    driver.kick()
    for _ in range(50):
        driver.turn()
    in_flight = driver.adapter.in_flight
    assert 0 < in_flight.pieces <= MAX_PIECES
    assert in_flight.pieces + 8000 > MAX_PIECES, "as many as may be"
    taken = len(driver.port.srbs)
    assert taken == in_flight.outstanding < 40
    done = []
    while driver.port.srbs:
        srb = driver.port.srbs[0]
        srb.data_transfer_length = srb.mdl.length
        driver.port.complete(srb)
        for _ in range(8):
            driver.turn()
        done += [context for context, *_ in driver.completions()]
        assert in_flight.pieces <= MAX_PIECES
    assert done == list(range(40))
    assert in_flight.pieces == 0 and not in_flight._many


def test_one_request_may_have_as_many_pieces_as_the_largest_transfer_needs(make: object) -> None:
    driver = make()  # type: ignore[operator]
    driver.setup(1, 1)
    put_many(driver, 1, MAX_ELEMENTS)
    driver.kick()
    assert len(driver.port.srbs) == 1
    driver.port.complete(driver.port.srbs[0])
    driver.turn()
    put_many(driver, 1, MAX_ELEMENTS + 1)
    driver.kick()
    assert [done[3] for done in driver.completions()] == [0, 0x12]
    assert driver.adapter.in_flight.pieces == 0


@pytest.mark.parametrize("port", ["at once", "later"])
def test_a_full_ring_is_worked_off_in_several_turns(make: object, port: str) -> None:
    driver = make()  # type: ignore[operator]
    driver.setup(32, 32)
    served: list[Srb] = []
    if port == "at once":
        driver.port.at_once = served.append
    requests = 1000
    for context in range(requests):
        driver.put(b"\x28" + bytes(9), context=context, length=65536)
    driver.write(0x4018, 0)
    turns, so_far = 0, 0
    while so_far < requests:
        before = so_far
        driver.loop.run_once(0)
        so_far = len(served) + len(driver.port.srbs)
        assert so_far - before <= turn.TURN_BYTES // 65536 + turn.BATCH
        turns += so_far > before
    assert turns >= requests * 65536 // (turn.TURN_BYTES + turn.BATCH_BYTES)
    if port == "at once":
        driver.turn()
        assert [done[0] for done in driver.completions()] == list(range(requests))


def test_small_requests_are_bounded_by_their_number(make: object) -> None:
    driver = make()  # type: ignore[operator]
    driver.setup(32, 32)
    for context in range(1000):
        driver.put(b"\x00" * 6, context=context)
    driver.write(0x4018, 0)
    driver.loop.run_once(0)
    assert 0 < len(driver.port.srbs) <= turn.TURN_REQUESTS + turn.BATCH
    for _ in range(10):
        driver.turn()
    assert len(driver.port.srbs) == 1000


SMALL, WHOLE = 0, turn.BATCH_BYTES  # bytes of a request; one of the second makes a batch of its own


@pytest.mark.parametrize(
    ("lengths", "taken"),
    [
        ([SMALL], turn.TURN_REQUESTS),
        ([SMALL] * 254 + [WHOLE, SMALL], 255 + turn.BATCH),  # one is left: so there is another batch
        ([WHOLE], turn.TURN_BYTES // WHOLE),
        ([WHOLE] * 3 + [WHOLE - 1, SMALL], 3 + turn.TURN_REQUESTS),  # one byte is left, so only their number ends it
        ([turn.LARGE], turn.TURN_REQUESTS),  # small, too
    ],
)
def test_what_one_turn_takes(make: object, lengths: list[int], taken: int) -> None:
    """Requests of these lengths, and then more of the last."""
    driver = make()  # type: ignore[operator]
    driver.setup(32, 32)
    for context in range(400):
        driver.put(context=context, length=lengths[min(context, len(lengths) - 1)], address=0)
    driver.write(0x4018, 0)
    driver.loop.run_once(0)
    assert len(driver.port.srbs) == taken
    for _ in range(200):
        driver.turn()
    assert [srb.context[0] for srb in driver.port.srbs] == list(range(400))


@pytest.mark.parametrize(
    ("counts", "taken"),
    [
        ([turn.TURN_PIECES // 4], 4),
        ([turn.TURN_PIECES // 4] * 3 + [turn.TURN_PIECES // 4 - 1, 0], turn.TURN_REQUESTS),  # one piece is left
    ],
)
def test_what_one_turn_takes_of_requests_in_pieces(make: object, counts: list[int], taken: int) -> None:
    """Requests of so many pieces, and then more of the last."""
    driver = make()  # type: ignore[operator]
    driver.setup(32, 32)
    pieces(driver, turn.TURN_PIECES // 4)
    for context in range(300):
        count = counts[min(context, len(counts) - 1)]
        flags = st.FLAG_DIR_TOHOST | st.FLAG_WITH_SG_LIST if count else None
        driver.put(context=context, address=LIST, length=count, flags=flags)
    driver.write(0x4018, 0)
    driver.loop.run_once(0)
    assert len(driver.port.srbs) == taken


def full(make: object) -> Driver:
    """An adapter whose next request has more pieces than are left."""
    driver = make()  # type: ignore[operator]
    driver.setup(8, 8)
    put_many(driver, 5, MAX_ELEMENTS)
    driver.kick()
    assert len(driver.port.srbs) == 3 and driver.adapter.in_flight.full
    assert isinstance(driver, Driver)
    return driver


def test_a_request_that_waits_for_room_and_is_made_wrong_meanwhile_ends_once(make: object) -> None:
    """It was answered again with each kick, and each made room for one more."""
    driver = full(make)
    at = 3 * st.REQUEST_SIZE  # on the ring, of the one that waits
    descriptor = bytearray(driver.peek(REQ + at, st.REQUEST_SIZE))
    descriptor[36:40] = st.FLAG_OUT_OF_BAND_CDB.to_bytes(4, "little")
    driver.poke(REQ + at, bytes(descriptor))
    driver.kick()
    driver.kick()
    assert [(done[0], done[3]) for done in driver.completions()] == [(3, BTSTAT_INVPARAM)]
    counters = driver.adapter.counters()
    assert (counters["outstanding"], counters["bad_requests"], counters["requests"]) == (3, 1, 4)


def test_room_is_for_the_next_driver(make: object) -> None:
    """A reset ends what has the pieces, so the next request need not wait for anything, whatever is wrong with it."""
    driver = full(make)
    driver.command(CMD_ADAPTER_RESET)
    assert not driver.adapter.in_flight.full
    for offset in (st.REQ_PROD_IDX, st.CMP_CONS_IDX):
        driver.set_u32(STATE + offset, 0)
    driver.setup()
    driver.put(context=9, flags=st.FLAG_OUT_OF_BAND_CDB)
    driver.kick()
    driver.kick()
    assert [(done[0], done[3]) for done in driver.completions()] == [(9, BTSTAT_INVPARAM)]


def test_a_ring_in_several_turns_counts_each_request_once(make: object) -> None:
    driver = make(verify=True)  # type: ignore[operator]
    driver.setup(32, 32)
    driver.port.at_once = lambda srb: None
    for context in range(1000):
        driver.put(b"\x00" * 6, context=context)
        driver.write(0x4018, 0)
    for _ in range(20):
        driver.turn()
    driver.kick()  # one without work
    driver.completions()
    driver.clock.advance(2_000_000_000)
    assert driver.found() == {"GD-14": 1}


@pytest.mark.long_turns("tracing every allocation takes most of them")
def test_what_they_all_keep_is_some_megabytes(make: object) -> None:
    """A thousand requests of thousands of pieces were 13 GB."""
    driver = make()  # type: ignore[operator]
    driver.setup(32, 32)
    put_many(driver, 1000, 16000)
    tracemalloc.start()
    try:
        driver.kick()
        for _ in range(100):
            driver.turn()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1 < len(driver.port.srbs) < 1000
    assert peak < 64 << 20, f"{peak >> 20} MiB"
    for srb in list(driver.port.srbs):
        driver.port.complete(srb)

"""How many requests are taken at a time, to the request: what ends a batch, what ends a turn, what has to wait."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import pytest

from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.adapter import MAX_TRANSFER
from hba.adapters.ring.inflight import MANY, MAX_PIECES
from hba.adapters.ring.turn import BATCH, BATCH_BYTES, LARGE, TURN_BYTES, TURN_PIECES, TURN_REQUESTS
from hba.errors import DmaFault
from hba.srb import SRB_STATUS_SUCCESS, Srb
from tests.adapters.pvscsi.driver import DATA, RAM, Driver
from tests.adapters.pvscsi.test_bounds import pieces

Make = Callable[..., Driver]
LIST = 0x300000
SG = st.FLAG_WITH_SG_LIST | st.FLAG_DIR_TOHOST
REMOTE = 0x1000_0000  # memory that is reached by message


@pytest.fixture
def large(make: Make) -> Driver:
    """With rings for many requests."""
    driver = make()
    assert driver.setup(32, 32) == 0
    return driver


def batches(driver: Driver) -> list[int]:
    """How many requests the port gets at a time, from now on."""
    sizes: list[int] = []
    submit_all = driver.port.submit_all

    def submit(srbs: Sequence[Srb]) -> None:
        sizes.append(len(srbs))
        submit_all(srbs)

    driver.port.submit_all = submit  # type: ignore[method-assign]
    return sizes


def one_turn(driver: Driver) -> int:
    """Requests that one turn of the loop takes."""
    before = len(driver.port.srbs)
    driver.loop.run_once(0)
    return len(driver.port.srbs) - before


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([512] * (BATCH + 1), [BATCH, 1]),
        ([BATCH_BYTES] * 3, [1, 1, 1]),
        ([BATCH_BYTES - 1] * 3, [2, 1]),
        ([BATCH_BYTES // 2, 512, BATCH_BYTES // 2, 512], [3, 1]),
        ([BATCH_BYTES - LARGE, LARGE, LARGE, LARGE], [4]),  # only larger ones count
        ([BATCH_BYTES - LARGE - 1, LARGE + 1, LARGE], [2, 1]),
        ([LARGE] * 16, [16]),
    ],
)
def test_what_ends_a_batch(large: Driver, lengths: list[int], sizes: list[int]) -> None:
    found = batches(large)
    for context, length in enumerate(lengths):
        large.put(context=context, address=0, length=length)
    large.kick()
    assert found == sizes


@pytest.mark.parametrize(
    ("lengths", "taken"),
    [
        ([0] * TURN_REQUESTS, TURN_REQUESTS),
        ([LARGE] * TURN_REQUESTS, TURN_REQUESTS),
        ([0] * (BATCH - 2) + [BATCH_BYTES] + [0] * (TURN_REQUESTS - BATCH), TURN_REQUESTS - 1 + BATCH),  # one is left
        ([BATCH_BYTES] * (TURN_BYTES // BATCH_BYTES), TURN_BYTES // BATCH_BYTES),
        (
            [BATCH_BYTES] * 3 + [BATCH_BYTES - 1] + [0] * (BATCH - 1) + [BATCH_BYTES] * 2,
            3 + BATCH + 1,
        ),  # one byte is left
    ],
)
def test_what_ends_a_turn(large: Driver, lengths: list[int], taken: int) -> None:
    for context, length in enumerate([*lengths, *[0] * (2 * BATCH)]):
        large.put(context=context, address=0, length=length)
    large.write(0x4018, 0)
    assert one_turn(large) == taken


THIRD = TURN_PIECES // 3


@pytest.mark.parametrize(
    ("each", "sizes"),
    [
        ([TURN_PIECES // 4] * 5, [4]),
        ([TURN_PIECES // 4 + 1] * 5, [4]),
        ([THIRD] * 5, [4]),  # one piece is left after three
        ([THIRD + 1] * 5, [3]),
        ([256] * (BATCH - 1) + [255] + [256] * 2, [BATCH, 1]),  # one is left when the batch ends
        ([MANY] * 2 * BATCH, [BATCH, BATCH]),  # so few are not counted
        ([MAX_PIECES // 4] * 5, [1]),
    ],
)
def test_how_many_pieces_of_memory_a_turn_takes(large: Driver, each: list[int], sizes: list[int]) -> None:
    pieces(large, max(each))  # of a byte: a request has as many as it has bytes
    found = batches(large)
    for context, count in enumerate(each):
        large.put(context=context, address=LIST, length=count, flags=SG)
    large.write(0x4018, 0)
    one_turn(large)
    assert found == sizes
    assert large.adapter.in_flight.pieces == sum(count for count in each[: sum(sizes)] if count > MANY)


@pytest.mark.parametrize(("last", "taken"), [(MAX_PIECES // 4, 4), (MAX_PIECES // 4 + 1, 3)])
def test_as_many_pieces_as_all_may_have(large: Driver, last: int, taken: int) -> None:
    pieces(large, last)
    for context, count in enumerate([MAX_PIECES // 4] * 3 + [last]):
        large.put(context=context, address=LIST, length=count, flags=SG)
    large.kick()
    large.turn()
    assert len(large.port.srbs) == taken
    assert large.adapter.in_flight.full == (taken < 4)


def test_more_pieces_than_not_counted(large: Driver) -> None:
    large.put(address=LIST, length=pieces(large, MANY + 1), flags=SG)
    large.kick()
    assert large.adapter.in_flight.pieces == MANY + 1
    large.port.complete(large.port.srbs[0])
    assert large.adapter.in_flight.pieces == 0


@pytest.mark.parametrize("more", [0, 1])
def test_the_largest_transfer(driver: Driver, more: int) -> None:
    """The same memory over and over: it does not matter what lies where."""
    driver.scatter(LIST, [(0, RAM, 0)] * (MAX_TRANSFER // RAM + 1))
    driver.put(address=LIST, length=MAX_TRANSFER + more, flags=SG)
    driver.kick()
    if more:
        assert [done[3] for done in driver.completions()] == [0x12]
    else:
        assert driver.port.srbs[0].data_transfer_length == MAX_TRANSFER


@pytest.mark.parametrize(
    ("instead", "status"),
    [
        ({"flags": SG | st.FLAG_OUT_OF_BAND_CDB}, 0x1A),
        ({"flags": SG, "address": LIST + 0xFF8}, 0x12),
        ({"flags": SG, "address": RAM}, 0x20),
        ({"flags": SG, "cdb_length": 0}, 0x1A),
        ({"flags": SG, "bus": 1}, 0x11),
    ],
)
def test_what_waits_for_others_may_be_rewritten_to_nonsense(
    large: Driver, instead: dict[str, int], status: int
) -> None:
    """It is refused once, and the ring goes on."""
    each = 16000
    length = pieces(large, each)
    for context in range(MAX_PIECES // each + 1):
        large.put(context=context, address=LIST, length=length, flags=SG)
    large.kick()
    large.turn()
    taken = len(large.port.srbs)
    assert taken == MAX_PIECES // each and large.adapter.in_flight.full
    large.prod -= 1
    large.put(**{"context": 77, "address": LIST, "length": length, **instead})  # type: ignore[arg-type]
    large.put(context=78)
    for _ in range(3):
        large.kick()
    assert [(done[0], done[3]) for done in large.completions()] == [(77, status)]
    assert large.adapter.in_flight.outstanding == taken + 1 == len(large.port.srbs)
    for srb in list(large.port.srbs):
        large.port.complete(srb, SRB_STATUS_SUCCESS)
    large.turn()
    assert [done[0] for done in large.completions()] == [*range(taken), 78]
    in_flight = large.adapter.in_flight
    assert (in_flight.outstanding, in_flight.pieces, in_flight.full) == (0, 0, False)


def test_what_memory_does_not_have_gives_its_pieces_back(driver: Driver) -> None:
    driver.scatter(LIST, [(RAM + 0x1000 * number, 512, 0) for number in range(MANY + 1)])
    driver.put(address=LIST, length=512 * (MANY + 1), flags=SG)
    driver.kick()
    assert [done[3] for done in driver.completions()] == [0x20]
    assert driver.adapter.in_flight.pieces == 0 and not driver.adapter.in_flight._many


def test_a_refusal_in_between_does_not_end_a_batch(driver: Driver) -> None:
    sizes = batches(driver)
    driver.put(context=1)
    driver.put(context=2, address=RAM, length=512)
    driver.put(context=3)
    driver.kick()
    assert sizes == [2]


class Moving:
    """A client whose memory map changes while it is asked for a scatter list: the memory for data goes."""

    def __init__(self, driver: Driver, elements: bytes, then: Callable[[], None]) -> None:
        self.driver = driver
        self.elements = elements
        self.then = then

    def dma_read(self, address: int, length: int) -> bytes:
        self.then()
        if not self.elements:
            raise DmaFault(address, length, "gone")
        return self.elements.ljust(length, b"\0")

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        raise DmaFault(address, len(data), "nothing is written there")


@pytest.mark.parametrize("refused", [True, False])
def test_memory_that_goes_while_a_list_is_read(driver: Driver, refused: bool) -> None:
    """What is taken behind it is looked up anew."""
    driver.memory.unmap(0, RAM)
    driver.memory.map(0, DATA, 3, os.dup(driver.fd), 0)
    driver.memory.map(DATA, RAM - DATA, 3, os.dup(driver.fd), DATA)
    driver.memory.map(REMOTE, 0x10000, 3, None, 0)

    def go() -> None:
        if driver.memory.find(DATA) is not None:
            driver.memory.unmap(DATA, RAM - DATA)

    driver.memory.client = Moving(driver, b"" if refused else st.SG_ELEMENT.pack(0x90000, 512, 0), go)  # type: ignore[assignment]
    sizes = batches(driver)
    driver.put(context=1, address=DATA, length=512)
    driver.put(context=2, address=REMOTE, length=512, flags=SG)
    driver.put(context=3, address=DATA, length=512)
    driver.put(context=4)
    driver.kick()
    assert [srb.context[0] for srb in driver.port.srbs] == ([1, 4] if refused else [1, 2, 4])
    assert sizes == ([1, 1] if refused else [2, 1])
    assert [(done[0], done[3]) for done in driver.completions()] == ([(2, 0x20)] if refused else []) + [(3, 0x20)]


def test_a_list_that_is_reached_by_message(driver: Driver) -> None:
    driver.memory.map(REMOTE, 0x10000, 3, None, 0)
    driver.memory.client = Moving(driver, st.SG_ELEMENT.pack(DATA, 512, 0), lambda: None)  # type: ignore[assignment]
    sizes = batches(driver)
    for context in range(3):
        driver.put(context=context, address=REMOTE, length=512, flags=SG)
    driver.kick()
    assert [list(srb.mdl.segments) for srb in driver.port.srbs if srb.mdl is not None] == [[(DATA, 512)]] * 3
    assert sizes == [3]

"""Where rings may lie: memory for one way only, memory reached by message, memory that moves."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.errors import DmaFault
from tests.adapters.pvscsi.driver import CMP, MSG, RAM, REQ, STATE, Driver

Make = Callable[..., Driver]
PAGE = st.PAGE_SIZE
READ, WRITE, BOTH = 1, 2, 3


class Client:
    """Answers messages for the memory it keeps to itself; notes what it was asked to write."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.written: list[tuple[int, int]] = []

    def dma_read(self, address: int, length: int) -> bytes:
        return self.driver.peek(address, length)

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        self.written.append((address, len(data)))
        self.driver.poke(address, bytes(data))


def lay_out(driver: Driver, special: int, protection: int | None) -> Client:
    """All memory is there, but for the page at `special`: None leaves it out, 0 has it reached by message only."""
    client = Client(driver)
    driver.memory.client = client  # type: ignore[assignment]
    driver.memory.unmap_all()
    driver.memory.map(0, special, BOTH, os.dup(driver.fd), 0)
    driver.memory.map(special + PAGE, RAM - special - PAGE, BOTH, os.dup(driver.fd), special + PAGE)
    if protection is not None:
        fd = os.dup(driver.fd) if protection else None
        driver.memory.map(special, PAGE, protection or BOTH, fd, special)
    return client


def works(driver: Driver) -> None:
    """A request comes back, and a message arrives."""
    driver.port.at_once = lambda srb: None
    for context in (7, 8):
        driver.put(context=context)
        driver.kick()
        assert [done[0] for done in driver.completions()] == [context]
    before = driver.u32(STATE + st.MSG_PROD_IDX)
    driver.adapter.hot_plug("added", 3, 0)
    assert driver.u32(STATE + st.MSG_PROD_IDX) == before + 1


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize(
    ("page", "protection", "rings", "messages"),
    [
        (STATE, READ, False, False),
        (STATE, WRITE, False, False),
        (STATE, None, False, False),
        (STATE, 0, True, True),
        (REQ, READ, True, True),
        (REQ, WRITE, False, False),
        (REQ, None, False, False),
        (REQ, 0, True, True),
        (REQ + PAGE, None, False, False),
        (REQ + PAGE, 0, True, True),
        (CMP, READ, False, False),
        (CMP, WRITE, True, True),
        (CMP, None, False, False),
        (CMP, 0, True, True),
        (CMP + PAGE, None, False, False),
        (CMP + PAGE, READ, False, False),
        (MSG, READ, True, False),
        (MSG, WRITE, True, True),
        (MSG, None, True, False),
        (MSG, 0, True, True),
        (MSG + PAGE, None, True, False),
    ],
)
def test_what_each_page_has_to_be(
    make: Make, verify: bool, page: int, protection: int | None, rings: bool, messages: bool
) -> None:
    """The driver hears at once when it cannot be; the verifier asks for no more."""
    driver = make(verify=verify)
    lay_out(driver, page, protection)
    assert driver.setup(2, 2) == (0 if rings else r.STATUS_FAILED)
    if rings:
        assert driver.setup_messages(2) == (0 if messages else r.STATUS_FAILED)
    if messages:
        works(driver)


@pytest.mark.parametrize("first", [REQ, CMP, MSG])
def test_a_page_out_of_reach_behind_one_that_is_reached_by_message(make: Make, first: int) -> None:
    driver = make()
    lay_out(driver, first, 0)
    driver.memory.unmap(first + PAGE, RAM - first - PAGE)
    driver.memory.map(first + 2 * PAGE, RAM - first - 2 * PAGE, BOTH, os.dup(driver.fd), first + 2 * PAGE)
    if first == MSG:
        assert driver.setup() == 0
        assert driver.setup_messages(2) == r.STATUS_FAILED
    else:
        assert driver.setup(2 if first == REQ else 1, 2 if first == CMP else 1) == r.STATUS_FAILED


def test_a_request_ring_the_client_does_not_give(make: Make) -> None:
    """The driver hears with the set-up that no request can be read, not with the first one."""
    driver = make()
    client = lay_out(driver, REQ, 0)
    read = client.dma_read

    def refuse(address: int, length: int) -> bytes:
        raise DmaFault(address, length, "refused")

    client.dma_read = refuse  # type: ignore[method-assign]
    assert driver.setup() == r.STATUS_FAILED
    client.dma_read = read  # type: ignore[method-assign]
    assert driver.setup() == 0


def test_the_verifier_asks_nothing_of_a_client_for_itself(make: Make) -> None:
    """A set-up ends as it would without it, whatever the client answers."""
    driver = make(verify=True)
    client = lay_out(driver, STATE, 0)

    def refuse(address: int, length: int) -> bytes:
        raise DmaFault(address, length, "refused")

    client.dma_read = refuse  # type: ignore[method-assign]
    assert driver.setup() == 0 == driver.read(0x8)


def test_by_message_each_index_is_written_alone(make: Make) -> None:
    """Four bytes: what the guest owns lies between."""
    driver = make()
    client = lay_out(driver, STATE, 0)
    driver.poke(STATE, b"\xee" * PAGE)
    for index in (st.REQ_PROD_IDX, st.CMP_CONS_IDX, st.MSG_CONS_IDX):
        driver.set_u32(STATE + index, 0)
    assert driver.setup() == 0 and driver.setup_messages() == 0
    works(driver)
    assert client.written and {size for _, size in client.written} == {4}
    ours = {
        st.REQ_CONS_IDX,
        st.REQ_NUM_ENTRIES_LOG2,
        st.CMP_PROD_IDX,
        st.CMP_NUM_ENTRIES_LOG2,
        st.REQ_CALL_THRESHOLD,
        st.MSG_PROD_IDX,
        st.MSG_NUM_ENTRIES_LOG2,
    }
    assert {address - STATE for address, _ in client.written} == ours
    theirs = {st.REQ_PROD_IDX, st.CMP_CONS_IDX, st.MSG_CONS_IDX}
    for offset in set(range(0, PAGE, 4)) - ours - theirs:
        assert driver.u32(STATE + offset) == 0xEEEEEEEE


@pytest.mark.parametrize("special", [REQ + 0x8000, CMP])  # somewhere else; the completion ring, by message
def test_the_whole_completion_ring_is_used(make: Make, special: int) -> None:
    driver = make()
    lay_out(driver, special, 0)
    assert driver.setup(8, 1) == 0
    driver.port.at_once = lambda srb: None
    for context in range(129):
        driver.put(context=context)
    driver.kick()
    driver.turn()
    assert [done[0] for done in driver.completions()] == list(range(128))
    driver.clock.advance(1_000_000_000)
    driver.turn()
    assert [done[0] for done in driver.completions()] == [128]


@pytest.mark.parametrize("verify", [False, True])
def test_rings_follow_memory_that_moves(make: Make, verify: bool) -> None:
    """The same addresses are other pages now: nothing is read from or written to the old ones."""
    driver = make(verify=verify)
    assert driver.setup() == 0 and driver.setup_messages() == 0
    works(driver)
    old = driver.fd
    driver.fd = os.memfd_create("moved")
    os.ftruncate(driver.fd, RAM)
    os.pwrite(driver.fd, os.pread(old, RAM, 0), 0)
    os.pwrite(old, b"\xff" * 0x100000, 0)
    driver.memory.unmap(0, RAM)
    driver.memory.map(0, RAM, BOTH, os.dup(driver.fd), 0)
    driver.put(context=9, length=512)
    driver.kick()
    assert [done[0] for done in driver.completions()] == [9]
    before = driver.u32(STATE + st.MSG_PROD_IDX)
    driver.adapter.hot_plug("added", 4, 0)
    assert driver.u32(STATE + st.MSG_PROD_IDX) == before + 1
    assert st.MESSAGE.unpack(driver.peek(MSG + before * st.MESSAGE_SIZE, st.MESSAGE_SIZE))[2] == 4
    assert os.pread(old, 0x100000, 0) == b"\xff" * 0x100000
    os.close(old)


def test_an_answer_that_would_come_after_that_of_the_reset_is_not_written(make: Make) -> None:
    """The indices are in memory, the completion ring is reached by message: it may be something else by then."""
    driver = make()
    client = lay_out(driver, CMP, 0)
    assert driver.setup() == 0
    driver.put()
    driver.kick()
    assert driver.command(r.CMD_ADAPTER_RESET) == 0
    driver.turn()
    assert client.written == [] and driver.u32(STATE + st.CMP_PROD_IDX) == 0
    assert driver.adapter.in_flight.outstanding == 0


def test_what_stands_between_driver_and_adapter(driver: Driver) -> None:
    """(in flight, unseen), also where indices wrap."""
    rings = driver.adapter.access.rings
    assert rings is not None
    for consumed in (0, 5, 0xFFFFFFFE):
        driver.set_u32(STATE + st.CMP_CONS_IDX, consumed)
        driver.set_u32(STATE + st.REQ_PROD_IDX, consumed + 9)
        rings.completion_prod = (consumed + 4) & 0xFFFFFFFF
        assert rings.standing() == (9, 4)


def test_a_host_whose_indices_would_be_torn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = make()
    told: list[str] = []
    driver.adapter.on_unreachable = told.append
    with monkeypatch.context() as patch:
        patch.setattr(sys, "byteorder", "big")
        assert driver.setup() == r.STATUS_FAILED
    assert "a big-endian host cannot access ring indices in one piece" in told[0]
    assert driver.setup() == 0


def test_a_fault_of_the_client_is_not_the_end(make: Make) -> None:
    """Of rings that lie by message: the request comes back once the client answers again."""
    driver = make()
    client = lay_out(driver, CMP, 0)
    assert driver.setup() == 0
    driver.port.at_once = lambda srb: None
    write = client.dma_write

    def refuse(address: int, data: bytes | memoryview) -> None:
        raise DmaFault(address, len(data), "refused")

    client.dma_write = refuse  # type: ignore[method-assign]
    driver.put(context=4)
    driver.kick()
    assert driver.completions() == []
    client.dma_write = write  # type: ignore[method-assign]
    driver.clock.advance(10_000_000)
    assert [done[0] for done in driver.completions()] == [4]

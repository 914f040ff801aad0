"""Bugs that emulators of storage controllers had and published, tried on this one: guest to device.

One test a kind of bug; its docstring names the advisories. Each runs against a whole adapter with both port models, in
guest memory with guards around every map, which are checked when the guest leaves (`tests/fuzz/machine.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.adapters.pvscsi.adapter import MAX_TRANSFER
from hba.adapters.pvscsi.scatter import MAX_ELEMENTS
from hba.adapters.pvscsi.status import BTSTAT_DATARUN, BTSTAT_HAHARDWARE, BTSTAT_SELTIMEO, BTSTAT_SUCCESS
from hba.adapters.ring.turn import TURN_REQUESTS
from tests.fuzz.machine import AREAS, LAST, PAGE, RAM, READ_ONLY, UNSHARED, WRITE_ONLY, Machine, Peer, forget, machine
from tests.fuzz.rings import COMPLETIONS, DATA, KICK, LISTS, MESSAGES, REQUESTS, RING_PAGES, SLOTS, STATE

FAILED = 0xFFFFFFFF
MANY = 0xFFFFFFFF
TO_HOST, TO_DEVICE, NONE, LIST = st.FLAG_DIR_TOHOST, st.FLAG_DIR_TODEVICE, st.FLAG_DIR_NONE, st.FLAG_WITH_SG_LIST
CHAIN = st.SG_FLAG_CHAIN_ELEMENT
GOOD, CHECK_CONDITION = 0x00, 0x02
INQUIRY, READ, WRITE = (
    bytes.fromhex("12000000ff00"),
    bytes.fromhex("28000000000000000800"),
    bytes.fromhex("2a000000000000000800"),
)
OWN_BAR = 0xFEB00000  # where the guest puts the adapter's registers


class Guest:
    """A driver that writes what it is told, and takes what comes back."""

    def __init__(self, whole: Machine) -> None:
        self.machine = whole
        self.produced = self.consumed = 0

    def adapter(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = self.machine.parts.adapter.snapshot()
        return found

    def counter(self, name: str) -> int:
        count: int = self.adapter()["counters"][name]
        return count

    def poke(self, at: int, data: bytes) -> None:
        """`at`: bytes from the start of RAM."""
        self.machine.file.fill(at, data)

    def peek(self, at: int, size: int) -> bytes:
        return bytes(self.machine.file.map[RAM.start + at : RAM.start + at + size])

    def index(self, offset: int) -> int:
        return int.from_bytes(self.peek(STATE + offset, 4), "little")

    def set_index(self, offset: int, value: int) -> None:
        self.poke(STATE + offset, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def command(self, code: int, descriptor: bytes = b"") -> int:
        self.machine.command(code, descriptor)
        return int.from_bytes(self.machine.function.region_read(0, 0x8, 4), "little")

    def rings(
        self,
        requests: int = RING_PAGES,
        completions: int = RING_PAGES,
        *,
        state: int = RAM.iova + STATE,
        first: int = RAM.iova + REQUESTS,
        other: int = RAM.iova + COMPLETIONS,
    ) -> int:
        self.produced = self.consumed = 0
        self.poke(STATE, bytes(PAGE))  # as drivers do
        pages = [[(start >> 12) + page & (1 << 52) - 1 for page in range(32)] for start in (first, other)]
        return self.command(
            r.CMD_SETUP_RINGS, st.SETUP_RINGS.pack(requests, completions, state >> 12, *pages[0], *pages[1])
        )

    def put(
        self,
        cdb: bytes,
        address: int = RAM.iova + DATA,
        length: int = 0,
        flags: int = NONE,
        *,
        context: int = 1,
        target: int = 0,
        sense: int = RAM.iova + DATA,
        cdb_length: int | None = None,
    ) -> None:
        size = len(cdb) if cdb_length is None else cdb_length
        descriptor = st.REQUEST.pack(
            context, address, length, sense, 96, flags, cdb.ljust(16, b"\0")[:16], size, 0, 0x20, 0, target, 0
        )
        self.poke(REQUESTS + self.produced % SLOTS * st.REQUEST_SIZE, descriptor)
        self.produced += 1
        self.set_index(st.REQ_PROD_IDX, self.produced)

    def kick(self) -> list[tuple[int, int, int, int, int]]:
        """(context, dataLen, senseLen, hostStatus, scsiStatus) of all that completes in a few turns."""
        self.machine.write(KICK, 0)
        for _ in range(8):
            self.machine.turn()
        return self.completed()

    def completed(self) -> list[tuple[int, int, int, int, int]]:
        end, found = self.index(st.CMP_PROD_IDX), []
        while self.consumed != end:
            slot = self.consumed % (RING_PAGES * 128) * st.COMPLETION_SIZE
            found.append(st.COMPLETION.unpack(self.peek(COMPLETIONS + slot, st.COMPLETION_SIZE)))
            self.consumed += 1
        self.set_index(st.CMP_CONS_IDX, self.consumed)
        return found

    def do(self, cdb: bytes, *arguments: int, **options: int) -> tuple[int, int, int, int, int]:
        """One request, which must complete."""
        self.put(cdb, *arguments, **options)
        (only,) = self.kick()
        return only

    def scatter(self, elements: Sequence[tuple[int, int, int]], at: int = LISTS) -> int:
        """A list of (address, length, flags); its address."""
        self.poke(at, b"".join(st.SG_ELEMENT.pack(*element) for element in elements))
        return RAM.iova + at

    def works(self) -> None:
        """Whatever was tried, a driver that starts over has its disk."""
        self.command(r.CMD_ADAPTER_RESET)
        self.machine.fill_disks()
        assert self.rings() == 0
        for _ in range(4):  # unit attentions
            done = self.do(READ, RAM.iova + DATA, 4096, TO_HOST)
            if done[4] == GOOD:
                break
        assert done == (1, 4096, 0, BTSTAT_SUCCESS, GOOD)
        assert self.peek(DATA, 4096) == bytes(range(256)) * 16


@pytest.fixture(params=[2, 3], ids=["storport", "scsiport"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    whole = machine(request.param)  # with the verifier: none of the rules about us is broken, whatever is tried
    whole.power_on()
    whole.command_register(6)
    guest = Guest(whole)
    yield guest
    try:
        guest.works()
        whole.power_off()
    except BaseException:
        forget()  # the next test gets one that is as it should be
        raise


def ready(guest: Guest) -> None:
    assert guest.rings() == 0
    for _ in range(3):
        guest.do(bytes(6))


# -- set-up ------------------------------------------------------------------------------------------------------------


def test_page_counts_of_the_rings(guest: Guest) -> None:
    """CVE-2016-4952: page counts of SETUP_RINGS used unchecked, as bounds of what is read and written."""
    for bad in (0, 3, 33, 64, 1 << 31, MANY):
        for requests, completions in ((bad, 1), (1, bad), (bad, bad)):
            assert guest.rings(requests, completions) == FAILED
            assert guest.adapter()["rings"] is None
            assert guest.kick() == []


def test_page_counts_of_the_message_ring(guest: Guest) -> None:
    """The same for SETUP_MSG_RING, whose count was checked later than that of the others."""
    ready(guest)
    numbers = [(RAM.iova + MESSAGES >> 12) + page for page in range(16)]
    for pages in (0, 3, 17, 32, 1 << 31, MANY):
        assert guest.command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(pages, 0, *numbers)) == FAILED
        assert "message" not in guest.adapter()["rings"]


@pytest.mark.parametrize("area", [None, READ_ONLY, WRITE_ONLY, LAST])
@pytest.mark.parametrize("part", ["state", "first", "other"])
def test_rings_where_no_ring_can_be(guest: Guest, part: str, area: object) -> None:
    """The same with pages that are not memory, end where memory ends, or may not be touched that way."""
    at = 0x7FFFF000 if area is None else area.iova + area.size - PAGE  # type: ignore[attr-defined]
    possible = (part, area) == ("state", LAST)  # one page, the last there is
    assert guest.rings(RING_PAGES, RING_PAGES, **{part: at}) == (0 if possible else FAILED)
    guest.machine.write(KICK, 0)
    guest.machine.settle()


def test_everything_before_the_rings(guest: Guest) -> None:
    """Kicks, resets, aborts and message rings before SETUP_RINGS, and after the reset that forgot them."""
    numbers = [RAM.iova + MESSAGES >> 12] * 16
    for _ in range(2):
        for code, descriptor in (
            (r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(1, 0, *numbers)),
            (r.CMD_ABORT_CMD, st.ABORT_CMD.pack(1, 0, 0)),
            (r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(0, bytes(8))),
            (r.CMD_RESET_BUS, b""),
            (r.CMD_ADAPTER_RESET, b""),
        ):
            guest.command(code, descriptor)
            assert guest.kick() == []
        assert guest.peek(0, RAM.size) == bytes(RAM.size), "memory was touched that no command gave"
    ready(guest)


def test_words_for_commands_that_do_not_exist(guest: Guest) -> None:
    """A mailbox that collects what no command asked for, without end (a doorbell's word count of 0 is of this kind)."""
    for code in (0, 2, 9, 11, 0xFFFFFFFF):
        guest.machine.write(0, code)
        for _ in range(2000):
            guest.machine.write(4, 0xFFFFFFFF)
    assert len(guest.machine.parts.adapter.commands._descriptor) == 0
    guest.machine.write(0, r.CMD_SETUP_RINGS)
    for _ in range(2000):  # one of 132 words, and what is behind it
        guest.machine.write(4, 0xFFFFFFFF)
    assert len(guest.machine.parts.adapter.commands._descriptor) == 0


# -- rings -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [SLOTS + 1, 1 << 16, 1 << 31, MANY])
def test_a_ring_with_more_requests_than_it_has_room_for(guest: Guest, ahead: int) -> None:
    """CVE-2016-7421, CVE-2016-4964: requests fetched until the indices meet, which they do not."""
    ready(guest)
    guest.set_index(st.REQ_PROD_IDX, guest.produced + ahead)
    before = guest.counter("requests")
    guest.kick()
    assert guest.counter("requests") == before
    assert guest.adapter()["ring_fault"], "the device says why it looks no more"


def test_a_ring_that_is_filled_while_it_is_emptied(guest: Guest) -> None:
    """CVE-2016-4964 once more: the guest moves its index whenever the device looks, so there is always one more;
    others have their turns meanwhile."""
    ready(guest)
    loop = guest.machine.loop
    turns = [0]

    class Ahead(Peer):
        def dma_read(self, address: int, length: int) -> bytes:
            if (address, length) == (UNSHARED.iova + st.REQ_PROD_IDX, 4):
                consumed = int.from_bytes(super().dma_read(UNSHARED.iova + st.REQ_CONS_IDX, 4), "little")
                return (consumed + 16 & 0xFFFFFFFF).to_bytes(4, "little")
            return super().dma_read(address, length)

    guest.machine.memory.client = Ahead(guest.machine.file)
    assert guest.rings(1, 1, state=UNSHARED.iova, first=UNSHARED.iova + PAGE, other=UNSHARED.iova + 2 * PAGE) == 0
    guest.machine.write(KICK, 0)
    before = guest.counter("requests")
    for _ in range(40):
        loop.call_soon(lambda: turns.__setitem__(0, turns[0] + 1))
        so_far = guest.counter("requests")
        loop.run_once(0)
        assert guest.counter("requests") - so_far <= TURN_REQUESTS
    assert turns == [40] and guest.counter("requests") > before


@pytest.mark.parametrize("index", [st.CMP_CONS_IDX, st.MSG_CONS_IDX, st.CMP_PROD_IDX, st.REQ_CONS_IDX])
def test_indices_of_the_wrong_owner_and_without_sense(guest: Guest, index: int) -> None:
    """CVE-2016-5107: the head of a queue taken from the guest and used to look into a table."""
    for value in (1, 1 << 31, MANY):
        ready(guest)
        guest.set_index(index, guest.index(index) + value)
        guest.put(INQUIRY, RAM.iova + DATA, 255, TO_HOST)
        guest.machine.write(KICK, 0)
        guest.machine.settle()


@pytest.mark.parametrize(
    "field", [st.REQ_NUM_ENTRIES_LOG2, st.CMP_NUM_ENTRIES_LOG2, st.MSG_NUM_ENTRIES_LOG2, st.REQ_CALL_THRESHOLD]
)
def test_sizes_the_guest_writes_back(guest: Guest, field: int) -> None:
    """Sizes the device has written to the guest's memory, and must not believe when it reads them there again."""
    ready(guest)
    guest.set_index(field, 31)
    for _ in range(SLOTS + 3):
        assert guest.do(bytes(6), target=0)[3:] == (BTSTAT_SUCCESS, GOOD)


# -- scatter lists -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "elements",
    [
        [(RAM.iova + DATA, 0, 0)] * 255,
        [(RAM.iova + DATA, 0, 0), (RAM.iova + LISTS, 0, CHAIN)],
        [(RAM.iova + LISTS, 0, CHAIN)],
        [(RAM.iova + LISTS, MANY, CHAIN)] * 255,
        [(RAM.iova + DATA, 1, 0), (RAM.iova + LISTS + PAGE, 0, CHAIN)],
        [(RAM.iova + DATA, 16, 0)],
        [(RAM.iova + LISTS + PAGE - 8, 0, CHAIN)],
    ],
    ids=["empty", "empty-loop", "itself", "itself-often", "into-nothing", "too-short", "end-of-page"],
)
def test_lists_without_end(guest: Guest, elements: list[tuple[int, int, int]]) -> None:
    """CVE-2016-7156: a scatter list of elements without length, or of chains, followed until the transfer is full."""
    ready(guest)
    address = guest.scatter(elements)
    for length in (4096, MAX_TRANSFER):
        assert guest.do(READ, address, length, TO_HOST | LIST)[3] in (BTSTAT_DATARUN, BTSTAT_HAHARDWARE)


@pytest.mark.parametrize("length", [MAX_TRANSFER + 1, MANY, 1 << 32, 1 << 63, (1 << 64) - 1])
def test_lengths_of_64_bits(guest: Guest, length: int) -> None:
    """The same bug's other half: a length of 64 bits compared and counted in 32."""
    ready(guest)
    address = guest.scatter([(RAM.iova + DATA, MANY, 0), (RAM.iova + LISTS, 0, CHAIN)])
    for flags in (TO_HOST, TO_HOST | LIST, TO_DEVICE | LIST):
        done = guest.do(READ, address if flags & LIST else RAM.iova + DATA, length, flags)
        assert done[1] == 0 and done[3] in (BTSTAT_DATARUN, BTSTAT_HAHARDWARE)


def test_lists_longer_than_any_transfer(guest: Guest) -> None:
    """Lists whose elements are counted nowhere: all pages there are, one byte an element."""
    ready(guest)
    room = (st.SG_ELEMENT_SIZE, PAGE // st.SG_ELEMENT_SIZE - 1)
    for page in range(4):
        following = RAM.iova + DATA + (page + 1) % 4 * PAGE
        elements = [(RAM.iova + DATA + 2 * at, 1, 0) for at in range(room[1])]
        guest.scatter([*elements, (following, 0, CHAIN)], DATA + page * PAGE)
    done = guest.do(READ, RAM.iova + DATA, MAX_ELEMENTS + 1, TO_HOST | LIST)
    assert done[3] == BTSTAT_DATARUN
    assert guest.counter("pieces") == 0


@pytest.mark.parametrize("first", [RAM.iova + RAM.size * 2, LAST.iova + LAST.size - 16, (1 << 64) - 1, 0])
def test_ranges_that_leave_memory_or_wrap(guest: Guest, first: int) -> None:
    """Addresses whose end is beyond the last, or comes out below their begin."""
    ready(guest)
    assert guest.do(READ, first, 4096, TO_HOST)[3] == BTSTAT_HAHARDWARE
    assert guest.do(READ, guest.scatter([(first, 4096, 0)]), 4096, TO_HOST | LIST)[3] == BTSTAT_HAHARDWARE
    assert guest.do(b"\xff" + bytes(5), sense=first)[2:] == (0, BTSTAT_SUCCESS, CHECK_CONDITION)


# -- the device itself as its memory -----------------------------------------------------------------------------------


def registers_at(guest: Guest) -> int:
    guest.machine.function.region_write(7, 0x10, OWN_BAR.to_bytes(4, "little"))
    guest.machine.command_register(6)
    return OWN_BAR


def test_data_lists_sense_and_rings_in_the_devices_own_registers(guest: Guest) -> None:
    """CVE-2023-0330, CVE-2021-3750 and their like: DMA to the device's own registers, which starts the next one inside
    the first. Here the registers are no memory, so nobody gets there."""
    own = registers_at(guest)
    ready(guest)
    function = guest.machine.function
    for cdb, direction in ((READ, TO_HOST), (WRITE, TO_DEVICE), (INQUIRY, TO_HOST)):
        for offset in (0x0, 0x4, 0x4018):
            before = function.reads, function.writes
            guest.put(cdb, own + offset, 4096, direction)
            guest.put(cdb, guest.scatter([(own + offset, 4096, 0)]), 4096, direction | LIST)
            guest.put(cdb, own + offset, 4096, direction | LIST)
            assert {done[3] for done in guest.kick()} == {BTSTAT_HAHARDWARE}
            assert (function.reads, function.writes) == (before[0], before[1] + 1), "only the kick"
    assert guest.do(b"\xff" + bytes(5), sense=own)[2:] == (0, BTSTAT_SUCCESS, CHECK_CONDITION)
    assert guest.command(r.CMD_CONFIG, st.CONFIG.pack(own, 0x2120 << 32, 0x1958, 0)) == FAILED
    for part in ("state", "first", "other"):
        assert guest.rings(1, 1, **{part: own}) == FAILED


def test_memory_by_message_whose_client_comes_back_to_the_registers(guest: Guest) -> None:
    """The same where the client has such a map: it looks at registers while we wait for its memory, and what it writes
    to them comes when we have returned. A request whose data is the doorbell rings it, and that ends."""
    whole = guest.machine
    inside = [0]

    class Again(Peer):
        def dma_read(self, address: int, length: int) -> bytes:
            self._registers()
            return super().dma_read(address, length)

        def dma_write(self, address: int, data: bytes | memoryview) -> None:
            self._registers()
            whole.loop.call_soon(lambda: whole.write(KICK, 0))
            super().dma_write(address, data)

        def _registers(self) -> None:
            inside[0] += 1
            for offset in (0x8, 0x100C, 0x2010):
                whole.function.region_read(0, offset, 4)

    whole.memory.client = Again(whole.file)
    ready(guest)
    for context in range(SLOTS):
        guest.put(INQUIRY, UNSHARED.iova, 96, TO_HOST, context=context)
    done = guest.kick()
    whole.settle()
    done += guest.completed()
    assert sorted(context for context, *_ in done) == list(range(SLOTS)) and inside[0]


# -- requests that are ended while they are under way ------------------------------------------------------------------


def test_one_context_for_all_and_an_end_for_each(guest: Guest) -> None:
    """CVE-2021-3392, CVE-2022-0216: a request freed by one who finds it by its number, and used by another."""
    ready(guest)
    for _ in range(SLOTS):
        guest.put(READ, RAM.iova + DATA, 4096, TO_HOST, context=7)
    guest.machine.write(KICK, 0)
    for _ in range(4):
        guest.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(7, 0, 0))
        guest.machine.turn()
        guest.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(0, bytes(8)))
    guest.machine.settle()
    assert [context for context, *_ in guest.completed()] == [7] * SLOTS
    assert guest.counter("outstanding") == 0


@pytest.mark.parametrize("how", ["reset", "function", "rings", "unmap", "bus master"])
def test_what_is_under_way_when_everything_goes(guest: Guest, how: str) -> None:
    """The same for resets, memory and rings that go in the middle: what was theirs is not written afterwards."""
    ready(guest)
    for context in range(SLOTS):
        guest.put(READ, RAM.iova + DATA, 4096, TO_HOST, context=context)
    whole = guest.machine
    whole.write(KICK, 0)
    if how == "reset":
        guest.command(r.CMD_ADAPTER_RESET)
    elif how == "function":
        whole.function.reset()
    elif how == "rings":
        guest.rings()
    elif how == "unmap":
        whole.function.dma_unmap(RAM.iova, RAM.size)
    else:
        whole.command_register(2)
    after = bytes(whole.file.map)
    whole.settle()
    if how != "rings":
        assert bytes(whole.file.map) == after, "memory was written after it had gone"
    if how == "unmap":
        whole.map(RAM)
    whole.command_register(6)


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [0, 1, 2, 3, 4])
def test_parameter_lists_shorter_than_they_say(guest: Guest, target: int) -> None:
    """CVE-2016-5106: a list copied as long as its type is, not as long as the guest gave."""
    ready(guest)
    for text in (
        "1510000000ff00", "551100000000000000ffff00", "4200000000000000ffff00", "5f00000000000000ffff", "0410000000",
        "8300000000000000000000ffffff0000", "a40f00000000000000ffff0000", "1d1000ffff00", "3b020000000000ffff00",
    ):  # fmt: skip
        for size in (1, 3, 7, 9, 23):
            cdb = bytes.fromhex(text).ljust(16, b"\0")
            done = guest.do(cdb, RAM.iova + RAM.size - size, size, TO_DEVICE, target=target)
            assert done[1] <= size and done[3] in (BTSTAT_SUCCESS, BTSTAT_DATARUN, BTSTAT_SELTIMEO)


@pytest.mark.parametrize("target", [0, 1, 3, 4])
def test_what_the_device_says_is_only_what_it_has_to_say(guest: Guest, target: int) -> None:
    """CVE-2016-5105: the rest of a structure that nobody had filled in, copied to the guest with it."""
    ready(guest)
    for text in (
        "12000000ff", "12010000ff", "12018300ff", "1a003f00ff", "5a003fff00000000ff", "a00000000000000000ff",
        "03000000ff", "25", "9e10000000000000000000000020", "46000000000000ffff", "5e000000000000ffff",
    ):  # fmt: skip
        guest.poke(DATA, b"\xee" * 1024)
        context, moved, _, host, status = guest.do(
            bytes.fromhex(text).ljust(16, b"\0"),
            RAM.iova + DATA,
            512,
            TO_HOST,
            target=target,
            sense=RAM.iova + DATA + PAGE,
        )
        assert host == BTSTAT_SUCCESS and context == 1
        left = guest.peek(DATA + moved, 1024 - moved)
        assert left == b"\xee" * len(left), f"{text}: more was written than was said"
        assert status == GOOD or moved == 0


@pytest.mark.parametrize("opcode", [0x60, 0x7F, 0x9E, 0xA4, 0xC0, 0xE0, 0xFF])
def test_lengths_of_commands(guest: Guest, opcode: int) -> None:
    """CVE-2015-5158: the length of a command taken from a table that has none for its group."""
    ready(guest)
    for length in (0, 1, 5, 6, 9, 16, 17, 255):
        done = guest.do(bytes((opcode,)) * 16, cdb_length=length)
        assert done[3] != BTSTAT_SUCCESS or done[4] == CHECK_CONDITION


def test_more_units_than_there_is_room_for(guest: Guest) -> None:
    """CVE-2013-4344: a list of units longer than the buffer for it."""
    ready(guest)
    for room in (0, 1, 8, 15, 16, 17, 255):
        guest.poke(DATA, b"\xee" * 4096)
        cdb = bytes.fromhex("a0000000000000000fff0000")
        done = guest.do(cdb, RAM.iova + DATA, room, TO_HOST if room else NONE, target=5)
        assert done[1] <= room
        assert guest.peek(DATA + room, 1024) == b"\xee" * 1024


def test_all_pages_there_may_be(guest: Guest) -> None:
    """CVE-2021-3930: a mode page past the end of the buffer for all of them."""
    ready(guest)
    for page in range(64):
        for subpage in (0, 1, 255):
            for room in (1, 12, 255):
                cdb = bytes((0x5A, 0, page, subpage, 0, 0, 0, 0xFF, 0xFF, 0))
                assert guest.do(cdb, RAM.iova + DATA, room, TO_HOST)[1] <= room
                vital = bytes((0x12, 1, page * 4 + subpage % 4, 0xFF, 0xFF, 0))
                assert guest.do(vital, RAM.iova + DATA, room, TO_HOST)[1] <= room


def test_the_maps_are_where_they_were(guest: Guest) -> None:
    """All of the above is worth something only if the guards see what they guard against."""
    whole = guest.machine
    for area in AREAS:
        assert whole.memory.find(area.iova) is not None
    before = bytes(whole.file.map)
    whole.file.map[RAM.start - 1] ^= 1
    with pytest.raises(AssertionError, match="written outside"):
        whole.file.check()
    whole.file.map[:] = before
    whole.file.map[RAM.start : RAM.start + 16] = whole.file.map[1:17]
    with pytest.raises(AssertionError, match="read outside"):
        whole.file.check()
    whole.file.map[:] = before

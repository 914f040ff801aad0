"""PVSCSI's rings and commands: what a driver puts into its memory and registers, right, nearly right and wrong."""

from __future__ import annotations

from collections.abc import Iterator

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.clock import MS
from hba.vfio_user.device import RequestError
from tests.fuzz.machine import AREAS, EDGES, PAGE, RAM, UNITS, Machine, life
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target
from tests.hostile.guest import TEMPLATES

# Pages of RAM, where a well-behaved driver has them.
STATE, REQUESTS, COMPLETIONS, MESSAGES, LISTS, DATA = (page * PAGE for page in (0, 1, 5, 9, 11, 16))
RING_PAGES = 2
SLOTS = RING_PAGES * 32
INDICES = (st.REQ_PROD_IDX, st.REQ_CONS_IDX, st.CMP_PROD_IDX, st.CMP_CONS_IDX, st.MSG_PROD_IDX, st.MSG_CONS_IDX)
SIZES = (st.REQ_NUM_ENTRIES_LOG2, st.CMP_NUM_ENTRIES_LOG2, st.MSG_NUM_ENTRIES_LOG2, st.REQ_CALL_THRESHOLD)
REGISTERS = (0x0, 0x4, 0x8, 0x100C, 0x2010, 0x2014, 0x3014, 0x4018, 0x6000, 0x7000, 0x7FFC)
TARGETS = tuple(unit["target"] for unit in UNITS)
MOST_STEPS = 200
KICK = 0x4018


def run(data: bytes) -> None:
    reader = Reader(data, EDGES)
    with life(reader.u8()) as guest:
        guest.command_register(6)
        driver = _Driver(guest, reader)
        driver.set_up()
        for _ in reader.steps(MOST_STEPS):
            driver.step()


class _Driver:
    def __init__(self, guest: Machine, reader: Reader) -> None:
        self._guest = guest
        self._reader = reader
        self._produced = 0
        self._mapped = set(AREAS)
        self._steps = (
            self._put, self._put, self._put, self._kick, self._kick, self._consume, self._index, self._poke, self._list,
            self._register, self._odd_command, self._odd_rings, self._manage, self._messages, self._wait,
            self._bus_master, self._remap, self._reset, self._refuse, self.set_up,
        )  # fmt: skip

    def step(self) -> None:
        self._reader.choose(self._steps)()

    # -- as a driver should ---------------------------------------------------------------------------------------

    def set_up(self) -> None:
        self._produced = 0
        self._guest.file.fill(STATE, bytes(PAGE))
        self._rings(RING_PAGES, RING_PAGES, RAM.iova + STATE, RAM.iova + REQUESTS, RAM.iova + COMPLETIONS)
        self._guest.write(0x2010, 0xF)

    def _rings(self, requests: int, completions: int, state: int, first: int, other: int) -> None:
        pages = [(first >> 12) + page & (1 << 64) - 1 for page in range(32)]
        others = [(other >> 12) + page & (1 << 64) - 1 for page in range(32)]
        descriptor = st.SETUP_RINGS.pack(requests & 0xFFFFFFFF, completions & 0xFFFFFFFF, state >> 12, *pages, *others)
        self._guest.command(r.CMD_SETUP_RINGS, descriptor)

    def _messages(self) -> None:
        pages = [(RAM.iova + MESSAGES >> 12) + page for page in range(16)]
        self._guest.command(r.CMD_SETUP_MSG_RING, st.SETUP_MSG_RING.pack(self._reader.u8() % 20, 0, *pages))

    def _put(self) -> None:
        """A request: its fields one by one, from a template or at random."""
        reader = self._reader
        cdb = bytearray(reader.choose(TEMPLATES).ljust(16, b"\0"))
        for _ in range(reader.u8() % 3):
            cdb[reader.u8() % 16] = reader.u8()
        length = reader.number()
        address = RAM.iova + DATA + reader.u16()
        flags = reader.choose((st.FLAG_DIR_TOHOST, st.FLAG_DIR_TODEVICE, st.FLAG_DIR_NONE, 0x18, 0xFF))
        odd = reader.u8()
        if odd & 1:
            address = reader.number()
        if odd & 2:
            address, flags = RAM.iova + LISTS + (reader.u8() << 4), flags | st.FLAG_WITH_SG_LIST
        sense = reader.number() if odd & 4 else RAM.iova + DATA
        lun = reader.number() if odd & 8 else 0
        target = reader.u8() if odd & 16 else reader.choose(TARGETS)
        tag = reader.u8() if odd & 32 else 0x20
        context = reader.number() if odd & 64 else self._produced
        length_of_cdb = reader.u8() if odd & 128 else 16
        descriptor = st.REQUEST.pack(
            context, address, length, sense, 96, flags, bytes(cdb), length_of_cdb, lun, tag, 0, target, 0
        )
        self._guest.file.fill(REQUESTS + self._produced % SLOTS * st.REQUEST_SIZE, descriptor)
        self._produced += 1
        self._guest.file.fill(STATE + st.REQ_PROD_IDX, (self._produced & 0xFFFFFFFF).to_bytes(4, "little"))

    def _kick(self) -> None:
        self._guest.write(KICK, 0)
        for _ in range(3):
            self._guest.turn()

    def _consume(self) -> None:
        """Take all completions."""
        at = RAM.start + STATE + st.CMP_PROD_IDX
        self._guest.file.fill(STATE + st.CMP_CONS_IDX, self._guest.file.map[at : at + 4])
        self._guest.write(0x100C, 0xF)

    def _wait(self) -> None:
        self._guest.clock.advance(self._reader.u16() * MS)
        self._guest.turn()

    # -- as it should not -----------------------------------------------------------------------------------------

    def _index(self) -> None:
        offset = self._reader.choose((*INDICES, *SIZES))
        self._guest.file.fill(STATE + offset, (self._reader.number() & 0xFFFFFFFF).to_bytes(4, "little"))

    def _poke(self) -> None:
        self._guest.file.fill(self._reader.number(), self._reader.piece())

    def _list(self) -> None:
        """Elements of a scatter list, behind each other; some are chains, perhaps to themselves."""
        at = LISTS + (self._reader.u8() << 4)
        for _ in range(self._reader.u8() % 32):
            address, size, flags = self._reader.number(), self._reader.number(), self._reader.u8()
            if flags & 2:
                address = RAM.iova + DATA + self._reader.u16()
            chain = st.SG_FLAG_CHAIN_ELEMENT if flags & 1 else 0
            self._guest.file.fill(at, st.SG_ELEMENT.pack(address, size & 0xFFFFFFFF, chain))
            at += st.SG_ELEMENT_SIZE

    def _register(self) -> None:
        offset, value = self._reader.choose(REGISTERS), self._reader.number()
        size = self._reader.choose((4, 4, 1, 2, 8))
        if offset + size <= 0x8000:
            self._guest.write(offset, value, size)
            self._guest.function.region_read(0, offset, size)

    def _odd_command(self) -> None:
        self._guest.command(self._reader.u8() % 12, self._reader.piece())

    def _odd_rings(self) -> None:
        number = self._reader.number
        self._rings(number(), number(), number(), number(), number())

    def _manage(self) -> None:
        """Task management, and the configuration page."""
        guest, reader = self._guest, self._reader
        kind = reader.u8() % 5
        if kind == 0:
            guest.command(r.CMD_ABORT_CMD, st.ABORT_CMD.pack(reader.number(), reader.choose(TARGETS), 0))
        elif kind == 1:
            guest.command(r.CMD_RESET_DEVICE, st.RESET_DEVICE.pack(reader.choose(TARGETS), reader.bytes(8)))
        elif kind == 2:
            guest.command(r.CMD_RESET_BUS, b"")
        elif kind == 3:
            guest.command(r.CMD_ADAPTER_RESET, b"")
        else:
            page = r.CMD_CONFIG, st.CONFIG.pack(reader.number(), reader.number(), 0x1958 + reader.u8() % 3, 0)
            guest.command(*page)

    def _bus_master(self) -> None:
        self._guest.command_register(self._reader.u8() & 7)
        self._guest.turn()
        self._guest.command_register(6)

    def _remap(self) -> None:
        """A map goes, or comes back, while requests use it."""
        area = self._reader.choose(AREAS)
        try:
            if area in self._mapped:
                self._guest.function.dma_unmap(area.iova, area.size)
                self._mapped.discard(area)
            else:
                self._guest.map(area)
                self._mapped.add(area)
        except RequestError as error:
            raise AssertionError(f"a map of its own was refused: {error}") from error

    def _reset(self) -> None:
        self._guest.function.reset()
        self._guest.command_register(6)

    def _refuse(self) -> None:
        """Memory that is only reached by message: the client does not answer, or answers again."""
        self._guest.peer.answers = not self._guest.peer.answers


def _seeds() -> Iterator[bytes]:
    put, kick, consume, lists = 0, 3, 5, 8
    for model in range(4):
        for template in range(0, len(TEMPLATES), 3):
            # Some hundred bytes to the host, plain; then the same with a list.
            request = bytes((put, template, 0, 0x40, 0x00, 0x01, 0, 0, 0))
            listed = bytes((put, template, 0, 0x40, 0x00, 0x01, 0, 2, 0))
            elements = bytes((lists, 0, 2, 0, 0x20, 2, 0, 2, 0, 0x20, 2, 8, 2))
            yield bytes((model,)) + request + bytes((kick, consume)) + elements + listed + bytes((kick, kick, consume))
    for step in range(20):
        yield bytes((step % 4, put, 18, 0, 0x40, 0, 1, 0, 0, 0, kick, step)) + bytes(range(0, 64, 3)) + bytes((kick,))


TARGET = Target("rings", run, tuple(_seeds()))

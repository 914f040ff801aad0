"""The stream of a client: messages right and wrong, in pieces, with descriptors; and the answers it gives to DMA."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from hba.adapters.pvscsi import registers as r
from hba.adapters.pvscsi import structures as st
from hba.vfio_user import protocol as p
from hba.vfio_user.framing import Stream, close_fds, send_message
from hba.vfio_user.server import NativeEngine
from tests.fuzz.machine import AREAS, EDGES, RAM, UNSHARED, machine
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target
from tests.vfio_user.support import message, write_message
from tests.vfio_user.test_fuzz import GOOD, VERSION

MOST_STEPS = 60
AT_ONCE = 1000  # ns: who answers to DMA has answered before he was asked
INTERNAL = "internal error"


def run(data: bytes) -> None:
    reader = Reader(data, EDGES)
    session = _Session(reader)
    try:
        if not reader.u8() & 1:
            session.open()
        for _ in reader.steps(MOST_STEPS):
            session.step()
    finally:
        session.close()


class _Session:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._guest = machine(reader.u8())
        self._guest.file.reset()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._socket = theirs
        self._stream = Stream(theirs)
        self._engine = NativeEngine.from_fd(self._guest.loop, ours.detach(), self._guest.function, dma_timeout=AT_ONCE)
        self._engine.start()
        self._steps = (
            self._message, self._message, self._raw, self._good, self._register, self._register, self._answer,
            self._map, self._turn,
        )  # fmt: skip

    def step(self) -> None:
        self._reader.choose(self._steps)()
        if self._reader.u8() & 1:
            self._turn()

    def open(self) -> None:
        """As QEMU begins."""
        self._send(VERSION)
        for area in AREAS:
            body = p.DMA_MAP_BODY.encode(p.DmaMap(p.DMA_MAP_BODY.size, area.prot, area.start, area.iova, area.size))
            self._send(message(p.DMA_MAP, body), [] if area.by_message else [self._guest.file.fd])
        self._send(write_message(7, 4, b"\6\0"))
        self._turn()

    # -- what a client sends --------------------------------------------------------------------------------------

    def _send(self, data: bytes, fds: list[int] | None = None) -> None:
        try:
            send_message(self._socket, [data], fds or [])
        except OSError:
            pass  # refused, or full: the server has hung up or had enough

    def _descriptors(self) -> list[int]:
        """Of this process, to be passed: of memory, of nothing, or an eventfd."""
        count = self._reader.u8()
        return [self._guest.file.fd] * (count & 3) if count & 4 else [0] * (count & 15 if count & 8 else 0)

    def _message(self) -> None:
        """A message of any command, its header as it should be, or not."""
        reader = self._reader
        odd = reader.u8()
        command = reader.u8() % (max(p.COMMAND_NAMES) + 3)
        body = reader.piece()
        flags = reader.u8() if odd & 1 else p.NO_REPLY if odd & 2 else 0
        size = reader.number() & 0xFFFFFFFF if odd & 4 else None
        self._send(message(command, body, flags=flags, message_id=reader.u8(), size=size), self._descriptors())

    def _raw(self) -> None:
        self._send(self._reader.piece(), self._descriptors())

    def _good(self) -> None:
        """A good message with a few bytes changed."""
        reader = self._reader
        data = bytearray(reader.choose(GOOD))
        for _ in range(reader.u8() % 4):
            at, value = reader.u16() % len(data), reader.u8()
            if at not in range(4, 8):  # the size: `_message` does that
                data[at] = value
        self._send(bytes(data), self._descriptors())

    def _register(self) -> None:
        """A register of the adapter, of which some reach for memory."""
        reader = self._reader
        kind = reader.u8()
        if kind & 1:
            rings = UNSHARED if kind & 2 else RAM
            first = rings.iova >> 12
            pages = first + 1, *[0] * 31, first + 2, *[0] * 31
            descriptor = st.SETUP_RINGS.pack(1, 1, first, *pages)
            self._send(write_message(0, 0, r.CMD_SETUP_RINGS.to_bytes(4, "little"), posted=bool(kind & 4)))
            for at in range(0, len(descriptor), 4):
                self._send(write_message(0, 4, descriptor[at : at + 4], posted=bool(kind & 4)))
        else:
            offset = reader.choose((0x0, 0x4, 0x100C, 0x2010, 0x3014, 0x4018))
            self._send(write_message(0, offset, reader.u32().to_bytes(4, "little"), posted=bool(kind & 4)))

    def _answer(self) -> None:
        """To a DMA the server has asked for, or will: data, nothing or an error."""
        reader = self._reader
        kind = reader.u8()
        command = p.DMA_WRITE if kind & 1 else p.DMA_READ
        address, size = UNSHARED.iova + reader.u16(), reader.u16() & 0xFFF
        body = p.DMA_ACCESS_BODY.encode(p.DmaAccess(address, size))
        if not kind & 1:
            body += bytes(reader.u8() for _ in range(min(size, 8))).ljust(size, b"\1")
        flags = p.TYPE_REPLY | (p.ERROR if kind & 2 else 0)
        self._send(message(command, body, flags=flags, message_id=reader.u16()))

    def _map(self) -> None:
        """Memory comes and goes."""
        reader = self._reader
        area = reader.choose(AREAS)
        if reader.u8() & 1:
            body = p.DMA_UNMAP_BODY.encode(p.DmaUnmap(p.DMA_UNMAP_BODY.size, 0, area.iova, area.size))
            self._send(message(p.DMA_UNMAP, body))
        else:
            request = p.DmaMap(p.DMA_MAP_BODY.size, area.prot, area.start, reader.number(), reader.number())
            self._send(message(p.DMA_MAP, p.DMA_MAP_BODY.encode(request)), [self._guest.file.fd])

    def _turn(self) -> None:
        for _ in range(3):
            self._guest.turn()
        self._read()

    # -- what comes back ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """All that the server has to say is messages."""
        while True:
            try:
                header = self._stream.next()
                if header is not None:
                    assert header[1] in p.COMMAND_NAMES or header[3] & p.ERROR
                    close_fds(self._stream.fds)
                    continue
                if self._stream.receive() <= 0:
                    return
            except OSError:
                return

    def close(self) -> None:
        """The client leaves."""
        guest = self._guest
        self._read()
        self._stream.close()
        self._socket.close()
        for _ in range(8):
            guest.turn()
        connected = self._engine.connected
        last = self._engine.counters.last_error
        self._engine.close()
        guest.settle()
        assert not connected, "the server has not noticed that its client left"
        assert not guest.memory.maps
        assert INTERNAL not in (last or ""), last
        guest.file.check()


def _seeds() -> Iterator[bytes]:
    message_, raw, good, register, answer, map_ = 0, 2, 3, 4, 6, 7
    for number in range(len(GOOD)):
        yield bytes((0, 0, good, number, 0, 0, 1))
        yield bytes((1, 1, good, 0, 0, 0, 1, good, number, 1, 20, 0, 255, 8 | 1, 1))
    for command in p.COMMAND_NAMES:
        yield bytes((2, 0, message_, 0, command, 32)) + bytes(32) + bytes((1, 0, 1))
    # Rings in memory that is only reached by message, and a kick: answered, refused, not answered.
    rings = bytes((register, 3, 0))
    for kind in (0, 1, 2, 3):
        yield (
            bytes((0, 0))
            + bytes((answer, kind, 0, 0, 4, 0, 1, 0, 0, 0, 1, 0, 0))
            + rings
            + bytes((register, 0, 5, 0, 0, 0, 0, 1))
        )
    yield bytes((3, 0, register, 1, 1, register, 0, 5, 0, 0, 0, 0, 1, map_, 0, 1, 1, map_, 0, 0, 0xA2, 36, 0xA2, 37, 1))
    yield bytes((0, 1, raw, 16)) + bytes(range(16)) + bytes((0, 1))


TARGET = Target("wire", run, tuple(_seeds()))

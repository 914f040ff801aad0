"""Registers of both kinds, config space and BARs, and the interrupts' set-up, as requests a client may make."""

from __future__ import annotations

import os
from collections.abc import Iterator

from hba.vfio_user import protocol as p
from hba.vfio_user.device import RequestError
from hba.vfio_user.protocol import ProtocolError
from hba.vfio_user.requests import Requests
from tests.fuzz.machine import EDGES, Machine, life
from tests.fuzz.reader import Reader
from tests.fuzz.target import Target

CONFIG = 7
MOST_STEPS = 200
FIXED = (range(0x04), range(0x08, 0x0C), range(0x2C, 0x30), range(0x34, 0x35))  # identity, class, capabilities
OFFSETS = (0, 4, 6, 8, 0xC, 0x10, 0x14, 0x30, 0x34, 0x3C, 0x40, 0x44, 0x48, 0x50, 0x52, 0x100, 0x100C, 0x2010, 0x4018,
           0x6000, 0x7000, 0x7FFF, 0x8000)  # fmt: skip
MOST_CAPABILITIES = 48  # of four bytes each, as many as there is room for


def run(data: bytes) -> None:
    reader = Reader(data, EDGES)
    with life(reader.u8()) as guest:
        session = _Session(guest, reader)
        for _ in reader.steps(MOST_STEPS):
            session.step()


class _Session:
    def __init__(self, guest: Machine, reader: Reader) -> None:
        self._guest = guest
        self._reader = reader
        self._requests = Requests(guest.function)
        self._fixed = self._identity()
        self._steps = (self._write, self._write, self._read, self._irqs, self._ask, self._reset, self._line)

    def step(self) -> None:
        self._reader.choose(self._steps)()
        self._guest.turn()
        space = self._read_config()
        assert self._identity(space) == self._fixed, "a guest changed what the function is"
        _capabilities(space)

    def _request(self, command: int, body: bytes, fds: list[int] | None = None) -> bytes | None:
        """What the answer is; None when it is no."""
        try:
            plan = self._requests.check(command, memoryview(body), fds if fds is not None else [], False)
            done = plan.act() if plan.act is not None else None
        except (RequestError, ProtocolError):
            return None
        return plan.reply if plan.reply is not None else done

    # -- what is asked --------------------------------------------------------------------------------------------

    def _place(self) -> tuple[int, int, int]:
        """(region, offset, size) of an access."""
        reader = self._reader
        odd = reader.u8()
        region = reader.u8() % 10 if odd & 1 else (0, CONFIG)[odd >> 1 & 1]
        offset = reader.number() if odd & 4 else reader.choose(OFFSETS)
        size = reader.u8() if odd & 8 else (4, 2, 1, 8)[odd >> 4 & 3]
        return region, offset, size

    def _read(self) -> None:
        region, offset, size = self._place()
        header = p.REGION_ACCESS_BODY.struct.pack(offset, region, size)
        answer = self._request(p.REGION_READ, header)
        assert answer is None or (len(answer) == len(header) + size and answer.startswith(header))

    def _write(self) -> None:
        region, offset, size = self._place()
        value = (self._reader.number() & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._request(p.REGION_WRITE, p.REGION_ACCESS_BODY.struct.pack(offset, region, size) + value)

    def _irqs(self) -> None:
        reader = self._reader
        fields = p.SetIrqs(20 + reader.u8() % 4, reader.u8(), reader.u8() % 6, reader.u8() % 4, reader.u8() % 4)
        fds = [os.eventfd(0, os.EFD_CLOEXEC) for _ in range(reader.u8() % 3)]
        if reader.u8() & 1:
            fds.append(os.dup(self._guest.file.fd))
        self._request(p.DEVICE_SET_IRQS, p.SET_IRQS_BODY.encode(fields) + reader.piece(), fds)

    def _ask(self) -> None:
        reader = self._reader
        index, argsz = reader.u8() % 10, reader.number() & 0xFFFFFFFF
        self._request(p.DEVICE_GET_REGION_INFO, p.REGION_INFO_BODY.encode(p.RegionInfoBody(argsz, 0, index, 0, 0, 0)))
        self._request(p.DEVICE_GET_IRQ_INFO, p.IRQ_INFO_BODY.encode(p.IrqInfoBody(argsz, 0, index, 0)))
        self._guest.function.snapshot()
        self._guest.parts.adapter.snapshot()

    def _reset(self) -> None:
        self._request(p.DEVICE_RESET, b"")

    def _line(self) -> None:
        """Something happens that the guest is to be interrupted for."""
        adapter = self._guest.parts.adapter
        self._reader.choose((adapter.announce_completions, adapter.announce_units))()

    # -- what must hold -------------------------------------------------------------------------------------------

    def _read_config(self) -> bytes:
        answer = self._request(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, CONFIG, 4096))
        assert answer is not None and len(answer) == 4096 + p.REGION_ACCESS_BODY.size
        return answer[p.REGION_ACCESS_BODY.size :]

    def _identity(self, space: bytes | None = None) -> list[bytes]:
        whole = self._read_config() if space is None else space
        return [whole[part.start : part.stop] for part in FIXED]


def _capabilities(space: bytes) -> None:
    """The list of capabilities ends, and lies where capabilities may."""
    at, seen = space[0x34], 0
    while at:
        assert 0x40 <= at <= 0xFC and not at & 3
        at, seen = space[at + 1], seen + 1
        assert seen <= MOST_CAPABILITIES, "the list of capabilities has no end"


def _seeds() -> Iterator[bytes]:
    write, read, irqs, ask, reset, line = 0, 2, 3, 4, 5, 6
    config = 2
    for number in range(len(OFFSETS)):
        yield bytes(
            (0, write, config, number, 0xA2, 34, read, config, number, write, 0, number, 0xA2, 34, read, 0, number)
        )
    yield bytes((1, irqs, 0, 0x24, 1, 0, 1, 1, 0, 0, line, 0, irqs, 0, 0x21, 1, 0, 0, 0, 0, 0, ask, 0, 32, reset))
    yield bytes((2, irqs, 0, 0x24, 0, 0, 1, 1, 0, 0, line, 2, irqs, 0, 0x09, 0, 0, 1, 0, 0, 0, line, 1, ask, 1, 64))
    yield bytes((3, write, config | 12, 16, 6, 1, read, 12, 0, 255, ask, 7, 0xA2, 34))


TARGET = Target("registers", run, tuple(_seeds()))

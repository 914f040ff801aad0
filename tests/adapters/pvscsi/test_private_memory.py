"""A machine that does not share its memory: its processors go on while it has a DMA message of ours to answer."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest

from hba.adapters.pvscsi.structures import REQ_CONS_IDX
from hba.vfio_user import protocol as p
from hba.vfio_user.client import GuestRam, VfioUserClient
from tests.adapters.pvscsi.driver import BUS_MASTER, COMMAND_REGISTER, MEMORY_ENABLE, RAM, STATE, Driver
from tests.vfio_user.support import BAR0, CONFIG, ENGINES, run_beside

COMMAND, COMMAND_DATA, COMMAND_STATUS, INTR_STATUS, INTR_MASK = 0x0, 0x4, 0x8, 0x100C, 0x2010
KICKS = (0x3014, 0x4018)
DEBUG = 0x3018


class Machine(VfioUserClient):
    """Where QEMU's main loop has a DMA_WRITE in hand and its processor runs: `meanwhile(address)`."""

    meanwhile: Callable[[int], None] = staticmethod(lambda address: None)

    def _answer(self, message_id: int, command: int, flags: int, code: int, body: bytes = b"") -> None:
        if command == p.DMA_WRITE:
            self.meanwhile(p.DMA_ACCESS_BODY.decode(body).address)
        super()._answer(message_id, command, flags, code, body)


class Firmware(Driver):
    """The driver as its machine's processor runs it, over the socket."""

    def __init__(self, engine: str) -> None:
        super().__init__(ram=False)
        self.adapter.function.reset()
        ours, theirs = socket.socketpair()
        self.engine = ENGINES[engine].from_fd(self.loop, ours.detach(), self.adapter.function)
        self.engine.start()
        self.client = Machine(theirs, timeout=10)
        self.ram = GuestRam(RAM, 0)
        self.port.at_once = lambda srb: None

    def power_on(self) -> None:
        self.client.version()
        self.client.map_ram(self.ram, shared=False)
        self.client.region_write(CONFIG, COMMAND_REGISTER, bytes([MEMORY_ENABLE | BUS_MASTER, 0]))
        self.setup()
        while self.read(COMMAND_STATUS):  # by message it takes longer than the write that asks for it
            pass

    def poke(self, address: int, data: bytes) -> None:
        self.ram.view[address : address + len(data)] = data

    def peek(self, address: int, length: int) -> bytes:
        return bytes(self.ram.view[address : address + length])

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.client.region_write(BAR0, offset, value.to_bytes(size, "little"))

    def read(self, offset: int, size: int = 4) -> int:
        return int.from_bytes(self.client.region_read(BAR0, offset, size), "little")

    def until_told(self) -> None:
        """SeaBIOS, pvscsi_wait_intr_cmpl."""
        while not self.read(INTR_STATUS) & 3:
            pass
        self.write(INTR_STATUS, 3)

    def request(self, context: int) -> None:
        self.put(context=context)
        self.write(KICKS[0], 0)

    def close(self) -> None:
        self.client.close()
        for _ in range(4):
            self.loop.run_once(0)
        self.engine.close()
        self.ram.close()
        super().close()


def test_a_cause_that_was_acknowledged_is_not_read_again(engine: str) -> None:
    """Firmware that polls for the end of a request took that of the one before it for it, and found no data."""
    firmware = Firmware(engine)
    read: list[int] = []

    def goes_on(address: int) -> None:
        """The request is done, though its slot on the ring is not free yet."""
        if address == STATE + REQ_CONS_IDX and not read:
            read.append(firmware.read(INTR_STATUS))
            firmware.write(INTR_STATUS, 3)
            firmware.request(2)
            read.append(firmware.read(INTR_STATUS))

    def body() -> list[int]:
        firmware.power_on()
        firmware.client.meanwhile = goes_on
        firmware.request(1)
        while len(read) < 2:
            firmware.client.poll()
        firmware.until_told()
        return [done[0] for done in firmware.completions()]

    try:
        assert run_beside(firmware.loop, body) == [1, 2]
        assert read == [1, 0]
    finally:
        firmware.close()


@pytest.mark.parametrize(
    ("offset", "count", "at_once"),
    [
        (INTR_STATUS, 4, True),
        (INTR_MASK, 4, True),
        *((kick, 4, True) for kick in KICKS),
        (COMMAND, 4, False),
        (COMMAND_DATA, 4, False),
        (DEBUG, 4, False),
        (INTR_STATUS, 2, False),
        (INTR_STATUS, 8, False),
        (INTR_STATUS + 2, 2, False),
        (0x1000, 4, False),
        (0x7FFC, 8, False),
    ],
)
def test_what_is_carried_out_at_once(driver: Driver, offset: int, count: int, at_once: bool) -> None:
    function = driver.adapter.function
    assert function.at_once(BAR0, offset, count) is at_once
    assert not function.at_once(1, offset, count)
    assert not function.at_once(CONFIG, offset, count)
    driver.write_config(COMMAND_REGISTER, BUS_MASTER, 2)
    assert not function.at_once(BAR0, offset, count)

"""A client, the native engine and a real PCI function between them, in one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from typing import TypeVar

from hba.clock import MS
from hba.loop import EventLoop
from hba.pci.bars import Bar, MsixLayout
from hba.pci.function import PciFunction
from hba.pci.identity import Identity
from hba.pci.memory import GuestMemory
from hba.pci.plain_memory import PlainMemory
from hba.pci.registers import RO, WO, Register, RegisterBlock
from hba.vfio_user import protocol as p
from hba.vfio_user.client import ReplyError, VfioUserClient
from hba.vfio_user.server import NativeEngine
from tests.vfio_user.support import run_beside

T = TypeVar("T")

IDENTITY = Identity(0x1AF4, 0x10F0, 0x010000, 0x1AF4, 0x1100, 3)
BAR, WIDE, MAPPED, UNUSED, ROM, CONFIG, VGA = 0, 1, 3, 4, 6, 7, 8
INTX, MSI, MSIX, ERR, REQ = range(5)
VECTORS = 8
VALUE, STATUS, BELL, OTHER_BELL = 0x00, 0x04, 0x10, 0x18
AREA_AT, AREA_SIZE, MAPPED_SIZE = 0x2000, 0x1000, 0x4000
REGISTERS = (
    Register("VALUE", VALUE),
    Register("STATUS", STATUS, access=RO, reset=0xC0FFEE),
    Register("BELL", BELL, access=WO, doorbell=True),
    Register("OTHER_BELL", OTHER_BELL, 16, access=WO, doorbell=True),
)


class Rig:
    """BAR 0 has registers and MSI-X, BAR 1 is of 64 bits, BAR 3 has plain memory in its middle; 8 vectors of MSI."""

    def __init__(self, capabilities: p.Capabilities | None = None, *, negotiate: bool = True) -> None:
        self.loop = EventLoop()
        self.memory = GuestMemory()
        self.registers = RegisterBlock("RIG", REGISTERS)
        self.area = PlainMemory("AREA", AREA_SIZE)
        self.rung: list[int] = []
        self.registers.on_write("BELL", lambda value: self.rung.append(value))
        self.function = PciFunction(
            self.loop,
            IDENTITY,
            {
                BAR: Bar(0x2000, {0: self.registers}),
                WIDE: Bar(0x1000, wide=True),
                MAPPED: Bar(MAPPED_SIZE, {AREA_AT: self.area}),
            },
            self.memory,
            msi_vectors=VECTORS,
            msix=MsixLayout(VECTORS, BAR, 0x1000, 0x1800),
            rom=b"\x55\xaa".ljust(2048, b"\0"),
            ioeventfds=True,
        )
        ours, theirs = socket.socketpair()
        self.engine = NativeEngine.from_fd(self.loop, ours.detach(), self.function)
        self.engine.start()
        self.client = VfioUserClient(theirs, timeout=10)
        if negotiate:
            self.call(lambda: self.client.version(capabilities) if capabilities else self.client.version())
            self.enable()

    def enable(self) -> None:
        """Decoding and bus mastering, as firmware and drivers switch them on."""
        self.call(lambda: self.client.region_write(CONFIG, 4, b"\x06\0"))

    def call(self, function: Callable[[], T]) -> T:
        return run_beside(self.loop, function)

    def refused(self, command: int, body: bytes = b"", fds: Sequence[int] = ()) -> int:
        """The errno a request is refused with; the connection goes on."""
        try:
            self.call(lambda: self.client.request(command, body, fds=fds))
        except ReplyError as error:
            assert self.call(self.client.device_info).num_regions == 9
            return error.errno
        raise AssertionError(f"{p.command_name(command)} was not refused")

    def turn(self) -> None:
        for _ in range(6):
            self.loop.run_once(0)

    def until(self, done: Callable[[], bool]) -> None:
        for _ in range(1000):
            if done():
                return
            self.loop.run_once(20 * MS)
        raise AssertionError("it never came")

    def close(self) -> None:
        self.client.close()
        self.turn()
        self.engine.close()
        self.function.close()
        self.area.close()
        self.loop.close()


def eventfd(value: int = 0) -> int:
    return os.eventfd(value, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

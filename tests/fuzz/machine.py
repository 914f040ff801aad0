"""A whole adapter under a clock of its own, and a guest's memory with guards around every map.

The memory is one file. Its pages between the maps hold a secret, and so does the map the device may only write: a read
that goes astray brings it to light. No byte of them, and none of the map that the device may only read, may change.
"""

from __future__ import annotations

import functools
import gc
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from hba.clock import MS, S, VirtualClock
from hba.config.model import adapter_config
from hba.errors import DmaFault
from hba.loop import EventLoop
from hba.scsi.disk.disk import Disk
from hba.server.assemble import Assembled, Assembler
from hba.storage.memory import MemoryBackend
from hba.vfio_user import device as dev

PAGE = 4096
SECRET = b"\xa5GUARDED-SECRET\x5a"
READ_WRITE = dev.DMA_READ | dev.DMA_WRITE


class Area:
    """A map of the guest: `pages` pages of the file from page `first`, at bus address `iova`."""

    def __init__(self, first: int, pages: int, iova: int, prot: int = READ_WRITE, by_message: bool = False) -> None:
        self.start, self.size = first * PAGE, pages * PAGE
        self.iova = iova
        self.prot = prot
        self.by_message = by_message


# No two of them lie side by side in the file, two do on the bus, and the last ends where bus addresses end.
RAM = Area(4, 48, 0x10000)
BESIDE = Area(56, 4, RAM.iova + RAM.size)
READ_ONLY = Area(64, 4, 0x80000, dev.DMA_READ)
WRITE_ONLY = Area(72, 4, 0x90000, dev.DMA_WRITE)
UNSHARED = Area(80, 4, 0xA0000, by_message=True)
LAST = Area(88, 4, (1 << 64) - 4 * PAGE)
AREAS = (RAM, BESIDE, READ_ONLY, WRITE_ONLY, UNSHARED, LAST)
PAGES = 96
EDGES = tuple(edge for area in AREAS for edge in (area.iova, area.iova + area.size))


class GuestFile:
    """The file behind all of the guest's memory."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("guarded", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, PAGES * PAGE)
        self.map = mmap.mmap(self.fd, PAGES * PAGE)
        guard = (SECRET * (PAGE // len(SECRET) + 1))[:PAGE]
        self._clean = bytearray(guard * PAGES)
        for area in AREAS:
            if area is not WRITE_ONLY:
                self._clean[area.start : area.start + area.size] = bytes(area.size)
        # What the device has no right to change, and where the secret has no right to be.
        self._guards = [(0, RAM.start)] + [
            (one.start + one.size, other.start) for one, other in zip(AREAS, [*AREAS[1:]], strict=False)
        ]
        self._guards += [(LAST.start + LAST.size, PAGES * PAGE), (READ_ONLY.start, READ_ONLY.start + READ_ONLY.size)]
        self.reset()

    def reset(self) -> None:
        self.map[:] = bytes(self._clean)

    def duplicate(self) -> int:
        """A descriptor for one map."""
        return os.dup(self.fd)

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)

    def fill(self, offset: int, data: bytes) -> None:
        """What the guest writes to its own memory: to any of it that the device may read."""
        offset %= RAM.size
        self.map[RAM.start + offset : RAM.start + min(RAM.size, offset + len(data))] = data[: RAM.size - offset]

    def check(self) -> None:
        """Raises AssertionError when the device was where it must not be."""
        for start, end in self._guards:
            assert self.map[start:end] == self._clean[start:end], f"written outside the maps, in 0x{start:x}-0x{end:x}"
        for area in (RAM, BESIDE, UNSHARED, LAST):
            # Half of it is telling: a piece of a guard begins anywhere.
            found = self.map.find(SECRET[1:9], area.start, area.start + area.size)
            assert found < 0, f"read outside the maps, seen at 0x{found:x}"

    def at(self, iova: int, length: int) -> int:
        """The place of a range in the file; it must lie in the one map that is reached by message."""
        inside = iova - UNSHARED.iova
        assert inside >= 0 and inside + length <= UNSHARED.size, f"a message asks for 0x{iova:x}+0x{length:x}"
        return UNSHARED.start + inside


class Peer:
    """The client the device reaches the unshared map through."""

    def __init__(self, file: GuestFile) -> None:
        self._file = file
        self.answers = True

    def dma_read(self, address: int, length: int) -> bytes:
        at = self._file.at(address, length)
        self._may(address, length)
        return self._file.map[at : at + length]

    def dma_write(self, address: int, data: bytes | memoryview) -> None:
        at = self._file.at(address, len(data))
        self._may(address, len(data))
        self._file.map[at : at + len(data)] = bytes(data)

    def _may(self, address: int, length: int) -> None:
        if not self.answers:
            raise DmaFault(address, length, "the client does not want to")


DISK = 64 << 10  # bytes
UNITS = [
    {"target": 0, "storage": {"kind": "memory", "size": DISK}},
    {"target": 1, "removable": True, "block_size": 4096, "storage": {"kind": "memory", "size": DISK}},
    {"target": 2, "protection": 1, "storage": {"kind": "memory", "size": DISK}},
    {"target": 3, "type": "cdrom"},
    {"target": 4, "type": "enclosure"},
    {"target": 5, "lun": 1, "storage": {"kind": "memory", "size": DISK}},
]
CONTENT = bytes(range(256)) * (DISK // 256)
NOWHERE = Path("/nonexistent")  # nothing here is in a file
MODELS = [("storport", "off"), ("scsiport", "off"), ("storport", "report"), ("scsiport", "report")]


class Machine:
    """An adapter and its guest. `lives` begin at power on and end at power off; the adapter stays."""

    def __init__(self, port: str, verifier: str) -> None:
        self.clock = VirtualClock()
        self.loop = EventLoop(self.clock)
        config = {
            "type": "pvscsi", "name": "fuzz", "socket": str(NOWHERE / "fuzz"), "port": port, "lun": UNITS,
            "verifier": {"level": verifier},
        }  # fmt: skip
        self.adapter: Assembled = Assembler()(msgspec.convert(config, adapter_config()), NOWHERE, self.loop)
        self.parts = self.adapter.parts
        self.function = self.parts.function
        self.memory = self.function.memory
        self.file = GuestFile()
        self.peer = Peer(self.file)
        self.adapter._adapter.start()
        self._disks = [unit for unit in self.parts.bus if isinstance(unit, Disk)]

    # -- one life -------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        self.file.reset()
        self.peer.answers = True
        self.fill_disks()
        self.function.connected(self.peer)
        for area in AREAS:
            self.map(area)

    def fill_disks(self) -> None:
        """What was there before anybody wrote, or formatted."""
        for disk in self._disks:
            if isinstance(disk.backend, MemoryBackend):
                os.pwrite(disk.backend._fd, CONTENT, 0)

    def map(self, area: Area) -> None:
        fd = None if area.by_message else self.file.duplicate()
        self.function.dma_map(area.iova, area.size, area.prot, fd, area.start)

    def power_off(self) -> None:
        """The guest leaves. Raises AssertionError for what it must not have been able to do."""
        self.function.disconnected()
        self.settle()
        adapter = self.parts.adapter
        snapshot = adapter.snapshot()
        for count in ("outstanding", "pieces", "completions_waiting", "messages_waiting"):
            assert snapshot["counters"][count] == 0, f"{count}: {snapshot['counters'][count]}"
        assert self.memory.maps == []
        self.file.check()
        if self.parts.verifier is not None:
            # GD: what the guest's driver must not do, which this one does. All others are about us.
            ours = {rule for rule in self.parts.verifier.counts if not rule.startswith("GD-")}
            assert not ours, f"{ours}: {self.parts.verifier.findings}"

    def settle(self) -> None:
        """Let the loop do what is due; it must come to rest."""
        for _ in range(200):
            if not self.loop._soon:
                break
            self.turn()
        for step in (1 * MS, 1 * S, 60 * S):
            self.clock.advance(step)
            for _ in range(4):
                self.turn()

    def turn(self) -> None:
        self.loop.run_once(0)

    # -- what a guest does ----------------------------------------------------------------------------------------

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.function.region_write(0, offset, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def command(self, code: int, descriptor: bytes) -> None:
        self.write(0, code)
        for at in range(0, len(descriptor), 4):
            self.write(4, int.from_bytes(descriptor[at : at + 4], "little"))

    def command_register(self, value: int) -> None:
        self.function.region_write(7, 4, value.to_bytes(2, "little"))


@contextmanager
def life(number: int) -> Iterator[Machine]:
    """One, from power on to power off."""
    one = machine(number)
    one.power_on()
    try:
        yield one
    finally:
        one.power_off()


def machine(number: int) -> Machine:
    """The one of this process, by port model and verifier level."""
    return _made(number % len(MODELS))


@functools.cache
def _made(number: int) -> Machine:
    made = Machine(*MODELS[number])
    gc.freeze()  # as the server does, which collects whenever a client has left
    return made


forget = _made.cache_clear  # those that were broken

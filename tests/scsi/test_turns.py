"""The most that each command can be asked for, in one piece of memory and in thousands: under the watchdog, so that no
turn takes long (see tests/conftest.py)."""

from __future__ import annotations

import pytest

from hba.clock import VirtualClock
from hba.dma import DmaBuffer
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.optical.cdrom import Cdrom
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.task import DATA_IN, DATA_NONE, DATA_OUT, Task
from hba.storage.memory import MemoryBackend
from tests.scsi.util import be, settle

MIB = 1 << 20
PIECES = 16_000


def build(kind: str) -> DeviceServer:
    clock = VirtualClock()
    unit: DeviceServer
    if kind == "cd":
        unit = Cdrom(MemoryBackend(700 * MIB), Identity(), clock)
    else:
        options = DiskOptions(block_size=4096 if kind == "4Kn" else 512, protection=kind == "protected")
        unit = Disk(MemoryBackend(1 << 40), Identity(), clock, options)
    ScsiBus().attach(0, 0, unit)
    settle(unit)
    return unit


def buffer(length: int, pieces: int) -> DmaBuffer:
    whole = memoryview(bytearray(length))
    if pieces == 1:
        return DmaBuffer([(0x1000, length)], [whole], length)
    step = max(1, length // pieces) | 1  # odd: no piece is a whole number of blocks
    views = [whole[at : at + step] for at in range(0, length, step)]
    return DmaBuffer([(0x1000 + 2 * step * n, len(view)) for n, view in enumerate(views)], views, length)


def blocks(unit: DeviceServer, size: int = 32 * MIB) -> int:
    return size // unit.block_size  # type: ignore[attr-defined]


def rw16(opcode: int, unit: DeviceServer, flags: int = 0) -> str:
    return f"{opcode:02x}{flags:02x}{be(8, 8)}{be(blocks(unit), 4)}0000"


HEAVY = {
    "READ(16)": (DATA_IN, lambda unit: (rw16(0x88, unit), 32 * MIB)),
    "READ(16) FUA": (DATA_IN, lambda unit: (rw16(0x88, unit, 8), 32 * MIB)),
    "WRITE(16)": (DATA_OUT, lambda unit: (rw16(0x8A, unit), 32 * MIB)),
    "WRITE(16) FUA": (DATA_OUT, lambda unit: (rw16(0x8A, unit, 8), 32 * MIB)),
    "VERIFY(16) with data": (DATA_OUT, lambda unit: (rw16(0x8F, unit, 2), 32 * MIB)),
    "VERIFY(16)": (DATA_NONE, lambda unit: (rw16(0x8F, unit), 0)),
    "VERIFY(16) one block": (DATA_OUT, lambda unit: (rw16(0x8F, unit, 6), unit.block_size)),
    "WRITE AND VERIFY(16)": (DATA_OUT, lambda unit: (rw16(0x8E, unit, 2), 32 * MIB)),
    "ORWRITE(16)": (DATA_OUT, lambda unit: (rw16(0x8B, unit), 32 * MIB)),
    "COMPARE AND WRITE": (DATA_OUT, lambda unit: (f"8900{be(0, 8)}000000ff0000", 2 * 255 * unit.block_size)),
    "WRITE SAME(16)": (DATA_OUT, lambda unit: (f"9300{be(0, 8)}{be(0xFFFF, 4)}0000", unit.block_size)),
    "GET LBA STATUS": (DATA_IN, lambda unit: (f"9e12{be(0, 8)}{be(1 << 20, 4)}0000", 1 << 20)),
    "PRE-FETCH(16)": (DATA_NONE, lambda unit: (f"9000{be(0, 8)}{be(0xFFFFFFF, 4)}0000", 0)),
    "FORMAT UNIT": (DATA_OUT, lambda unit: ("041000000000", 4)),
    "READ BUFFER(10)": (DATA_IN, lambda unit: ("3c020000000000010000", 65536)),
    "MODE SENSE(10)": (DATA_IN, lambda unit: ("5a003fff000000ffff00", 65535)),
    "LOG SENSE": (DATA_IN, lambda unit: ("4d007fff000000ffff00", 65535)),
    "REPORT SUPPORTED OPERATION CODES": (DATA_IN, lambda unit: ("a30c8000000000ffffff0000", 65535)),
}
WITH_PROTECTION = {
    "READ(16) with protection": (DATA_IN, lambda unit: (rw16(0x88, unit, 0x20), 32 * MIB + blocks(unit) * 8)),
    "VERIFY(16) with protection": (DATA_NONE, lambda unit: (rw16(0x8F, unit, 0x20), 0)),
}
OPTICAL = {
    "READ(12)": (DATA_IN, lambda unit: (f"a800{be(0, 4)}{be(blocks(unit), 4)}0000", 32 * MIB)),
    "READ CD": (DATA_IN, lambda unit: (f"be00{be(0, 4)}{be(blocks(unit), 3)}100000", 32 * MIB)),
}


def cases() -> list[object]:
    found = []
    for kind, table in (
        ("disk", HEAVY),
        ("4Kn", HEAVY),
        ("protected", HEAVY | WITH_PROTECTION),
        ("cd", OPTICAL),
    ):
        found += [pytest.param(kind, *case, id=f"{kind} {name}") for name, case in table.items()]
    return found


@pytest.mark.parametrize("pieces", [1, PIECES])
@pytest.mark.parametrize(("kind", "direction", "make"), cases())
def test_the_most_at_once(kind: str, direction: int, make: object, pieces: int) -> None:
    unit = build(kind)
    cdb, length = make(unit)  # type: ignore[operator]
    data = buffer(length, pieces if length > PIECES else 1) if length else None
    task = Task(bytes.fromhex(cdb).ljust(16, b"\0"), direction, data)
    ended: list[Task] = []
    task.done = ended.append
    if not unit.execute([task]):
        assert isinstance(unit.clock, VirtualClock)
        for _ in range(100_000):
            if ended:
                break
            unit.clock.advance(1)
        assert ended == [task]
    assert task.status in (0, 2)
    unit.close()

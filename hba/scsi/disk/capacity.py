"""READ CAPACITY, 10 and 16 (SBC-4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import ALLOWED, CommandTable
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.medium import MediumUnit

commands = CommandTable()
read_capacity = CommandTable()  # the part CD drives have, too

# The LOGICAL BLOCK ADDRESS and PMI fields are obsolete since SBC-3: ignored, as far as they can be set.


@read_capacity.add("25 01 ffffffff 0000 01 00", "READ CAPACITY(10)", medium=True, access=ALLOWED)
def read_capacity10(unit: MediumUnit, task: Task) -> bytes:
    last = min(max(unit.blocks - 1, 0), 0xFFFFFFFF)
    return last.to_bytes(4, "big") + unit.block_size.to_bytes(4, "big")


@commands.add(
    "9e 10 ffffffffffffffff ffffffff 01 00",
    "READ CAPACITY(16)",
    service=True,
    allocation=(10, 4),
    medium=True,
    access=ALLOWED,
)
def read_capacity16(unit: Disk, task: Task) -> bytes:
    data = bytearray(32)
    data[0:8] = max(unit.blocks - 1, 0).to_bytes(8, "big")
    data[8:12] = unit.block_size.to_bytes(4, "big")
    data[12] = 0x01 if unit.protection_enabled else 0x00  # PROT_EN, P_TYPE 0: type 1
    data[13] = unit.exponent
    if unit.thin:
        data[14] = 0xC0  # LBPME; LBPRZ: unmapped blocks read as zeros
    return bytes(data)

"""READ DEFECT DATA, 10 and 12: lists that are empty, in the format asked for (SBC-4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import READS, CommandTable
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk

commands = CommandTable()

# DEFECT LIST FORMAT: short and long block, extended and plain bytes from index and physical sector; 110b is vendor's,
# 111b reserved
DEFECT_LIST_FORMATS = range(6)


@commands.add(
    "37 00 1f 00000000 ffff 00",
    "READ DEFECT DATA(10)",
    allocation=(7, 2),
    medium=True,
    access=READS,
    values={(2, 0x07): DEFECT_LIST_FORMATS},
)
def read_defect_data10(unit: Disk, task: Task) -> bytes:
    return bytes((0, task.cdb[2] & 0x1F, 0, 0))


@commands.add(
    "b7 1f ffffffff ffffffff 00 00",
    "READ DEFECT DATA(12)",
    allocation=(6, 4),
    medium=True,
    access=READS,
    values={(1, 0x07): DEFECT_LIST_FORMATS},
)
def read_defect_data12(unit: Disk, task: Task) -> bytes:
    return bytes((0, task.cdb[1] & 0x1F, 0, 0, 0, 0, 0, 0))

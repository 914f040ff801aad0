"""WRITE ATOMIC(16) (SBC-4).

The blocks go to the back end in one write, with no other command of the unit in between, and forced to the medium:
no other command sees a part of them. What a power failure in the middle of that write leaves is up to the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.disk.rw import write_blocks
from hba.scsi.disk.vpd import MAX_ATOMIC_BYTES
from hba.scsi.sense import invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()


@commands.add(
    "9c 18 ffffffffffffffff 0000 ffff 1f 00", "WRITE ATOMIC(16)", medium=True, access=CONFLICTS, exclusive=True
)
def write_atomic16(unit: Disk, task: Task) -> Steps | None:
    """The ATOMIC BOUNDARY field must be 0: MAXIMUM ATOMIC BOUNDARY SIZE is."""
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[12:14], "big")
    unit.check_writable()
    unit.check_range(lba, count)
    if count > MAX_ATOMIC_BYTES // unit.block_size:
        raise invalid_cdb(12)
    return write_blocks(unit, task, lba, count, 12, fua=True)

"""READ CD and SET CD SPEED (MMC-6): user data of mode 1 sectors; raw sectors are not in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import READS, CommandTable
from hba.scsi.disk.rw import read_blocks
from hba.scsi.sense import ILLEGAL_MODE_FOR_THIS_TRACK, CheckCondition, invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom
    from hba.scsi.server import Steps

commands = CommandTable()

_ANY, _MODE_1 = 0, 2
_USER_DATA = 0x10


@commands.add("be 1c ffffffff ffffff f8 00 00", "READ CD", medium=True, access=READS)
def read_cd(unit: Cdrom, task: Task) -> Steps | None:
    cdb = task.cdb
    if cdb[1] >> 2 & 0x07 not in (_ANY, _MODE_1):
        raise CheckCondition(ILLEGAL_MODE_FOR_THIS_TRACK)
    lba, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:9], "big")
    if cdb[9] & 0xF8 not in (0, _USER_DATA):
        raise invalid_cdb(9, 7)
    unit.check_range(lba, count)
    return read_blocks(unit, task, lba, count, 6) if cdb[9] & _USER_DATA else None


@commands.add("bb 03 ffff ffff 00000000 00 00", "SET CD SPEED")
def set_cd_speed(unit: Cdrom, task: Task) -> None:
    """Every speed is accepted and none makes a difference."""

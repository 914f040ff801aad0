"""READ CD and SET CD SPEED (MMC-6): user data of mode 1 sectors; raw sectors are not in an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hba.scsi.command import READS, CommandTable
from hba.scsi.disk import rw
from hba.scsi.disk.rw import read_blocks
from hba.scsi.optical.toc import lba_of
from hba.scsi.sense import ILLEGAL_MODE_FOR_THIS_TRACK, LBA_OUT_OF_RANGE, CheckCondition, invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom
    from hba.scsi.server import Steps

commands = CommandTable()
blocks = CommandTable()

_ANY, _MODE_1 = 0, 2  # EXPECTED SECTOR TYPE
_OPTIONS: dict[str, Any] = {"medium": True, "access": READS, "values": {(1, 0x1C): range(6)}}
_USER_DATA = 0x10


@blocks.add("28 18 ffffffff 00 ffff 00", "READ(10)", medium=True, access=READS)
def read10(unit: Cdrom, task: Task) -> Steps | None:
    """As a disk's, without groups (MMC-6)."""
    return rw.read10(unit, task)


@blocks.add("a8 18 ffffffff ffffffff 00 00", "READ(12)", medium=True, access=READS)
def read12(unit: Cdrom, task: Task) -> Steps | None:
    return rw.read12(unit, task)


@commands.add("be 1c ffffffff ffffff f8 00 00", "READ CD", **_OPTIONS)
def read_cd(unit: Cdrom, task: Task) -> Steps | None:
    cdb = task.cdb
    return _read(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:9], "big"), 6)


def _read(unit: Cdrom, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    cdb = task.cdb
    kind = cdb[1] >> 2 & 0x07
    if kind not in (_ANY, _MODE_1):
        raise CheckCondition(ILLEGAL_MODE_FOR_THIS_TRACK)
    if cdb[9] & 0xF8 not in (0, _USER_DATA):
        raise invalid_cdb(9, 7)
    unit.check_range(lba, count)
    return read_blocks(unit, task, lba, count, byte) if cdb[9] & _USER_DATA else None


@commands.add("b9 1c 00 ffffff ffffff f8 00 00", "READ CD MSF", **_OPTIONS)
def read_cd_msf(unit: Cdrom, task: Task) -> Steps | None:
    """From one minute, second and frame up to another, which is not read."""
    cdb = task.cdb
    first, end = lba_of(cdb[3:6]), lba_of(cdb[6:9])
    if first is None:
        raise invalid_cdb(3)
    if end is None or end < first:
        raise invalid_cdb(6)
    if first == end:
        return None
    if first < 0:
        raise CheckCondition(LBA_OUT_OF_RANGE)  # the pregap is not in an image
    return _read(unit, task, first, end - first, 6)


@commands.add("bb 03 ffff ffff 00000000 00 00", "SET CD SPEED", values={(1, 0x03): (0, 1)})
def set_cd_speed(unit: Cdrom, task: Task) -> None:
    """Every speed is accepted and none makes a difference."""

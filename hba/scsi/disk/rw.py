"""READ and WRITE, 6 to 16 (SBC-4), whatever their flags and the room for data. `hba.scsi.plan` has the plain ones.

Data moves between the back end and the initiator's own buffer, never through a copy.

GROUP NUMBER is accepted and ignored wherever SBC-4 has it: GROUP_SUP is 0, nothing is counted by group, and disks that
do not count do not refuse it either.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.medium import MediumUnit
    from hba.scsi.server import Steps

commands = CommandTable()

_RW10 = struct.Struct(">xBIBHB").unpack_from
_RW16 = struct.Struct(">xBQIBB").unpack_from
FUA = 0x08
DPO = 0x10

# Commands that name one range of blocks (SBC-4, MMC-6): READ, WRITE, VERIFY, PRE-FETCH, WRITE SAME and their like.
_WITH_LBA = frozenset(
    bytes.fromhex("08 0a 28 2a 2e 2f 34 41 88 89 8a 8b 8e 8f 90 93 9c 9e a8 aa ae af be"),
)


def lba_of(cdb: bytes) -> int | None:
    """The LBA field of a block command, by the group of its operation code (SPC-4 "Typical CDB formats"). None for a
    command that names no blocks, or all of them (SYNCHRONIZE CACHE)."""
    group = cdb[0] >> 5 if cdb and cdb[0] in _WITH_LBA else 7
    if group == 0:
        return int.from_bytes(cdb[1:4], "big") & 0x1FFFFF
    if group in (1, 2, 5):
        return int.from_bytes(cdb[2:6], "big")
    if group == 4:
        return int.from_bytes(cdb[2:10], "big")
    return None


def read_blocks(unit: MediumUnit, task: Task, lba: int, count: int, byte: int, fua: bool = False) -> Steps | None:
    """READ whatever the CDB's size; `byte` is where it says how many blocks."""
    unit.check_range(lba, count)
    unit.check_length(count, byte)
    if not count:
        return None
    return _reading(unit, task, lba, count, fua)


def _reading(unit: MediumUnit, task: Task, lba: int, count: int, fua: bool) -> Steps:
    views = unit.data_in(task, count * unit.block_size)
    length = sum(map(len, views))
    if spare := -length % unit.block_size:  # room for a part of the last block; stores are asked for whole ones
        views = [*views, memoryview(bytearray(spare))]
    store = unit.store()
    if fua and not unit.write_through:
        # SBC-4: what FUA reads is on the medium; so what the cache still has goes there first
        yield store.flush
    if length:
        yield partial(store.read, views, lba * unit.block_size)
    task.transferred = length
    unit.reads += 1
    unit.read_blocks += count


def write_blocks(unit: Disk, task: Task, lba: int, count: int, byte: int, fua: bool = False) -> Steps | None:
    """WRITE whatever the CDB's size."""
    unit.check_writable()
    unit.check_range(lba, count)
    unit.check_length(count, byte)
    if not count:
        return None
    views = unit.data_out(task, count * unit.block_size, byte)
    return _writing(unit, views, lba, count, fua)


def _writing(unit: Disk, views: list[memoryview], lba: int, count: int, fua: bool) -> Steps:
    yield partial(unit.store().write, views, lba * unit.block_size, fua=fua or unit.write_through)
    unit.writes += 1
    unit.written_blocks += count


@commands.add("08 1f ffff ff 00", "READ(6)", medium=True, access=READS)
def read6(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return read_blocks(unit, task, int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256, 4)


@commands.add("28 18 ffffffff 1f ffff 00", "READ(10)", medium=True, access=READS)
def read10(unit: MediumUnit, task: Task) -> Steps | None:
    flags, lba, _, count, _ = _RW10(task.cdb)
    return read_blocks(unit, task, lba, count, 7, bool(flags & FUA))


@commands.add("a8 18 ffffffff ffffffff 1f 00", "READ(12)", medium=True, access=READS)
def read12(unit: MediumUnit, task: Task) -> Steps | None:
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
    return read_blocks(unit, task, lba, count, 6, bool(cdb[1] & FUA))


@commands.add("88 18 ffffffffffffffff ffffffff 1f 00", "READ(16)", medium=True, access=READS)
def read16(unit: Disk, task: Task) -> Steps | None:
    flags, lba, count, _, _ = _RW16(task.cdb)
    return read_blocks(unit, task, lba, count, 10, bool(flags & FUA))


@commands.add("0a 1f ffff ff 00", "WRITE(6)", medium=True, access=CONFLICTS)
def write6(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return write_blocks(unit, task, int.from_bytes(cdb[1:4], "big") & 0x1FFFFF, cdb[4] or 256, 4)


@commands.add("2a 18 ffffffff 1f ffff 00", "WRITE(10)", medium=True, access=CONFLICTS)
def write10(unit: Disk, task: Task) -> Steps | None:
    flags, lba, _, count, _ = _RW10(task.cdb)
    return write_blocks(unit, task, lba, count, 7, bool(flags & FUA))


@commands.add("aa 18 ffffffff ffffffff 1f 00", "WRITE(12)", medium=True, access=CONFLICTS)
def write12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big")
    return write_blocks(unit, task, lba, count, 6, bool(cdb[1] & FUA))


@commands.add("8a 18 ffffffffffffffff ffffffff 1f 00", "WRITE(16)", medium=True, access=CONFLICTS)
def write16(unit: Disk, task: Task) -> Steps | None:
    flags, lba, count, _, _ = _RW16(task.cdb)
    return write_blocks(unit, task, lba, count, 10, bool(flags & FUA))

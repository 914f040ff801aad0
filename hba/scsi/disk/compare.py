"""COMPARE AND WRITE and ORWRITE(16): read, decide, write, with nothing in between (SBC-4).

They are declared exclusive: the task set lets no other command run until they have ended.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.disk.verify import chunks, first_difference
from hba.scsi.disk.vpd import MAX_COMPARE_BLOCKS
from hba.scsi.sense import MISCOMPARE_DURING_VERIFY, CheckCondition, invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()

_FUA = 0x08


@commands.add(
    "89 18 ffffffffffffffff 000000 ff 1f 00", "COMPARE AND WRITE", medium=True, access=CONFLICTS, exclusive=True
)
def compare_and_write(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:10], "big"), cdb[13]
    unit.check_writable()
    unit.check_range(lba, count)
    if count > MAX_COMPARE_BLOCKS:
        raise invalid_cdb(13)
    if not count:  # nothing is read, compared or written, whatever buffer comes with it
        return None
    length = count * unit.block_size
    unit.data_out(task, 2 * length, 13, exact=True)
    if task.data is None:
        return None
    return _comparing_and_writing(
        unit, task.data.slice(0, length), task.data.slice(length, length), lba, bool(cdb[1] & _FUA)
    )


def _comparing_and_writing(unit: Disk, expected: list[memoryview], new: list[memoryview], lba: int, fua: bool) -> Steps:
    store = unit.store()
    offset = lba * unit.block_size
    length = sum(map(len, expected))
    present = bytearray(length)
    yield partial(store.read, [memoryview(present)], offset)
    wrong = first_difference(present, b"".join(expected))
    if wrong is not None:
        raise CheckCondition(MISCOMPARE_DURING_VERIFY, wrong)
    yield partial(store.write, new, offset, fua=fua or unit.write_through)
    unit.writes += 1
    unit.written_blocks += length // unit.block_size


@commands.add("8b 18 ffffffffffffffff ffffffff 1f 00", "ORWRITE(16)", medium=True, access=CONFLICTS, exclusive=True)
def orwrite16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    unit.check_writable()
    unit.check_range(lba, count)
    unit.check_length(count, 10)
    if not count:
        return None
    views = unit.data_out(task, count * unit.block_size, 10)
    return _or_writing(unit, views, lba, bool(cdb[1] & _FUA))


def _or_writing(unit: Disk, views: list[memoryview], lba: int, fua: bool) -> Steps:
    store = unit.store()
    offset = lba * unit.block_size
    for part in chunks(views):
        present = bytearray(len(part))
        yield partial(store.read, [memoryview(present)], offset)
        both = int.from_bytes(present, "little") | int.from_bytes(part, "little")
        result = memoryview(both.to_bytes(len(part), "little"))
        yield partial(store.write, [result], offset, fua=fua or unit.write_through)
        offset += len(part)
        yield None
    unit.writes += 1

"""UNMAP, WRITE SAME 10 and 16, GET LBA STATUS: thin provisioning (SBC-4 "Logical block provisioning").

Unmapped blocks read as zeros (LBPRZ). There are no anchored blocks: ANCHOR=1 is refused.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.disk.verify import CHUNK
from hba.scsi.disk.vpd import MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS
from hba.scsi.disk.wipe import pieces
from hba.scsi.sense import (
    INVALID_FIELD_IN_PARAMETER_LIST,
    LBA_OUT_OF_RANGE,
    PARAMETER_LIST_LENGTH_ERROR,
    CheckCondition,
    invalid_cdb,
)
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()  # of a thin provisioned disk, besides
write_same = CommandTable()  # of every disk

_UNMAP = 0x08
_ANCHOR = 0x10
_NDOB = 0x01


@commands.add("42 01 00000000 1f ffff 00", "UNMAP", medium=True, access=CONFLICTS, timeout=(1, 60))
def unmap(unit: Disk, task: Task) -> Steps | None:
    length = int.from_bytes(task.cdb[7:9], "big")
    if task.cdb[1] & 0x01:
        raise invalid_cdb(1, 0)  # ANCHOR
    unit.check_writable()
    if not length:
        return None
    data = unit.parameters(task, length)
    if length < 8 or len(data) < length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    listed = min(int.from_bytes(data[2:4], "big"), length - 8) // 16
    if listed > MAX_UNMAP_DESCRIPTORS:
        raise CheckCondition(INVALID_FIELD_IN_PARAMETER_LIST)
    ranges: list[tuple[int, int]] = []
    total = 0
    for index in range(listed):
        start = 8 + 16 * index
        lba = int.from_bytes(data[start : start + 8], "big")
        count = int.from_bytes(data[start + 8 : start + 12], "big")
        if lba + count > unit.blocks:
            raise CheckCondition(LBA_OUT_OF_RANGE, lba)
        total += count
        if total > MAX_UNMAP_BLOCKS:
            raise CheckCondition(INVALID_FIELD_IN_PARAMETER_LIST)
        if count:
            ranges.append((lba, count))
    return _unmapping(unit, ranges)


def _unmapping(unit: Disk, ranges: list[tuple[int, int]]) -> Steps:
    store = unit.store()
    for lba, count in ranges:
        yield from pieces(unit, store.discard, lba * unit.block_size, count * unit.block_size)
    if unit.write_through:
        yield store.flush


def _write_same(unit: Disk, task: Task, lba: int, count: int, byte: int, no_data: bool) -> Steps | None:
    flags = task.cdb[1]
    if flags & _ANCHOR:
        raise invalid_cdb(1, 4)
    if flags & _UNMAP and not unit.thin:
        raise invalid_cdb(1, 3)
    unit.check_writable()
    if not count:
        raise invalid_cdb(byte)  # WSNZ
    unit.check_range(lba, count)
    if count > MAX_WRITE_SAME_BLOCKS:
        raise invalid_cdb(byte)
    if no_data:
        block = bytes(unit.block_size)
    else:
        block = b"".join(unit.data_out(task, unit.block_size, byte, exact=True))
    return _writing_same(unit, block, lba, count, bool(flags & _UNMAP))


def _writing_same(unit: Disk, block: bytes, lba: int, count: int, unmap: bool) -> Steps:
    store = unit.store()
    size = unit.block_size
    offset, length = lba * size, count * size
    if not any(block):
        # SBC-4: with UNMAP=1 blocks may be unmapped only if they then read as the block says, that is as zeros
        yield from pieces(unit, store.discard if unmap else store.zero, offset, length)
    else:
        yield from filling(unit, block, lba, count)
    if unit.write_through:
        yield store.flush
    unit.writes += 1
    unit.written_blocks += count


def filling(unit: Disk, block: bytes, lba: int, count: int) -> Steps:
    """Write one block's bytes over a range, with a turn of the event loop after each chunk."""
    store = unit.store()
    size = unit.block_size
    chunk = max(1, CHUNK // size)
    pattern = memoryview(block * min(chunk, count))
    done = 0
    while done < count:
        now = min(chunk, count - done)
        yield partial(store.write, [pattern[: now * size]], (lba + done) * size)
        done += now
        if done < count:
            yield None


@write_same.add("41 18 ffffffff 1f ffff 00", "WRITE SAME(10)", medium=True, access=CONFLICTS, timeout=(1, 120))
def write_same10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write_same(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7, no_data=False)


@write_same.add(
    "93 19 ffffffffffffffff ffffffff 1f 00",
    "WRITE SAME(16)",
    medium=True,
    access=CONFLICTS,
    timeout=(1, 120),
)
def write_same16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    lba, count = int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big")
    return _write_same(unit, task, lba, count, 10, no_data=bool(cdb[1] & _NDOB))


MAPPED, DEALLOCATED = 0, 1
LOOKS = 512  # questions to the store for one GET LBA STATUS; an answer may end early (SBC-4)


@commands.add(
    "9e 12 ffffffffffffffff ffffffff 00 00",
    "GET LBA STATUS",
    service=True,
    allocation=(10, 4),
    medium=True,
    access=READS,
)
def get_lba_status(unit: Disk, task: Task) -> bytes:
    """As many extents as the allocation length has room for, at least one."""
    cdb = task.cdb
    lba = int.from_bytes(cdb[2:10], "big")
    if lba >= unit.blocks:
        raise CheckCondition(LBA_OUT_OF_RANGE, lba)
    room = min(max(1, (int.from_bytes(cdb[10:14], "big") - 8) // 16), 256)
    store = unit.store()
    size = unit.block_size
    extents: list[list[int]] = []  # lba, count, status
    position, end = lba, unit.blocks
    looks = 0
    while position < end and len(extents) <= room and looks < LOOKS:
        looks += 1
        mapped, length = store.allocated(position * size, (end - position) * size)
        if mapped:
            count = -(-length // size)  # a block with any mapped byte is mapped
        else:
            count = length // size
            if not count:
                mapped, count = True, 1
        count = min(max(count, 1), end - position)
        status = MAPPED if mapped else DEALLOCATED
        if extents and extents[-1][2] == status:
            extents[-1][1] += count
        else:
            extents.append([position, count, status])
        position += count
    data = bytearray(8)
    for start, count, status in extents[:room]:
        while count > 0 and len(data) < 8 + 16 * room:
            part = min(count, 0xFFFFFFFF)
            data += start.to_bytes(8, "big") + part.to_bytes(4, "big") + bytes((status, 0, 0, 0))
            start += part
            count -= part
    data[0:4] = (len(data) - 4).to_bytes(4, "big")
    return bytes(data)

"""VERIFY and WRITE AND VERIFY, 10, 12 and 16 (SBC-4).

BYTCHK 00b reads the medium and compares nothing, 01b compares with as many blocks from the initiator, 11b with one
block over and over. What was never written verifies as zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.sense import MISCOMPARE_DURING_VERIFY, CheckCondition
from hba.scsi.task import Task
from hba.storage.vectors import cut, length_of, skip

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()

CHUNK = 1 << 20  # bytes read at a time to compare

_NONE, _ALL, _ONE = 0, 1, 3
BYTCHK = (1, 0x06)

VERIFY: dict[str, Any] = {"medium": True, "access": READS, "timeout": (1, 60), "values": {BYTCHK: (_NONE, _ALL, _ONE)}}
_WRITE_AND_VERIFY: dict[str, Any] = {
    "medium": True,
    "access": CONFLICTS,
    "exclusive": True,
    "timeout": (1, 60),
    "values": {BYTCHK: (_NONE, _ALL)},
}


def first_difference(left: memoryview | bytes | bytearray, right: memoryview | bytes | bytearray) -> int | None:
    """Index of the first byte that differs, or None; both have the same length."""
    if left == right:
        return None
    low, high = 0, len(left)
    a, b = memoryview(left), memoryview(right)
    while high - low > 1:
        middle = (low + high) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle
    return low


def comparing(unit: Disk, views: list[memoryview], lba: int, count: int) -> Steps:
    """Compare the medium with what was sent, a chunk in a turn. Raises MISCOMPARE with the offset in the data."""
    store = unit.store()
    offset = lba * unit.block_size
    done = 0
    scratch = bytearray(min(CHUNK, count * unit.block_size))
    for part in chunks(views):
        target = memoryview(scratch)[: len(part)]
        yield partial(store.read, [target], offset + done)
        wrong = first_difference(target, part)
        if wrong is not None:
            raise CheckCondition(MISCOMPARE_DURING_VERIFY, done + wrong)
        done += len(part)
        yield None
    unit.verified_blocks += count


def chunks(views: Sequence[memoryview]) -> Iterator[memoryview | bytes]:
    """The initiator's bytes in pieces of CHUNK, however its memory is cut."""
    rest: Sequence[memoryview] = views
    while rest:
        part = cut(rest, 0, CHUNK)
        yield part[0] if len(part) == 1 else b"".join(part)
        rest = skip(rest, length_of(part))


def _reading(unit: Disk, lba: int, count: int) -> Steps:
    """Read everything and look at nothing: the medium must be able to give it."""
    store = unit.store()
    position, end = lba * unit.block_size, (lba + count) * unit.block_size
    scratch = bytearray(min(CHUNK, end - position))
    while position < end:
        length = min(CHUNK, end - position)
        yield partial(store.read, [memoryview(scratch)[:length]], position)
        position += length
        yield None
    unit.verified_blocks += count


def _comparing_one(unit: Disk, block: bytes, lba: int, count: int) -> Steps:
    store = unit.store()
    size = unit.block_size
    blocks = max(1, CHUNK // size)
    pattern = block * min(blocks, count)
    scratch = bytearray(len(pattern))
    done = 0
    while done < count:
        now = min(blocks, count - done)
        target = memoryview(scratch)[: now * size]
        yield partial(store.read, [target], (lba + done) * size)
        wrong = first_difference(target, memoryview(pattern)[: now * size])
        if wrong is not None:
            raise CheckCondition(MISCOMPARE_DURING_VERIFY, done * size + wrong)
        done += now
        yield None
    unit.verified_blocks += count


def verify_blocks(unit: Disk, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    """VERIFY whatever the CDB's size; `byte` is where it says how many blocks."""
    mode = task.cdb[1] >> 1 & 0x03
    unit.check_range(lba, count)
    if not count:
        return None
    if mode == _NONE:
        return _reading(unit, lba, count)
    if mode == _ALL:
        unit.check_length(count, byte)
        return comparing(unit, unit.data_out(task, count * unit.block_size, byte), lba, count)
    block = b"".join(unit.data_out(task, unit.block_size, byte))
    return _comparing_one(unit, block, lba, count)


@commands.add("2f 16 ffffffff 1f ffff 00", "VERIFY(10)", **VERIFY)
def verify10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return verify_blocks(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7)


@commands.add("af 16 ffffffff ffffffff 1f 00", "VERIFY(12)", **VERIFY)
def verify12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return verify_blocks(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big"), 6)


@commands.add("8f 16 ffffffffffffffff ffffffff 1f 00", "VERIFY(16)", **VERIFY)
def verify16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return verify_blocks(unit, task, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"), 10)


def _write_and_verify(unit: Disk, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    mode = task.cdb[1] >> 1 & 0x03
    unit.check_writable()
    unit.check_range(lba, count)
    unit.check_length(count, byte)
    if not count:
        return None
    views = unit.data_out(task, count * unit.block_size, byte)
    return _writing_and_verifying(unit, views, lba, count, mode == _ALL)


def _writing_and_verifying(unit: Disk, views: list[memoryview], lba: int, count: int, compare: bool) -> Steps:
    # what is verified must have come to the medium first
    yield partial(unit.store().write, views, lba * unit.block_size, fua=True)
    unit.writes += 1
    unit.written_blocks += count
    yield None
    yield from comparing(unit, views, lba, count) if compare else _reading(unit, lba, count)


@commands.add("2e 16 ffffffff 1f ffff 00", "WRITE AND VERIFY(10)", **_WRITE_AND_VERIFY)
def write_and_verify10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write_and_verify(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7)


@commands.add(
    "ae 16 ffffffff ffffffff 1f 00",
    "WRITE AND VERIFY(12)",
    **_WRITE_AND_VERIFY,
)
def write_and_verify12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write_and_verify(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big"), 6)


@commands.add(
    "8e 16 ffffffffffffffff ffffffff 1f 00",
    "WRITE AND VERIFY(16)",
    **_WRITE_AND_VERIFY,
)
def write_and_verify16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write_and_verify(unit, task, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"), 10)

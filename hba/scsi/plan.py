"""Which commands are plain reads and writes, and of what: all the decoding most commands ever need."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from hba.scsi.task import DATA_IN, DATA_NONE, DATA_OUT, INITIATOR, SIMPLE, Task

if TYPE_CHECKING:
    from hba.scsi.unit import LogicalUnit

# The first two bytes together: the operation code, and no flag.
_CDB10 = struct.Struct(">HIBHB").unpack_from
_CDB16 = struct.Struct(">HQIBB").unpack_from
_READ10: Final = 0x2800
_WRITE10: Final = 0x2A00
_READ16: Final = 0x8800
_WRITE16: Final = 0x8A00
_NONE: Final = -1


class Plan:
    """What a unit in its present state can do without a question: made anew whenever that changes.

    Plain is a READ or WRITE, 10 or 16, with no flag, group or control bits, of at least one block, within the medium
    and the limit, with data of exactly its length; a simple task of the host adapter itself. Everything else has more
    to it, and the device server looks at that (`hba.scsi.disk.rw` for reads and writes).
    """

    def __init__(self, block_size: int, blocks: int, limit: int, writable: bool, long_cdb: bool) -> None:
        """
        block_size  bytes
        blocks      of the medium; 0 while nothing is plain
        limit       blocks in one command
        writable    a write may be plain
        long_cdb    the device type has READ(16) and WRITE(16)
        """
        self._block_size = block_size
        self._blocks = blocks
        self._limit = limit
        self._write10 = _WRITE10 if writable else _NONE
        self._read16 = _READ16 if long_cdb else _NONE
        self._write16 = _WRITE16 if writable and long_cdb else _NONE

    def reads(self, tasks: list[Task], at: int, unit: LogicalUnit) -> tuple[list[Task], int, int]:
        """The plain reads in a row from number `at` on, which are `unit`'s now; their bytes; what `direction` says of
        the task behind them (DATA_NONE when there is none)."""
        found: list[Task] = []
        length = 0
        for number in range(at, len(tasks)):
            task = tasks[number]
            direction = self.direction(task)
            if direction != DATA_IN:
                return found, length, direction
            task.unit = unit
            found.append(task)
            length += task.transferred
        return found, length, DATA_NONE

    def direction(self, task: Task) -> int:
        """DATA_IN: a plain read, DATA_OUT: a plain write; `task.offset` says then where. DATA_NONE: all else."""
        lba: int
        count: int
        cdb = task.cdb
        try:
            head, lba, group, count, control = _CDB10(cdb)
            if head == _READ10:
                direction = DATA_IN
            elif head == self._write10:
                direction = DATA_OUT
            else:
                if head == self._read16:
                    direction = DATA_IN
                elif head == self._write16:
                    direction = DATA_OUT
                else:
                    return DATA_NONE
                _, lba, count, group, control = _CDB16(cdb)
        except struct.error:
            return DATA_NONE  # cut short
        data = task.data
        length = count * self._block_size
        if (
            group
            or control
            or data is None
            or data.length != length
            or not 0 < count <= self._limit
            or lba + count > self._blocks
            or task.direction != direction
            or task.attribute != SIMPLE
            or task.initiator != INITIATOR
        ):
            return DATA_NONE
        task.offset = lba * self._block_size
        task.transferred = length
        return direction

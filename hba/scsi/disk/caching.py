"""SYNCHRONIZE CACHE and PRE-FETCH (SBC-4). WCE=0 and FUA are obeyed where blocks are written, see rw.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()


def _synchronize(unit: Disk, lba: int, count: int) -> Steps:
    unit.check_range(lba, count)
    return _flushing(unit)


def _flushing(unit: Disk) -> Steps:
    # The whole cache, whatever the range: a back end flushes all or nothing. With IMMED=1 the status could come
    # earlier; it does not, because then an error would have nobody to tell.
    yield unit.store().flush


@commands.add("35 06 ffffffff 1f ffff 00", "SYNCHRONIZE CACHE(10)", medium=True, access=CONFLICTS, timeout=(1, 60))
def synchronize_cache10(unit: Disk, task: Task) -> Steps:
    cdb = task.cdb
    return _synchronize(unit, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"))


@commands.add(
    "91 06 ffffffffffffffff ffffffff 1f 00", "SYNCHRONIZE CACHE(16)", medium=True, access=CONFLICTS, timeout=(1, 60)
)
def synchronize_cache16(unit: Disk, task: Task) -> Steps:
    cdb = task.cdb
    return _synchronize(unit, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"))


def _prefetch(unit: Disk, lba: int, count: int) -> None:
    """Ends with GOOD, not CONDITION MET: the host's page cache is the unit's, and may not keep the blocks (SBC-4)."""
    unit.check_range(lba, count)
    unit.prefetched += count


@commands.add("34 02 ffffffff 1f ffff 00", "PRE-FETCH(10)", medium=True, access=READS)
def prefetch10(unit: Disk, task: Task) -> None:
    cdb = task.cdb
    _prefetch(unit, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"))


@commands.add("90 02 ffffffffffffffff ffffffff 1f 00", "PRE-FETCH(16)", medium=True, access=READS)
def prefetch16(unit: Disk, task: Task) -> None:
    cdb = task.cdb
    _prefetch(unit, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"))

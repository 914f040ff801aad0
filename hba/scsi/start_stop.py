"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL (SBC-4, MMC-6), for every unit with a medium."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import ALLOWED, CONFLICTS, CommandTable
from hba.scsi.sense import (
    MEDIUM_REMOVAL_PREVENTED,
    CheckCondition,
    invalid_cdb,
)
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.medium import MediumUnit
    from hba.scsi.server import Steps

commands = CommandTable()

_START = 0x01
_LOEJ = 0x02
_NO_FLUSH = 0x04


def check_unlocked(unit: MediumUnit) -> None:
    if unit.locked_by:
        raise CheckCondition(MEDIUM_REMOVAL_PREVENTED)


def _start_stop_access(cdb: bytes) -> int:
    """SBC-4 table of reservations: allowed with START=1 and POWER CONDITION 0h."""
    return ALLOWED if len(cdb) > 4 and cdb[4] & 0xF1 == _START else CONFLICTS


@commands.add("1b 01 00 0f f7 00", "START STOP UNIT", access=_start_stop_access, exclusive=True, timeout=(1, 60))
def start_stop_unit(unit: MediumUnit, task: Task) -> Steps | None:
    flags = task.cdb[4]
    if flags >> 4:
        return None  # POWER CONDITION: the unit has none to go to, and START and LOEJ are ignored then
    if flags & _LOEJ:
        if not unit.removable:
            raise invalid_cdb(4, 1)
        if not flags & _START:
            return _eject(unit)
        _load(unit, task)
        return None
    if flags & _START:
        _start(unit)
        return None
    return _stop(unit, bool(flags & _NO_FLUSH))


def _start(unit: MediumUnit) -> None:
    if unit.stopped:
        unit.stopped = False
        unit.starts += 1
        unit.refresh()


def _stop(unit: MediumUnit, no_flush: bool) -> Steps:
    if not no_flush:
        yield from unit.make_stable()
    if not unit.removable:
        # A removable one goes on answering: stopping it is what comes before an eject, and many drives start again
        # by themselves.
        unit.stopped = True
        unit.refresh()


def _eject(unit: MediumUnit) -> Steps:
    check_unlocked(unit)
    yield from unit.make_stable()
    unit.open_tray()


def _load(unit: MediumUnit, task: Task) -> None:
    check_unlocked(unit)
    unit.close_tray(task.initiator)


def _prevent_access(cdb: bytes) -> int:
    return ALLOWED if len(cdb) > 4 and not cdb[4] & 0x03 else CONFLICTS


@commands.add("1e 00 0000 01 00", "PREVENT ALLOW MEDIUM REMOVAL", access=_prevent_access)
def prevent_allow_medium_removal(unit: MediumUnit, task: Task) -> None:
    if task.cdb[4] & 0x01:
        unit.locked_by.add(task.initiator)
    else:
        unit.locked_by.discard(task.initiator)

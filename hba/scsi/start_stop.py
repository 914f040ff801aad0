"""START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL (SBC-4, MMC-6), for every unit with a medium."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hba.scsi.command import ALLOWED, CONFLICTS, CommandTable
from hba.scsi.sense import (
    MEDIUM_REMOVAL_PREVENTED,
    CheckCondition,
    invalid_cdb,
)
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.medium import MediumUnit
    from hba.scsi.optical.cdrom import Cdrom
    from hba.scsi.server import Steps

commands = CommandTable()  # of every unit with a medium
block = CommandTable()  # of disks (SBC-4)
optical = CommandTable()  # of optical drives (MMC-6)

_START = 0x01
_LOEJ = 0x02
_NO_FLUSH = 0x04

# SBC-4 "START STOP UNIT": POWER CONDITION, and the modifiers that it has. START_VALID, ACTIVE, IDLE, STANDBY,
# LU_CONTROL, FORCE_IDLE_0, FORCE_STANDBY_0; the others are reserved.
_BLOCK_CONDITIONS = {0x0: (0,), 0x1: (0,), 0x2: (0, 1, 2), 0x3: (0, 1), 0x7: (0,), 0xA: (0, 1, 2), 0xB: (0, 1)}
# MMC-6: no change, Idle, Standby, Sleep; and the power state of the event that follows.
_OPTICAL_CONDITIONS = {0x2: 2, 0x3: 3, 0x5: 4}


def check_unlocked(unit: MediumUnit) -> None:
    if unit.locked_by:
        raise CheckCondition(MEDIUM_REMOVAL_PREVENTED)


def _start_stop_access(cdb: bytes) -> int:
    """SBC-4 table of reservations: allowed with START=1 and POWER CONDITION 0h."""
    return ALLOWED if len(cdb) > 4 and cdb[4] & 0xF1 == _START else CONFLICTS


_OPTIONS: dict[str, Any] = {"access": _start_stop_access, "exclusive": True, "timeout": (1, 60)}


@block.add("1b 01 00 0f f7 00", "START STOP UNIT", values={(4, 0xF0): _BLOCK_CONDITIONS}, **_OPTIONS)
def start_stop_unit(unit: MediumUnit, task: Task) -> Steps | None:
    """The power conditions are accepted and none makes a difference; START and LOEJ are ignored with them."""
    condition, modifier = task.cdb[4] >> 4, task.cdb[3] & 0x0F
    if modifier not in _BLOCK_CONDITIONS[condition]:
        raise invalid_cdb(3, 3)
    return None if condition else _move(unit, task)


@optical.add("1b 01 00 00 f3 00", "START STOP UNIT", values={(4, 0xF0): (0, *_OPTICAL_CONDITIONS)}, **_OPTIONS)
def start_stop_drive(unit: Cdrom, task: Task) -> Steps | None:
    condition = task.cdb[4] >> 4
    if not condition:
        return _move(unit, task)
    unit.change_power(_OPTICAL_CONDITIONS[condition])
    return None


def _move(unit: MediumUnit, task: Task) -> Steps | None:
    """What START and LOEJ ask for."""
    flags = task.cdb[4]
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

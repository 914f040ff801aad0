"""RESERVE and RELEASE, 6 and 10 (SPC-2): the whole unit, for the initiator itself, until a reset."""

from __future__ import annotations

from hba.scsi.command import ALLOWED, CONFLICTS, CommandTable
from hba.scsi.server import RESERVATION_CONFLICT, DeviceServer
from hba.scsi.task import Task

commands = CommandTable()


def _reserve(unit: DeviceServer, task: Task) -> None:
    state = unit.reservations
    if state.keys:
        task.status = RESERVATION_CONFLICT  # SPC-4: not while persistent registrations exist (CRH=0)
        return
    state.legacy_holder = task.initiator
    unit.refresh()


def _release(unit: DeviceServer, task: Task) -> None:
    state = unit.reservations
    if state.keys:
        task.status = RESERVATION_CONFLICT
        return
    if state.legacy_holder == task.initiator:  # of somebody else's: no error, no effect
        state.legacy_holder = None
        unit.refresh()


@commands.add("16 00 000000 00", "RESERVE(6)", access=CONFLICTS)
def reserve6(unit: DeviceServer, task: Task) -> None:
    _reserve(unit, task)


@commands.add("17 00 000000 00", "RELEASE(6)", access=ALLOWED)
def release6(unit: DeviceServer, task: Task) -> None:
    _release(unit, task)


@commands.add("56 00 0000000000 0000 00", "RESERVE(10)", access=CONFLICTS)
def reserve10(unit: DeviceServer, task: Task) -> None:
    _reserve(unit, task)


@commands.add("57 00 0000000000 0000 00", "RELEASE(10)", access=ALLOWED)
def release10(unit: DeviceServer, task: Task) -> None:
    _release(unit, task)

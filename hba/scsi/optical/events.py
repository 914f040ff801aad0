"""GET EVENT STATUS NOTIFICATION and MECHANISM STATUS (MMC-6): how a driver learns of the tray without opening it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.scsi.command import CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

NO_EVENT, EJECT_REQUESTED, NEW_MEDIUM, MEDIUM_REMOVED = 0, 1, 2, 3

_MEDIA_CLASS = 4
_NONE_AVAILABLE = 0x80
_TRAY_OPEN, _PRESENT = 0x01, 0x02
EVENT_NAMES = {EJECT_REQUESTED: "EjectRequest", NEW_MEDIUM: "NewMedia", MEDIUM_REMOVED: "MediaRemoval"}


def note(unit: Cdrom, event: int) -> None:
    """Queue a media event: at most that the medium has changed, and behind it that somebody wants the one there is.

    An event about a medium that has left since is not reported: the guest would act on the one there is now.
    """
    if event == EJECT_REQUESTED:
        unit.media_events = [*(other for other in unit.media_events if other != event), event]
    else:
        unit.media_events = [event]


@commands.add("4a 01 0000 ff 0000 ffff 00", "GET EVENT STATUS NOTIFICATION", allocation=(7, 2), attention=False)
def get_event_status_notification(unit: Cdrom, task: Task) -> bytes:
    """Polled only; one media event each time."""
    cdb = task.cdb
    if not cdb[1] & 0x01:
        raise invalid_cdb(1, 0)
    supported = 1 << _MEDIA_CLASS
    if not cdb[4] & supported:
        return bytes((0, 2, _NONE_AVAILABLE, supported))
    # with less room than the whole event it stays queued (MMC-6)
    event = NO_EVENT
    if unit.media_events:
        event = unit.media_events[0]
        if int.from_bytes(cdb[7:9], "big") > 4:
            unit.media_events = unit.media_events[1:]
    status = (_TRAY_OPEN if unit.tray_open else 0) | (_PRESENT if unit.present else 0)
    return bytes((0, 6, _MEDIA_CLASS, supported, event, status, 0, 0))


@commands.add("bd 00 000000000000 ffff 00 00", "MECHANISM STATUS", allocation=(8, 2), attention=False)
def mechanism_status(unit: Cdrom, task: Task) -> bytes:
    return bytes((0, 0x10 if unit.tray_open else 0, 0, 0, 0, 0, 0, 0))

"""GET EVENT STATUS NOTIFICATION and MECHANISM STATUS (MMC-6): how a driver learns of the tray without opening it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hba.scsi.command import CommandTable
from hba.scsi.sense import invalid_cdb
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.optical.cdrom import Cdrom

commands = CommandTable()

NO_EVENT, EJECT_REQUESTED, NEW_MEDIUM, MEDIUM_REMOVED = 0, 1, 2, 3

OPERATIONAL_CHANGE, POWER_MANAGEMENT, MEDIA, DEVICE_BUSY = 1, 2, 4, 6  # notification classes

_NONE_AVAILABLE = 0x80
_TRAY_OPEN, _PRESENT = 0x01, 0x02
_FEATURES_CHANGED = 2  # operational change event: "drive has changed features"
_FEATURE_CHANGE = 1  # what has changed
_POWER_CHANGED = 1  # power event: the change succeeded
EVENT_NAMES = {EJECT_REQUESTED: "EjectRequest", NEW_MEDIUM: "NewMedia", MEDIUM_REMOVED: "MediaRemoval"}


class Events:
    """What has not been reported yet, by class."""

    def __init__(self) -> None:
        self.media: list[int] = []  # the oldest first
        self.features_changed = False  # another profile, and other features, are current
        self.power_changed = False

    def note_media(self, event: int) -> None:
        """At most that the medium has changed, and behind it that somebody wants the one there is.

        An event about a medium that has left since is not reported: the guest would act on the one there is now.
        """
        if event == EJECT_REQUESTED:
            self.media = [*(other for other in self.media if other != event), event]
        else:
            self.media = [event]
            self.features_changed = True


def _operational(unit: Cdrom) -> tuple[bool, bytes]:
    changed = unit.events.features_changed
    return changed, bytes((_FEATURES_CHANGED, 0, 0, _FEATURE_CHANGE) if changed else 4)


def _power(unit: Cdrom) -> tuple[bool, bytes]:
    changed = unit.events.power_changed
    return changed, bytes((_POWER_CHANGED if changed else NO_EVENT, unit.power_state, 0, 0))


def _media(unit: Cdrom) -> tuple[bool, bytes]:
    event = unit.events.media[0] if unit.events.media else NO_EVENT
    status = (_TRAY_OPEN if unit.tray_open else 0) | (_PRESENT if unit.present else 0)
    return bool(event), bytes((event, status, 0, 0))


def _busy(unit: Cdrom) -> tuple[bool, bytes]:
    return False, bytes(4)  # never: a command that takes long ends late, and others are taken meanwhile


_CLASSES: dict[int, Callable[[Cdrom], tuple[bool, bytes]]] = {  # by number, which is their priority
    OPERATIONAL_CHANGE: _operational,
    POWER_MANAGEMENT: _power,
    MEDIA: _media,
    DEVICE_BUSY: _busy,
}
SUPPORTED = sum(1 << number for number in _CLASSES)


def _reported(unit: Cdrom, number: int) -> None:
    events = unit.events
    if number == OPERATIONAL_CHANGE:
        events.features_changed = False
    elif number == POWER_MANAGEMENT:
        events.power_changed = False
    elif number == MEDIA:
        events.media = events.media[1:]


@commands.add("4a 01 0000 ff 0000 ffff 00", "GET EVENT STATUS NOTIFICATION", allocation=(7, 2), attention=False)
def get_event_status_notification(unit: Cdrom, task: Task) -> bytes:
    """Polled only; one event each time: of the first class asked for that has one, else of the first asked for."""
    cdb = task.cdb
    if not cdb[1] & 0x01:
        raise invalid_cdb(1, 0)
    asked = [number for number in _CLASSES if cdb[4] >> number & 1]
    if not asked:
        return bytes((0, 2, _NONE_AVAILABLE, SUPPORTED))
    found = {number: _CLASSES[number](unit) for number in asked}
    number = next((number for number in asked if found[number][0]), asked[0])
    happened, data = found[number]
    if happened and int.from_bytes(cdb[7:9], "big") > 4:  # with less room than the whole event it stays queued
        _reported(unit, number)
    return bytes((0, 6, number, SUPPORTED)) + data


@commands.add("bd 00 000000000000 ffff 00 00", "MECHANISM STATUS", allocation=(8, 2), attention=False)
def mechanism_status(unit: Cdrom, task: Task) -> bytes:
    return bytes((0, 0x10 if unit.tray_open else 0, 0, 0, 0, 0, 0, 0))

"""Logical units: one form for each type."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, UnsetType

from hba.control.results.stores import ScsiStore, Store
from hba.shapes import Bytes, Count, Result, UnitName


class Announcement(Result):
    """Whether the guest was told of the unit's coming or going, and why not."""

    state: Literal["posted", "waiting", "none"]
    why: str


class UnitBase(Result, kw_only=True):
    """What every unit has. `unit_attentions`: by initiator, key, code and qualifier in hexadecimal; `announcement`: in
    the answer of lun.add."""

    unit: UnitName
    target: Count
    lun: Count
    commands: Count
    in_flight: Count
    unit_attentions: dict[str, list[str]]
    storage_errors: Count
    latest_storage_error: str | None
    announcement: Announcement | UnsetType = UNSET


class Reservations(Result):
    """Reservations: RESERVE(6)'s holder, and persistent ones by initiator. `type`: 0 is none."""

    legacy_holder: int | None
    keys: dict[str, str]
    holder: int | None
    type: Count
    generation: Count
    aptpl: bool


class ServedUnit(UnitBase, kw_only=True):
    """A unit that we serve ourselves. `waiting`: commands that wait for others."""

    vendor: str
    product: str
    revision: str
    serial: str
    check_conditions: Count
    waiting: Count
    reservations: Reservations


class MediumUnit(ServedUnit, kw_only=True):
    """A unit with a medium. `locked`: the guest has locked it in; `unflushed`: something is not stable yet; bytes are
    those the guest asked for."""

    blocks: Count
    block_size: Bytes
    removable: bool
    read_only: bool
    medium: Literal["ready", "stopped", "gone", "absent", "ejected"]
    locked: bool
    unflushed: bool
    reads: Count
    writes: Count
    read_bytes: Bytes
    written_bytes: Bytes
    read_errors: Count
    write_errors: Count
    storage: Store | None


class DiskUnit(MediumUnit, tag_field="type", tag="disk", kw_only=True):
    """A disk."""

    physical_block_size: Bytes
    thin: bool
    protection: Literal[0, 1]
    write_cache: bool


class CdromUnit(MediumUnit, tag_field="type", tag="cdrom", kw_only=True):
    """An optical drive. `media_events`: those its next poll will get."""

    profile: Literal["CD-ROM", "DVD-ROM"]
    media_events: list[str]


class EnclosureUnit(ServedUnit, tag_field="type", tag="enclosure", kw_only=True):
    """An enclosure, and its slots by number."""

    slots: Count
    occupied: list[Count]
    identify: list[Count]
    fault: list[Count]


class PassThroughUnit(UnitBase, tag_field="type", tag="passthrough", kw_only=True):
    """A SCSI device of the host."""

    medium: Literal["ready", "gone"]
    storage: ScsiStore


class RemovedUnit(Result, tag_field="type", tag="removed"):
    """A unit that was removed while it was changed."""

    unit: UnitName
    target: Count
    lun: Count


class Removed(Result):
    """What lun.remove answers."""

    unit: UnitName
    target: Count
    lun: Count
    announcement: Announcement


Unit = DiskUnit | CdromUnit | EnclosureUnit | PassThroughUnit
EjectedUnit = DiskUnit | CdromUnit | EnclosureUnit | PassThroughUnit | RemovedUnit

"""The CD/DVD-ROM drive: reads images of 2048-byte sectors (MMC-6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from hba.clock import Clock
from hba.scsi import start_stop
from hba.scsi.command import Command, CommandTable
from hba.scsi.disk import capacity, rw
from hba.scsi.medium import Ended, MediumUnit, told_nobody
from hba.scsi.optical import disc, events, features, mode_pages, read_cd, structure, toc
from hba.scsi.sense import NOT_READY_TRAY_CLOSED, CheckCondition, invalid_parameter
from hba.scsi.server import Identity
from hba.scsi.spc import COMMON, vpd
from hba.scsi.spc.inquiry import MMC6, SAM5, SPC4, standard_data
from hba.scsi.spc.log import LogPages
from hba.scsi.spc.mode import ModePages
from hba.scsi.state import SavedState
from hba.scsi.task import Task
from hba.scsi.unit_state import CdromState, UnitState
from hba.storage.backend import Backend

COMMANDS = CommandTable(
    COMMON,
    start_stop.commands,
    start_stop.optical,
    read_cd.blocks,
    capacity.read_capacity,
    toc.commands,
    disc.commands,
    read_cd.commands,
    features.commands,
    events.commands,
    structure.commands,
)

SECTOR = 2048  # bytes of user data
ACTIVE, IDLE, STANDBY, SLEEP = 1, 2, 3, 4  # power states, as the power management event class numbers them
LARGEST_CD = 450_000  # sectors (100 minutes); what is larger is a DVD


class Cdrom(MediumUnit):
    """A drive with a tray. `backend` None: the tray is empty and closed."""

    device_type = 0x05
    state_type = CdromState
    versions: ClassVar[tuple[int, ...]] = (SAM5, SPC4, MMC6)
    block_size = SECTOR
    removable = True
    long_cdb = False

    def __init__(
        self, backend: Backend | None, identity: Identity, clock: Clock, state: SavedState | None = None
    ) -> None:
        super().__init__(identity, clock, state, read_only=True)
        self.commands = COMMANDS
        self.events = events.Events()
        self.power_state = ACTIVE
        self.mode = ModePages(mode_pages.cd_pages(), self.state)
        self.logs = LogPages({})
        self.attach_backend(backend)
        self.refresh()

    def inquiry_data(self) -> bytes:
        return standard_data(self.device_type, True, self.identity, self.versions)

    def vpd_pages(self) -> dict[int, Callable[[], bytes]]:
        return {
            0x80: lambda: vpd.unit_serial_number(self.identity),
            0x83: lambda: vpd.device_identification(self.identity),
            0x86: lambda: vpd.extended_inquiry(volatile_cache=False),
        }

    @property
    def is_dvd(self) -> bool:
        return self.blocks > LARGEST_CD

    @property
    def present(self) -> bool:
        """There is a medium in the closed tray."""
        return self.backend is not None and not self.tray_open

    def check_ready(self) -> None:
        if self.backend is None and not self.tray_open:
            raise CheckCondition(NOT_READY_TRAY_CLOSED)
        super().check_ready()

    def error_lba(self, task: Task) -> int | None:
        return rw.lba_of(task.cdb)

    def block_descriptor(self, long_lba: bool) -> bytes:
        return b"\x00" * 5 + SECTOR.to_bytes(3, "big")

    def check_block_descriptor(self, descriptor: bytes, position: int, long_lba: bool) -> None:
        """Only what MODE SENSE sends: the sector size, or 0, which says nothing; no density, no number of blocks."""
        if long_lba or len(descriptor) != 8:
            raise invalid_parameter(position - 1)
        if any(descriptor[:5]):
            raise invalid_parameter(position + next(at for at, byte in enumerate(descriptor) if byte))
        if int.from_bytes(descriptor[5:], "big") not in (0, SECTOR):
            raise invalid_parameter(position + 5)

    def check_admission(self, command: Command) -> None:
        if command.medium and self.power_state != ACTIVE:
            self.change_power(ACTIVE)  # whoever wants something of the medium wakes the drive

    def change_power(self, state: int) -> None:
        """START STOP UNIT (or what wakes the drive): told as a power management event."""
        if state != self.power_state:
            self.power_state = state
            self.events.power_changed = True
            self.refresh()

    def is_special(self) -> bool:
        return self.power_state != ACTIVE or super().is_special()

    def medium_event(self, inserted: bool) -> None:
        self.events.note_media(events.NEW_MEDIUM if inserted else events.MEDIUM_REMOVED)

    def removal_requested(self) -> None:
        self.events.note_media(events.EJECT_REQUESTED)

    def on_reset(self, kind: str) -> None:
        super().on_reset(kind)
        self.power_state = ACTIVE
        if kind == "power-on":
            self.events = events.Events()

    def saved(self) -> dict[str, Any]:
        return {
            **super().saved(),
            "power_state": self.power_state,
            "media_events": list(self.events.media),
            "features_changed": self.events.features_changed,
            "power_changed": self.events.power_changed,
        }

    def restore(self, state: UnitState) -> None:
        assert isinstance(state, CdromState)
        self.power_state = state.power_state
        self.events = events.Events()
        self.events.media = list(state.media_events)
        self.events.features_changed, self.events.power_changed = state.features_changed, state.power_changed
        super().restore(state)

    def resize(self, size: int, ended: Ended = told_nobody) -> None:
        raise ValueError("an optical medium has the size of its image; eject it and insert another")

    def set_read_only(self, read_only: bool, ended: Ended = told_nobody) -> None:
        if not read_only:
            raise ValueError("an optical medium cannot be written; use a disk for what is to be")
        ended(None)

    def describe(self) -> dict[str, object]:
        return {
            "type": "cdrom",
            **super().describe(),
            "profile": "DVD-ROM" if self.is_dvd else "CD-ROM",
            "media_events": [events.EVENT_NAMES[event] for event in self.events.media],
        }

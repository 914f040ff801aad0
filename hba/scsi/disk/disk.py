"""The disk: a device server over blocks of a back end (SBC-4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from hba.clock import Clock
from hba.scsi import start_stop
from hba.scsi.command import Command, CommandTable
from hba.scsi.disk import (
    atomic,
    caching,
    capacity,
    compare,
    copy,
    defects,
    format,
    log_pages,
    mode_pages,
    protection,
    provisioning,
    rw,
    sanitize,
    verify,
    vpd,
)
from hba.scsi.disk.background import Background
from hba.scsi.disk.tags import OpenTags, in_memory
from hba.scsi.medium import MediumUnit
from hba.scsi.sense import (
    SANITIZE_COMMAND_FAILED,
    SOFTWARE_WRITE_PROTECTED,
    WRITE_PROTECTED,
    CheckCondition,
    progress,
)
from hba.scsi.server import Identity, Steps
from hba.scsi.spc import COMMON
from hba.scsi.spc.inquiry import SAM5, SBC3, SPC4, standard_data
from hba.scsi.spc.mode import ModePage, ModePages
from hba.scsi.state import SavedState
from hba.scsi.task import Task
from hba.scsi.unit_state import DiskState, UnitState
from hba.storage.backend import Backend

BLOCK_COMMANDS = CommandTable(
    COMMON,
    rw.commands,
    verify.commands,
    compare.commands,
    copy.commands,
    atomic.commands,
    caching.commands,
    capacity.read_capacity,
    capacity.commands,
    defects.commands,
    format.commands,
    provisioning.write_same,
    sanitize.commands,
    start_stop.commands,
    start_stop.block,
)
THIN_COMMANDS = CommandTable(BLOCK_COMMANDS, provisioning.commands, sanitize.block_erase)


class DiskOptions:
    """What a disk is, apart from its identity and its store."""

    def __init__(
        self,
        *,
        block_size: int = 512,
        physical_block_size: int = 0,
        removable: bool = False,
        read_only: bool = False,
        thin: bool = True,
        write_cache: bool = True,
        rotation_rate: int = 1,
        protection: bool = False,
        tags: OpenTags = in_memory,
    ) -> None:
        """
        block_size           bytes in a logical block
        physical_block_size  bytes in a physical one; 0: as the logical one
        rotation_rate        revolutions per minute; 1: non-rotating (SBC-4 MEDIUM ROTATION RATE)
        protection           T10 protection information, type 1
        tags                 makes the place where it is kept
        """
        self.block_size = block_size
        self.physical_block_size = max(physical_block_size, block_size)
        self.removable = removable
        self.read_only = read_only
        self.thin = thin
        self.write_cache = write_cache
        self.rotation_rate = rotation_rate
        self.protection = protection
        self.tags = tags


class Disk(MediumUnit):
    """A block device. `backend` None: there is no medium (removable only)."""

    device_type = 0x00
    state_type = DiskState
    versions: ClassVar[tuple[int, ...]] = (SAM5, SPC4, SBC3)

    def __init__(
        self,
        backend: Backend | None,
        identity: Identity,
        clock: Clock,
        options: DiskOptions | None = None,
        state: SavedState | None = None,
    ) -> None:
        options = options if options is not None else DiskOptions()
        super().__init__(identity, clock, state, read_only=options.read_only)
        self.options = options
        self.removable = options.removable
        self.block_size = options.block_size
        self.physical_block_size = options.physical_block_size
        self.thin = options.thin
        self.commands = THIN_COMMANDS if options.thin else BLOCK_COMMANDS
        if options.protection:
            protection.require()
            self.commands = CommandTable(self.commands, protection.commands, format.protected)
        self.background: Background | None = None
        self.sanitize_failed = False
        self.sanitize_may_leave = False  # the SANITIZE that failed said AUSE
        self.software_write_protect = False
        self.write_through = not options.write_cache
        self.copy_results: dict[tuple[int, int], tuple[bool, int]] = {}  # by initiator and list identifier
        self.prefetched = 0
        self.verified_blocks = 0
        self.mode = ModePages(mode_pages.disk_pages(self), self.state)
        self.logs = log_pages.disk_logs(self)
        self.attach_backend(backend)
        self.mode_changed()

    # -- what it is -------------------------------------------------------------------------------------------------

    def inquiry_data(self) -> bytes:
        return standard_data(
            self.device_type,
            self.removable,
            self.identity,
            self.versions,
            third_party_copy=True,
            protect=self.options.protection,
        )

    def vpd_pages(self) -> dict[int, Callable[[], bytes]]:
        return vpd.pages(self)

    @property
    def protection_enabled(self) -> bool:
        """The medium is formatted with protection information."""
        return isinstance(self.backend, protection.ProtectedStore) and self.backend.enabled

    @property
    def exponent(self) -> int:
        """Logical blocks in a physical block, as a power of two."""
        return (self.physical_block_size // self.block_size).bit_length() - 1

    @property
    def protected(self) -> bool:
        return self.software_write_protect or super().protected

    # -- checks -----------------------------------------------------------------------------------------------------

    def check_ready(self) -> None:
        background = self.background
        if background is not None:
            raise CheckCondition(background.condition, specific=progress(background.progress))
        super().check_ready()

    def check_admission(self, command: Command) -> None:
        background = self.background
        if background is not None and background.sanitize and command.opcode not in sanitize.ALLOWED_MEANWHILE:
            raise CheckCondition(background.condition, specific=progress(background.progress))
        if self.sanitize_failed and command.opcode not in sanitize.ALLOWED_AFTER_FAILURE:
            raise CheckCondition(SANITIZE_COMMAND_FAILED)

    def is_special(self) -> bool:
        return self.background is not None or self.sanitize_failed or super().is_special()

    def check_writable(self) -> None:
        if self.software_write_protect and not super().protected:
            raise CheckCondition(SOFTWARE_WRITE_PROTECTED)
        if self.protected:
            raise CheckCondition(WRITE_PROTECTED)

    # -- state ------------------------------------------------------------------------------------------------------

    def plain(self) -> bool:
        return not self.protection_enabled

    def error_lba(self, task: Task) -> int | None:
        return rw.lba_of(task.cdb)

    def mode_changes(self, pages: Sequence[tuple[ModePage, bytes]]) -> Steps:
        if mode_pages.loses_flushes(self, pages):
            yield from self.make_stable()

    def mode_changed(self) -> None:
        mode_pages.obey(self)
        self.refresh()

    def capacity_changed(self) -> None:
        super().capacity_changed()
        mode_pages.obey(self)

    def block_descriptor(self, long_lba: bool) -> bytes:
        return mode_pages.block_descriptor(self, long_lba)

    def check_block_descriptor(self, descriptor: bytes, position: int, long_lba: bool) -> None:
        mode_pages.check_block_descriptor(self, descriptor, position, long_lba)

    def device_specific(self) -> int:
        return (0x80 if self.protected else 0) | 0x10  # WP; DPOFUA

    def pollable_sense(self) -> int:
        return mode_pages.informational_exception(self)

    def on_reset(self, kind: str) -> None:
        cached = not self.write_through
        super().on_reset(kind)
        self.copy_results.clear()
        if kind == "power-on":
            self.stopped = False
        self.mode_changed()
        if cached and self.write_through and kind != "power-on":
            self.write_out()  # the saved pages are without a cache: nobody flushes what it held

    def prepared(self, store: Backend) -> Backend:
        store = super().prepared(store)
        self.physical_block_size = max(self.options.physical_block_size, store.medium_block)
        if self.options.protection and not isinstance(store, protection.ProtectedStore):
            tags = self.options.tags(store.size // self.block_size, self.block_size)
            store = protection.ProtectedStore(
                store, tags, self.block_size, lambda callback: self.clock.call_later(0, callback)
            )
        return store

    def run_in_background(self, background: Background) -> None:
        """FORMAT UNIT and SANITIZE: the unit is busy with itself until it calls back."""
        self.background = background
        background.start()
        self.refresh()

    def check_free(self) -> None:
        if self.background is not None:
            raise ValueError("the unit is being formatted or sanitized; wait until that has ended")

    def medium_state(self) -> str:
        if self.background is not None:
            return "sanitizing" if self.background.sanitize else "formatting"
        return super().medium_state()

    def describe(self) -> dict[str, object]:
        return {
            "type": "disk",
            **super().describe(),
            "physical_block_size": self.physical_block_size,
            "thin": self.thin,
            "protection": 1 if self.protection_enabled else 0,
            "write_cache": not self.write_through,
        }

    @property
    def idle(self) -> bool:
        return self.background is None and super().idle

    def saved(self) -> dict[str, Any]:
        return {
            **super().saved(),
            "sanitize_failed": self.sanitize_failed,
            "sanitize_may_leave": self.sanitize_may_leave,
            "copy_results": [(*key, *result) for key, result in self.copy_results.items()],
        }

    def restore(self, state: UnitState) -> None:
        assert isinstance(state, DiskState)
        self.sanitize_failed, self.sanitize_may_leave = state.sanitize_failed, state.sanitize_may_leave
        self.copy_results = {(initiator, number): (good, done) for initiator, number, good, done in state.copy_results}
        super().restore(state)

    def close(self) -> None:
        if self.background is not None:
            self.background.stop()
        super().close()

"""The disk: a device server over blocks of a back end (SBC-4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from hba.clock import Clock
from hba.errors import StorageError
from hba.scsi.command import Command, CommandTable
from hba.scsi.disk import (
    atomic,
    caching,
    capacity,
    compare,
    defects,
    format,
    log_pages,
    mode_pages,
    provisioning,
    rw,
    sanitize,
    start_stop,
    verify,
    vpd,
)
from hba.scsi.disk.background import Background
from hba.scsi.sense import (
    CAPACITY_DATA_HAS_CHANGED,
    INQUIRY_DATA_HAS_CHANGED,
    LBA_OUT_OF_RANGE,
    MODE_PARAMETERS_CHANGED,
    NOT_READY_CAUSE_NOT_REPORTABLE,
    NOT_READY_FORMAT_IN_PROGRESS,
    NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    NOT_READY_MEDIUM_NOT_PRESENT,
    NOT_READY_SANITIZE_IN_PROGRESS,
    NOT_READY_TO_READY_CHANGE,
    NOT_READY_TRAY_OPEN,
    OPERATOR_MEDIUM_REMOVAL_REQUEST,
    SANITIZE_COMMAND_FAILED,
    SOFTWARE_WRITE_PROTECTED,
    WRITE_PROTECTED,
    CheckCondition,
    invalid_cdb,
    progress,
)
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.spc import COMMON
from hba.scsi.spc.inquiry import SAM5, SBC3, SPC4, standard_data
from hba.scsi.spc.mode import ModePages
from hba.scsi.state import SavedState
from hba.scsi.task import DATA_IN, DATA_OUT, RESPONSE_ABORTED, Task
from hba.storage.backend import Backend

BLOCK_COMMANDS = CommandTable(
    COMMON,
    rw.commands,
    verify.commands,
    compare.commands,
    atomic.commands,
    caching.commands,
    capacity.commands,
    defects.commands,
    format.commands,
    provisioning.write_same,
    sanitize.commands,
    start_stop.commands,
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
    ) -> None:
        """
        block_size           bytes in a logical block
        physical_block_size  bytes in a physical one; 0: as the logical one
        rotation_rate        revolutions per minute; 1: non-rotating (SBC-4 MEDIUM ROTATION RATE)
        """
        self.block_size = block_size
        self.physical_block_size = max(physical_block_size, block_size)
        self.removable = removable
        self.read_only = read_only
        self.thin = thin
        self.write_cache = write_cache
        self.rotation_rate = rotation_rate


class Disk(DeviceServer):
    """A block device. `backend` None: there is no medium (removable only)."""

    device_type: ClassVar[int] = 0x00
    versions: ClassVar[tuple[int, ...]] = (SAM5, SPC4, SBC3)

    def __init__(
        self,
        backend: Backend | None,
        identity: Identity,
        clock: Clock,
        options: DiskOptions | None = None,
        state: SavedState | None = None,
    ) -> None:
        super().__init__(identity, clock, state)
        options = options if options is not None else DiskOptions()
        self.options = options
        self.removable = options.removable
        self.block_size = options.block_size
        self.physical_block_size = options.physical_block_size
        self.thin = options.thin
        self.commands = THIN_COMMANDS if options.thin else BLOCK_COMMANDS
        self.blocks = 0
        self.backend: Backend | None = None
        self.tray_open = False
        self.gone = False  # the back end says its store has disappeared
        self.stopped = False
        self.locked_by: set[int] = set()  # initiators that prevent removal
        self.background: Background | None = None
        self.sanitize_failed = False
        self.sanitize_may_leave = False  # the SANITIZE that failed said AUSE
        self.write_protected = options.read_only  # by the host; the medium may be read-only besides
        self.software_write_protect = False
        self.write_through = not options.write_cache
        self.prefetched = 0
        self.verified_blocks = 0
        self.reads = self.writes = 0
        self.read_blocks = self.written_blocks = 0
        self.read_errors = self.write_errors = 0
        self.starts = 1
        self.loads = 0
        self.mode = ModePages(mode_pages.disk_pages(self), self.state)
        self.logs = log_pages.disk_logs(self)
        self._attach(backend)
        self.mode_changed()

    # -- what it is -------------------------------------------------------------------------------------------------

    def inquiry_data(self) -> bytes:
        return standard_data(self.device_type, self.removable, self.identity, self.versions, third_party_copy=True)

    def vpd_pages(self) -> dict[int, Callable[[], bytes]]:
        return vpd.pages(self)

    @property
    def exponent(self) -> int:
        """Logical blocks in a physical block, as a power of two."""
        return (self.physical_block_size // self.block_size).bit_length() - 1

    @property
    def protected(self) -> bool:
        """Nothing can be written, whoever says so."""
        backend = self.backend
        return self.write_protected or self.software_write_protect or (backend is not None and backend.read_only)

    # -- checks -----------------------------------------------------------------------------------------------------

    def check_ready(self) -> None:
        background = self.background
        if background is not None:
            raise CheckCondition(NOT_READY_FORMAT_IN_PROGRESS, specific=progress(background.progress))
        if self.tray_open:
            raise CheckCondition(NOT_READY_TRAY_OPEN)
        if self.backend is None:
            raise CheckCondition(NOT_READY_MEDIUM_NOT_PRESENT)
        if self.gone:
            raise CheckCondition(NOT_READY_CAUSE_NOT_REPORTABLE)
        if self.stopped:
            raise CheckCondition(NOT_READY_INITIALIZING_COMMAND_REQUIRED)

    def check_admission(self, command: Command) -> None:
        background = self.background
        if background is not None and background.sanitize and command.opcode not in sanitize.ALLOWED_MEANWHILE:
            raise CheckCondition(NOT_READY_SANITIZE_IN_PROGRESS, specific=progress(background.progress))
        if self.sanitize_failed and command.opcode not in sanitize.ALLOWED_AFTER_FAILURE:
            raise CheckCondition(SANITIZE_COMMAND_FAILED)

    def is_special(self) -> bool:
        return (
            self.background is not None
            or self.sanitize_failed
            or self.tray_open
            or self.backend is None
            or self.gone
            or self.stopped
        )

    def store(self) -> Backend:
        """The back end, which a command that needs the medium has."""
        backend = self.backend
        if backend is None:
            raise CheckCondition(NOT_READY_MEDIUM_NOT_PRESENT)
        return backend

    def check_writable(self) -> None:
        if self.software_write_protect and not self.write_protected:
            raise CheckCondition(SOFTWARE_WRITE_PROTECTED)
        if self.protected:
            raise CheckCondition(WRITE_PROTECTED)

    def check_range(self, lba: int, count: int) -> None:
        """SBC-4 "Access to the medium": the whole range exists, also when it is empty."""
        if lba + count > self.blocks:
            raise CheckCondition(LBA_OUT_OF_RANGE, max(lba, min(self.blocks, lba + count)))

    def check_length(self, count: int, byte: int) -> None:
        """No more than MAXIMUM TRANSFER LENGTH; `byte` is where the CDB says how many."""
        if count > self.max_transfer:
            raise invalid_cdb(byte)

    @property
    def max_transfer(self) -> int:
        """Logical blocks in one command (Block Limits)."""
        return vpd.MAX_TRANSFER_BYTES // self.block_size

    # -- data -------------------------------------------------------------------------------------------------------

    def data_in(self, task: Task, length: int) -> list[memoryview]:
        """Where `length` bytes for the initiator go: all there is room for."""
        buffer = task.data
        if task.direction != DATA_IN or buffer is None:
            task.overrun = length
            return []
        task.overrun = max(0, length - buffer.length)
        return buffer.slice(0, length)

    def data_out(self, task: Task, length: int, byte: int, exact: bool = False) -> list[memoryview]:
        """The `length` bytes the initiator sent. Fewer (or, if `exact`, more) end the command before it touches the
        medium: `byte` is where the CDB asks for them."""
        buffer = task.data
        if task.direction != DATA_OUT or buffer is None or buffer.length < length:
            raise invalid_cdb(byte)
        if exact and buffer.length != length:
            raise invalid_cdb(byte)
        task.transferred = length
        return buffer.slice(0, length)

    def error_lba(self, task: Task) -> int | None:
        return rw.lba_of(task.cdb)

    def _storage_failed(self, task: Task, error: StorageError) -> None:
        if task.direction == DATA_OUT:
            self.write_errors += 1
        else:
            self.read_errors += 1
        super()._storage_failed(task, error)

    # -- state ------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        super().refresh()
        self._dispatch = rw.fast_path(self, self._run)

    def mode_changed(self) -> None:
        mode_pages.obey(self)
        self.refresh()

    def block_descriptor(self, long_lba: bool) -> bytes:
        return mode_pages.block_descriptor(self, long_lba)

    def check_block_descriptor(self, descriptor: bytes, position: int, long_lba: bool) -> None:
        mode_pages.check_block_descriptor(self, descriptor, position, long_lba)

    def device_specific(self) -> int:
        return (0x80 if self.protected else 0) | 0x10  # WP; DPOFUA

    def pollable_sense(self) -> int:
        return mode_pages.informational_exception(self)

    def on_reset(self, kind: str) -> None:
        self.mode.restore()
        self.locked_by.clear()
        if kind == "power-on":
            self.stopped = False
        self.mode_changed()

    def run_in_background(self, background: Background) -> None:
        """FORMAT UNIT and SANITIZE: the unit is busy with itself until it calls back."""
        self.background = background
        background.start()
        self.refresh()

    # -- the medium -------------------------------------------------------------------------------------------------

    def _attach(self, backend: Backend | None) -> None:
        self.backend = backend
        self.gone = False
        self.blocks = backend.size // self.block_size if backend is not None else 0
        if backend is not None:
            backend.on_event = self._on_event

    def _on_event(self, event: str) -> None:
        if event == "resized":
            self.capacity_changed()
        elif event == "gone":
            self.gone = True
            self.refresh()
        elif event == "back":
            self.gone = False
            self.attention(NOT_READY_TO_READY_CHANGE)
            self.capacity_changed()

    def capacity_changed(self) -> None:
        """The back end may have another size now: CAPACITY DATA HAS CHANGED if so."""
        backend = self.backend
        blocks = backend.size // self.block_size if backend is not None else 0
        if blocks != self.blocks:
            self.blocks = blocks
            self.attention(CAPACITY_DATA_HAS_CHANGED)
        self.refresh()

    def eject(self, force: bool = False) -> Backend | None:
        """The host takes the medium out and gets it (to close it, or to insert it again).

        Raises ValueError when the medium cannot be taken out, or the guest has locked it and `force` is not given;
        a locked drive tells the guest that somebody wants the medium (OPERATOR MEDIUM REMOVAL REQUEST).
        """
        if not self.removable:
            raise ValueError("this unit's medium is not removable")
        if self.locked_by and not force:
            self.attention(OPERATOR_MEDIUM_REMOVAL_REQUEST)
            raise ValueError("the guest has locked the medium; it was told of the request, or use force")
        self.abort_all(RESPONSE_ABORTED)
        backend = self.backend
        if backend is not None:
            backend.on_event = None
        self._attach(None)
        self.locked_by.clear()
        self.tray_open = True
        self.refresh()
        return backend

    def insert(self, backend: Backend) -> None:
        """The host puts a medium in. Raises ValueError when there is one, or the unit is not removable."""
        if not self.removable:
            raise ValueError("this unit's medium is not removable")
        if self.backend is not None:
            raise ValueError("there is a medium in the drive; eject it first")
        self._attach(backend)
        self.tray_open = False
        self.stopped = False
        self.loads += 1
        self.attention(NOT_READY_TO_READY_CHANGE)

    def resize(self, size: int) -> None:
        """Make the medium `size` bytes. Raises `StorageError` when the store cannot, ValueError for a bad size."""
        if self.backend is None:
            raise ValueError("there is no medium to resize")
        if size <= 0 or size % self.block_size:
            raise ValueError(f"the size must be a multiple of the block size, {self.block_size}")
        self.backend.resize(size)
        self.capacity_changed()

    def set_read_only(self, read_only: bool) -> None:
        """Write-protect the unit, or no longer; the guest is told that the mode parameters have changed."""
        if read_only == self.write_protected:
            return
        self.write_protected = read_only
        self.attention(MODE_PARAMETERS_CHANGED)

    def identity_changed(self) -> None:
        self.attention(INQUIRY_DATA_HAS_CHANGED)

    def check_unlocked(self) -> None:
        start_stop.check_unlocked(self)

    def describe(self) -> dict[str, object]:
        backend = self.backend
        return {
            "type": "disk",
            **super().describe(),
            "blocks": self.blocks,
            "block_size": self.block_size,
            "physical_block_size": self.physical_block_size,
            "removable": self.removable,
            "read_only": self.protected,
            "thin": self.thin,
            "write_cache": not self.write_through,
            "medium": self._medium_state(),
            "locked": bool(self.locked_by),
            "reads": self.reads,
            "writes": self.writes,
            "read_bytes": self.read_blocks * self.block_size,
            "written_bytes": self.written_blocks * self.block_size,
            "read_errors": self.read_errors,
            "write_errors": self.write_errors,
            "storage": backend.describe() if backend is not None else None,
        }

    def _medium_state(self) -> str:
        if self.background is not None:
            return "sanitizing" if self.background.sanitize else "formatting"
        if self.tray_open:
            return "ejected"
        if self.backend is None:
            return "absent"
        if self.gone:
            return "gone"
        return "stopped" if self.stopped else "ready"

    def close(self) -> None:
        super().close()
        if self.background is not None:
            self.background.stop()
        if self.backend is not None:
            self.backend.on_event = None
            self.backend.close()

"""What disks and CD drives share: blocks of a back end on a medium that may be absent, ejected, locked, resized."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from hba.clock import Clock
from hba.errors import StorageError
from hba.scsi.address import unit_name
from hba.scsi.plan import Plan
from hba.scsi.sense import (
    CAPACITY_DATA_HAS_CHANGED,
    LBA_OUT_OF_RANGE,
    MODE_PARAMETERS_CHANGED,
    NOT_READY_CAUSE_NOT_REPORTABLE,
    NOT_READY_INITIALIZING_COMMAND_REQUIRED,
    NOT_READY_MEDIUM_NOT_PRESENT,
    NOT_READY_TO_READY_CHANGE,
    NOT_READY_TRAY_OPEN,
    OPERATOR_MEDIUM_REMOVAL_REQUEST,
    CheckCondition,
    invalid_cdb,
)
from hba.scsi.server import DeviceServer, Identity, Steps
from hba.scsi.state import SavedState
from hba.scsi.storage_sense import condition_for, was_writing
from hba.scsi.task import DATA_IN, DATA_OUT, RESPONSE_ABORTED, Task
from hba.scsi.unit_state import MediumState, UnitState
from hba.storage.backend import Backend
from hba.storage.granules import fit

MAX_TRANSFER_BYTES = 32 << 20  # one READ or WRITE

SETTLE = 1.0  # s that an abort or a reset waits for the store; a guest's driver may have a patience of 2 s itself

Ended = Callable[[StorageError | None], None]  # how a host's operation ended


def told_nobody(error: StorageError | None) -> None:
    """For who does not want to know; the unit's `trouble` has it anyway."""


# Unit attentions about the medium that is in the unit, which say nothing about the next one.
_OF_A_MEDIUM = frozenset((NOT_READY_TO_READY_CHANGE, CAPACITY_DATA_HAS_CHANGED, OPERATOR_MEDIUM_REMOVAL_REQUEST))


class MediumUnit(DeviceServer):
    """A logical unit whose commands move blocks. `backend` None: there is no medium (removable only).

    The host's operations are `eject`, `insert`, `resize` and `set_read_only`; each raises the unit attention a real
    device would. The guest ejects and loads by START STOP UNIT: then the medium stays in the open tray.
    """

    block_size = 512
    write_through = True  # no cache that could lose what was written
    long_cdb = True  # the device type has READ(16)

    def __init__(self, identity: Identity, clock: Clock, state: SavedState | None, *, read_only: bool) -> None:
        super().__init__(identity, clock, state)
        self.blocks = 0
        self.backend: Backend | None = None
        self.tray_open = False
        self.gone = False  # the back end says its store has disappeared
        self.stopped = False
        self.locked_by: set[int] = set()  # initiators that prevent removal
        self.write_protected = read_only  # by the host; the medium may be read-only besides
        self.reads = self.writes = 0
        self.read_blocks = self.written_blocks = 0
        self.read_errors = self.write_errors = 0
        self.starts = 1
        self.loads = 0
        self._plan = Plan(self.block_size, 0, 0, False, False)  # of the present state
        self._hanging = False  # a call of a command that was aborted has not ended within `SETTLE`

    # -- running ----------------------------------------------------------------------------------------------------

    def execute(self, tasks: list[Task]) -> list[Task]:
        ended: list[Task] = []
        at, count = 0, len(tasks)
        while at < count:
            # Plain reads in a row are what the store is asked for together.
            reads, length, direction = self._plan.reads(tasks, at, self)
            at += len(reads)
            if reads:
                ended += self._read(reads, length)
            if at < count:
                task = tasks[at]
                at += 1
                if self.attempt(self._write if direction == DATA_OUT else self.admit, task):
                    ended.append(task)
        return ended

    def _read(self, tasks: list[Task], length: int) -> list[Task]:
        """Plain reads, of `length` bytes in all; returns those that have ended."""
        store = self.backend
        assert store is not None  # or nothing is plain
        self.reads += len(tasks)
        self.read_blocks += length // self.block_size
        try:
            late = store.read_batch(tasks)
        except Exception as error:
            ended = [task for task in tasks if task not in self._in_flight]
            for task in ended:
                self.defect(task, error)
            return ended
        return [task for task in tasks if task not in late] if late else tasks

    def _write(self, task: Task) -> bool:
        """A plain write."""
        data = task.data
        assert data is not None  # or it would not be plain
        self.writes += 1
        self.written_blocks += data.length // self.block_size
        if self.store().write(data.views, task.offset, task.answered, self.write_through):
            return True
        return self.pending_io(task)

    def plain(self) -> bool:
        """Whether blocks go to the store and come from it as they are."""
        return True

    def refresh(self) -> None:
        super().refresh()
        blocks = 0 if self._special or not self.plain() else self.blocks
        self._plan = Plan(self.block_size, blocks, self.max_transfer, not self.protected, self.long_cdb)

    # -- checks -----------------------------------------------------------------------------------------------------

    def check_ready(self) -> None:
        if self.tray_open:
            raise CheckCondition(NOT_READY_TRAY_OPEN)
        if self.backend is None:
            raise CheckCondition(NOT_READY_MEDIUM_NOT_PRESENT)
        if self.gone or not self.blocks:
            raise CheckCondition(NOT_READY_CAUSE_NOT_REPORTABLE)
        if self.stopped:
            raise CheckCondition(NOT_READY_INITIALIZING_COMMAND_REQUIRED)

    def is_special(self) -> bool:
        return self.tray_open or self.backend is None or self.gone or not self.blocks or self.stopped

    @property
    def protected(self) -> bool:
        """Nothing can be written, whoever says so."""
        backend = self.backend
        return self.write_protected or (backend is not None and backend.read_only)

    def store(self) -> Backend:
        """The back end, which a command that needs the medium has."""
        backend = self.backend
        if backend is None:
            raise CheckCondition(NOT_READY_MEDIUM_NOT_PRESENT)
        return backend

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
        return MAX_TRANSFER_BYTES // self.block_size

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

    def storage_failed(self, task: Task, error: StorageError) -> None:
        self.count_error(was_writing(task, error))
        super().storage_failed(task, error)

    def count_error(self, writing: bool) -> None:
        if writing:
            self.write_errors += 1
        else:
            self.read_errors += 1

    # -- migration --------------------------------------------------------------------------------------------------

    @property
    def hangs(self) -> bool:
        return self._hanging

    @property
    def lasting(self) -> bool:
        return self.backend is None or self.backend.lasting

    def make_stable_now(self, ended: Ended) -> None:
        self.run_alone(self.make_stable, ended)

    def saved(self) -> dict[str, Any]:
        return {
            **super().saved(),
            "block_size": self.block_size,
            "blocks": self.blocks,
            "tray_open": self.tray_open,
            "stopped": self.stopped,
            "locked_by": sorted(self.locked_by),
            "write_protected": self.write_protected,
        }

    def check_saved(self, state: UnitState) -> None:
        super().check_saved(state)
        assert isinstance(state, MediumState)
        there, here = (state.blocks, state.block_size), (self.blocks, self.block_size)
        if there != here:
            raise ValueError(
                f"unit {unit_name(*self.address)} has {there[0]} blocks of {there[1]} bytes in the state and {here[0]} "
                f"of {here[1]} here: give it the same storage, or insert the same medium"
            )

    def restore(self, state: UnitState) -> None:
        assert isinstance(state, MediumState)
        self.tray_open, self.stopped = state.tray_open, state.stopped
        self.locked_by = set(state.locked_by)
        self.write_protected = state.write_protected
        super().restore(state)

    # -- stability --------------------------------------------------------------------------------------------------

    @property
    def unstable(self) -> bool:
        return self.backend is not None and self.backend.unstable

    def make_stable(self) -> Steps:
        """What was acknowledged goes to stable storage, or the error comes.

        The one rule for every state in which nobody would ask for that any more: without a write cache, protected,
        stopped, ejected, of another size, left alone.
        """
        backend = self.backend
        if backend is not None and backend.unstable:
            yield backend.flush

    def write_out(self) -> None:
        """`make_stable` for a state that has come already: commands wait for it, the first one hears of an error."""

        def ended(error: StorageError | None) -> None:
            if error is not None and error.errno != errno.ECANCELED:
                self.deferred = condition_for(error, writing=True)
                self.refresh()

        self.run_alone(self.make_stable, ended)

    def on_reset(self, kind: str) -> None:
        self.mode.restore()
        self.locked_by.clear()
        if kind == "power-on":
            # Whoever wrote has gone: only the host can be told. What its store lost is no news for the next one.
            self.run_alone(self.make_stable, told_nobody)
            if self.backend is not None:
                self.backend.forget_lost()

    def check_free(self) -> None:
        """Raise ValueError while the host may not change the medium or its state."""

    # -- the medium -------------------------------------------------------------------------------------------------

    def attach_backend(self, backend: Backend | None) -> None:
        """Take a store over, or have none; tells nobody. Raises `ConfigError` when it does not fit; it is the caller's
        then."""
        if backend is not None:
            backend = self.prepared(backend)
        self.backend = backend
        self.gone = False
        self.blocks = backend.size // self.block_size if backend is not None else 0
        if backend is not None:
            backend.on_event = self._on_event

    def prepared(self, store: Backend) -> Backend:
        """The store as the unit uses it."""
        return fit(store, self.block_size)

    def settle(self) -> None:
        backend = self.backend
        if backend is None:
            return
        # Waited for once: what has hung for so long will hang for the next command, too.
        settled = backend.settle(0 if self._hanging else SETTLE)
        if not settled and not self._hanging:
            what = "a call hangs whose command was aborted or reset; when it ends, it may still move the command's data"
            self.store_failed(StorageError(what, errno.EBUSY))
        self._hanging = not settled

    def _on_event(self, event: str) -> None:
        self.tell(event)
        if event == "resized":
            self.capacity_changed()
        elif event == "gone":
            self.gone = True
            self.refresh()
        elif event == "back":
            self.gone = False
            self.capacity_changed()
            self.attention(NOT_READY_TO_READY_CHANGE)

    def capacity_changed(self) -> None:
        """The back end may have another size now: CAPACITY DATA HAS CHANGED if so."""
        backend = self.backend
        blocks = backend.size // self.block_size if backend is not None else 0
        if blocks != self.blocks:
            before, self.blocks = self.blocks, blocks
            if blocks:
                self.attention(CAPACITY_DATA_HAS_CHANGED if before else NOT_READY_TO_READY_CHANGE)
            elif backend is not None:  # there is no block to speak of: not ready, until somebody makes it larger
                self.tell(f"error: the store has {backend.size} bytes, less than a block of {self.block_size}")
        self.refresh()

    def removal_requested(self) -> None:
        """The host wants a medium the guest has locked."""
        self.attention(OPERATOR_MEDIUM_REMOVAL_REQUEST)

    def medium_event(self, inserted: bool) -> None:
        """The medium has come or gone (for devices that keep such events)."""

    def open_tray(self) -> None:
        """The guest ejects: the medium stays in the open tray."""
        self.attentions.withdraw(frozenset((OPERATOR_MEDIUM_REMOVAL_REQUEST,)))  # it may be had now
        self.tray_open = True
        self.medium_event(False)
        self.refresh()

    def close_tray(self, initiator: int) -> None:
        """The guest loads. Raises `CheckCondition` when there is nothing to load."""
        self.stopped = False
        if self.tray_open:
            self.tray_open = False
            if self.backend is not None:
                self.loads += 1
                self.medium_event(True)
                self.attention(NOT_READY_TO_READY_CHANGE, but=initiator)
        self.refresh()
        self.store()

    def eject(self, force: bool = False) -> Backend | None:
        """The host takes the medium out and gets it (to close it, or to insert it again).

        Raises ValueError when the medium cannot be taken out, or the guest has locked it and `force` is not given;
        the guest is then told that somebody wants the medium.
        """
        if not self.removable:
            raise ValueError("this unit's medium is not removable")
        self.check_free()
        if self.locked_by and not force:
            self.removal_requested()
            raise ValueError("the guest has locked the medium; it was told of the request (force takes it anyway)")
        self.abort_all(RESPONSE_ABORTED)
        backend = self.backend
        if backend is not None:
            backend.on_event = None
        self.attach_backend(None)
        self.attentions.withdraw(_OF_A_MEDIUM)
        self.locked_by.clear()
        self.tray_open = True
        self.medium_event(False)
        self.refresh()
        return backend

    def insert(self, backend: Backend) -> None:
        """The host puts a medium in. Raises ValueError when there is one, or the unit is not removable, `ConfigError`
        when it does not fit."""
        if not self.removable:
            raise ValueError("this unit's medium is not removable")
        if self.backend is not None:
            raise ValueError("there is a medium in the drive; eject it first")
        self.attach_backend(backend)
        self.attentions.withdraw(_OF_A_MEDIUM)
        self.tray_open = False
        self.stopped = False
        self.loads += 1
        self.medium_event(True)
        self.attention(NOT_READY_TO_READY_CHANGE)

    def resize(self, size: int, ended: Ended = told_nobody) -> None:
        """Make the medium `size` bytes, in the unit's turn; what was written and the new size are stable then.

        `ended(error)` is called once, with the `StorageError` when the store cannot. Raises ValueError for a bad size.
        """
        if self.backend is None:
            raise ValueError("there is no medium to resize")
        if size <= 0 or size % self.block_size:
            raise ValueError(f"the size must be a multiple of the block size, {self.block_size}")
        self.check_free()
        self.run_alone(lambda: self._resizing(size), ended)

    def _resizing(self, size: int) -> Steps:
        yield from self.make_stable()
        store = self.backend
        if store is None:
            raise StorageError("the medium was ejected meanwhile", errno.ENOMEDIUM)
        store.resize(size)
        self.capacity_changed()
        yield from self.make_stable()

    def set_read_only(self, read_only: bool, ended: Ended = told_nobody) -> None:
        """Write-protect the unit, or no longer, in its turn; the guest is told that the mode parameters have changed.

        What was written before is stable first; `ended(error)` says when that fails, and nothing is changed. Raises
        ValueError when the unit cannot.
        """
        self.check_free()
        self.run_alone(lambda: self._protecting(read_only), ended)

    def _protecting(self, read_only: bool) -> Steps:
        if read_only == self.write_protected:
            return
        if read_only:
            yield from self.make_stable()
        self.write_protected = read_only
        self.attention(MODE_PARAMETERS_CHANGED)

    def medium_state(self) -> str:
        if self.tray_open:
            return "ejected"
        if self.backend is None:
            return "absent"
        if self.gone or not self.blocks:
            return "gone"
        return "stopped" if self.stopped else "ready"

    def describe(self) -> dict[str, object]:
        backend = self.backend
        return {
            **super().describe(),
            "blocks": self.blocks,
            "block_size": self.block_size,
            "removable": self.removable,
            "read_only": self.protected,
            "medium": self.medium_state(),
            "locked": bool(self.locked_by),
            "unflushed": self.unstable,
            "reads": self.reads,
            "writes": self.writes,
            "read_bytes": self.read_blocks * self.block_size,
            "written_bytes": self.written_blocks * self.block_size,
            "read_errors": self.read_errors,
            "write_errors": self.write_errors,
            "storage": backend.describe() if backend is not None else None,
        }

    def close(self) -> None:
        super().close()
        backend = self.backend
        if backend is not None:
            backend.close()  # flushes, and tells us when that fails
            backend.on_event = None

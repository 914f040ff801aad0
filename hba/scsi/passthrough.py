"""A logical unit that is a SCSI device of the host: commands go to it as they are, and its answers come back.

Only what belongs to this target is answered here: REPORT LUNS, resets, and a device that has gone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hba.clock import Clock, S
from hba.errors import StorageError
from hba.scsi.address import unit_name
from hba.scsi.attention import Attentions
from hba.scsi.command import VARIABLE_LENGTH
from hba.scsi.sense import (
    INVALID_FIELD_IN_CDB,
    LOGICAL_UNIT_NOT_SUPPORTED,
    NOT_READY_CAUSE_NOT_REPORTABLE,
    NOT_READY_TO_READY_CHANGE,
    REPORTED_LUNS_DATA_HAS_CHANGED,
    CheckCondition,
    fixed_sense,
)
from hba.scsi.server import CHECK_CONDITION
from hba.scsi.spc.report_luns import encode_lun
from hba.scsi.storage_sense import condition_for, was_writing
from hba.scsi.task import (
    DATA_IN,
    DATA_NONE,
    DATA_OUT,
    INITIATOR,
    RESPONSE_ABORTED,
    RESPONSE_NO_TARGET,
    RESPONSE_RESET,
    Task,
)
from hba.scsi.trouble import Trouble
from hba.scsi.unit import UNKNOWN_TYPE, LogicalUnit
from hba.scsi.unit_state import PassThroughState, UnitState
from hba.storage.sg import FROM_DEVICE, NO_DATA, TO_DEVICE, ScsiResult
from hba.storage.sysfs import Limits

_DIRECTIONS = {DATA_NONE: NO_DATA, DATA_IN: FROM_DEVICE, DATA_OUT: TO_DEVICE}
_LENGTHS = {0: 6, 1: 10, 2: 10, 4: 16, 5: 12}  # of a CDB, by the group of its operation code (SPC-4)
_REPORT_LUNS = 0xA0
_INQUIRY = 0x12
_BLOCK_LIMITS = 0xB0  # VPD page
_NO_ATTENTION = frozenset((0x03, 0x12, _REPORT_LUNS))
_SLOW = frozenset((0x04, 0x48, 0x19, 0xA1))  # FORMAT UNIT, SANITIZE, ERASE, BLANK
TIMEOUT = 60 * S
SLOW_TIMEOUT = 4 * 3600 * S


class Device(Protocol):
    """What is passed through to; `hba.storage.sg.ScsiPassThrough` is one."""

    gone: bool
    limits: Limits
    device_type: int | None
    on_event: Callable[[str], None] | None

    def execute(
        self,
        cdb: bytes,
        direction: int,
        views: Sequence[memoryview],
        timeout: int,
        done: Callable[[ScsiResult], None],
    ) -> Callable[[], None]: ...

    def describe(self) -> dict[str, object]: ...

    def close(self) -> None: ...


def cdb_of(raw: bytes) -> bytes:
    """The CDB without the padding of the field it came in. Empty when it is cut short."""
    if not raw:
        return b""
    if raw[0] == VARIABLE_LENGTH:
        length = 8 + raw[7] if len(raw) > 7 else 0
    else:
        length = _LENGTHS.get(raw[0] >> 5, len(raw))
    return raw[:length] if 0 < length <= len(raw) else b""


class PassThrough(LogicalUnit):
    """A device of the host as a unit of ours. It owns `device`."""

    state_type = PassThroughState

    def __init__(self, device: Device, clock: Clock) -> None:
        self.device = device
        self.device_type = device.device_type if device.device_type is not None else UNKNOWN_TYPE
        self.trouble = Trouble(clock, self.tell)
        device.on_event = self._on_event
        self.attentions = Attentions()  # of this target's; the device's own come through
        self.attentions.meet(INITIATOR)
        self._in_flight: dict[Task, Callable[[], None]] = {}  # and what withdraws it
        self.commands_run = 0

    def execute(self, tasks: list[Task]) -> list[Task]:
        return [task for task in tasks if self._pass(task)]

    def _pass(self, task: Task) -> bool:
        cdb = cdb_of(task.cdb)
        if self.device.gone and not (cdb and cdb[0] == _REPORT_LUNS):
            return self._missing(task)
        if cdb and cdb[0] not in _NO_ATTENTION and (pending := self.attentions.next(task.initiator)) is not None:
            return self._refuse(task, CheckCondition(pending))
        if cdb and cdb[0] == _REPORT_LUNS and task.cdb[2] in (0, 2):
            return self._report_luns(task)
        views = task.data.views if task.data is not None and task.direction != DATA_NONE else []
        direction = _DIRECTIONS[task.direction] if views else NO_DATA
        timeout = SLOW_TIMEOUT if cdb and cdb[0] in _SLOW else TIMEOUT
        try:
            withdraw = self.device.execute(cdb, direction, views, timeout, lambda result: self._done(task, result))
        except StorageError as error:
            return self._failed(task, error)
        self.commands_run += 1
        task.unit = self
        self._in_flight[task] = withdraw
        return False

    def _done(self, task: Task, result: ScsiResult) -> None:
        if task not in self._in_flight:
            return
        del self._in_flight[task]
        task.unit = None
        if result.error is not None:
            self._failed(task, result.error)
        else:
            task.status = result.status
            task.sense = result.sense
            task.transferred = task.data.length - result.residual if task.data is not None else 0
            if task.status == 0 and task.cdb[0] == _INQUIRY and task.cdb[1] & 1 and task.cdb[2] == _BLOCK_LIMITS:
                self._limit_transfers(task)
        if task.done is not None:
            task.done(task)

    def _limit_transfers(self, task: Task) -> None:
        """Block Limits (SBC-4): MAXIMUM and OPTIMAL TRANSFER LENGTH are no more than the way to the device can take."""
        transfer, block = self.device.limits
        data = task.data
        if data is None or task.transferred < 16 or not transfer or not block:
            return
        most = transfer // block
        lengths = data.read(8, 8)
        longest, best = int.from_bytes(lengths[:4], "big"), int.from_bytes(lengths[4:], "big")
        data.write(min(longest or most, most).to_bytes(4, "big") + min(best, most).to_bytes(4, "big"), 8)

    def _missing(self, task: Task) -> bool:
        """The device has gone: so has the unit, or it stays and is not ready."""
        if self.leaves_with_store:
            task.response = RESPONSE_NO_TARGET
            return True
        return self._refuse(task, CheckCondition(NOT_READY_CAUSE_NOT_REPORTABLE))

    def _failed(self, task: Task, error: StorageError) -> bool:
        if error.errno == errno.ENODEV:
            return self._missing(task)
        if error.errno == errno.EINVAL:  # the kernel cannot send such a command: a CDB or a transfer of such a length
            return self._refuse(task, CheckCondition(INVALID_FIELD_IN_CDB))
        self.trouble.note(error)
        return self._refuse(task, condition_for(error, was_writing(task, error)))

    def _refuse(self, task: Task, condition: CheckCondition) -> bool:
        task.status = CHECK_CONDITION
        task.sense = fixed_sense(condition.condition)
        task.transferred = 0
        return True

    def _send(self, task: Task, data: bytes, allocation: int) -> bool:
        if task.data is not None and task.direction == DATA_IN:
            task.transferred = task.data.write(data[:allocation])
        return True

    def _report_luns(self, task: Task) -> bool:
        """The units of this target, not of the one the device has on its host."""
        numbers = sorted(self.bus.units.get(self.address[0], {})) if self.bus is not None else [self.address[1]]
        luns = b"".join(encode_lun(number) for number in numbers)
        if self.bus is not None:
            self.bus.luns_reported(self.address[0], task.initiator)
        return self._send(task, len(luns).to_bytes(4, "big") + bytes(4) + luns, int.from_bytes(task.cdb[6:10], "big"))

    def _on_event(self, event: str) -> None:
        if event == "back":
            self.attentions.establish_all(NOT_READY_TO_READY_CHANGE)  # a unit that was unplugged is powered on besides
        self.tell(event)

    def execute_for_absent_lun(self, task: Task) -> bool:
        cdb = cdb_of(task.cdb)
        if cdb and cdb[0] == _REPORT_LUNS:
            return self._report_luns(task)
        if cdb and cdb[0] == 0x12 and not cdb[1] & 1:
            return self._send(task, bytes((0x7F, 0, 6, 2, 31)) + bytes(31), int.from_bytes(cdb[3:5], "big"))
        if cdb and cdb[0] == 0x03:
            return self._send(task, fixed_sense(LOGICAL_UNIT_NOT_SUPPORTED), cdb[4])
        return self._refuse(task, CheckCondition(LOGICAL_UNIT_NOT_SUPPORTED))

    def abort(self, task: Task) -> bool:
        """The host's kernel goes on with the command; its answer and its data are dropped."""
        if task not in self._in_flight:
            return False
        self._end(task, RESPONSE_ABORTED)
        return True

    def abort_all(self, response: int) -> None:
        for task in list(self._in_flight):
            self._end(task, response)

    def _end(self, task: Task, response: int) -> None:
        self._in_flight.pop(task)()
        task.unit = None
        task.aborted = True
        task.response = response
        task.transferred = 0
        if task.done is not None:
            task.done(task)

    def reset(self, kind: str) -> None:
        """Ends the tasks; the device itself is not reset, because it may have other users."""
        self.abort_all(RESPONSE_RESET)
        self.attentions.reset(kind)

    @property
    def idle(self) -> bool:
        return not self._in_flight

    def saved(self) -> dict[str, Any]:
        """What this target adds: the rest is in the device, and stays there."""
        target, lun = self.address
        return {
            "target": target,
            "lun": lun,
            "attentions": self.attentions.save(),
            "device_type": self.device_type,
        }

    def check_saved(self, state: UnitState) -> None:
        super().check_saved(state)
        assert isinstance(state, PassThroughState)
        if state.device_type != self.device_type:
            raise ValueError(
                f"unit {unit_name(*self.address)} has device type {state.device_type} in the state and "
                f"{self.device_type} here"
            )

    def restore(self, state: UnitState) -> None:
        self.attentions.restore(state.attentions)

    def luns_changed(self) -> None:
        self.attentions.establish_all(REPORTED_LUNS_DATA_HAS_CHANGED)

    def luns_reported(self, initiator: int) -> None:
        self.attentions.clear(REPORTED_LUNS_DATA_HAS_CHANGED, initiator)

    def describe(self) -> dict[str, object]:
        return {
            "type": "passthrough",
            "target": self.address[0],
            "lun": self.address[1],
            "commands": self.commands_run,
            "in_flight": len(self._in_flight),
            "unit_attentions": self.attentions.describe(),
            "medium": "gone" if self.device.gone else "ready",
            **self.trouble.describe(),
            "storage": self.device.describe(),
        }

    def close(self) -> None:
        self.abort_all(RESPONSE_ABORTED)
        self.device.on_event = None
        self.device.close()

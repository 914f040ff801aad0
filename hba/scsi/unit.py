"""What every logical unit is, whatever its device type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from hba.errors import StorageError
from hba.scsi.address import unit_name
from hba.scsi.task import Task
from hba.scsi.unit_state import AnyUnitState, UnitState

if TYPE_CHECKING:
    from hba.scsi.bus import ScsiBus
    from hba.scsi.sense import CheckCondition


UNKNOWN_TYPE: Final = 0x1F  # "unknown or no device type" (SPC-4)


class LogicalUnit(ABC):
    """A device server (SAM). Its tasks are its own; the bus only finds it."""

    device_type: int = UNKNOWN_TYPE  # peripheral device type (SPC-4)
    bus: ScsiBus | None = None
    address: tuple[int, int] = (0, 0)  # target, lun
    commands_run = 0  # of those that are no plain reads or writes
    leaves_with_store = False  # a store that has gone takes the unit off the bus until it is back

    @abstractmethod
    def execute(self, tasks: list[Task]) -> list[Task]:
        """Run one or more tasks, in order. Returns those that have ended; `task.done(task)` follows for each other."""

    # Migration: a unit at rest (`idle`, and stable) is saved, and restored in the place of one that is like it.

    state_type: type[AnyUnitState]

    @property
    def idle(self) -> bool:
        """No command is under way or waiting, nor anything of the unit's own."""
        return True

    @property
    def hangs(self) -> bool:
        """A call of the store goes on although its command was ended: it may still write."""
        return False

    @property
    def lasting(self) -> bool:
        """What it holds is still there for another process."""
        return True

    def make_stable_now(self, ended: Callable[[StorageError | None], None]) -> None:
        """Have on stable storage what was acknowledged, in the unit's turn; `ended` is called once."""
        ended(None)

    def save(self) -> AnyUnitState:
        return self.state_type(**self.saved())

    @abstractmethod
    def saved(self) -> dict[str, Any]:
        """The fields of its `state_type`."""

    def check_saved(self, state: UnitState) -> None:
        """Raises ValueError unless `state` is of a unit like this one."""
        if not isinstance(state, self.state_type):
            raise ValueError(f"unit {unit_name(*self.address)} is of another type in the state")

    @abstractmethod
    def restore(self, state: UnitState) -> None:
        """Take over a state that `check_saved` found good."""

    # What the store says to a task that has this unit as its `unit`:

    def storage_failed(self, task: Task, error: StorageError) -> None:
        """It has ended at once, with an error."""
        raise NotImplementedError

    def pending_io(self, task: Task) -> bool:
        """It waits for `finish_io`. Returns False: it has not ended."""
        raise NotImplementedError

    def finish_io(self, task: Task, error: StorageError | CheckCondition | None) -> None:
        """It has ended. Nothing happens when it was aborted meanwhile."""
        raise NotImplementedError

    @abstractmethod
    def execute_for_absent_lun(self, task: Task) -> bool:
        """The target's answer to a command for a LUN it does not have (SPC "Incorrect logical unit")."""

    def tell(self, event: str) -> None:
        """What the unit's store says goes to those who watch the bus."""
        if self.bus is not None and self.bus.on_storage is not None:
            self.bus.on_storage(event, *self.address)

    def execute_for_well_known_lun(self, task: Task) -> bool:
        """The answer of the target's REPORT LUNS well known logical unit (SPC-4), if it has one."""
        return self.execute_for_absent_lun(task)

    @abstractmethod
    def abort(self, task: Task) -> bool:
        """End one task with RESPONSE_ABORTED. False when it is not (or no longer) here."""

    @abstractmethod
    def abort_all(self, response: int) -> None:
        """End every task with `response`."""

    @abstractmethod
    def reset(self, kind: str) -> None:
        """End all tasks with RESPONSE_RESET and establish the unit attention.

        kind: "power-on", "bus", "target" or "lun".
        """

    @abstractmethod
    def luns_changed(self) -> None:
        """REPORTED LUNS DATA HAS CHANGED is due here."""

    @abstractmethod
    def luns_reported(self, initiator: int) -> None:
        """The initiator has the target's list of units: REPORTED LUNS DATA HAS CHANGED is due no more."""

    @property
    def unstable(self) -> bool:
        """Whether its store may hold what it has acknowledged and a loss of power would take."""
        return False

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """For `hba show`: type, identity, size, state, reservations, counters, back end."""

    @abstractmethod
    def close(self) -> None:
        """Flush and release the back end."""

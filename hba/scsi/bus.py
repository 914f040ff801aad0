"""The SCSI side of the adapter: targets by id, their logical units, and what a bus can do to them.

This is the only way a miniport reaches the target. See `hba.scsi.unit` for the logical units themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from hba.native import mypyc_attr
from hba.scsi.address import unit_name
from hba.scsi.task import RESPONSE_NO_LUN, RESPONSE_NO_TARGET, Task
from hba.scsi.unit import LogicalUnit

REPORT_LUNS_WELL_KNOWN: Final = 0xC101  # SAM-5 "Well known logical unit addressing"

# ("added" | "removed", target, lun, whether the guest may have found a removed unit by itself)
HotPlug = Callable[[str, int, int, bool], None]
StorageEvent = Callable[[str, int, int], None]  # (what the back end said, target, lun)


@mypyc_attr(allow_interpreted_subclasses=True)
class ScsiBus:
    """Up to 256 targets with up to 256 logical units each."""

    def __init__(self) -> None:
        self.units: dict[int, dict[int, LogicalUnit]] = {}
        self.withdrawn: dict[tuple[int, int], LogicalUnit] = {}  # away with their stores; see `withdraw`
        self.on_change: HotPlug | None = None
        self.on_storage: StorageEvent | None = None

    def attach(self, target: int, lun: int, unit: LogicalUnit) -> None:
        """Add a unit; tells `on_change` ("added"). Raises ValueError when the address is taken."""
        units = self.units.setdefault(target, {})
        if lun in units:
            raise ValueError(f"there is already a unit at {unit_name(target, lun)}")
        waiting = self.withdrawn.pop((target, lun), None)
        if waiting is not None and waiting is not unit:
            waiting.close()  # its place is taken
        units[lun] = unit
        unit.bus = self
        unit.address = (target, lun)
        for other in units.values():
            if other is not unit:
                other.luns_changed()
        if self.on_change is not None:
            self.on_change("added", target, lun, False)

    def detach(self, target: int, lun: int) -> LogicalUnit:
        """Remove a unit; its tasks end with RESPONSE_NO_TARGET. Raises KeyError when there is none."""
        unit = self.units[target].pop(lun)
        if not self.units[target]:
            del self.units[target]
        unit.abort_all(RESPONSE_NO_TARGET)
        unit.bus = None
        for other in self.units.get(target, {}).values():
            other.luns_changed()
        if self.on_change is not None:
            # Nobody has a unit without having asked it what it is.
            self.on_change("removed", target, lun, unit.commands_run > 0)
        return unit

    def luns_reported(self, target: int, initiator: int) -> None:
        """A unit of the target has answered REPORT LUNS: what it says is true of them all (SPC-3 REPORT LUNS)."""
        for unit in self.units.get(target, {}).values():
            unit.luns_reported(initiator)

    def withdraw(self, target: int, lun: int) -> None:
        """As `detach`, for a unit whose store has gone: it goes on reporting about it, until `restore` or `close`."""
        unit = self.detach(target, lun)
        unit.bus = self
        self.withdrawn[target, lun] = unit

    def restore(self, target: int, lun: int) -> None:
        """Bring a withdrawn unit back, as after power on."""
        unit = self.withdrawn.pop((target, lun))
        unit.reset("power-on")
        self.attach(target, lun, unit)

    def close(self) -> None:
        """Close every unit, also the withdrawn ones."""
        for unit in [*self, *self.withdrawn.values()]:
            unit.close()
        self.withdrawn.clear()

    def power_cycle(self) -> None:
        """Whoever used the units has gone with its machine: the next one finds them as after power on."""
        for unit in list(self):
            unit.reset("power-on")

    def __iter__(self) -> Iterator[LogicalUnit]:
        for units in self.units.values():
            yield from units.values()

    def execute(self, target: int, lun: int, tasks: list[Task]) -> list[Task]:
        """Run one or more tasks for one unit, in order; several cost much less than each alone.

        Returns those that have ended, their results in them; `task.done(task)` follows for each other.

        lun: as addressed, below 256; or the first two bytes of the LUN field for the REPORT LUNS well known unit.
        """
        units = self.units.get(target)
        if units is None:
            for task in tasks:
                task.response = RESPONSE_NO_TARGET
            return tasks
        unit = units.get(lun)
        if unit is None:
            return [task for task in tasks if self._no_unit(units, lun, task)]
        return unit.execute(tasks)

    def _no_unit(self, units: dict[int, LogicalUnit], lun: int, task: Task) -> bool:
        """SPC: a target answers INQUIRY, REPORT LUNS and REQUEST SENSE also for units it does not have."""
        for unit in units.values():
            if lun == REPORT_LUNS_WELL_KNOWN:
                return unit.execute_for_well_known_lun(task)
            return unit.execute_for_absent_lun(task)
        task.response = RESPONSE_NO_LUN
        return True

    # -- task management (SAM) ---------------------------------------------------------------------------------------

    def abort(self, task: Task) -> bool:
        """ABORT TASK: True when the task was ended by this (its `done` is called with RESPONSE_ABORTED)."""
        return task.unit is not None and task.unit.abort(task)

    def reset_unit(self, target: int, lun: int) -> bool:
        """LOGICAL UNIT RESET: its tasks end with RESPONSE_RESET. False when there is no such unit."""
        unit = self.units.get(target, {}).get(lun)
        if unit is None:
            return False
        unit.reset("lun")
        return True

    def reset_target(self, target: int) -> bool:
        units = self.units.get(target)
        if not units:
            return False
        for unit in list(units.values()):
            unit.reset("target")
        return True

    def reset_bus(self) -> None:
        for unit in list(self):
            unit.reset("bus")

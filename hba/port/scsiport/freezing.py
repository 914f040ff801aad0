"""Freezing a unit's queue after an error, and releasing it (Q-04, Q-05, Q-06, Q-09).

"Freezing SCSI Port Driver's Internal Queue"; "Storage Class Driver's ReleaseQueue Routine".
"""

from __future__ import annotations

from hba.port.scsiport.slot import Slot
from hba.port.scsiport.unit import FROZEN, ScsiPortRequest, ScsiPortUnit
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_COMMAND_TERMINATED,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_STATUS_ABORTED,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_COMMAND_TIMEOUT,
    SRB_STATUS_MASK,
    SRB_STATUS_TIMEOUT,
)

# what freezes a queue, by status.
FREEZING_SCSI_STATUS = {
    SCSISTAT_CHECK_CONDITION: "CHECK CONDITION",
    SCSISTAT_COMMAND_TERMINATED: "COMMAND TERMINATED",
}
FREEZING_SRB_STATUS = {
    SRB_STATUS_TIMEOUT: "time-out",
    SRB_STATUS_COMMAND_TIMEOUT: "command time-out",
    SRB_STATUS_BUS_RESET: "bus reset during the request",
    SRB_STATUS_ABORTED: "aborted",
}


def freeze_for(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit) -> None:
    """Q-05, and Q-06: NO_QUEUE_FREEZE suppresses it, for this SRB only."""
    srb = request.srb
    if srb.srb_flags & SRB_FLAGS_NO_QUEUE_FREEZE:
        return
    why = FREEZING_SCSI_STATUS.get(srb.scsi_status) or FREEZING_SRB_STATUS.get(srb.srb_status & SRB_STATUS_MASK)
    if why is None and slot.options.freeze_on_any_error:
        why = f"status {srb.srb_status:#04x}"
    if why is not None:
        freeze(slot, request, unit, why)


def freeze(slot: Slot, request: ScsiPortRequest, unit: ScsiPortUnit, why: str) -> None:
    """Q-05: nothing but bypassing requests is started on the unit until it is released."""
    request.frozen = True
    unit.holds |= FROZEN
    unit.frozen_at = slot.clock.now()
    unit.frozen_by = f"#{request.number} ({why})"
    slot.reports.note(request, "freeze", f"{unit.name}: {why}")


def unfreeze(slot: Slot, unit: ScsiPortUnit, why: str) -> None:
    """Q-09: on an unfrozen queue this does nothing."""
    if not unit.holds & FROZEN:
        return
    unit.holds &= ~FROZEN
    slot.reports.note(None, "release_queue", f"{unit.name}: {why}")
    slot.reports.reported_stuck.discard(("Q-09", unit.name))
    slot.restart(unit)

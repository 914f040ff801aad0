"""Sense data for a miniport without auto-sense: the port asks for it itself (ER-03).

The failed request waits, its unit is held, a REQUEST SENSE goes ahead of everything; then the original goes up with
the sense data. "SCSI Port's Role in Transmitting SCSI Sense Data"; flags, length and time-out as in ReactOS.
"""

from __future__ import annotations

from typing import Final

from hba.dma import DmaBuffer
from hba.port.scsiport import freezing
from hba.port.scsiport.slot import Slot
from hba.port.scsiport.unit import NEED_SENSE, ScsiPortRequest, ScsiPortUnit
from hba.srb import (
    SCSISTAT_CHECK_CONDITION,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_AUTOSENSE,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_DATA_OVERRUN,
    SRB_STATUS_MASK,
    SRB_STATUS_REQUEST_SENSE_FAILED,
    SRB_STATUS_SUCCESS,
    Srb,
)

SENSE_SIZE: Final = 18  # sizeof(SENSE_DATA)


def is_needed(srb: Srb) -> bool:
    """CHECK CONDITION, a place for sense data, none there, and nobody forbade it (ER-03, ER-04)."""
    return (
        srb.scsi_status == SCSISTAT_CHECK_CONDITION
        and not srb.srb_status & SRB_STATUS_AUTOSENSE_VALID
        and srb.sense_info_buffer_length > 0
        and not srb.srb_flags & SRB_FLAGS_DISABLE_AUTOSENSE
    )


def fetch(slot: Slot, failed: ScsiPortRequest, unit: ScsiPortUnit) -> bool:
    """Start a REQUEST SENSE for `failed`. False: another one is under way, so its sense data is lost."""
    if unit.need_sense is not None:
        failed.srb.srb_status = SRB_STATUS_REQUEST_SENSE_FAILED
        return False
    size = min(SENSE_SIZE, failed.srb.sense_info_buffer_length)
    if unit.sense_memory is None:
        unit.sense_memory = slot.memory.allocate(SENSE_SIZE)
    memory, address = unit.sense_memory
    srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, unit.path, unit.target, unit.lun)
    srb.cdb = bytes((0x03, 0, 0, 0, size, 0))
    srb.cdb_length = 6
    srb.srb_flags = SRB_FLAGS_DATA_IN | SRB_FLAGS_BYPASS_FROZEN_QUEUE | SRB_FLAGS_DISABLE_DISCONNECT
    srb.time_out_value = slot.options.sense_timeout
    srb.mdl = DmaBuffer([(address, size)], [memory[:size]], size)
    srb.data_transfer_length = size
    srb.completion = lambda done: _done(slot, unit, done)
    request = slot.ledger.own(srb, unit, f"REQUEST SENSE for #{failed.number}")
    unit.need_sense = failed
    unit.sense = request
    unit.holds |= NEED_SENSE
    slot.ahead(request)
    return True


def _done(slot: Slot, unit: ScsiPortUnit, srb: Srb) -> None:
    failed = unit.need_sense
    unit.need_sense = None
    unit.sense = None
    unit.holds &= ~NEED_SENSE
    if failed is None:
        return  # a reset took it away meanwhile
    original = failed.srb
    if srb.srb_status & SRB_STATUS_MASK in (SRB_STATUS_SUCCESS, SRB_STATUS_DATA_OVERRUN) and srb.mdl is not None:
        original.sense_info_buffer = srb.mdl.read(0, srb.data_transfer_length)
        original.sense_info_buffer_length = len(original.sense_info_buffer)
        original.srb_status |= SRB_STATUS_AUTOSENSE_VALID
    else:
        original.srb_status = SRB_STATUS_REQUEST_SENSE_FAILED
    freezing.freeze_for(slot, failed, unit)
    slot.ledger.notify(failed)
    slot.pull(unit)

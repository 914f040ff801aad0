"""What a completed SRB must look like (OW-02 to OW-07, Q-13, ER-01, ER-02, ER-04). Only with the verifier."""

from __future__ import annotations

from hba import srb as s
from hba.port.base import AnyPort
from hba.port.request import Request

# ER-02: always logged. (BUSY only when hardware caused it, which the port cannot know.)
LOGGED = {
    s.SRB_STATUS_PARITY_ERROR: "parity error",
    s.SRB_STATUS_UNEXPECTED_BUS_FREE: "unexpected bus free",
    s.SRB_STATUS_SELECTION_TIMEOUT: "selection time-out",
    s.SRB_STATUS_COMMAND_TIMEOUT: "command time-out",
    s.SRB_STATUS_PHASE_SEQUENCE_FAILURE: "phase sequence failure",
}
READ_WRITE = frozenset({0x08, 0x0A, 0x28, 0x2A, 0x88, 0x8A, 0xA8, 0xAA})


def ordinary(request: Request) -> bool:
    """Whether it is a success as most are, with which `judge` would find nothing wrong."""
    srb = request.srb
    length = srb.data_transfer_length
    return (
        srb.srb_status == s.SRB_STATUS_SUCCESS
        and srb.scsi_status == s.SCSISTAT_GOOD
        and length == request.length_at_issue
        and srb.sense_info_buffer_length <= request.sense_at_issue
        and request.moved in (0, length)
    )


def judge(port: AnyPort, request: Request) -> None:
    """Judge the SRB as the miniport left it. What must not go up, the port sets right afterwards."""
    srb = request.srb
    srb_status = srb.srb_status
    if srb_status & s.SRB_STATUS_QUEUE_FROZEN:
        srb_status &= ~s.SRB_STATUS_QUEUE_FROZEN
        port.offence("Q-13", "the miniport set SRB_STATUS_QUEUE_FROZEN; the bit was cleared", request)
    base = srb_status & s.SRB_STATUS_MASK
    if base not in s.SRB_STATUSES:
        name = "PENDING" if base == s.SRB_STATUS_PENDING else f"{srb_status:#04x}, which is no status"
        port.offence("OW-03", f"completed with {name}; goes up as INTERNAL_ERROR", request)
        return
    if srb.function == s.SRB_FUNCTION_EXECUTE_SCSI:
        _status(port, request, base)
        _length(port, request, base)
    _sense(port, request, srb_status)
    if not request.logged:
        _logged(port, request, base)


def _logged(port: AnyPort, request: Request, base: int) -> None:
    """ER-02: what has to be in the event log, by whatever routine it got there."""
    what = LOGGED.get(base)
    if base == s.SRB_STATUS_SELECTION_TIMEOUT and not port.options.selection_timeouts_logged:
        return
    if base == s.SRB_STATUS_DATA_OVERRUN and request.length_at_issue:
        if min(request.srb.data_transfer_length, request.moved or request.length_at_issue) < request.length_at_issue:
            return  # an underrun is none of it
        what = "data overrun"
    if what is not None:
        routines = "ScsiPortLogError" if port.model == "scsiport" else "StorPortLogError or StorPortLogSystemEvent"
        port.offence("ER-02", f"a {what} was completed without {routines}", request)


def _status(port: AnyPort, request: Request, base: int) -> None:
    srb = request.srb
    scsi_status = srb.scsi_status
    if base == s.SRB_STATUS_SUCCESS:
        if scsi_status != s.SCSISTAT_GOOD:
            port.offence("OW-04", f"SRB_STATUS_SUCCESS with ScsiStatus {scsi_status:#04x}", request)
    elif base == s.SRB_STATUS_ERROR and scsi_status == s.SCSISTAT_GOOD:
        port.offence("ER-01", "SRB_STATUS_ERROR with ScsiStatus GOOD: no status says what went wrong", request)


def _length(port: AnyPort, request: Request, base: int) -> None:
    srb = request.srb
    asked, said = request.length_at_issue, srb.data_transfer_length
    if said > asked:
        port.offence("OW-06", f"DataTransferLength raised from {asked} to {said}; set back", request)
        return
    moved = request.moved  # 0: nobody watched, or there was no data phase
    if base == s.SRB_STATUS_SUCCESS:
        if said == 0 and asked and srb.cdb and srb.cdb[0] in READ_WRITE:
            port.offence("OW-05", "a read or write succeeded with DataTransferLength 0", request)
        elif said < asked:
            port.offence(
                "OW-07", f"{said} of {asked} bytes, but SUCCESS instead of DATA_OVERRUN", request, severity="warning"
            )
        elif moved and moved < asked:
            port.offence(
                "OW-07",
                f"SUCCESS with DataTransferLength {said}, but the device moved {moved} bytes",
                request,
                severity="warning",
            )
    elif base == s.SRB_STATUS_DATA_OVERRUN and said == asked and moved and moved < asked:
        port.offence(
            "OW-07", f"underrun: the device moved {moved} bytes, DataTransferLength still says {said}", request
        )


def _sense(port: AnyPort, request: Request, srb_status: int) -> None:
    srb, info = request.srb, port.info
    if srb_status & s.SRB_STATUS_MASK == s.SRB_STATUS_REQUEST_SENSE_FAILED and not info.auto_request_sense:
        port.offence("ER-04", "REQUEST_SENSE_FAILED from a miniport without AutoRequestSense", request)
    if srb_status & s.SRB_STATUS_AUTOSENSE_VALID:
        if not info.auto_request_sense:
            port.offence("ER-04", "AUTOSENSE_VALID from a miniport without AutoRequestSense", request)
        elif srb.srb_flags & s.SRB_FLAGS_DISABLE_AUTOSENSE:
            port.offence("ER-04", "sense data although SRB_FLAGS_DISABLE_AUTOSENSE is set", request)
    if srb.sense_info_buffer_length > request.sense_at_issue:
        port.offence("OW-06", "SenseInfoBufferLength raised; set back", request)

"""What a Storport miniport reads of an SRB and writes to it, whichever of the two kinds it is (srbhelper.h).

Names are those of the SrbXxx functions in Python spelling. Each takes a SCSI_REQUEST_BLOCK or, with `config.srb_type`
set to SRB_TYPE_STORAGE_REQUEST_BLOCK, a STORAGE_REQUEST_BLOCK.
"""

from __future__ import annotations

from typing import Any

from hba.srb import SRB_FUNCTION_STORAGE_REQUEST_BLOCK

# SRBEXDATATYPE of the structures that carry a CDB
SCSI_CDB_TYPES = (0x40, 0x41, 0x42)


def _extended(srb: Any) -> bool:
    return bool(srb.function == SRB_FUNCTION_STORAGE_REQUEST_BLOCK)


def srb_get_srb_ex_data_by_type(srb: Any, *types: int) -> Any:
    """The first extended data of one of these SRBEXDATATYPEs, or None. SrbGetSrbExDataByType."""
    return next((data for data in srb.srb_ex_data if data.type in types), None)


def _scsi(srb: Any) -> Any:
    """Where CDB, ScsiStatus and sense data are: SrbGetScsiData. None: the request is no SCSI command."""
    return srb_get_srb_ex_data_by_type(srb, *SCSI_CDB_TYPES) if _extended(srb) else srb


def srb_get_srb_function(srb: Any) -> int:
    function: int = srb.srb_function if _extended(srb) else srb.function
    return function


def srb_get_path_target_lun(srb: Any) -> tuple[int, int, int]:
    if _extended(srb):
        return srb.address.path, srb.address.target, srb.address.lun
    return srb.path_id, srb.target_id, srb.lun


def srb_get_cdb(srb: Any) -> bytes:
    """b"" when the request is no SCSI command."""
    data = _scsi(srb)
    return data.cdb if data is not None else b""


def srb_get_miniport_context(srb: Any) -> Any:
    """The SRB extension. SrbGetMiniportContext."""
    return srb.miniport_context if _extended(srb) else srb.srb_extension


def srb_get_queue_tag(srb: Any) -> int:
    tag: int = srb.request_tag if _extended(srb) else srb.queue_tag
    return tag


def srb_get_request_attribute(srb: Any) -> int:
    """The tagged queuing message, one of SRB_*_TAG_REQUEST."""
    action: int = srb.request_attribute if _extended(srb) else srb.queue_action
    return action


def srb_get_sense_info_buffer(srb: Any) -> Any:
    return _scsi(srb).sense_info_buffer


def srb_get_sense_info_buffer_length(srb: Any) -> int:
    length: int = _scsi(srb).sense_info_buffer_length
    return length


def srb_set_sense_info_buffer_length(srb: Any, length: int) -> None:
    _scsi(srb).sense_info_buffer_length = length


def srb_set_scsi_status(srb: Any, status: int) -> None:
    _scsi(srb).scsi_status = status

"""An SRB as a miniport sees it: the SRB itself, or what stands for it."""

from __future__ import annotations

from typing import Any, Protocol


class SeenSrb(Protocol):
    """The SRB, the verifier's guard of one (`hba.instruments.verifier.guard`), or an extended one
    (`hba.port.storport.extended`). The members are the documented ones; see `hba.srb.Srb`."""

    length: int
    function: int
    srb_status: int
    scsi_status: int
    path_id: int
    target_id: int
    lun: int
    queue_tag: int
    queue_action: int
    cdb_length: int
    sense_info_buffer_length: int
    srb_flags: int
    data_transfer_length: int
    time_out_value: int
    data_buffer: Any
    sense_info_buffer: Any
    next_srb: Any
    original_request: Any
    srb_extension: Any
    queue_sort_key: int
    internal_status: int
    cdb: bytes
    _port: Any  # under which the port finds its request

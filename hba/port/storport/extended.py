"""STORAGE_REQUEST_BLOCK: the extended SRB, for miniports that set `config.srb_type` (XS-01, XS-02).

Source: STORAGE_REQUEST_BLOCK (srb.h), SRBEX_DATA_SCSI_CDB16, STOR_ADDR_BTL8. Function carries the marker 0x28, the
real code is in SrbFunction; address and CDB have moved out of the header. The members of the old SCSI_REQUEST_BLOCK
that have no place here read as poison and are a finding, because a driver that reads them reads other members' bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.port.buffers import POISON
from hba.port.request import ISSUED
from hba.port.storport.units import StorRequest
from hba.srb import SRB_FUNCTION_EXECUTE_SCSI, SRB_FUNCTION_STORAGE_REQUEST_BLOCK, SenseInfoBuffer, Srb

SRB_SIGNATURE = 0x53524258  # "SRBX"
STORAGE_REQUEST_BLOCK_VERSION_1 = 1
OFFSET_OF_SIGNATURE = 8  # what the Length member says, so that old code finds a block too short to be its own
SIZE = 0x78  # sizeof(STORAGE_REQUEST_BLOCK), 64-bit
SRB_EX_DATA_TYPE_SCSI_CDB16 = 0x40
STOR_ADDRESS_TYPE_BTL8 = 0x1

Report = Callable[[str, str, StorRequest], None]


class ScsiCdb16:
    """SRBEX_DATA_SCSI_CDB16: what a SCSI command adds."""

    type = SRB_EX_DATA_TYPE_SCSI_CDB16
    length = 0x28

    def __init__(self, request: StorRequest) -> None:
        self._srb = request.srb

    @property
    def scsi_status(self) -> int:
        return self._srb.scsi_status

    @scsi_status.setter
    def scsi_status(self, value: int) -> None:
        self._srb.scsi_status = value

    @property
    def sense_info_buffer_length(self) -> int:
        return self._srb.sense_info_buffer_length

    @sense_info_buffer_length.setter
    def sense_info_buffer_length(self, value: int) -> None:
        self._srb.sense_info_buffer_length = value

    @property
    def sense_info_buffer(self) -> SenseInfoBuffer:
        return self._srb.sense_info_buffer

    @sense_info_buffer.setter
    def sense_info_buffer(self, value: bytes) -> None:
        self._srb.sense_info_buffer = value

    @property
    def cdb_length(self) -> int:
        return self._srb.cdb_length

    @property
    def cdb(self) -> bytes:
        return self._srb.cdb


class Btl8Address:
    """STOR_ADDR_BTL8."""

    type = STOR_ADDRESS_TYPE_BTL8
    address_length = 4

    def __init__(self, srb: Srb) -> None:
        self.path = srb.path_id
        self.target = srb.target_id
        self.lun = srb.lun


class StorageRequestBlock(Srb):
    """What the miniport gets instead of the SRB. Members are the documented ones."""

    function = SRB_FUNCTION_STORAGE_REQUEST_BLOCK
    length = OFFSET_OF_SIGNATURE
    signature = SRB_SIGNATURE
    version = STORAGE_REQUEST_BLOCK_VERSION_1
    srb_length = SIZE

    _request: StorRequest
    _report: Report

    def __init__(self, request: StorRequest, report: Report) -> None:
        srb = request.srb
        state = self.__dict__
        state["_request"] = request
        state["_report"] = report
        state["_port"] = request
        state["address"] = Btl8Address(srb)
        # XS-01: the extended data lies at SrbExDataOffset, one block per entry.
        scsi = srb.function == SRB_FUNCTION_EXECUTE_SCSI
        state["srb_ex_data"] = [ScsiCdb16(request)] if scsi else []
        state["num_srb_ex_data"] = int(scsi)
        state["srb_ex_data_offset"] = [SIZE] if scsi else []
        state["srb_function"] = srb.function  # XS-02: RESET_DEVICE is 0x13
        state["request_tag"] = request.number
        state["request_attribute"] = srb.queue_action
        state["request_priority"] = 3  # IoPriorityNormal

    def __setattr__(self, name: str, value: Any) -> None:
        if self._request.state != ISSUED:
            self._report("OW-01", f"srb.{name} written after the request was completed; not written", self._request)
        elif name in _SHARED_WRITABLE:
            setattr(self._request.srb, name, value)
        elif name in _LEGACY:
            self._report("XS-01", f"srb.{name} written, which an extended SRB does not have", self._request)
        else:
            self._report("OW-06", f"srb.{name} = {value!r}: read-only to a miniport; not written", self._request)

    def __repr__(self) -> str:
        return f"<StorageRequestBlock of {self._request.srb!r}>"


# Members both structures have, which the request's own SRB keeps.
_SHARED_WRITABLE = frozenset({"srb_status", "data_transfer_length", "srb_extension"})
_SHARED = _SHARED_WRITABLE | {"srb_flags", "time_out_value", "data_buffer", "next_srb", "original_request", "mdl"}
# XS-01: members of SCSI_REQUEST_BLOCK only.
_LEGACY = (
    "path_id",
    "target_id",
    "lun",
    "queue_tag",
    "queue_action",
    "cdb_length",
    "cdb",
    "scsi_status",
    "sense_info_buffer",
    "sense_info_buffer_length",
    "queue_sort_key",
    "internal_status",
)


def _shared(name: str) -> property:
    def get(block: StorageRequestBlock) -> Any:
        if block._request.state != ISSUED:
            block._report("OW-01", f"srb.{name} read after the request was completed", block._request)
        return getattr(block._request.srb, name)

    return property(get)


def _legacy(name: str) -> property:
    poison: Any = bytes((POISON,)) * 16 if name in ("cdb", "sense_info_buffer") else POISON

    def get(block: StorageRequestBlock) -> Any:
        block._report("XS-01", f"srb.{name} read, which an extended SRB does not have", block._request)
        return poison

    return property(get)


for _name in _SHARED:
    setattr(StorageRequestBlock, _name, _shared(_name))
for _name in _LEGACY:
    setattr(StorageRequestBlock, _name, _legacy(_name))

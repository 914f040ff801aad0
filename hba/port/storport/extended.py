"""STORAGE_REQUEST_BLOCK: the extended SRB, for miniports that set `config.srb_type` (XS-01, XS-02).

Source: STORAGE_REQUEST_BLOCK, SRBEX_DATA and the SRBEX_DATA_* structures (srb.h), STOR_ADDR_BTL8 (scsi.h); sizes and
offsets as in these headers for 64 bits. Function carries the marker 0x28, the real code is in SrbFunction; address and
CDB have moved out of the header, behind it:

    0x00  STORAGE_REQUEST_BLOCK
    0x80  STOR_ADDR_BTL8                   at AddressOffset
    0x90  SRBEX_DATA_*, if there is one    at SrbExDataOffset[0]

The members of the old SCSI_REQUEST_BLOCK that have no place here read as poison and are a finding, because a driver
that reads them reads other members' bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from hba.port.buffers import POISON
from hba.port.request import ISSUED
from hba.port.storport.units import StorRequest
from hba.srb import (
    SPECIAL_MEMBERS,
    SRB_FLAGS_UNSPECIFIED_DIRECTION,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_PNP,
    SRB_FUNCTION_POWER,
    SRB_FUNCTION_STORAGE_REQUEST_BLOCK,
    SRB_FUNCTION_WMI,
    SenseInfoBuffer,
    Srb,
)

SRB_SIGNATURE: Final = 0x53524258  # "SRBX"
STORAGE_REQUEST_BLOCK_VERSION_1: Final = 1
OFFSET_OF_SIGNATURE: Final = 8  # what the Length member says, so that old code finds a block too short to be its own
SIZE: Final = 0x80  # sizeof(STORAGE_REQUEST_BLOCK)
ADDRESS_SIZE: Final = 0x10  # sizeof(STOR_ADDR_BTL8)
HEADER: Final = 8  # Type and Length of an SRBEX_DATA, which Length does not count
IO_PRIORITY_NORMAL: Final = 2  # IO_PRIORITY_HINT: 0 very low, 1 low, 2 normal, 3 high, 4 critical
STOR_ADDRESS_TYPE_BTL8: Final = 0x1

# SRBEXDATATYPE
SRB_EX_DATA_TYPE_SCSI_CDB16: Final = 0x40
SRB_EX_DATA_TYPE_SCSI_CDB32: Final = 0x41
SRB_EX_DATA_TYPE_SCSI_CDB_VAR: Final = 0x42
SRB_EX_DATA_TYPE_WMI: Final = 0x60
SRB_EX_DATA_TYPE_POWER: Final = 0x61
SRB_EX_DATA_TYPE_PNP: Final = 0x62

Report = Callable[[str, str, StorRequest], None]


class ExData:
    """SRBEX_DATA: `type`, and `length` without these first two members. The rest is the request's."""

    type: int
    length: int

    def __init__(self, request: StorRequest, report: Report) -> None:
        self._request = request
        self._report = report

    def _of(self, how: str) -> Srb:
        request = self._request
        if request.state != ISSUED:
            self._report("OW-01", f"srb.srb_ex_data[0] {how} after the request was completed", request)
        return request.srb


class ScsiCdb(ExData):
    """SRBEX_DATA_SCSI_CDB16, _CDB32 or _CDB_VAR, by the length of the CDB: what a SCSI command adds."""

    def __init__(self, request: StorRequest, report: Report) -> None:
        super().__init__(request, report)
        size = len(request.srb.cdb)
        if size <= 16:
            self.type, self.length = SRB_EX_DATA_TYPE_SCSI_CDB16, 0x20
        elif size <= 32:
            self.type, self.length = SRB_EX_DATA_TYPE_SCSI_CDB32, 0x30
        else:
            self.type, self.length = SRB_EX_DATA_TYPE_SCSI_CDB_VAR, 0x18 + size

    @property
    def scsi_status(self) -> int:
        return self._of("read").scsi_status

    @scsi_status.setter
    def scsi_status(self, value: int) -> None:
        self._of("written").scsi_status = value

    @property
    def sense_info_buffer_length(self) -> int:
        return self._of("read").sense_info_buffer_length

    @sense_info_buffer_length.setter
    def sense_info_buffer_length(self, value: int) -> None:
        self._of("written").sense_info_buffer_length = value

    @property
    def sense_info_buffer(self) -> SenseInfoBuffer:
        buffer: SenseInfoBuffer = self._of("read").sense_info_buffer
        return buffer

    @sense_info_buffer.setter
    def sense_info_buffer(self, value: bytes) -> None:
        self._of("written").sense_info_buffer = value

    @property
    def cdb_length(self) -> int:
        return self._of("read").cdb_length

    @property
    def cdb(self) -> bytes:
        return self._of("read").cdb


class Wmi(ExData):
    """SRBEX_DATA_WMI."""

    type = SRB_EX_DATA_TYPE_WMI
    length = 0x10

    @property
    def wmi_sub_function(self) -> int:
        return self._of("read").wmi_sub_function

    @property
    def wmi_flags(self) -> int:
        return self._of("read").wmi_flags

    @property
    def data_path(self) -> int:
        return self._of("read").data_path


class Power(ExData):
    """SRBEX_DATA_POWER."""

    type = SRB_EX_DATA_TYPE_POWER
    length = 0x0C

    @property
    def srb_power_flags(self) -> int:
        return self._of("read").srb_power_flags

    @property
    def device_power_state(self) -> int:
        return self._of("read").device_power_state

    @property
    def power_action(self) -> int:
        return self._of("read").power_action


class Pnp(ExData):
    """SRBEX_DATA_PNP."""

    type = SRB_EX_DATA_TYPE_PNP
    length = 0x10

    @property
    def pnp_sub_function(self) -> int:
        return self._of("read").pnp_sub_function

    @property
    def pnp_action(self) -> int:
        return self._of("read").pnp_action

    @property
    def srb_pnp_flags(self) -> int:
        return self._of("read").srb_pnp_flags


BY_FUNCTION: dict[int, type[ExData]] = {
    SRB_FUNCTION_EXECUTE_SCSI: ScsiCdb,
    SRB_FUNCTION_WMI: Wmi,
    SRB_FUNCTION_POWER: Power,
    SRB_FUNCTION_PNP: Pnp,
}


class Btl8Address:
    """STOR_ADDR_BTL8."""

    type = STOR_ADDRESS_TYPE_BTL8
    port = 0
    address_length = 4

    def __init__(self, srb: Srb) -> None:
        self.path = srb.path_id
        self.target = srb.target_id
        self.lun = srb.lun


class StorageRequestBlock:
    """What the miniport gets instead of the SRB. Members are the documented ones; `address` and `srb_ex_data` are what
    lies at `address_offset` and the `srb_ex_data_offset`s."""

    function = SRB_FUNCTION_STORAGE_REQUEST_BLOCK
    length = OFFSET_OF_SIGNATURE
    signature = SRB_SIGNATURE
    version = STORAGE_REQUEST_BLOCK_VERSION_1
    request_priority = IO_PRIORITY_NORMAL
    system_status = 0  # of the port, for the class driver
    zero_guard1 = zero_guard2 = 0
    class_context = port_context = None  # irrelevant to miniports
    address_offset = SIZE

    _request: StorRequest
    _report: Report

    def __init__(self, request: StorRequest, report: Report, has_extension: bool) -> None:
        srb = request.srb
        state = self.__dict__
        state["_request"] = request
        state["_report"] = report
        state["_has_extension"] = has_extension
        state["_port"] = request
        state["address"] = Btl8Address(srb)
        kind = BY_FUNCTION.get(srb.function)
        data = None if kind is None else kind(request, report)
        end = SIZE + ADDRESS_SIZE
        state["srb_ex_data"] = [] if data is None else [data]
        state["num_srb_ex_data"] = len(state["srb_ex_data"])
        state["srb_ex_data_offset"] = [] if data is None else [end]
        # XS-01: including this structure, the address and any extended data; all of them begin on 8 bytes.
        state["srb_length"] = end if data is None else end + (HEADER + data.length + 7 & ~7)
        state["srb_function"] = srb.function  # XS-02: RESET_DEVICE is 0x13
        state["request_tag"] = request.number & 0xFFFFFFFF
        state["request_attribute"] = srb.queue_action

    @property
    def miniport_context(self) -> Any:
        """The SRB extension (OW-08)."""
        request = self._request
        if request.state != ISSUED:
            self._report("OW-08", "srb.miniport_context read after the request was completed", request)
        elif not self.__dict__["_has_extension"]:
            self._report("OW-08", "srb.miniport_context used although srb_extension_size is 0", request)
        return request.srb.srb_extension

    def __setattr__(self, name: str, value: Any) -> None:
        request = self._request
        if request.state != ISSUED:
            self._report("OW-01", f"srb.{name} written after the request was completed; not written", request)
        elif name in _SHARED_WRITABLE or (name == "srb_flags" and self._makes_definite(value)):
            setattr(request.srb, name, value)
        elif name in _LEGACY:
            self._report("XS-01", f"srb.{name} written, which an extended SRB does not have", request)
        else:
            self._report("OW-06", f"srb.{name} = {value!r}: read-only to a miniport; not written", request)

    def _makes_definite(self, value: int) -> bool:
        """OW-06: an unspecified direction may be made definite."""
        both = SRB_FLAGS_UNSPECIFIED_DIRECTION
        flags = self._request.srb.srb_flags
        return flags & both == both and (flags ^ value) & ~both == 0

    def __repr__(self) -> str:
        return f"<StorageRequestBlock of {self._request.srb!r}>"


# Members both structures have, which the request's own SRB keeps.
_SHARED_WRITABLE = frozenset({"srb_status", "data_transfer_length"})
_SHARED = _SHARED_WRITABLE | {"srb_flags", "time_out_value", "data_buffer", "next_srb", "original_request"}
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
    "srb_extension",
    "queue_sort_key",
    "internal_status",
    *SPECIAL_MEMBERS,  # here they are in the extended data
)


def _shared(name: str) -> property:
    def get(block: StorageRequestBlock) -> Any:
        if block._request.state != ISSUED:
            block._report("OW-01", f"srb.{name} read after the request was completed", block._request)
        value = getattr(block._request.srb, name)
        if name == "next_srb" and value is not None and value._port is not None:
            return value._port.handed  # the victim as the miniport knows it
        return value

    return property(get)


def _legacy(name: str) -> property:
    poison: Any = bytes((POISON,)) * 16 if name in ("cdb", "sense_info_buffer") else POISON

    def get(block: StorageRequestBlock) -> Any:
        block._report("XS-01", f"srb.{name} read, which an extended SRB does not have", block._request)
        return poison

    return property(get)


def _no_member(name: str) -> property:
    def get(block: StorageRequestBlock) -> Any:
        block._report("OW-09", f"srb.{name} read, which is no member of an SRB", block._request)

    return property(get)


for _name in ("mdl", "completion", "context"):
    setattr(StorageRequestBlock, _name, _no_member(_name))
for _name in _SHARED:
    setattr(StorageRequestBlock, _name, _shared(_name))
for _name in _LEGACY:
    setattr(StorageRequestBlock, _name, _legacy(_name))

"""What `srb.data_buffer` is under Storport, and the ready-made scatter/gather list.

MB-03 to MB-11 and MB-18. Sources: Use of Mapping Buffers in the Storport I/O Model; HW_INITIALIZATION_DATA and
PORT_CONFIGURATION_INFORMATION (storport.h); HW_BUILDIO; StorPortGetSystemAddress; StorPortGetScatterGatherList;
PERF_CONFIGURATION_DATA.
"""

from __future__ import annotations

from typing import Any, Final

from hba.miniport.config import (
    STOR_MAP_ALL_BUFFERS,
    STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE,
    STOR_MAP_NO_BUFFERS,
    STOR_MAP_NON_READ_WRITE_BUFFERS,
)
from hba.miniport.services import (
    STOR_STATUS_INSUFFICIENT_RESOURCES,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
)
from hba.port.buffers import BufferPolicy, MappedBuffer, OpaqueBuffer
from hba.port.reports import Reports
from hba.port.request import Request
from hba.port.storport.config import StorPortConfig
from hba.srb import (
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_WMI,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
)

PAGE_SIZE: Final = 4096
VARIABLE_LENGTH: Final = 0x7F
READ_WRITE_32 = (b"\x00\x09", b"\x00\x0b")  # service actions of READ(32) and WRITE(32)
ALWAYS_USABLE = (SRB_FUNCTION_IO_CONTROL, SRB_FUNCTION_WMI)  # MB-09, MB-03


class Mapper:
    """The MapBuffers policy of one adapter. `mode` is final once hw_find_adapter has returned (MB-02)."""

    def __init__(self, options: StorPortConfig, reports: Reports, mode: int) -> None:
        self.options = options
        self.reports = reports
        # MB-04: the value was never implemented; it acts exactly like the next one.
        if mode == STOR_MAP_ALL_BUFFERS:
            reports.finding("MB-04", "STOR_MAP_ALL_BUFFERS (1) is obsolete and acts as STOR_MAP_NON_READ_WRITE_BUFFERS")
            mode = STOR_MAP_NON_READ_WRITE_BUFFERS
        self.mode = mode
        self.rw_opcodes = frozenset(options.rw_opcodes)
        self._plain_opcodes = self.rw_opcodes - {VARIABLE_LENGTH}
        self.null = options.unmapped == "null"  # MB-07
        self.strict_seed = options.strict_seed
        # MB-03, MB-05: reads and writes have an address, which is not to be touched
        self._hides_reads = mode in (STOR_MAP_NO_BUFFERS, STOR_MAP_NON_READ_WRITE_BUFFERS) and not self.null
        poison = options.forbidden_access == "poison"
        rule = "MB-03" if mode == STOR_MAP_NO_BUFFERS else "MB-05"
        why = f"that is not mapped (MapBuffers is {mode})"
        self.opaque_policy = BufferPolicy(rule, why, poison, reports.offence_of)
        self.mapped_policy = BufferPolicy("", "", poison, reports.offence_of)
        self._maps = 0
        self._system_addresses = 0

    def is_read_write(self, request: Request) -> bool:
        """MB-08: what counts as a read or write data transfer."""
        srb = request.srb
        cdb = srb.cdb
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI or not cdb or cdb[0] not in self.rw_opcodes:
            return False
        return cdb[0] != VARIABLE_LENGTH or cdb[8:10] in READ_WRITE_32

    def data_buffer(self, request: Request) -> Any:
        """MappedBuffer, OpaqueBuffer or None for a request that has data."""
        srb = request.srb
        if self._hides_reads and not srb.function and srb.cdb and srb.cdb[0] in self._plain_opcodes:
            return OpaqueBuffer(request, self.opaque_policy)
        return self._other_buffer(request)

    def _other_buffer(self, request: Request) -> Any:
        """The same for what is no read or write, and where these are nothing special."""
        srb = request.srb
        mode = self.mode
        if mode == STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE:
            return self._map_all(request)
        if srb.function in ALWAYS_USABLE and not self.strict_seed:
            mapped = True  # MB-09; MB-03: the documents differ about IO_CONTROL and WMI
        else:
            mapped = mode == STOR_MAP_NON_READ_WRITE_BUFFERS and not self.is_read_write(request)  # MB-03, MB-05
        if mapped:
            return self.mapped(request)
        return None if self.null else OpaqueBuffer(request, self.opaque_policy)

    def mapped(self, request: Request) -> MappedBuffer:
        mdl = request.srb.mdl
        assert mdl is not None
        return MappedBuffer(mdl, request, self.mapped_policy)

    def _map_all(self, request: Request) -> MappedBuffer | None:
        """MB-06: everything, from Windows 8 on; but a mapping may fail, and then the address is NULL."""
        every = self.options.fail_mapping_every
        if every and request.srb.function == SRB_FUNCTION_EXECUTE_SCSI:
            self._maps += 1
            if self._maps % every == 0:
                self.reports.count("mappings failed")
                return None
        return self.mapped(request)

    def check_unmapped_completion(self, request: Request) -> None:
        """MB-06: a page must be read or written even when its mapping failed (a page file depends on it)."""
        srb = request.srb
        if (
            self.mode == STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE
            and srb.data_buffer is None
            and srb.mdl is not None
            and srb.mdl.length <= PAGE_SIZE
            and self.is_read_write(request)
            and srb.srb_status & SRB_STATUS_MASK != SRB_STATUS_SUCCESS
        ):
            self.reports.finding(
                "MB-06",
                f"a {srb.mdl.length}-byte read or write failed with status {srb.srb_status:#04x} because its buffer "
                "could not be mapped",
                request,
            )

    # -- StorPortGetSystemAddress ------------------------------------------------------------------------------

    def system_address(self, request: Request | None) -> tuple[int, MappedBuffer | None]:
        """MB-10: a mapping for programmed access. The IRQL was looked at (hba.port.library.routines)."""
        reports = self.reports
        if request is None or request.srb.mdl is None:
            return STOR_STATUS_INVALID_PARAMETER, None
        every = self.options.fail_system_address_every
        self._system_addresses += 1
        if every and self._system_addresses % every == 0:
            reports.count("system addresses refused")
            return STOR_STATUS_INSUFFICIENT_RESOURCES, None
        reports.count("system addresses")
        reports.note(request, "get_system_address", f"programmed access to {request.srb.mdl.length} bytes")
        return STOR_STATUS_SUCCESS, self.mapped(request)

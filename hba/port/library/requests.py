"""What can be asked of a request: descriptor lists, physical pages, information, and lists one builds oneself.

Sources: StorPortGetOriginalMdl, StorPortGetDataInBufferMdl, StorPortGetDataInBufferScatterGatherList,
StorPortGetDataInBufferSystemAddress, StorPortGetPfns, StorPortGetSystemAddress, StorPortGetRequestInfo,
STOR_REQUEST_INFO_V1, StorPortGetActivityIdSrb, StorPortBuildScatterGatherList, StorPortPutScatterGatherList,
STOR_SCATTER_GATHER_LIST (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from hba.dma import DmaBuffer, Segment
from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUPPORTED_VERSION,
)
from hba.port.buffers import MappedBuffer, OpaqueBuffer
from hba.port.context import SCATTER_GATHER
from hba.port.library.host import Caller
from hba.port.library.later import Later
from hba.port.library.memory import PoolMdl
from hba.port.request import ISSUED, Request
from hba.srb import SRB_FLAGS_DATA_OUT

PAGE_SIZE = 4096
STOR_REQUEST_INFO_VER_1 = 1
STOR_IO_PRIORITY_NORMAL = 2  # STOR_IO_PRIORITY_HINT
REQUEST_INFO_WRITE_THROUGH_FLAG = 0x10
FUA = 0x08  # in byte 1 of READ and WRITE of 10, 12 and 16 bytes (SBC)
_WITH_FUA = (0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A)
LIST_HEADER = 16  # bytes of STOR_SCATTER_GATHER_LIST before its elements, and of an element
LIST_ELEMENT = 24

RequestOf = Callable[[Any, str], Request | None]
ExecutionRoutine = Callable[[None, None, "BuiltList", Any], object]


@dataclass
class RequestInfo:
    """STOR_REQUEST_INFO."""

    priority_hint: int
    flags: int
    key: int
    length: int
    is_write_request: bool
    version: int = STOR_REQUEST_INFO_VER_1


class OriginalMdl:
    """The MDL of an SRB: opaque. It is good for `get_pfns` and `build_scatter_gather_list` while the SRB is not
    complete, and shows no bytes."""

    __slots__ = ("_mdl", "_request")

    def __init__(self, request: Request, mdl: DmaBuffer) -> None:
        self._request = request
        self._mdl = mdl

    @property
    def byte_count(self) -> int:
        return self._mdl.length

    @property
    def segments(self) -> Sequence[Segment]:
        return self._mdl.segments

    @property
    def live(self) -> bool:
        return self._request.state == ISSUED


class BuiltList(Sequence[Segment]):
    """STOR_SCATTER_GATHER_LIST that StorPortBuildScatterGatherList made: (bus address, length) elements."""

    def __init__(self, elements: Sequence[Segment]) -> None:
        self._elements = tuple(elements)
        self.put = False

    def __getitem__(self, index: Any) -> Any:
        return self._elements[index]

    def __len__(self) -> int:
        return len(self._elements)


class Requests:
    """`request_of(srb, rule)`: the live request behind an SRB of the miniport's, or None with a finding by `rule`."""

    def __init__(self, request_of: RequestOf, system_address: Callable[[Request | None], Any]) -> None:
        self._request_of = request_of
        self._system_address = system_address

    def get_system_address(self, srb: Any) -> tuple[int, Any]:
        """StorPortGetSystemAddress: (STOR_STATUS_*, mapped buffer or None), for programmed access (MB-10).

        INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: not the miniport's SRB, or one without data;
        INSUFFICIENT_RESOURCES: the mapping failed.
        """
        result: tuple[int, Any] = self._system_address(self._request_of(srb, "MB-10"))
        return result

    def get_original_mdl(self, srb: Any) -> tuple[int, OriginalMdl | None]:
        """StorPortGetOriginalMdl: (STOR_STATUS_*, MDL; None for an SRB without data). INVALID_PARAMETER: not the
        miniport's SRB."""
        request = self._request_of(srb, "OW-01")
        if request is None:
            return STOR_STATUS_INVALID_PARAMETER, None
        mdl = request.srb.mdl
        return STOR_STATUS_SUCCESS, OriginalMdl(request, mdl) if mdl is not None else None

    def get_data_in_buffer_mdl(self, srb: Any) -> tuple[int, OriginalMdl | None]:
        """StorPortGetDataInBufferMdl: (STOR_STATUS_*, MDL of the data-in buffer of a bidirectional SRB). None: nothing
        that is sent to an adapter here is bidirectional."""
        found = self._request_of(srb, "OW-01")
        return (STOR_STATUS_SUCCESS if found is not None else STOR_STATUS_INVALID_PARAMETER), None

    def get_data_in_buffer_scatter_gather_list(self, srb: Any) -> tuple[int, Sequence[Segment] | None]:
        """StorPortGetDataInBufferScatterGatherList: as GetDataInBufferMdl."""
        found = self._request_of(srb, "OW-01")
        return (STOR_STATUS_SUCCESS if found is not None else STOR_STATUS_INVALID_PARAMETER), None

    def get_data_in_buffer_system_address(self, srb: Any) -> tuple[int, Any]:
        """StorPortGetDataInBufferSystemAddress: INVALID_PARAMETER, because no SRB has such a buffer here; INVALID_IRQL
        above DISPATCH_LEVEL."""
        return STOR_STATUS_INVALID_PARAMETER, None

    def get_pfns(self, srb: Any, mdl: OriginalMdl | None) -> tuple[int, list[int], int]:
        """StorPortGetPfns: (STOR_STATUS_*, physical page numbers, byte offset in the first page). INVALID_PARAMETER:
        not the miniport's SRB, or not its MDL."""
        request = self._request_of(srb, "OW-01")
        if request is None or not isinstance(mdl, OriginalMdl) or mdl._request is not request:
            return STOR_STATUS_INVALID_PARAMETER, [], 0
        pages: list[int] = []
        for address, length in mdl.segments:
            first = address // PAGE_SIZE
            for page in range(first, (address + max(1, length) - 1) // PAGE_SIZE + 1):
                if not pages or pages[-1] != page:
                    pages.append(page)
        return STOR_STATUS_SUCCESS, pages, mdl.segments[0][0] % PAGE_SIZE if mdl.segments else 0

    def get_request_info(self, srb: Any, version: int = STOR_REQUEST_INFO_VER_1) -> tuple[int, RequestInfo | None]:
        """StorPortGetRequestInfo: (STOR_STATUS_*, information). At any IRQL. INVALID_PARAMETER: not the miniport's SRB;
        UNSUPPORTED_VERSION: another `version` than STOR_REQUEST_INFO_VER_1.

        A guest's driver tells an adapter no priority and nothing of files: the priority is normal, and of the flags
        only WRITE_THROUGH is known, by FUA in the CDB."""
        request = self._request_of(srb, "OW-01")
        if request is None:
            return STOR_STATUS_INVALID_PARAMETER, None
        if version != STOR_REQUEST_INFO_VER_1:
            return STOR_STATUS_UNSUPPORTED_VERSION, None
        own = request.srb
        through = len(own.cdb) > 1 and own.cdb[0] in _WITH_FUA and own.cdb[1] & FUA
        return STOR_STATUS_SUCCESS, RequestInfo(
            STOR_IO_PRIORITY_NORMAL,
            REQUEST_INFO_WRITE_THROUGH_FLAG if through else 0,
            own.queue_sort_key,
            own.data_transfer_length,
            bool(own.srb_flags & SRB_FLAGS_DATA_OUT),
        )

    def get_activity_id_srb(self, srb: Any) -> tuple[int, UUID | None]:
        """StorPortGetActivityIdSrb: (STOR_STATUS_*, activity id), whose number is that of the request in `hba trace`.
        At any IRQL. INVALID_PARAMETER: not the miniport's SRB."""
        request = self._request_of(srb, "OW-01")
        if request is None:
            return STOR_STATUS_INVALID_PARAMETER, None
        return STOR_STATUS_SUCCESS, UUID(int=request.number)


class BuiltLists:
    """Scatter/gather lists the miniport has made for it."""

    def __init__(self, caller: Caller, later: Later) -> None:
        self._caller = caller
        self._later = later

    def build_scatter_gather_list(
        self,
        mdl: OriginalMdl | PoolMdl | None,
        current_va: Any,
        length: int,
        execution_routine: ExecutionRoutine | None,
        context: Any,
        write_to_device: bool,
        scatter_gather_buffer: memoryview | None,
        scatter_gather_buffer_length: int,
    ) -> int:
        """StorPortBuildScatterGatherList: have `execution_routine(None, None, list, context)` called at DISPATCH_LEVEL
        with the list of `length` bytes from `current_va`. Only at DISPATCH_LEVEL, else INVALID_IRQL.

        `mdl`: of an SRB (`get_original_mdl`) or of pool memory that was built; `current_va`: the address in it, a data
        buffer or the pool memory, + an offset; `scatter_gather_buffer`: memory of the miniport for the list, which is
        16 bytes and 24 for each element. BUFFER_TOO_SMALL: it does not fit; INVALID_PARAMETER: no list, no routine, or
        bytes that are not in the list.
        """
        segments = self._segments(mdl, current_va, length)
        if segments is None or execution_routine is None or scatter_gather_buffer is None:
            return STOR_STATUS_INVALID_PARAMETER
        room = min(scatter_gather_buffer_length, len(scatter_gather_buffer))
        if LIST_HEADER + LIST_ELEMENT * len(segments) > room:
            return STOR_STATUS_BUFFER_TOO_SMALL
        self._later.soon(SCATTER_GATHER, execution_routine, None, None, BuiltList(segments), context)
        return STOR_STATUS_SUCCESS

    def put_scatter_gather_list(self, scatter_gather_list: BuiltList | None, write_to_device: bool) -> int:
        """StorPortPutScatterGatherList: done with a built list; its buffer may be used again. Only at DISPATCH_LEVEL,
        else INVALID_IRQL. INVALID_PARAMETER: not a built list, or put already (LB-04)."""
        if not isinstance(scatter_gather_list, BuiltList) or scatter_gather_list.put:
            self._caller.offence("LB-04", "StorPortPutScatterGatherList of what is no built list, or not any more")
            return STOR_STATUS_INVALID_PARAMETER
        scatter_gather_list.put = True
        return STOR_STATUS_SUCCESS

    def _segments(self, mdl: object, current_va: Any, length: int) -> list[Segment] | None:
        """What of a list lies in [current_va, current_va + length); None: not all of it does."""
        if isinstance(mdl, OriginalMdl):
            if not mdl.live or not isinstance(current_va, (MappedBuffer, OpaqueBuffer)):
                self._caller.offence("OW-01", "StorPortBuildScatterGatherList with the MDL of an SRB that is complete")
                return None
            offset = current_va.offset
        elif isinstance(mdl, PoolMdl) and not mdl.freed and mdl.segments and isinstance(current_va, memoryview):
            offset = len(mdl.memory) - len(current_va)
        else:
            return None
        if length <= 0 or offset < 0:
            return None
        found: list[Segment] = []
        for address, size in mdl.segments:
            if offset >= size:
                offset -= size
                continue
            part = min(size - offset, length)
            found.append((address + offset, part))
            length -= part
            offset = 0
            if not length:
                return found
        return None

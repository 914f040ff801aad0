"""ScsiPortGetPhysicalAddress and StorPortGetPhysicalAddress: which addresses can be converted (CF-04, MB-12).

Both pages: the SRB is given when the address comes from its data buffer or its sense buffer, else it is NULL. SCSI
Port's page lists what it may lie in then: the uncached extension, an SRB extension, or a sense buffer, and these only
for a miniport that has said NeedPhysicalAddresses. Device and logical unit extensions are listed by neither.
"""

from __future__ import annotations

from typing import Any

from hba.miniport.memory import Pointer, SrbExtension
from hba.port.base import AnyPort
from hba.port.buffers import MappedBuffer, OpaqueBuffer, physical_address
from hba.port.request import ISSUED, Request
from hba.srb import SenseInfoBuffer, is_srb


class Addresses:
    """Of one port. `rule`: CF-04 or MB-12."""

    def __init__(self, port: AnyPort, rule: str) -> None:
        self._port = port
        self._rule = rule

    def physical(self, srb: Any, virtual_address: Any) -> tuple[int, int] | None:
        """(bus address, bytes contiguous from there), or None."""
        if isinstance(virtual_address, (OpaqueBuffer, MappedBuffer)):
            return self._of_data(srb, virtual_address)
        if isinstance(virtual_address, SenseInfoBuffer):
            return self._of_sense(srb, virtual_address)
        found: tuple[int, int] | None = None
        what = "uncached extension"
        request: Request | None = None
        if isinstance(virtual_address, (SrbExtension, Pointer)):
            what = "SRB extension"
            pointer = virtual_address if isinstance(virtual_address, Pointer) else virtual_address + 0
            extension, offset = pointer.extension, pointer.offset
            request = extension._request
            if request is not None and request.state == ISSUED and 0 <= offset < len(extension):
                found = extension._physical + offset, len(extension) - offset
        elif isinstance(virtual_address, memoryview):
            memory = self._port.memory
            found = memory.physical_address(virtual_address)
            if found is not None and memory.inside_pieces(found[0]):
                what = "SRB extension"
                request = memory.holder(found[0], 1)
                if request is None or request.state != ISSUED or request.extension is None:
                    found = None
                else:
                    extension = request.extension
                    found = found[0], extension._physical + len(extension) - found[0]
        if found is None:
            self._refuse(f"{virtual_address!r}, which is no address the port gave out", request)
            return None
        if srb is not None:
            self._refuse(f"an address in the {what} with an SRB, which must be NULL for it", request)
            return None
        if self._port.model == "scsiport" and not self._port.info.need_physical_addresses:
            self._refuse(f"an address in the {what} by a miniport without NeedPhysicalAddresses", request)
            return None
        return found

    def _of_data(self, srb: Any, buffer: OpaqueBuffer | MappedBuffer) -> tuple[int, int] | None:
        request = buffer.request
        if request.state != ISSUED or not is_srb(srb) or srb._port is not request:
            self._refuse("a data buffer without its live SRB", request)
        mdl = request.srb.mdl
        found = physical_address(request, mdl, buffer.offset) if mdl is not None else None
        if found is None:
            self._refuse(f"an address beyond the data buffer ({buffer!r})", request)
        return found

    def _of_sense(self, srb: Any, buffer: SenseInfoBuffer) -> tuple[int, int] | None:
        """MB-12: with its SRB. CF-04: with it, or with NULL."""
        request: Request | None = buffer.srb._port
        if request is None or request.state != ISSUED or not 0 <= buffer.offset < buffer.room:
            self._refuse("a sense buffer the miniport does not own, or beyond it", request)
            return None
        named = srb._port if is_srb(srb) else None
        if named is not request and not (srb is None and self._port.model == "scsiport"):
            self._refuse("a sense buffer without its live SRB", request)
            return None
        piece = self._port.memory.sense_buffer(request)
        return piece._physical + buffer.offset, buffer.room - buffer.offset

    def _refuse(self, what: str, request: Request | None) -> None:
        self._port.offence(self._rule, f"get_physical_address of {what}", request)

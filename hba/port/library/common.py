"""What both models' libraries have in common: routines a miniport calls (CF-04, MB-12, OW-02, ER-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hba.port.buffers import MappedBuffer, OpaqueBuffer, physical_address
from hba.port.memory import EXTENSION_BASE, SENSE_BASE, SENSE_SLOT
from hba.port.request import ISSUED, Request
from hba.srb import Srb

if TYPE_CHECKING:
    from hba.port.base import AnyPort


class Library:
    """The part of ScsiPort*/StorPort* whose rules are the same; each model's library adds its own."""

    def __init__(self, port: AnyPort, address_rule: str) -> None:
        self._common = port
        self._address_rule = address_rule  # CF-04 or MB-12

    def request_of(self, srb: Any, rule: str = "OW-02") -> Request | None:
        """The live request behind what a miniport passed as `srb`; None (and a finding) when it is not its own."""
        request: Request | None = srb._port if isinstance(srb, Srb) else None
        if request is None or request.state != ISSUED:
            self._common.stranger(srb, rule)
            return None
        return request

    def get_physical_address(self, srb: Any, virtual_address: Any) -> tuple[int, int] | None:
        """An address is good if it lies in the data of a live SRB that is named, its extension, its sense buffer or the
        uncached extension."""
        port, rule = self._common, self._address_rule
        if isinstance(virtual_address, (OpaqueBuffer, MappedBuffer)):
            request = virtual_address.request
            if request.state != ISSUED or not isinstance(srb, Srb) or srb._port is not request:
                port.offence(rule, "get_physical_address of a data buffer without its live SRB", request)
            mdl = request.srb.mdl
            found = physical_address(request, mdl, virtual_address.offset) if mdl is not None else None
            if found is None:
                port.offence(rule, f"get_physical_address beyond the data buffer ({virtual_address!r})", request)
            return found
        if isinstance(virtual_address, memoryview):
            found = port.memory.physical_address(virtual_address)
            if found is not None:
                return found
        elif srb is not None and virtual_address is not None:
            of = self.request_of(srb, rule)
            if of is not None:
                if virtual_address is of.srb.srb_extension:
                    size = max(1, port.info.srb_extension_size)
                    return EXTENSION_BASE + of.number * ((size + 15) & ~15), size
                if virtual_address is of.srb.sense_info_buffer:
                    return SENSE_BASE + of.number * SENSE_SLOT, of.srb.sense_info_buffer_length
        port.offence(rule, f"get_physical_address of {virtual_address!r}, which is no address the port gave out")
        return None

    def get_logical_unit(self, path_id: int, target_id: int, lun: int) -> Any:
        unit = self._common.units.get(path_id << 16 | target_id << 8 | lun)
        return unit.extension if unit is not None else None

    def log_error(self, srb: Any, path_id: int, target_id: int, lun: int, error_code: int, unique_id: int) -> None:
        """ER-02. OW-01: not with an SRB that was completed already."""
        port = self._common
        port.count("errors logged")
        request = None
        if srb is not None:
            request = self.request_of(srb, "OW-01")
            if request is not None:
                request.logged = True
        port.note(request, "log_error", f"{path_id}:{target_id}:{lun} code {error_code:#06x} id {unique_id}")

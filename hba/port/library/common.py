"""What both models' libraries have in common: routines a miniport calls (CF-04, MB-12, OW-02, ER-02)."""

from __future__ import annotations

from typing import Any

from hba.port.addresses import Addresses
from hba.port.base import AnyPort
from hba.port.library.routines import Routines
from hba.port.request import ISSUED, Request


class Library:
    """The part of ScsiPort*/StorPort* whose rules are the same; each model's library adds its own."""

    def __init__(self, port: AnyPort, address_rule: str, routines: Routines) -> None:
        self.routines = routines  # those that are not methods here
        self._common = port
        self._addresses = Addresses(port, address_rule)

    def __getattr__(self, name: str) -> Any:
        return self.routines.find(name)

    def begin(self) -> None:
        """hw_find_adapter is about to be called."""
        self.routines.begin()

    def request_of(self, srb: Any, rule: str = "OW-02") -> Request | None:
        """The live request behind what a miniport passed as `srb`; None (and a finding) when it is not its own."""
        request: Request | None
        try:
            request = srb._port
        except AttributeError:
            request = None
        if request is None or request.state != ISSUED:
            self._common.stranger(srb, rule)
            return None
        return request

    def get_physical_address(self, srb: Any, virtual_address: Any) -> tuple[int, int] | None:
        """CF-04, MB-12."""
        return self._addresses.physical(srb, virtual_address)

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

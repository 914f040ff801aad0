"""Power, stop and restart of the adapter, and power of its units.

RS-05 to RS-09. Sources: HW_ADAPTER_CONTROL, HW_UNIT_CONTROL (storport.h); STORAGE_REQUEST_BLOCK (NO_KEEP_AWAKE);
SRB_FUNCTION_POWER. A POWER SRB carries the new state (STOR_POWER_DEVICE_D0 or _D3) in `internal_status`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_RESTART_ADAPTER,
    SCSI_SET_BOOT_CONFIG,
    SCSI_SET_RUNNING_CONFIG,
    SCSI_STOP_ADAPTER,
    SCSI_UNIT_POWER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_START,
    SCSI_UNIT_SURPRISE_REMOVAL,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    SupportedControlTypes,
)
from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL, UNIT_CONTROL
from hba.port.storport.units import StorRequest, StorUnit
from hba.srb import (
    SRB_FUNCTION_FLUSH,
    SRB_FUNCTION_POWER,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_SUCCESS,
    Srb,
)

if TYPE_CHECKING:
    from hba.port.storport.driver import StorPort

UNIT_CONTROL_TYPES = 11  # HwUnitControl: MaxControlType


class Power:
    """What the miniport can be told, and in which state the adapter and its units are."""

    def __init__(self, port: StorPort) -> None:
        self.port = port
        self.unit_types: list[bool] = [False] * UNIT_CONTROL_TYPES
        self.adapter_stopped = False

    def query(self) -> None:
        """RS-05, RS-08: ask once which unit control types the miniport declares."""
        port = self.port
        types = SupportedControlTypes(UNIT_CONTROL_TYPES)
        returned = port.call(
            UNIT_CONTROL,
            PASSIVE_LEVEL,
            1,
            port.miniport.hw_unit_control,
            SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
            types,
        )
        if types.beyond:
            port.finding(
                "RS-05", f"hw_unit_control wrote beyond its list of {UNIT_CONTROL_TYPES} types: {types.beyond}"
            )
        self.unit_types = types.supported if returned == 0 else [False] * UNIT_CONTROL_TYPES

    def unit_control(self, unit: StorUnit, control_type: int, *more: int) -> bool:
        """Call hw_unit_control for a type it declared (RS-08). False: not declared, or it failed."""
        if not self.unit_types[control_type]:
            return False
        port = self.port
        irql = DISPATCH_LEVEL if control_type == SCSI_UNIT_POWER else PASSIVE_LEVEL
        address = (unit.path, unit.target, unit.lun, *more)
        return port.call(UNIT_CONTROL, irql, 1, port.miniport.hw_unit_control, control_type, address) == 0

    # -- units -------------------------------------------------------------------------------------------------

    def submitted(self, request: StorRequest) -> None:
        """A POWER SRB from above."""
        srb, unit = request.srb, request.unit
        assert unit is not None
        state = srb.internal_status
        if state not in (STOR_POWER_DEVICE_D0, STOR_POWER_DEVICE_D3):
            self.port.answer(request, SRB_STATUS_INVALID_REQUEST)
            return
        unit.powered = state == STOR_POWER_DEVICE_D0
        # RS-08, RS-06: a miniport with UnitPower gets the callback instead of the SRB.
        if self.unit_types[SCSI_UNIT_POWER]:
            worked = self.unit_control(unit, SCSI_UNIT_POWER, state)
            self.port.answer(request, SRB_STATUS_SUCCESS if worked else SRB_STATUS_INVALID_REQUEST)
            return
        self.port.dispatch(request)

    def wake(self, unit: StorUnit) -> None:
        """A request for a powered-down unit that does not say NO_KEEP_AWAKE: power it up first."""
        unit.powered = True
        if self.unit_control(unit, SCSI_UNIT_POWER, STOR_POWER_DEVICE_D0):
            return
        srb = Srb(SRB_FUNCTION_POWER, unit.path, unit.target, unit.lun)
        srb.internal_status = STOR_POWER_DEVICE_D0
        self.port.submit_internal(srb)

    def unit_started(self, unit: StorUnit) -> None:
        self.unit_control(unit, SCSI_UNIT_START)

    def unit_removed(self, unit: StorUnit, surprise: bool) -> None:
        self.unit_control(unit, SCSI_UNIT_SURPRISE_REMOVAL if surprise else SCSI_UNIT_REMOVE)

    # -- adapter (RS-06, RS-07) --------------------------------------------------------------------------------

    def stop_adapter(self) -> None:
        """ScsiStopAdapter, then ScsiSetBootConfig. Nothing is outstanding any more."""
        port = self.port
        if port.info.caches_data:
            self._flush()
        port.adapter_control(SCSI_STOP_ADAPTER)
        self.adapter_stopped = True
        port.adapter_control(SCSI_SET_BOOT_CONFIG, PASSIVE_LEVEL)

    def _flush(self) -> None:
        """RS-06: FLUSH goes before the stop."""
        for unit in self.port.stor_units():
            if unit.completed:
                self.port.submit_internal(Srb(SRB_FUNCTION_FLUSH, unit.path, unit.target, unit.lun))
        self.port.run()

    def restart_adapter(self) -> bool:
        """ScsiSetRunningConfig, then ScsiRestartAdapter. False: the miniport has no restart; start anew."""
        port = self.port
        port.adapter_control(SCSI_SET_RUNNING_CONFIG, PASSIVE_LEVEL)
        self.adapter_stopped = False
        return port.adapter_control(SCSI_RESTART_ADAPTER)

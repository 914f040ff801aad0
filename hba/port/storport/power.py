"""What the miniport is told of its units: start, power, removal.

RS-05, RS-08, RS-09. Sources: HW_UNIT_CONTROL, SCSI_UNIT_CONTROL_TYPE (storport.h); STORAGE_REQUEST_BLOCK
(NO_KEEP_AWAKE); SCSI_POWER_REQUEST_BLOCK (srb.h). Stop and sleep of the adapter are in `hba.port.pnp`.
"""

from __future__ import annotations

from hba.miniport.base import (
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_UNIT_PO_FX_POWER_ACTIVE,
    SCSI_UNIT_PO_FX_POWER_CONTROL,
    SCSI_UNIT_PO_FX_POWER_INFO,
    SCSI_UNIT_PO_FX_POWER_REQUIRED,
    SCSI_UNIT_PO_FX_POWER_SET_F_STATE,
    SCSI_UNIT_POWER,
    SCSI_UNIT_REMOVE,
    SCSI_UNIT_START,
    SCSI_UNIT_SURPRISE_REMOVAL,
    UNIT_CONTROL_TYPES,
    SupportedControlTypes,
)
from hba.port.callbacks import Callbacks
from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL, UNIT_CONTROL
from hba.port.storport.units import StorUnit
from hba.srb import (
    SRB_FUNCTION_POWER,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_SUCCESS,
    STOR_POWER_DEVICE_D0,
    STOR_POWER_DEVICE_D3,
    Srb,
)

AT_DISPATCH_LEVEL = (  # HW_UNIT_CONTROL; the others come at PASSIVE_LEVEL
    SCSI_UNIT_POWER,
    SCSI_UNIT_PO_FX_POWER_REQUIRED,
    SCSI_UNIT_PO_FX_POWER_ACTIVE,
    SCSI_UNIT_PO_FX_POWER_SET_F_STATE,
    SCSI_UNIT_PO_FX_POWER_CONTROL,
)


class Power:
    """What the miniport can be told, and in which state the adapter and its units are."""

    def __init__(self, port: Callbacks) -> None:
        self.port = port
        self.unit_types: list[bool] = [False] * UNIT_CONTROL_TYPES

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
        irql = DISPATCH_LEVEL if control_type in AT_DISPATCH_LEVEL else PASSIVE_LEVEL
        address = (unit.path, unit.target, unit.lun, *more)
        return port.call(UNIT_CONTROL, irql, 1, port.miniport.hw_unit_control, control_type, address) == 0

    # -- units -------------------------------------------------------------------------------------------------

    def submitted(self, unit: StorUnit, state: int) -> int | None:
        """A POWER SRB from above: the SrbStatus it ends with. None: it goes to the miniport."""
        if state not in (STOR_POWER_DEVICE_D0, STOR_POWER_DEVICE_D3):
            return SRB_STATUS_INVALID_REQUEST
        unit.powered = state == STOR_POWER_DEVICE_D0
        # RS-08, RS-06: a miniport with UnitPower gets the callback instead of the SRB.
        if not self.unit_types[SCSI_UNIT_POWER]:
            return None
        worked = self.unit_control(unit, SCSI_UNIT_POWER, state)
        return SRB_STATUS_SUCCESS if worked else SRB_STATUS_INVALID_REQUEST

    def wake(self, unit: StorUnit) -> Srb | None:
        """A request for a powered-down unit that does not say NO_KEEP_AWAKE: power it up first, with this SRB if there
        is no callback for it."""
        unit.powered = True
        if self.unit_control(unit, SCSI_UNIT_POWER, STOR_POWER_DEVICE_D0):
            return None
        srb = Srb(SRB_FUNCTION_POWER, unit.path, unit.target, unit.lun)
        srb.device_power_state = STOR_POWER_DEVICE_D0
        return srb

    def unit_started(self, unit: StorUnit) -> None:
        self.unit_control(unit, SCSI_UNIT_START)
        self.unit_control(unit, SCSI_UNIT_PO_FX_POWER_INFO, 1)  # idle power management is enabled

    def unit_removed(self, unit: StorUnit, surprise: bool) -> tuple[str, str]:
        """RS-08: the callback, and how it ended; empty words when it is not declared."""
        control_type = SCSI_UNIT_SURPRISE_REMOVAL if surprise else SCSI_UNIT_REMOVE
        if not self.unit_types[control_type]:
            return "", ""
        worked = self.unit_control(unit, control_type)
        return "ScsiUnitSurpriseRemoval" if surprise else "ScsiUnitRemove", "success" if worked else "failed"

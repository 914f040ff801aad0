"""Run-time power management: registration with PoFx, activation counts, power settings (LB-02).

There is no platform that would save power, so nothing is ever switched off behind a miniport's back: a component with
references is active, one without is idle in F0, and the miniport is told of the change as it has declared
(ScsiAdapterPoFxPowerActive, ScsiUnitPoFxPowerActive).

Sources: StorPortInitializePoFxPower, StorPortPoFxActivateComponent, ...IdleComponent, ...SetComponentLatency,
...SetComponentResidency, ...SetIdleTimeout, ...SetPerfState, ...PowerControl, StorPortSetPowerSettingNotificationGuids,
STOR_POFX_DEVICE_V3, STOR_POFX_COMPONENT_V2, STOR_POFX_COMPONENT_IDLE_STATE (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import CALLBACK_NAMES, FIND_ADAPTER, PASSIVE_INITIALIZE, UNIT_CONTROL
from hba.port.library.host import Caller
from hba.port.library.units import Address, btl8

STOR_POFX_DEVICE_FLAG_NO_D0 = 0x01
STOR_POFX_DEVICE_FLAG_NO_D3 = 0x02
STOR_POFX_DEVICE_FLAG_ENABLE_D3_COLD = 0x04
STOR_POFX_DEVICE_FLAG_NO_DUMP_ACTIVE = 0x08
STOR_POFX_DEVICE_FLAG_IDLE_TIMEOUT = 0x10

MOST_F_STATES_OF_ADAPTER = 8
MOST_F_STATES_OF_UNIT = 2
VERSIONS = (1, 2, 3)  # STOR_POFX_DEVICE_VERSION_V1 to V3


@dataclass
class ComponentIdleState:
    """STOR_POFX_COMPONENT_IDLE_STATE: an F-state. Times in 100 ns, power in microwatts."""

    transition_latency: int = 0
    residency_requirement: int = 0
    nominal_power: int = 0


@dataclass
class PoFxComponent:
    """STOR_POFX_COMPONENT, also _V2."""

    f_states: list[ComponentIdleState] = field(default_factory=lambda: [ComponentIdleState()])
    deepest_wakeable_f_state: int = 0
    id: UUID | None = None


@dataclass
class PoFxDevice:
    """STOR_POFX_DEVICE, also _V2 and _V3. `idle_timeout`: milliseconds, with STOR_POFX_DEVICE_FLAG_IDLE_TIMEOUT."""

    version: int = 3
    flags: int = 0
    components: list[PoFxComponent] = field(default_factory=lambda: [PoFxComponent()])
    idle_timeout: int = 0


class _Registered:
    """A device that was registered."""

    def __init__(self, device: PoFxDevice) -> None:
        self.device = device
        self.references = 0
        self.active = False


class PoFx:
    """`tell(address, component, active)`: the miniport hears of a component that becomes active or idle; `is_there`:
    whether the port knows a unit."""

    def __init__(
        self,
        caller: Caller,
        is_there: Callable[[Address], bool],
        tell: Callable[[Address | None, int, bool], None],
    ) -> None:
        self._caller = caller
        self._is_there = is_there
        self._tell = tell
        self._registered: dict[Address | None, _Registered] = {}

    def forget(self) -> None:
        self._registered.clear()

    def initialize_po_fx_power(
        self, address: Any, device: PoFxDevice | None, d3_cold_enabled: bool = False
    ) -> tuple[int, bool]:
        """StorPortInitializePoFxPower: (STOR_STATUS_*, D3ColdEnabled). `address` None: the adapter, from the passive
        initialisation; else (path, target, lun), from hw_unit_control for ScsiUnitPoFxPowerInfo.

        INVALID_PARAMETER: no device, no such unit, or a device with another number of components than one, no F0, too
        many F-states (8 of an adapter, 2 of a unit) or a DeepestWakeableFState it does not have. UNSUCCESSFUL: from
        elsewhere (LB-02), or it is registered already. D3 cold is never enabled: the platform has none.
        """
        where = None if address is None else btl8(address)
        callback = self._caller.callback
        # A unit that is started right now is not among the port's yet.
        known = self._known(address, where) or (where is not None and callback == UNIT_CONTROL)
        if device is None or not known or not _good(device, where is None):
            return STOR_STATUS_INVALID_PARAMETER, False
        if callback != (PASSIVE_INITIALIZE if where is None else UNIT_CONTROL):
            what = "an adapter" if where is None else "a unit"
            self._caller.offence("LB-02", f"StorPortInitializePoFxPower of {what} from {CALLBACK_NAMES[callback]}")
            return STOR_STATUS_UNSUCCESSFUL, False
        if where in self._registered:
            return STOR_STATUS_UNSUCCESSFUL, False
        self._registered[where] = _Registered(device)
        return STOR_STATUS_SUCCESS, False

    def po_fx_activate_component(self, address: Any, srb: Any, component: int, flags: int = 0) -> int:
        """StorPortPoFxActivateComponent: one reference more. BUSY: counted, but it is still idle; the miniport is told
        when it is active. INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no such device or component, or flags;
        INVALID_DEVICE_REQUEST: not registered."""
        found = self._find(address, component, flags)
        if isinstance(found, int):
            return found
        found.references += 1
        if found.active:
            return STOR_STATUS_SUCCESS
        if found.references == 1:
            found.active = True
            self._tell(None if address is None else btl8(address), component, True)
        return STOR_STATUS_BUSY

    def po_fx_idle_component(self, address: Any, srb: Any, component: int, flags: int = 0) -> int:
        """StorPortPoFxIdleComponent: one reference less. BUSY: there are more, it stays active. INVALID_DEVICE_REQUEST:
        not registered, or there is none to take back; the others as PoFxActivateComponent."""
        found = self._find(address, component, flags)
        if isinstance(found, int):
            return found
        if not found.references:
            self._caller.offence("LB-04", "StorPortPoFxIdleComponent without a StorPortPoFxActivateComponent before")
            return STOR_STATUS_INVALID_DEVICE_REQUEST
        found.references -= 1
        if found.references:
            return STOR_STATUS_BUSY
        found.active = False
        self._tell(None if address is None else btl8(address), component, False)
        return STOR_STATUS_SUCCESS

    def po_fx_set_component_latency(self, address: Any, component: int, latency: int) -> int:
        """StorPortPoFxSetComponentLatency: the most it may take to become active, in 100 ns, which changes
        nothing here. Status codes as of PoFxActivateComponent."""
        found = self._find(address, component, 0)
        return found if isinstance(found, int) else STOR_STATUS_SUCCESS

    def po_fx_set_component_residency(self, address: Any, component: int, residency: int) -> int:
        """StorPortPoFxSetComponentResidency: how long it is likely to stay idle, in 100 ns, which changes nothing
        here. Status codes as of PoFxActivateComponent."""
        found = self._find(address, component, 0)
        return found if isinstance(found, int) else STOR_STATUS_SUCCESS

    def po_fx_set_idle_timeout(self, address: Any, idle_timeout_in_ms: int) -> int:
        """StorPortPoFxSetIdleTimeout: of the adapter (`address` None), in milliseconds. INVALID_PARAMETER: a unit's;
        UNSUCCESSFUL: the adapter is not registered."""
        if address is not None:
            return STOR_STATUS_INVALID_PARAMETER
        found = self._registered.get(None)
        if found is None:
            return STOR_STATUS_UNSUCCESSFUL
        found.device.idle_timeout = idle_timeout_in_ms
        return STOR_STATUS_SUCCESS

    def po_fx_set_perf_state(
        self, address: Any, component: int, flags: int, set_index: int, state: int, context: Any = None
    ) -> int:
        """StorPortPoFxSetPerfState. INVALID_PARAMETER: a unit's address, or flags; UNSUCCESSFUL: no perf set was
        registered, which no documented routine does."""
        return STOR_STATUS_INVALID_PARAMETER if address is not None or flags else STOR_STATUS_UNSUCCESSFUL

    def po_fx_power_control(
        self, address: Any, power_control_code: UUID, in_buffer: bytes | None = None, out_buffer_size: int = 0
    ) -> tuple[int, bytes]:
        """StorPortPoFxPowerControl: (STOR_STATUS_*, output). INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no
        such device; INVALID_DEVICE_REQUEST: not registered; UNSUCCESSFUL: there is no power engine plug-in to
        answer."""
        found = self._find(address, 0, 0)
        return (found if isinstance(found, int) else STOR_STATUS_UNSUCCESSFUL), b""

    def set_power_setting_notification_guids(self, guids: Sequence[UUID]) -> int:
        """StorPortSetPowerSettingNotificationGuids: the power settings hw_adapter_control hears of with
        ScsiPowerSettingNotification, of which none ever changes here. From hw_find_adapter (LB-02)."""
        caller = self._caller
        if caller.callback != FIND_ADAPTER:
            caller.offence("LB-02", f"StorPortSetPowerSettingNotificationGuids from {CALLBACK_NAMES[caller.callback]}")
        return STOR_STATUS_SUCCESS

    def _known(self, address: Any, where: Address | None) -> bool:
        return address is None or (where is not None and self._is_there(where))

    def _find(self, address: Any, component: int, flags: int) -> _Registered | int:
        where = None if address is None else btl8(address)
        if flags or component or not self._known(address, where):
            return STOR_STATUS_INVALID_PARAMETER
        return self._registered.get(where, STOR_STATUS_INVALID_DEVICE_REQUEST)


def _good(device: PoFxDevice, adapter: bool) -> bool:
    if device.version not in VERSIONS or len(device.components) != 1:
        return False
    component = device.components[0]
    count = len(component.f_states)
    if not 1 <= count <= (MOST_F_STATES_OF_ADAPTER if adapter else MOST_F_STATES_OF_UNIT):
        return False
    first = component.f_states[0]
    at_once = not first.transition_latency and not first.residency_requirement
    return at_once and component.deepest_wakeable_f_state < count

"""What a miniport gets as `self.port` under Storport: the StorPort* routines (`hba.miniport.services`).

Nothing is decided here; each call goes to the module of its concern, after the checks every notification has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from hba.clock import MS
from hba.dma import Segment
from hba.miniport import services as n
from hba.miniport.base import SCSI_ADAPTER_PO_FX_POWER_ACTIVE, SCSI_UNIT_PO_FX_POWER_ACTIVE
from hba.miniport.config import (
    MessageInterruptInformation,
    PerfConfigurationData,
    PortConfigurationInformation,
    StartIoPerformanceParameters,
)
from hba.miniport.services import (
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
    Dpc,
    DpcRoutine,
    LockHandle,
)
from hba.port.context import (
    CALLBACK_NAMES,
    FIND_ADAPTER,
    INITIALIZE,
    PASSIVE_INITIALIZE,
    START_IO,
    SYNCHRONIZED,
)
from hba.port.library.common import Library
from hba.port.library.documented import STORPORT_ROUTINES
from hba.port.library.make import storport_routines
from hba.port.request import Request, owned
from hba.port.storport.driver import StorPort
from hba.port.storport.units import StorUnit

WMI_EVENT_LIMIT: Final = 128  # bytes (RS-10)
UNCACHED_LIMIT: Final = 64 << 20  # bytes of an uncached extension


class StorPortLibrary(Library):
    """The services of one port, for its miniport."""

    model = "storport"

    def __init__(self, port: StorPort) -> None:
        self._port = port
        options = port.gates.options
        routines = storport_routines(port, self, self.request_of, options.timer_resolution, options.processors)
        super().__init__(port, "MB-12", routines)

    # -- StorPortNotification ----------------------------------------------------------------------------------

    def notification(self, notification_type: int, *arguments: Any) -> Any:
        port = self._port
        if notification_type == n.REQUEST_COMPLETE:
            port.returned(arguments[0])
            return None
        for watcher in port.watchers:
            watcher.told(notification_type, arguments)
        if notification_type in (n.NEXT_REQUEST, n.NEXT_LU_REQUEST):
            # ST-02: accepted and ignored; a leftover of a SCSI Port miniport.
            port.count("ignored next")
            port.offence("ST-02", f"{n.NOTIFICATION_NAMES[notification_type]} means nothing to Storport")
        elif notification_type == n.RESET_DETECTED:
            port.resets.detected(arguments[0] if arguments else 0)
        elif notification_type == n.REQUEST_TIMER_CALL:
            port.timer.cancel()
            if arguments[0] is None:
                port.offence("IN-06", "RequestTimerCall without a HwTimer routine")
            else:
                port.timer.request(arguments[0], arguments[1])
        elif notification_type == n.BUS_CHANGE_DETECTED:
            port.count("bus changes")
            port.bus_changed(arguments[0] if arguments else 0)
        elif notification_type == n.WMI_EVENT:
            self._wmi_event(arguments[0] if arguments else b"")
        elif notification_type == n.WMI_REREGISTER:
            port.count("WMI reregistrations")
        elif notification_type == n.LINK_UP:
            port.flow.link_up()
        elif notification_type == n.LINK_DOWN:
            port.flow.link_down()
        elif notification_type == n.QUERY_TICK_COUNT:
            return port.clock.now() // (port.gates.options.timer_resolution * MS)
        elif notification_type == n.BUFFER_OVERRUN_DETECTED:
            port.count("buffer overruns")
        elif notification_type == n.TRACE_NOTIFICATION:
            port.count("trace notifications")
        else:
            return self._extended(notification_type, arguments)
        return None

    def _extended(self, notification_type: int, arguments: tuple[Any, ...]) -> Any:
        """The notification types behind StorPort* functions of their own."""
        if notification_type == n.GET_EXTENDED_FUNCTION_TABLE:
            return tuple(routine.documented for routine in STORPORT_ROUTINES if not routine.why_not)
        routine = {
            n.ENABLE_PASSIVE_INITIALIZATION: self.enable_passive_initialization,
            n.INITIALIZE_DPC: self.initialize_dpc,
            n.ISSUE_DPC: self.issue_dpc,
            n.ACQUIRE_SPIN_LOCK: self.acquire_spin_lock,
            n.RELEASE_SPIN_LOCK: self.release_spin_lock,
        }.get(notification_type)
        if routine is None:
            # Static rule StorPortNotification2: undocumented types (4 and 5 are obsolete).
            self._port.offence("ST-02", f"notification type {notification_type:#x} is not one of Storport's")
            return None
        return cast(Callable[..., Any], routine)(*arguments)

    def _wmi_event(self, payload: bytes) -> None:
        """RS-10: more than 128 bytes are ignored."""
        port = self._port
        if len(payload) > WMI_EVENT_LIMIT:
            port.count("WMI events dropped")
            port.offence("RS-10", f"WMI event of {len(payload)} bytes was dropped; at most {WMI_EVENT_LIMIT}")
            return
        port.count("WMI events")

    # -- common services ---------------------------------------------------------------------------------------

    def get_uncached_extension(self, config: PortConfigurationInformation, number_of_bytes: int) -> memoryview | None:
        port = self._port
        # MB-16: only in hw_find_adapter, only a bus master, SrbExtensionSize set first.
        if port.callback != FIND_ADAPTER:
            port.offence("MB-16", f"StorPortGetUncachedExtension from {CALLBACK_NAMES[port.callback]}")
            return None
        if not config.master:
            port.offence("MB-16", "StorPortGetUncachedExtension for an adapter that is no bus master")
            return None
        if number_of_bytes <= 0 or number_of_bytes > UNCACHED_LIMIT:
            return None
        port.srb_extension_size_was = config.srb_extension_size
        made = port.memory.uncached(number_of_bytes, bool(config.dma64_bit_addresses))
        if made is None:
            return None
        if port.dump is not None:
            port.dump.allocated(port, "StorPortGetUncachedExtension", number_of_bytes)
        view, bus = made
        for watcher in port.watchers:
            watcher.device_memory(bus, number_of_bytes)
        return view

    def stall_execution(self, microseconds: int) -> None:
        port = self._port
        if port.callback == START_IO:
            port.offence("ST-08", f"stall of {microseconds} us in hw_start_io", severity="warning")
        port.stall_execution(microseconds)
        port.other_processors()

    def complete_request(self, path_id: int, target_id: int, lun: int, srb_status: int) -> None:
        """ER-15: works, but is not for Storport."""
        port = self._port
        port.offence("ER-15", "StorPortCompleteRequest must not be used; complete each SRB")
        for request in owned(port.units.values(), path_id, target_id, lun):
            port.ledger.take_back(request, srb_status)

    # -- buffers -----------------------------------------------------------------------------------------------

    def get_scatter_gather_list(self, srb: Any) -> Sequence[Segment] | None:
        port = self._port
        if port.other_lists:
            port.other_processors()
            if port.perf.no_sgl:
                return None  # MB-18
        request = self.request_of(srb, "MB-11")
        if request is None or request.srb.mdl is None:
            return None
        segments: Sequence[Segment] = request.srb.mdl.segments
        for watcher in port.watchers:
            segments = watcher.lend(request, segments)
        return segments

    # -- queue control -----------------------------------------------------------------------------------------

    def _unit(self, path_id: int, target_id: int, lun: int) -> StorUnit | None:
        return self._port.units.get(path_id << 16 | target_id << 8 | lun)

    def pause(self, timeout: int) -> bool:
        return self._port.flow.pause(timeout)

    def resume(self) -> bool:
        return self._port.flow.resume()

    def pause_device(self, path_id: int, target_id: int, lun: int, timeout: int) -> bool:
        unit = self._unit(path_id, target_id, lun)
        return unit is not None and self._port.flow.pause(timeout, unit)

    def resume_device(self, path_id: int, target_id: int, lun: int) -> bool:
        unit = self._unit(path_id, target_id, lun)
        return unit is not None and self._port.flow.resume(unit)

    def busy(self, requests_to_complete: int) -> bool:
        return self._port.flow.busy(requests_to_complete)

    def ready(self) -> bool:
        return self._port.flow.ready()

    def device_busy(self, path_id: int, target_id: int, lun: int, requests_to_complete: int) -> bool:
        unit = self._unit(path_id, target_id, lun)
        return unit is not None and self._port.flow.busy(requests_to_complete, unit)

    def device_ready(self, path_id: int, target_id: int, lun: int) -> bool:
        unit = self._unit(path_id, target_id, lun)
        return unit is not None and self._port.flow.ready(unit)

    def set_device_queue_depth(self, path_id: int, target_id: int, lun: int, depth: int) -> bool:
        return self._port.flow.set_depth(self._unit(path_id, target_id, lun), depth)

    def update_port_config_max_io_info(self, max_number_of_io: int, max_ios_per_lun: int) -> int:
        port = self._port
        if port.callback not in (INITIALIZE, PASSIVE_INITIALIZE):  # QD-12
            port.offence("QD-12", f"StorPortUpdatePortConfigMaxIOInfo from {CALLBACK_NAMES[port.callback]}")
            return STOR_STATUS_UNSUCCESSFUL
        if not 0 < max_ios_per_lun <= max_number_of_io:
            return STOR_STATUS_INVALID_PARAMETER
        port.info.max_number_of_io = port.gates.max_io = max_number_of_io
        port.info.max_ios_per_lun = max_ios_per_lun
        for unit in port.gates.units:
            unit.depth = min(unit.depth, max_ios_per_lun)
        return STOR_STATUS_SUCCESS

    # -- locks, deferral, synchronisation ----------------------------------------------------------------------

    def acquire_spin_lock(self, spin_lock: int, lock_context: Dpc | None = None) -> LockHandle:
        self._port.other_processors()
        return self._port.locks.acquire(spin_lock, lock_context)

    def release_spin_lock(self, handle: LockHandle) -> None:
        self._port.locks.release(handle)
        self._port.other_processors()

    def acquire_msi_spin_lock(self, message_id: int) -> LockHandle:
        self._port.other_processors()
        return self._port.locks.acquire_msi(message_id)

    def release_msi_spin_lock(self, handle: LockHandle) -> None:
        self._port.locks.release(handle)
        self._port.other_processors()

    def get_msi_info(self, message_id: int) -> tuple[int, MessageInterruptInformation | None]:
        return self._port.messages.info(message_id)

    def initialize_dpc(self, routine: DpcRoutine) -> Dpc:
        if self._port.dump is not None:
            self._port.dump.asked(self._port, "StorPortInitializeDpc")
        return Dpc(routine)

    def issue_dpc(self, dpc: Dpc, argument1: Any = None, argument2: Any = None) -> bool:
        """PF-04: runs when the processor comes down from the interrupt, before anything goes up."""
        port = self._port
        if dpc.queued:
            return False
        dpc.queued = True
        port.dpcs.append((dpc, argument1, argument2))
        port.gates.wake()
        return True

    def cancel_dpc(self, dpc: Dpc | None) -> tuple[int, bool]:
        """StorPortCancelDpc: (STOR_STATUS_*, whether it was queued and is not any more). INVALID_PARAMETER: None."""
        if not isinstance(dpc, Dpc):
            return STOR_STATUS_INVALID_PARAMETER, False
        queued = dpc.queued
        if queued:
            dpcs = self._port.dpcs
            waiting = [one for one in dpcs if one[0] is not dpc]
            dpcs.clear()
            dpcs.extend(waiting)
            dpc.queued = False
        return STOR_STATUS_SUCCESS, queued

    def synchronize_access(self, routine: Callable[[Any], bool], context: Any = None) -> bool:
        """LK-06: no interrupt is served while `routine` runs; its time counts like an interrupt's."""
        port = self._port
        if not port.locks.may_synchronize():
            return False
        return port.nested_call(SYNCHRONIZED, routine, context)

    def raise_irql(self, irql: int) -> int:
        return self._port.locks.raise_irql(irql)

    def lower_irql(self, irql: int) -> None:
        self._port.locks.lower_irql(irql)

    # -- others ------------------------------------------------------------------------------------------------

    def get_start_io_perf_params(self, srb: Any, params: StartIoPerformanceParameters | None) -> int:
        port = self._port
        request = self.request_of(srb, "PF-06")
        if request is None:
            return STOR_STATUS_INVALID_PARAMETER
        return port.perf.start_io_params(request.number, port.in_start_io, params)

    def initialize_perf_opts(self, query: bool, config: PerfConfigurationData | None) -> int:
        port = self._port
        status = port.perf.initialize(query, config)
        port.perf_changed()
        return status

    def enable_passive_initialization(self, routine: Callable[[], object]) -> bool:
        port = self._port
        if port.callback != INITIALIZE:
            port.offence("PF-01", f"StorPortEnablePassiveInitialization from {CALLBACK_NAMES[port.callback]}")
            return False
        if port.dump is not None:
            return False  # DM-01: there is no PASSIVE_LEVEL
        port.passive_routine = routine
        return True

    # -- for the library (hba.port.library.make) ---------------------------------------------------------------

    def system_address(self, request: Request | None) -> tuple[int, Any]:
        return self._port.mapper.system_address(request)

    def rescan(self, path_id: int) -> None:
        """As BusChangeDetected."""
        self.notification(n.BUS_CHANGE_DETECTED, path_id)

    def remove_unit(self, address: tuple[int, int, int]) -> None:
        """StorPortMarkDeviceFailed: the PnP manager is told, asks (PNP_DEVICE_FAILED), and takes the unit out by
        surprise, as soon as no callback runs. Source: Handling an IRP_MN_SURPRISE_REMOVAL Request."""
        self._port.loop.call_soon(lambda: self._take_out(address))

    def _take_out(self, address: tuple[int, int, int]) -> None:
        if self._port.started:
            self._port.remove_unit(*address, True, lambda _steps: None)

    def power_told(self, address: tuple[int, int, int] | None, component: int, active: bool) -> None:
        """ScsiUnitPoFxPowerActive, ScsiAdapterPoFxPowerActive, as soon as no callback runs."""
        self._port.loop.call_soon(lambda: self._tell_power(address, component, active))

    def _tell_power(self, address: tuple[int, int, int] | None, component: int, active: bool) -> None:
        port = self._port
        unit = self._unit(*address) if address is not None else None
        if not port.started:
            return
        if unit is not None:
            port.power.unit_control(unit, SCSI_UNIT_PO_FX_POWER_ACTIVE, component, int(active))
        elif address is None:
            port.adapter_control(SCSI_ADAPTER_PO_FX_POWER_ACTIVE, (component, int(active)))

    def set_max_io(self, count: int) -> None:
        self._port.info.max_number_of_io = self._port.gates.max_io = count

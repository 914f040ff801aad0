"""Write your own miniport: the callbacks a port driver calls, under their documented names.

A miniport programs the emulated host adapter's chip (`hba.miniport.chip`) and talks to the port only through
`self.port` (`hba.miniport.services`). Everything runs in one thread; "interrupts", "DPCs" and "IRQL" are the port's
bookkeeping of what Windows would allow at that moment, which the verifier checks.

Sources: HwScsi* routines of SCSI miniport drivers; HwStor* routines of Storport (storport.h).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hba.miniport.config import PortConfigurationInformation
from hba.srb import STOR_POWER_DEVICE_D0 as STOR_POWER_DEVICE_D0
from hba.srb import STOR_POWER_DEVICE_D1 as STOR_POWER_DEVICE_D1
from hba.srb import STOR_POWER_DEVICE_D2 as STOR_POWER_DEVICE_D2
from hba.srb import STOR_POWER_DEVICE_D3 as STOR_POWER_DEVICE_D3
from hba.srb import STOR_POWER_DEVICE_UNSPECIFIED as STOR_POWER_DEVICE_UNSPECIFIED
from hba.srb import Srb

if TYPE_CHECKING:
    from hba.miniport.chip import Chip
    from hba.miniport.services import PortServices

# HwFindAdapter's return values
SP_RETURN_NOT_FOUND: Final = 0
SP_RETURN_FOUND: Final = 1
SP_RETURN_ERROR: Final = 2
SP_RETURN_BAD_CONFIG: Final = 3

# HwAdapterControl's control types (SCSI_ADAPTER_CONTROL_TYPE). SCSI Port knows the first five (srb.h).
SCSI_QUERY_SUPPORTED_CONTROL_TYPES: Final = 0
SCSI_STOP_ADAPTER: Final = 1
SCSI_RESTART_ADAPTER: Final = 2
SCSI_SET_BOOT_CONFIG: Final = 3
SCSI_SET_RUNNING_CONFIG: Final = 4
SCSI_POWER_SETTING_NOTIFICATION: Final = 5
SCSI_ADAPTER_POWER: Final = 6
SCSI_ADAPTER_PO_FX_POWER_REQUIRED: Final = 7
SCSI_ADAPTER_PO_FX_POWER_ACTIVE: Final = 8
SCSI_ADAPTER_PO_FX_POWER_SET_F_STATE: Final = 9
SCSI_ADAPTER_PO_FX_POWER_CONTROL: Final = 10
SCSI_ADAPTER_PREPARE_FOR_BUS_RE_SCAN: Final = 11
SCSI_ADAPTER_SYSTEM_POWER_HINTS: Final = 12
SCSI_ADAPTER_FILTER_RESOURCE_REQUIREMENTS: Final = 13
SCSI_ADAPTER_PO_FX_MAX_OPERATIONAL_POWER: Final = 14
SCSI_ADAPTER_PO_FX_SET_PERF_STATE: Final = 15
SCSI_ADAPTER_SURPRISE_REMOVAL: Final = 16
SCSI_ADAPTER_SERIAL_NUMBER: Final = 17
SCSI_ADAPTER_CRYPTO_OPERATION: Final = 18
SCSI_ADAPTER_QUERY_FRU_ID: Final = 19
SCSI_ADAPTER_SET_EVENT_LOGGING: Final = 20
SCSI_ADAPTER_REPORT_INTERNAL_DATA: Final = 21
SCSI_ADAPTER_RESET_BUS_SYNCHRONOUS: Final = 22
SCSI_ADAPTER_POST_HW_INITIALIZE: Final = 23
SCSI_ADAPTER_PREPARE_EARLY_DUMP_DATA: Final = 24
SCSI_ADAPTER_RESTORE_EARLY_DUMP_DATA: Final = 25
SCSI_ADAPTER_KSR_POWER_DOWN: Final = 26
SCSI_ADAPTER_PREPARE_PLDR: Final = 27
SCSI_NVMEOF_ADAPTER_OPERATION: Final = 28
SCSI_ADAPTER_QUERY_STOR_MQ_INTERFACE: Final = 29
ADAPTER_CONTROL_TYPES: Final = 30  # ScsiAdapterControlMax of Storport: the length of the list
SCSI_PORT_CONTROL_TYPES: Final = 5  # the same of SCSI Port

ADAPTER_CONTROL_NAMES = (
    "ScsiQuerySupportedControlTypes",
    "ScsiStopAdapter",
    "ScsiRestartAdapter",
    "ScsiSetBootConfig",
    "ScsiSetRunningConfig",
    "ScsiPowerSettingNotification",
    "ScsiAdapterPower",
    "ScsiAdapterPoFxPowerRequired",
    "ScsiAdapterPoFxPowerActive",
    "ScsiAdapterPoFxPowerSetFState",
    "ScsiAdapterPoFxPowerControl",
    "ScsiAdapterPrepareForBusReScan",
    "ScsiAdapterSystemPowerHints",
    "ScsiAdapterFilterResourceRequirements",
    "ScsiAdapterPoFxMaxOperationalPower",
    "ScsiAdapterPoFxSetPerfState",
    "ScsiAdapterSurpriseRemoval",
    "ScsiAdapterSerialNumber",
    "ScsiAdapterCryptoOperation",
    "ScsiAdapterQueryFruId",
    "ScsiAdapterSetEventLogging",
    "ScsiAdapterReportInternalData",
    "ScsiAdapterResetBusSynchronous",
    "ScsiAdapterPostHwInitialize",
    "ScsiAdapterPrepareEarlyDumpData",
    "ScsiAdapterRestoreEarlyDumpData",
    "ScsiAdapterKsrPowerDown",
    "ScsiAdapterPreparePLDR",
    "ScsiNvmeofAdapterOperation",
    "ScsiAdapterQueryStorMQInterface",
)

# HwUnitControl's control types (SCSI_UNIT_CONTROL_TYPE)
SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES: Final = 0
SCSI_UNIT_USAGE: Final = 1
SCSI_UNIT_START: Final = 2
SCSI_UNIT_POWER: Final = 3
SCSI_UNIT_PO_FX_POWER_INFO: Final = 4
SCSI_UNIT_PO_FX_POWER_REQUIRED: Final = 5
SCSI_UNIT_PO_FX_POWER_ACTIVE: Final = 6
SCSI_UNIT_PO_FX_POWER_SET_F_STATE: Final = 7
SCSI_UNIT_PO_FX_POWER_CONTROL: Final = 8
SCSI_UNIT_REMOVE: Final = 9
SCSI_UNIT_SURPRISE_REMOVAL: Final = 10
SCSI_UNIT_RICH_DESCRIPTION: Final = 11
SCSI_UNIT_QUERY_BUS_TYPE: Final = 12
SCSI_UNIT_QUERY_FRU_ID: Final = 13
SCSI_UNIT_REPORT_INTERNAL_DATA: Final = 14
UNIT_CONTROL_TYPES: Final = 15  # ScsiUnitControlMax


class AdapterControlPower:
    """STOR_ADAPTER_CONTROL_POWER: the parameters of ScsiAdapterPower. STOR_POWER_ACTION_* and STOR_POWER_DEVICE_*."""

    def __init__(self, power_action: int, power_state: int) -> None:
        self.power_action = power_action
        self.power_state = power_state


class SupportedControlTypes:
    """SCSI_SUPPORTED_CONTROL_TYPE_LIST: the miniport sets `types[n] = True` for each control type it handles.

    There are `max_control_type` entries. A write beyond them is kept in `beyond` instead of corrupting the port's
    memory, so the port can report it (RS-05).
    """

    def __init__(self, max_control_type: int) -> None:
        self.max_control_type = max_control_type
        self.supported = [False] * max_control_type
        self.beyond: list[int] = []

    def __setitem__(self, control_type: int, value: bool) -> None:
        if 0 <= control_type < self.max_control_type:
            self.supported[control_type] = value
        else:
            self.beyond.append(control_type)

    def __getitem__(self, control_type: int) -> bool:
        return 0 <= control_type < self.max_control_type and self.supported[control_type]

    def __len__(self) -> int:
        return self.max_control_type


class Miniport:
    """Base of all miniports. Override what your adapter needs; a callback left alone does nothing.

    `port` and `chip` are set before `hw_find_adapter`. Attributes set on `self.extension` are the device extension:
    the port clears it as the model prescribes (CF-11: SCSI Port before each find-adapter; MB-17: Storport only once).
    """

    port: PortServices
    chip: Chip
    extension: Any
    options: dict[str, Any]  # [adapter.miniport_options] of the configuration

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        """Describe the adapter in `config`; SP_RETURN_*. HwScsiFindAdapter / HwStorFindAdapter."""
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        """Make the adapter ready; False: it does not work. HwScsiInitialize / HwStorInitialize."""
        return True

    def hw_build_io(self, srb: Srb) -> bool:
        """Storport only: prepare, without locks. False: will never be started, the miniport completes it (ST-05)."""
        return True

    def hw_start_io(self, srb: Srb) -> bool:
        """Start one request. SCSI Port: always True (SP-06). HwScsiStartIo / HwStorStartIo."""
        raise NotImplementedError(f"{type(self).__name__} has no hw_start_io")

    def hw_interrupt(self) -> bool:
        """True when this adapter interrupted (and it was dismissed). HwScsiInterrupt / HwStorInterrupt."""
        return False

    def hw_msi_interrupt(self, message_id: int) -> bool:
        """Storport, when interrupts are message signalled: `interrupt_synchronization_mode` says so, and the port was
        granted messages. True: the adapter raised it. HwMSInterruptRoutine."""
        return self.hw_interrupt()

    def hw_timer(self) -> None:
        """The timer asked for with RequestTimerCall has expired. HwScsiTimer / HwStorTimer."""

    def hw_reset_bus(self, path_id: int) -> bool:
        """Reset the bus and complete everything outstanding on it (ER-11, RS-03). HwScsiResetBus / HwStorResetBus."""
        raise NotImplementedError(f"{type(self).__name__} has no hw_reset_bus")

    def hw_free_adapter_resources(self) -> None:
        """Storport, virtual miniports: the adapter is removed; the last callback. HwStorFreeAdapterResources."""

    def hw_tracing_enabled(self, enabled: bool) -> None:
        """Storport: somebody switched tracing on or off. HwStorTracingEnabled."""

    def hw_state_change(self, context: Any, address_type: int, address: Any, status: int) -> None:
        """Storport: what was given to `state_change_detected` was processed; below 0x80000000 `status` is a success.
        HwStorStateChange; give it to that routine, as its `hw_state_change`."""

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        """HwScsiAdapterControl / HwStorAdapterControl. Returns 0 for success, 1 for failure.

        `parameters` is a `SupportedControlTypes` for SCSI_QUERY_SUPPORTED_CONTROL_TYPES, an `AdapterControlPower` for
        SCSI_ADAPTER_POWER, component and whether it is active for SCSI_ADAPTER_PO_FX_POWER_ACTIVE, else None. Only
        types declared there are called (RS-05).
        """
        return 1

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        """HwStorUnitControl. Returns 0 for success, 1 for failure.

        `parameters` is a `SupportedControlTypes` for SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES, else the address
        (path, target, lun), with the power state behind it for SCSI_UNIT_POWER, whether idle power management is
        enabled for SCSI_UNIT_PO_FX_POWER_INFO, component and whether it is active for SCSI_UNIT_PO_FX_POWER_ACTIVE.
        """
        return 1

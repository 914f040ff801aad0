"""Every routine Microsoft documents for a miniport, with the IRQL its page allows: the one table of both.

Sources: the pages of storport.h and srb.h in the Windows driver documentation ("StorPortAllocatePool function
(storport.h)" and so on), state of March 2024. `docs/miniports.md` is made from this table
(`hba.port.library.document`), the check of the IRQL from its limits (`hba.port.library.routines`).

A routine's name here is the documented one without its prefix, in Python's spelling: `spelled`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL

STORPORT: Final = "storport"
SCSIPORT: Final = "scsiport"
PREFIXES = {STORPORT: "StorPort", SCSIPORT: "ScsiPort"}

# What a page says of a call above the limit
GOES_ON: Final = -1  # nothing: the system is in trouble, the call does its work
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def spelled(documented: str) -> str:
    """`StorPortAcquireMSISpinLock` -> `acquire_msi_spin_lock`."""
    name = documented.removeprefix("StorPort").removeprefix("ScsiPort").removeprefix("Scsi")
    return _HUMPS.sub("_", name).lower()


@dataclass(frozen=True, slots=True)
class Callback:
    """One documented callback of storport.h. `here`: what it is here; `why_not`, when it is not."""

    documented: str
    here: str = ""
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Routine:
    """One documented routine.

    `most`    the highest IRQL it may be called at; None: any, or the page does not say
    `least`   the lowest, where there is one
    `refused` what a call above `most` returns: `GOES_ON`, or STOR_STATUS_INVALID_IRQL and so many out parameters
    `macro`   one of the register access macros
    `why_not` reason, when it is not here
    """

    documented: str
    model: str
    most: int | None = None
    refused: int = GOES_ON
    least: int = PASSIVE_LEVEL
    macro: bool = False
    why_not: str = ""

    @property
    def name(self) -> str:
        return spelled(self.documented)


def _stor(name: str, most: int | None = None, refused: int = GOES_ON, why_not: str = "") -> Routine:
    return Routine(f"StorPort{name}", STORPORT, most, refused, why_not=why_not)


def _scsi(name: str, why_not: str = "") -> Routine:
    return Routine(f"ScsiPort{name}", SCSIPORT, why_not=why_not)


def _macros(model: str, sizes: tuple[str, ...], port_sizes: tuple[str, ...]) -> tuple[Routine, ...]:
    """Read and write, of registers and ports, one value or a buffer."""
    return tuple(
        Routine(f"{PREFIXES[model]}{way}{place}{many}{size}", model, macro=True)
        for way in ("Read", "Write")
        for place, of in (("Port", port_sizes), ("Register", sizes))
        for many in ("Buffer", "")
        for size in of
    )


_THREE = ("Uchar", "Ushort", "Ulong")
_RESERVED: Final = "Microsoft's page says: reserved for system use"
_NO_SYSTEM_DMA: Final = "for adapters on the system's DMA controller; every adapter here is a bus master"
_VIRTUAL_IRP: Final = "of virtual miniports, for IRPs of Windows; there are none here"

STORPORT_ROUTINES: tuple[Routine, ...] = (
    _stor("AcquireMSISpinLock"),
    _stor("AcquireSpinLock"),
    _stor("AcquireSpinLockEx"),  # refuses by the kind of lock
    _stor("AllocateContiguousMemorySpecifyCacheNode", DISPATCH_LEVEL),
    _stor("AllocateDmaMemory"),
    _stor("AllocateHostMemoryBuffer"),
    _stor("AllocateMdl", DISPATCH_LEVEL, 1),
    _stor("AllocatePool", DISPATCH_LEVEL, 1),
    _stor("AllocateRegistryBuffer"),
    _stor("AsyncNotificationDetected"),
    _stor("BuildMdlForNonPagedPool", DISPATCH_LEVEL, 0),
    Routine("StorPortBuildScatterGatherList", STORPORT, DISPATCH_LEVEL, 0, DISPATCH_LEVEL),
    _stor("Busy"),
    _stor("CancelDpc"),
    _stor("CaptureLiveDump", PASSIVE_LEVEL, why_not="there is no kernel to dump; `hba trace` has what happened"),
    _stor("CompleteRequest"),
    _stor("CompleteServiceIrp", why_not=_VIRTUAL_IRP),
    _stor("ConvertUlongToPhysicalAddress"),
    _stor("CreateSystemThread"),
    _stor("DebugPrint"),
    _stor("DelayExecution"),
    _stor("DeviceBusy"),
    _stor("DeviceReady"),
    _stor("EnablePassiveInitialization"),  # DIRQL, in HwStorInitialize alone: PF-01
    _stor("EnableRegistryKeyNotification"),
    _stor("EtwEvent2", DISPATCH_LEVEL),
    _stor("EtwEvent4", DISPATCH_LEVEL),
    _stor("EtwEvent8", DISPATCH_LEVEL),
    _stor("EtwLogByteStream"),
    _stor("EtwLogError"),
    _stor("FreeContiguousMemorySpecifyCache", DISPATCH_LEVEL),
    _stor("FreeDeviceBase"),
    _stor("FreeDmaMemory"),
    _stor("FreeHostMemoryBuffer"),
    _stor("FreeMdl", DISPATCH_LEVEL, 0),
    _stor("FreePool", DISPATCH_LEVEL, 0),
    _stor("FreeRegistryBuffer"),
    _stor("FreeTimer", DISPATCH_LEVEL, 0),
    _stor("FreeWorker", DISPATCH_LEVEL, 0),
    _stor("GetActiveGroupCount", DISPATCH_LEVEL),
    _stor("GetActiveNodeCount", DISPATCH_LEVEL),
    _stor("GetActivityIdSrb"),
    _stor("GetBusData"),
    _stor("GetCurrentIrql"),
    _stor("GetCurrentProcessorNumber", DISPATCH_LEVEL),
    _stor("GetDataInBufferMdl"),
    _stor("GetDataInBufferScatterGatherList"),
    _stor("GetDataInBufferSystemAddress", DISPATCH_LEVEL, 1),
    _stor("GetDeviceBase"),
    _stor("GetDeviceObjects", why_not="there are no device objects: an adapter is no stack of Windows' drivers here"),
    _stor("GetGroupAffinity", DISPATCH_LEVEL),
    _stor("GetHighestNodeNumber", DISPATCH_LEVEL),
    _stor("GetLogicalProcessorRelationship", DISPATCH_LEVEL),
    _stor("GetLogicalUnit"),
    _stor("GetMessageInterruptIDFromProcessorIndex"),
    _stor("GetMSIInfo"),
    _stor("GetNodeAffinity", DISPATCH_LEVEL),
    _stor("GetNodeAffinity2"),
    _stor("GetOriginalMdl"),
    _stor("GetPfns"),
    _stor("GetPhysicalAddress"),
    _stor("GetRequestCryptoInfo", why_not=_RESERVED),
    _stor("GetRequestInfo"),
    _stor("GetScatterGatherList"),
    _stor("GetStartIoPerfParams"),
    _stor("GetSystemAddress", DISPATCH_LEVEL, 1),
    _stor("GetSystemPortNumber"),
    _stor("GetUncachedExtension"),
    _stor("GetVirtualAddress"),
    _stor("HardwareReset"),
    _stor("Initialize"),
    _stor("InitializeCryptoEngine", why_not=_RESERVED),
    _stor("InitializeDpc"),
    _stor("InitializeEvent"),
    _stor("InitializeListHead"),
    _stor("InitializePerfOpts"),
    _stor("InitializePoFxPower"),
    _stor("InitializeSListHead", DISPATCH_LEVEL),
    _stor("InitializeSpinlock"),
    _stor("InitializeTimer", DISPATCH_LEVEL, 1),
    _stor("InitializeWorker", DISPATCH_LEVEL, 1),
    _stor("InterlockedFlushSList", DISPATCH_LEVEL),
    _stor("InterlockedInsertHeadList"),
    _stor("InterlockedInsertTailList"),
    _stor("InterlockedPopEntrySList", DISPATCH_LEVEL),
    _stor("InterlockedPushEntrySList", DISPATCH_LEVEL),
    _stor("InterlockedRemoveHeadList"),
    _stor("InvokeAcpiMethod", PASSIVE_LEVEL, 1),
    _stor("IsCurrentOsInstallationUpgrade", PASSIVE_LEVEL, 1),
    _stor("IsDeviceOperationAllowed", PASSIVE_LEVEL, 1),
    _stor("IssueDpc"),
    _stor("LogError"),
    _stor("LogSystemEvent", DISPATCH_LEVEL, 1),
    _stor("LogTelemetry"),
    _stor("LogTelemetryEx"),
    _stor("MarkDeviceFailed"),
    _stor("MarkDeviceFailedEx"),
    _stor("MarkDumpMemory"),
    _stor("MaskMsixInterrupt"),
    _stor("MoveMemory"),
    _stor("Notification"),
    _stor("Pause"),
    _stor("PauseDevice"),
    _stor("PoFxActivateComponent", DISPATCH_LEVEL, 0),
    _stor("PoFxIdleComponent", DISPATCH_LEVEL, 0),  # "Any" in the page's head, but INVALID_IRQL in its status codes
    _stor("PoFxPowerControl", DISPATCH_LEVEL, 1),
    _stor("PoFxSetComponentLatency", DISPATCH_LEVEL, 0),
    _stor("PoFxSetComponentResidency", DISPATCH_LEVEL, 0),
    _stor("PoFxSetIdleTimeout"),
    _stor("PoFxSetPerfState"),
    Routine("StorPortPutScatterGatherList", STORPORT, DISPATCH_LEVEL, 0, DISPATCH_LEVEL),
    _stor("QueryConfiguration"),
    _stor("QueryDepthSList", DISPATCH_LEVEL),
    Routine("StorPortQueryDpcWatchdogInformation", STORPORT, least=DISPATCH_LEVEL),
    _stor("QueryPerformanceCounter"),
    _stor("QuerySystemTime"),
    _stor("QueryTimerMinInterval"),
    _stor("QueueWorkItem", DISPATCH_LEVEL, 0),
    _stor("Ready"),
    _stor("RegistryRead", PASSIVE_LEVEL),
    _stor("RegistryReadAdapterKey", PASSIVE_LEVEL),
    _stor("RegistryWrite", PASSIVE_LEVEL),
    _stor("RegistryWriteAdapterKey", PASSIVE_LEVEL),
    _stor("ReleaseMSISpinLock"),
    _stor("ReleaseSpinLock"),
    _stor("RequestTimer"),
    _stor("Resume"),
    _stor("ResumeDevice"),
    _stor("RevertToUserGroupAffinityThread", DISPATCH_LEVEL, 0),
    _stor("SecureCopyMemory"),
    _stor("SetAdapterBusType"),
    _stor("SetBusDataByOffset"),
    _stor("SetDeviceQueueDepth"),
    _stor("SetEvent", DISPATCH_LEVEL, 0),
    _stor("SetFeatureList"),
    _stor("SetPowerSettingNotificationGuids"),
    _stor("SetPriorityThread", PASSIVE_LEVEL, 0),
    _stor("SetSystemGroupAffinityThread", DISPATCH_LEVEL),
    _stor("SetUnitAttributes"),
    _stor("StallExecution"),
    _stor("StateChangeDetected"),
    _stor("SynchronizeAccess"),
    _stor("TerminateSystemThread"),
    _stor("UpdateAdapterMaxIO"),
    _stor("ValidateRange"),
    _stor("WaitForSingleObject", DISPATCH_LEVEL),
    *_macros(STORPORT, (*_THREE, "Ulong64"), _THREE),
)

SCSIPORT_ROUTINES: tuple[Routine, ...] = (
    Routine("ScsiDebugPrint", SCSIPORT),
    _scsi("CompleteRequest"),
    _scsi("ConvertPhysicalAddressToUlong"),
    _scsi("ConvertUlongToPhysicalAddress"),
    _scsi("FlushDma", why_not=_NO_SYSTEM_DMA),
    _scsi("FreeDeviceBase"),
    _scsi("GetBusData"),
    _scsi("GetDeviceBase"),
    _scsi("GetLogicalUnit"),
    _scsi("GetPhysicalAddress"),
    _scsi("GetSrb"),
    _scsi("GetUncachedExtension"),
    _scsi("GetVirtualAddress"),
    _scsi("Initialize"),
    _scsi("IoMapTransfer", why_not=_NO_SYSTEM_DMA),
    _scsi("LogError"),
    _scsi("MoveMemory"),
    _scsi("Notification"),
    _scsi("QuerySystemTime"),
    _scsi("SetBusDataByOffset"),
    _scsi("StallExecution"),
    _scsi("ValidateRange"),
    *_macros(SCSIPORT, _THREE, _THREE),
)

ROUTINES = {
    STORPORT: {routine.name: routine for routine in STORPORT_ROUTINES},
    SCSIPORT: {routine.name: routine for routine in SCSIPORT_ROUTINES},
}
"""By model, then by the name it has here."""

CALLBACKS: tuple[Callback, ...] = (
    Callback("HW_ADAPTER_CONTROL", "`hw_adapter_control`"),
    Callback("HW_BUILDIO", "`hw_build_io`"),
    Callback("HW_CLEANUP_TRACING", "`hw_cleanup_tracing` in a `driver_entry`'s table, of a virtual miniport"),
    Callback("HW_COMPLETE_SERVICE_IRP", why_not=_VIRTUAL_IRP),
    Callback("HW_DPC_ROUTINE", "the routine given to `initialize_dpc`"),
    Callback("HW_FIND_ADAPTER", "`hw_find_adapter`; with all documented arguments in a `driver_entry`'s table"),
    Callback("HW_FREE_ADAPTER_RESOURCES", "`hw_free_adapter_resources`, of a virtual miniport"),
    Callback("HW_INITIALIZE", "`hw_initialize`"),
    Callback("HW_INITIALIZE_TRACING", "`hw_initialize_tracing` in a `driver_entry`'s table, of a virtual miniport"),
    Callback("HW_INTERRUPT", "`hw_interrupt`"),
    Callback("HW_MESSAGE_SIGNALED_INTERRUPT_ROUTINE", "`hw_msi_interrupt`"),
    Callback("HW_PASSIVE_INITIALIZE_ROUTINE", "the routine given to `enable_passive_initialization`"),
    Callback("HW_PROCESS_SERVICE_REQUEST", why_not=_VIRTUAL_IRP),
    Callback("HW_REGISTRY_NOTIFICATION_ROUTINE", "the routine given to `enable_registry_key_notification`"),
    Callback("HW_RESET_BUS", "`hw_reset_bus`"),
    Callback("HW_STARTIO", "`hw_start_io`"),
    Callback("HW_STATE_CHANGE", "`hw_state_change`, or another routine given to `state_change_detected`"),
    Callback("HW_TIMER", "`hw_timer`, or the routine given with REQUEST_TIMER_CALL"),
    Callback("HW_TRACING_ENABLED", "`hw_tracing_enabled`"),
    Callback("HW_UNIT_CONTROL", "`hw_unit_control`"),
    Callback("HW_WORKITEM", "the routine given to `queue_work_item`"),
    Callback("STOR_THREAD_START_ROUTINE", "the routine given to `create_system_thread`"),
    Callback("VIRTUAL_HW_FIND_ADAPTER", "`hw_find_adapter`, with `config.virtual_device`"),
)

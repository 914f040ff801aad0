"""What the port driver does for a miniport: the ScsiPort*/StorPort* routines under their documented names.

`self.port` of a miniport is one of the two protocols below, by the model chosen in the configuration; what both models
have is in `PortServices`. Names are Microsoft's in Python spelling without the ScsiPort/StorPort prefix; the device
extension argument is gone because a miniport is an object.

Sources: the "ScsiPort*" routines (srb.h) and the "StorPort*" routines (storport.h); the numbers of the notification
types are those of the SCSI_NOTIFICATION_TYPE enumerations in these headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from hba.dma import Segment
from hba.miniport.config import (
    MessageInterruptInformation,
    PerfConfigurationData,
    PortConfigurationInformation,
    StartIoPerformanceParameters,
)
from hba.miniport.routines import CommonRoutines, ScsiPortRoutines, StorPortRoutines
from hba.miniport.seen import SeenSrb

# -- Notification types (first argument of `notification`) ------------------------------------------------------
REQUEST_COMPLETE: Final = 0  # (srb)
NEXT_REQUEST: Final = 1  # ()                             SCSI Port; Storport ignores it (ST-02)
NEXT_LU_REQUEST: Final = 2  # (path, target, lun)         SCSI Port; Storport ignores it (ST-02)
RESET_DETECTED: Final = 3  # (path)
CALL_DISABLE_INTERRUPTS: Final = 4  # (routine)           SCSI Port
CALL_ENABLE_INTERRUPTS: Final = 5  # (routine)            SCSI Port
REQUEST_TIMER_CALL: Final = 6  # (routine, microseconds); 0 cancels; the routine is `self.hw_timer` or another of yours
BUS_CHANGE_DETECTED: Final = 7  # (path)
WMI_EVENT: Final = 8  # (payload: bytes, path = 0xFF, target = 0xFF, lun = 0xFF)
WMI_REREGISTER: Final = 9  # (path = 0xFF, target = 0xFF, lun = 0xFF)
# Storport only
LINK_UP: Final = 10  # ()
LINK_DOWN: Final = 11  # ()
QUERY_TICK_COUNT: Final = 12  # () -> interrupts of the interval timer, one every `timer_resolution` milliseconds
BUFFER_OVERRUN_DETECTED: Final = 13  # (srb)
TRACE_NOTIFICATION: Final = 14  # (detail)
GET_EXTENDED_FUNCTION_TABLE: Final = 15  # () -> names of the extended functions
ENABLE_PASSIVE_INITIALIZATION: Final = 0x1000  # (routine); use `enable_passive_initialization`
INITIALIZE_DPC: Final = 0x1001  # use `initialize_dpc`
ISSUE_DPC: Final = 0x1002  # use `issue_dpc`
ACQUIRE_SPIN_LOCK: Final = 0x1003  # use `acquire_spin_lock`
RELEASE_SPIN_LOCK: Final = 0x1004  # use `release_spin_lock`

NOTIFICATION_NAMES = {
    REQUEST_COMPLETE: "RequestComplete",
    NEXT_REQUEST: "NextRequest",
    NEXT_LU_REQUEST: "NextLuRequest",
    RESET_DETECTED: "ResetDetected",
    CALL_DISABLE_INTERRUPTS: "CallDisableInterrupts",
    CALL_ENABLE_INTERRUPTS: "CallEnableInterrupts",
    REQUEST_TIMER_CALL: "RequestTimerCall",
    BUS_CHANGE_DETECTED: "BusChangeDetected",
    WMI_EVENT: "WMIEvent",
    WMI_REREGISTER: "WMIReregister",
    LINK_UP: "LinkUp",
    LINK_DOWN: "LinkDown",
    QUERY_TICK_COUNT: "QueryTickCount",
    BUFFER_OVERRUN_DETECTED: "BufferOverrunDetected",
    TRACE_NOTIFICATION: "TraceNotification",
    GET_EXTENDED_FUNCTION_TABLE: "GetExtendedFunctionTable",
    ENABLE_PASSIVE_INITIALIZATION: "EnablePassiveInitialization",
    INITIALIZE_DPC: "InitializeDpc",
    ISSUE_DPC: "IssueDpc",
    ACQUIRE_SPIN_LOCK: "AcquireSpinLock",
    RELEASE_SPIN_LOCK: "ReleaseSpinLock",
}

# -- log_error codes (srb.h) ------------------------------------------------------------------------------------
SP_BUS_PARITY_ERROR: Final = 0x0001
SP_UNEXPECTED_DISCONNECT: Final = 0x0002
SP_INVALID_RESELECTION: Final = 0x0003
SP_BUS_TIME_OUT: Final = 0x0004
SP_PROTOCOL_ERROR: Final = 0x0005
SP_INTERNAL_ADAPTER_ERROR: Final = 0x0006
SP_REQUEST_TIMEOUT: Final = 0x0007
SP_IRQ_NOT_RESPONDING: Final = 0x0008
SP_BAD_FW_WARNING: Final = 0x0009
SP_BAD_FW_ERROR: Final = 0x000A
SP_LOST_WMI_MINIPORT_REQUEST: Final = 0x000B

# -- STOR_SPINLOCK ----------------------------------------------------------------------------------------------
DPC_LOCK: Final = 1
START_IO_LOCK: Final = 2
INTERRUPT_LOCK: Final = 3
THREADED_DPC_LOCK: Final = 4  # only for `acquire_spin_lock_ex`
DPC_LEVEL_LOCK: Final = 5  # likewise, at DISPATCH_LEVEL

# -- status of the extended Storport functions ------------------------------------------------------------------
STOR_STATUS_SUCCESS: Final = 0x00000000
STOR_STATUS_UNSUCCESSFUL: Final = 0xC1000001
STOR_STATUS_NOT_IMPLEMENTED: Final = 0xC1000002
STOR_STATUS_INSUFFICIENT_RESOURCES: Final = 0xC1000003
STOR_STATUS_BUFFER_TOO_SMALL: Final = 0xC1000004
STOR_STATUS_ACCESS_DENIED: Final = 0xC1000005
STOR_STATUS_INVALID_PARAMETER: Final = 0xC1000006
STOR_STATUS_INVALID_DEVICE_REQUEST: Final = 0xC1000007
STOR_STATUS_INVALID_IRQL: Final = 0xC1000008
STOR_STATUS_INVALID_DEVICE_STATE: Final = 0xC1000009
STOR_STATUS_INVALID_BUFFER_SIZE: Final = 0xC100000A
STOR_STATUS_UNSUPPORTED_VERSION: Final = 0xC100000B
STOR_STATUS_BUSY: Final = 0xC100000C

# srb.data_buffer, srb.sense_info_buffer, srb.srb_extension, the uncached extension, or one of them + offset
VirtualAddress = Any
Routine = Callable[[], None]
DpcRoutine = Callable[["Dpc", Any, Any], None]
PhysicalAddress = tuple[int, int]  # (bus address, bytes that are contiguous from there)


class Dpc:
    """A STOR_DPC: made with `initialize_dpc`, run with `issue_dpc`."""

    __slots__ = ("queued", "routine")

    def __init__(self, routine: DpcRoutine) -> None:
        self.routine = routine
        self.queued = False


class LockHandle:
    """A STOR_LOCK_HANDLE: what `acquire_spin_lock` returns and `release_spin_lock` wants back."""

    __slots__ = ("context", "held", "lock")

    def __init__(self, lock: int, context: object) -> None:
        self.lock = lock
        self.context = context
        self.held = True


class PortServices(CommonRoutines, Protocol):
    """What both models offer."""

    model: str  # "scsiport" or "storport"

    def notification(self, notification_type: int, *arguments: Any) -> Any:
        """ScsiPortNotification / StorPortNotification; types and their arguments are listed above."""
        ...

    def get_physical_address(self, srb: SeenSrb | None, virtual_address: VirtualAddress) -> PhysicalAddress | None:
        """Bus address of `virtual_address` and how many bytes are contiguous from there; None: it has none.

        `srb` must be given when the address lies in that request's data or sense buffer (CF-04, MB-12).
        """
        ...

    def get_uncached_extension(self, config: PortConfigurationInformation, number_of_bytes: int) -> memoryview | None:
        """Memory shared with the adapter, zeroed. Only in hw_find_adapter (CF-09, MB-16)."""
        ...

    def get_logical_unit(self, path_id: int, target_id: int, lun: int) -> Any:
        """The logical unit's extension (an object for your attributes); None when specific_lu_extension_size is 0 or
        the port knows no such unit."""
        ...

    def log_error(
        self, srb: SeenSrb | None, path_id: int, target_id: int, lun: int, error_code: int, unique_id: int
    ) -> None:
        """Put an entry into the system's log (ER-02); `error_code` is one of SP_*."""
        ...

    def stall_execution(self, microseconds: int) -> None:
        """Busy-wait. Charged to the callback that does it (IN-03), in virtual time."""
        ...

    def complete_request(self, path_id: int, target_id: int, lun: int, srb_status: int) -> None:
        """Complete every active request that matches; 0xFF is the wildcard (ER-15). Not for Storport."""
        ...


class ScsiPortServices(PortServices, ScsiPortRoutines, Protocol):
    """What only SCSI Port offers."""

    def get_srb(self, path_id: int, target_id: int, lun: int, queue_tag: int) -> SeenSrb | None:
        """The active request with this address and tag (SP_UNTAGGED: the untagged one), or None."""
        ...


class StorPortServices(PortServices, StorPortRoutines, Protocol):
    """What only Storport offers."""

    def get_scatter_gather_list(self, srb: SeenSrb) -> Sequence[Segment] | None:
        """The request's (bus address, length) list; read-only, valid until its completion (MB-11). None: no data."""
        ...

    # queue control
    def pause(self, timeout: int) -> bool:
        """Hold all requests of the adapter for `timeout` seconds or until `resume` (QD-05)."""
        ...

    def resume(self) -> bool: ...
    def pause_device(self, path_id: int, target_id: int, lun: int, timeout: int) -> bool: ...
    def resume_device(self, path_id: int, target_id: int, lun: int) -> bool: ...

    def busy(self, requests_to_complete: int) -> bool:
        """Hold all requests until that many have completed (QD-06)."""
        ...

    def ready(self) -> bool: ...
    def device_busy(self, path_id: int, target_id: int, lun: int, requests_to_complete: int) -> bool: ...
    def device_ready(self, path_id: int, target_id: int, lun: int) -> bool: ...
    def set_device_queue_depth(self, path_id: int, target_id: int, lun: int, depth: int) -> bool:
        """At the unit's first INQUIRY or later (QD-04)."""
        ...

    def update_port_config_max_io_info(self, max_number_of_io: int, max_ios_per_lun: int) -> int:
        """STOR_STATUS_*. Only in hw_initialize or the passive initialisation (QD-12)."""
        ...

    # locks, deferral, synchronisation
    def acquire_spin_lock(self, spin_lock: int, lock_context: Dpc | None = None) -> LockHandle:
        """`spin_lock`: DPC_LOCK (with the DPC as context), START_IO_LOCK or INTERRUPT_LOCK (LK-01, LK-02)."""
        ...

    def release_spin_lock(self, handle: LockHandle) -> None: ...
    def acquire_msi_spin_lock(self, message_id: int) -> LockHandle:
        """Only with interrupt_synchronization_mode InterruptSynchronizePerMessage (LK-04). Not recursive (LK-01): in
        hw_msi_interrupt(n) the port holds that of n."""
        ...

    def release_msi_spin_lock(self, handle: LockHandle) -> None: ...
    def initialize_dpc(self, routine: DpcRoutine) -> Dpc: ...
    def issue_dpc(self, dpc: Dpc, argument1: Any = None, argument2: Any = None) -> bool:
        """False when the DPC is queued already (PF-04)."""
        ...

    def cancel_dpc(self, dpc: Dpc | None) -> tuple[int, bool]:
        """(STOR_STATUS_*, whether it was queued and is not any more)."""
        ...

    def synchronize_access(self, routine: Callable[[Any], bool], context: Any = None) -> bool:
        """Run `routine(context)` synchronised with hw_interrupt; keep it short (LK-06)."""
        ...

    def raise_irql(self, irql: int) -> int:
        """KeRaiseIrql: returns the old one. What you raise you lower before the callback returns (LK-05)."""
        ...

    def lower_irql(self, irql: int) -> None: ...

    def get_msi_info(self, message_id: int) -> tuple[int, MessageInterruptInformation | None]:
        """(STOR_STATUS_*, what is known of a message). Not from hw_msi_interrupt (IN-08)."""
        ...

    # others
    def get_start_io_perf_params(self, srb: SeenSrb, params: StartIoPerformanceParameters | None) -> int:
        """STOR_STATUS_*. Fills `params`: the channel hw_start_io runs in, and the best message for the end (PF-06)."""
        ...

    def initialize_perf_opts(self, query: bool, config: PerfConfigurationData | None) -> int:
        """STOR_STATUS_*. Only in hw_initialize or the passive initialisation (PF-01, PF-02)."""
        ...

    def enable_passive_initialization(self, routine: Callable[[], bool]) -> bool:
        """Have `routine` run at PASSIVE_LEVEL after hw_initialize."""
        ...

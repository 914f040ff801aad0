"""Where the miniport is right now: which callback runs, at which simulated IRQL, and which notification is legal there.

Everything runs in one thread; these numbers are bookkeeping of what Windows would allow at that moment.
"""

from __future__ import annotations

import sys
from types import FrameType, TracebackType
from typing import Final

from hba.miniport import services

# -- callbacks --------------------------------------------------------------------------------------------------
NO_CALLBACK: Final = 0
FIND_ADAPTER: Final = 1
INITIALIZE: Final = 2
BUILD_IO: Final = 3
START_IO: Final = 4
INTERRUPT: Final = 5
DPC: Final = 6  # SCSI Port: the CallEnableInterrupts routine; Storport: a STOR_DPC's routine
DISABLE_INTERRUPTS: Final = 7  # SCSI Port: the CallDisableInterrupts routine
TIMER: Final = 8
RESET_BUS: Final = 9
ADAPTER_CONTROL: Final = 10
UNIT_CONTROL: Final = 11
PASSIVE_INITIALIZE: Final = 12
SYNCHRONIZED: Final = 13  # Storport: the routine given to StorPortSynchronizeAccess
WORK_ITEM: Final = 14  # Storport: the routine given to StorPortQueueWorkItem, and others at PASSIVE_LEVEL without locks
STATE_CHANGE: Final = 15  # Storport: HwStorStateChange
SCATTER_GATHER: Final = 16  # Storport: the ExecutionRoutine given to StorPortBuildScatterGatherList
FREE_RESOURCES: Final = 17  # Storport: HwStorFreeAdapterResources of a virtual miniport
TRACING_ENABLED: Final = 18

CALLBACK_NAMES = (
    "no callback",
    "hw_find_adapter",
    "hw_initialize",
    "hw_build_io",
    "hw_start_io",
    "hw_interrupt",
    "DPC routine",
    "CallDisableInterrupts routine",
    "hw_timer",
    "hw_reset_bus",
    "hw_adapter_control",
    "hw_unit_control",
    "passive initialization routine",
    "synchronized routine",
    "work item",
    "hw_state_change",
    "execution routine",
    "hw_free_adapter_resources",
    "hw_tracing_enabled",
)

# -- IRQLs (x64 numbers; the device's is any above DISPATCH_LEVEL) ---------------------------------------------
PASSIVE_LEVEL: Final = 0
DISPATCH_LEVEL: Final = 2
DIRQL: Final = 5
HIGH_LEVEL: Final = 15  # nothing interrupts: in dump mode (DM-01)

IRQL_NAMES = {
    PASSIVE_LEVEL: "PASSIVE_LEVEL",
    DISPATCH_LEVEL: "DISPATCH_LEVEL",
    DIRQL: "DIRQL",
    HIGH_LEVEL: "HIGH_LEVEL",
}

# -- legality matrix (port-driver documents; section 2.4 of the catalogue) --------------------------------------
# Columns are the callbacks; "Y" documented, "y" inferred, "-" not allowed or pointless.
_COLUMNS = (FIND_ADAPTER, INITIALIZE, BUILD_IO, START_IO, INTERRUPT, DPC, DISABLE_INTERRUPTS, TIMER, RESET_BUS)
_MATRIX = {
    services.REQUEST_COMPLETE: "--YYYYyyY",
    services.NEXT_REQUEST: "-y-YYYyyY",
    services.NEXT_LU_REQUEST: "-y-YYYyyY",
    services.RESET_DETECTED: "---yYy-yy",
    services.CALL_ENABLE_INTERRUPTS: "----Y----",
    services.CALL_DISABLE_INTERRUPTS: "-----Y---",
    services.REQUEST_TIMER_CALL: "-yyYYyyYy",
    services.BUS_CHANGE_DETECTED: "-yyyyyyyy",
    services.WMI_EVENT: "-yyyyyyyy",
    services.WMI_REREGISTER: "-yyyyyyyy",
    services.LINK_UP: "-yyyyy-yy",
    services.LINK_DOWN: "-yyyyy-yy",
}
LEGAL: dict[int, frozenset[int]] = {
    notification: frozenset(callback for callback, cell in zip(_COLUMNS, row, strict=True) if cell != "-")
    for notification, row in _MATRIX.items()
}
# The rule a notification from the wrong place is reported under, as a warning: the documents give no full matrix.
MISPLACED_RULE: dict[int, str] = {
    services.REQUEST_COMPLETE: "SP-07",
    services.NEXT_REQUEST: "SP-10",
    services.NEXT_LU_REQUEST: "SP-11",
    services.RESET_DETECTED: "ER-14",
    services.CALL_ENABLE_INTERRUPTS: "IN-04",
    services.CALL_DISABLE_INTERRUPTS: "IN-04",
    services.REQUEST_TIMER_CALL: "IN-05",
    services.BUS_CHANGE_DETECTED: "SP-09",
    services.WMI_EVENT: "SP-09",
    services.WMI_REREGISTER: "SP-09",
    services.LINK_UP: "QD-10",
    services.LINK_DOWN: "QD-10",
}

# Frames of these modules are ours, not the miniport's.
_OURS = (
    "hba.port.",
    "hba.instruments.",
    "hba.verifier",
    "hba.miniport.services",
    "hba.miniport.chip",
    "hba.dma",
    "hba.trace.",
)


def _is_ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__", "")
    return isinstance(name, str) and name.startswith(_OURS)


def _describe(frame: FrameType, line: int) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{line} in {code.co_name}"


def caller() -> str:
    """The miniport's source line that is asking the port for something now: "file.py:12 in hw_start_io"."""
    frame: FrameType | None = sys._getframe(0)
    while frame is not None:
        if not _is_ours(frame):
            return _describe(frame, frame.f_lineno)
        frame = frame.f_back
    return ""


def raised_at(traceback: TracebackType | None) -> str:
    """The innermost line of the miniport in an exception's traceback."""
    where = ""
    while traceback is not None:
        if not _is_ours(traceback.tb_frame):
            where = _describe(traceback.tb_frame, traceback.tb_lineno)
        traceback = traceback.tb_next
    return where

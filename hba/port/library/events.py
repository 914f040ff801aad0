"""What a miniport tells people: the system's event log, event tracing, telemetry, the debugger (ER-02).

Logged entries are counted, kept in the trace and written to the server's log; nothing leaves the machine.

Sources: StorPortLogSystemEvent, STOR_LOG_EVENT_DETAILS, StorPortEtwEvent2, ...4, ...8, StorPortEtwLogByteStream,
StorPortEtwLogError, StorPortLogTelemetry, StorPortLogTelemetryEx, STORPORT_TELEMETRY_EVENT, StorPortMarkDeviceFailed,
StorPortMarkDeviceFailedEx, StorPortDebugPrint (storport.h); ScsiDebugPrint (srb.h).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hba.miniport.services import (
    STOR_STATUS_INVALID_BUFFER_SIZE,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUPPORTED_VERSION,
)
from hba.port.library.host import Caller

log = logging.getLogger("hba.miniport")

STOR_CURRENT_LOG_INTERFACE_REVISION = 0x00000100
EVENT_SIZE_LIMIT = 150  # bytes of dump data and strings together
STOR_EVENT_ADAPTER_ASSOCIATION = 0
STOR_EVENT_LUN_ASSOCIATION = 1
STOR_EVENT_TARGET_ASSOCIATION = 2

# STORPORT_ETW_LEVEL
STORPORT_ETW_LEVEL_LOG_ALWAYS = 0
STORPORT_ETW_LEVEL_CRITICAL = 1
STORPORT_ETW_LEVEL_ERROR = 2
STORPORT_ETW_LEVEL_WARNING = 3
STORPORT_ETW_LEVEL_INFORMATIONAL = 4
STORPORT_ETW_LEVEL_VERBOSE = 5
STORPORT_ETW_MAX_DESCRIPTION_LENGTH = 32  # characters
STORPORT_ETW_MAX_PARAM_NAME_LENGTH = 16
STORPORT_ETW_MAX_BYTE_STREAM_LENGTH = 32 << 10  # bytes; the page names the limit without its number: inferred
ETW_CHANNELS = 4  # STORPORT_ETW_EVENT_CHANNEL: diagnostic, operational, health, I/O performance

EVENT_BUFFER_MAX_LENGTH = 4096  # bytes of a telemetry event's buffer

STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE = 0x1
STORPORT_MARK_DEVICE_FAILED_FLAG_PREDICTED_FAILURE = 0x2

_DEBUG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG)
Name = str | None
Address = tuple[int, int, int] | None  # (path, target, lun); None: the adapter


@dataclass
class LogEventDetails:
    """STOR_LOG_EVENT_DETAILS. `size` is not there: there is one version of the structure."""

    interface_revision: int = STOR_CURRENT_LOG_INTERFACE_REVISION
    flags: int = 0
    event_association: int = STOR_EVENT_ADAPTER_ASSOCIATION
    path_id: int = 0
    target_id: int = 0
    lun_id: int = 0
    storport_specific_error_code: bool = False
    error_code: int = 0
    unique_id: int = 0
    dump_data: bytes = b""
    string_list: list[str] = field(default_factory=list)


@dataclass
class TelemetryEvent:
    """STORPORT_TELEMETRY_EVENT. `parameters`: up to eight names with values."""

    driver_version: int = 0
    event_id: int = 0
    event_name: str = ""
    event_version: int = 0
    flags: int = 0
    event_buffer: bytes | None = None
    event_buffer_length: int = 0
    parameters: dict[str, int] = field(default_factory=dict)


class Debugger:
    """ScsiDebugPrint and StorPortDebugPrint."""

    def debug_print(self, debug_print_level: int, debug_message: str, *arguments: Any) -> None:
        """StorPortDebugPrint, ScsiDebugPrint: a line for the debugger, which is the server's log here.

        `debug_print_level`: 0 error, 1 warning, 2 trace, 3 information; `debug_message` is a format for `%`.
        """
        level = _DEBUG_LEVELS[max(0, min(debug_print_level, 3))]
        log.log(level, debug_message.rstrip("\n") if not arguments else debug_message.rstrip("\n") % arguments)


class Events(Debugger):
    """`number_of(srb)`: the request an SRB of the miniport's belongs to, None for no request; `remove(address)`: have
    a device that failed removed."""

    def __init__(
        self,
        caller: Caller,
        request_of: Callable[[Any], Any],
        remove: Callable[[tuple[int, int, int]], None],
        active_on: Callable[[tuple[int, ...]], Iterable[Any]],
    ) -> None:
        self._caller = caller
        self._request_of = request_of
        self._remove = remove
        self._active_on = active_on  # requests of a unit (path, target, LUN), a target (path, target), the adapter ()

    # -- the system's event log --------------------------------------------------------------------------------

    def log_system_event(self, log_details: LogEventDetails | None) -> tuple[int, int]:
        """StorPortLogSystemEvent: (STOR_STATUS_*, MaximumSize), the latter for INVALID_BUFFER_SIZE, else 0.

        INVALID_IRQL above DISPATCH_LEVEL; INVALID_PARAMETER: no details, flags, or an association that does not exist;
        UNSUPPORTED_VERSION: a newer `interface_revision`, which is set to the one there is (the low byte does not
        count); INVALID_BUFFER_SIZE: dump data and strings have more than 150 bytes together.
        """
        if log_details is None or log_details.flags:
            return STOR_STATUS_INVALID_PARAMETER, 0
        if log_details.event_association not in range(STOR_EVENT_TARGET_ASSOCIATION + 1):
            return STOR_STATUS_INVALID_PARAMETER, 0
        if log_details.interface_revision & ~0xFF != STOR_CURRENT_LOG_INTERFACE_REVISION:
            log_details.interface_revision = STOR_CURRENT_LOG_INTERFACE_REVISION
            return STOR_STATUS_UNSUPPORTED_VERSION, 0
        strings = sum(2 * (len(text) + 1) for text in log_details.string_list)  # Unicode, with a NUL
        if len(log_details.dump_data) + strings > EVENT_SIZE_LIMIT:
            return STOR_STATUS_INVALID_BUFFER_SIZE, EVENT_SIZE_LIMIT
        where, named = "adapter", 0
        address = log_details.path_id & 0xFF, log_details.target_id & 0xFF, log_details.lun_id & 0xFF
        if log_details.event_association != STOR_EVENT_ADAPTER_ASSOCIATION:
            where = ":".join(map(str, address))
            named = 3 if log_details.event_association == STOR_EVENT_LUN_ASSOCIATION else 2
        for request in self._active_on(address[:named]):
            request.logged = True  # ER-02: the entry names no SRB, so it may be about any that is under way there
        text = (
            f"{where} code {log_details.error_code:#010x} id {log_details.unique_id:#x} "
            f"{log_details.dump_data.hex()} {log_details.string_list or ''}"
        )
        self._said("log_system_event", "system events logged", text.rstrip(), logging.INFO)
        return STOR_STATUS_SUCCESS, 0

    # -- event tracing -----------------------------------------------------------------------------------------

    def etw_event2(
        self,
        address: Address,
        event_id: int,
        event_description: Name,
        event_keywords: int,
        event_level: int,
        event_opcode: int,
        srb: Any,
        parameter1_name: Name = None,
        parameter1_value: int = 0,
        parameter2_name: Name = None,
        parameter2_value: int = 0,
    ) -> int:
        """StorPortEtwEvent2: an event with two named values. At most at DISPATCH_LEVEL. INVALID_PARAMETER: no
        description, or one of more than 32 characters, or a parameter's name of more than 16."""
        values = ((parameter1_name, parameter1_value), (parameter2_name, parameter2_value))
        return self._etw(event_id, event_description, event_level, srb, values)

    def etw_event4(
        self,
        address: Address,
        event_id: int,
        event_description: Name,
        event_keywords: int,
        event_level: int,
        event_opcode: int,
        srb: Any,
        *parameters: Any,
    ) -> int:
        """StorPortEtwEvent4: as EtwEvent2, with four: name, value, name, value ..."""
        return self._etw(event_id, event_description, event_level, srb, _pairs(parameters, 4))

    def etw_event8(
        self,
        address: Address,
        event_id: int,
        event_description: Name,
        event_keywords: int,
        event_level: int,
        event_opcode: int,
        srb: Any,
        *parameters: Any,
    ) -> int:
        """StorPortEtwEvent8: as EtwEvent2, with eight: name, value, name, value ..."""
        return self._etw(event_id, event_description, event_level, srb, _pairs(parameters, 8))

    def etw_log_byte_stream(
        self,
        address: Address,
        event_channel: int,
        event_id: int,
        event_description: Name,
        event_keywords: int,
        event_level: int,
        event_opcode: int,
        data_length: int,
        data: bytes | None,
    ) -> int:
        """StorPortEtwLogByteStream. INVALID_PARAMETER: a bad description or channel, no data, or a length that is not
        1 to 32 KiB of it."""
        good = data is not None and 1 <= data_length <= min(len(data), STORPORT_ETW_MAX_BYTE_STREAM_LENGTH)
        if not good or data is None or not 0 <= event_channel < ETW_CHANNELS:
            return STOR_STATUS_INVALID_PARAMETER
        values = (("data", data[:data_length].hex()),)
        return self._etw(event_id, event_description, event_level, None, values)

    def etw_log_error(
        self, address: Address, id: int, description: Name, data_buffer_length: int, data_buffer: bytes | None
    ) -> int:
        """StorPortEtwLogError: a hardware protocol error. INVALID_PARAMETER: no description, or no data."""
        if not description or data_buffer is None or not 0 < data_buffer_length <= len(data_buffer):
            return STOR_STATUS_INVALID_PARAMETER
        text = f"{id:#x} {description}: {data_buffer[:data_buffer_length].hex()}"
        self._said("etw_log_error", "ETW events", text, logging.INFO)
        return STOR_STATUS_SUCCESS

    def _etw(self, event_id: int, description: Name, level: int, srb: Any, values: Any) -> int:
        if not description or len(description) > STORPORT_ETW_MAX_DESCRIPTION_LENGTH or values is None:
            return STOR_STATUS_INVALID_PARAMETER
        if any(name is not None and len(name) > STORPORT_ETW_MAX_PARAM_NAME_LENGTH for name, _ in values):
            return STOR_STATUS_INVALID_PARAMETER
        if not STORPORT_ETW_LEVEL_LOG_ALWAYS <= level <= STORPORT_ETW_LEVEL_VERBOSE:
            return STOR_STATUS_INVALID_PARAMETER
        named = ", ".join(f"{name}={value}" for name, value in values if name is not None)
        self._caller.count("ETW events")
        self._caller.note(self._request_of(srb), "etw", f"{event_id:#x} {description} {named}".rstrip())
        return STOR_STATUS_SUCCESS

    # -- telemetry ---------------------------------------------------------------------------------------------

    def log_telemetry(self, stor_address: Address, event: TelemetryEvent | None) -> int:
        """StorPortLogTelemetry: at any IRQL. INVALID_PARAMETER: no event, or a buffer and a length of which one is
        missing; INVALID_BUFFER_SIZE: more than 4096 bytes."""
        return self.log_telemetry_ex(stor_address, event, 0)

    def log_telemetry_ex(self, stor_address: Address, event: TelemetryEvent | None, category: int) -> int:
        """StorPortLogTelemetryEx: the same with a STOR_TELEMETRY_CATEGORY."""
        if event is None or (event.event_buffer is None) != (event.event_buffer_length == 0):
            return STOR_STATUS_INVALID_PARAMETER
        if event.event_buffer_length > EVENT_BUFFER_MAX_LENGTH:
            return STOR_STATUS_INVALID_BUFFER_SIZE
        if event.event_buffer is not None and len(event.event_buffer) < event.event_buffer_length:
            return STOR_STATUS_INVALID_PARAMETER
        if len(event.parameters) > 8:
            return STOR_STATUS_INVALID_PARAMETER
        text = f"{event.event_id:#x} {event.event_name} {event.parameters or ''}".rstrip()
        self._said("telemetry", "telemetry events", text, logging.DEBUG)
        return STOR_STATUS_SUCCESS

    # -- devices that have failed ------------------------------------------------------------------------------

    def mark_device_failed(self, stor_address: Address, flags: int, fail_reason: str) -> None:
        """StorPortMarkDeviceFailed: logged; with STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE a unit is removed."""
        self._failed(stor_address, flags, fail_reason)

    def mark_device_failed_ex(
        self,
        stor_address: Address,
        flags: int,
        fault_code: int,
        fault_description: str,
        additional_data: bytes = b"",
        critical_data: bytes = b"",
    ) -> int:
        """StorPortMarkDeviceFailedEx: the same with a fault code and data. INVALID_PARAMETER: unknown flags."""
        known = STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE | STORPORT_MARK_DEVICE_FAILED_FLAG_PREDICTED_FAILURE
        if flags & ~known:
            return STOR_STATUS_INVALID_PARAMETER
        data = f" {additional_data.hex()} {critical_data.hex()}".rstrip()
        self._failed(stor_address, flags, f"{fault_code:#x} {fault_description}{data}")
        return STOR_STATUS_SUCCESS

    def _failed(self, address: Address, flags: int, reason: str) -> None:
        where = "adapter" if address is None else ":".join(map(str, address))
        predicted = bool(flags & STORPORT_MARK_DEVICE_FAILED_FLAG_PREDICTED_FAILURE)
        text = f"{where} {'is about to fail' if predicted else 'has failed'}: {reason}"
        self._said("device_failed", "devices marked failed", text, logging.ERROR)
        if flags & STORPORT_MARK_DEVICE_FAILED_FLAG_REMOVE_DEVICE and not predicted and address is not None:
            self._remove(address)

    def _said(self, what: str, counter: str, text: str, level: int) -> None:
        self._caller.count(counter)
        self._caller.note(None, what, text)
        log.log(level, "%s: %s", what, text)


def _pairs(parameters: tuple[Any, ...], most: int) -> tuple[tuple[Name, Any], ...] | None:
    """name, value, name, value ... as pairs; None: too many, or one without a value."""
    if len(parameters) % 2 or len(parameters) > 2 * most:
        return None
    return tuple(zip(parameters[::2], parameters[1::2], strict=True))

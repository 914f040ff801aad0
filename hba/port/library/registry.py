"""The registry, as far as a miniport reaches it: its service's Parameters\\Device keys and the adapter's own key.

What is in it: the miniport's options, `[adapter.miniport_options]` of the configuration. Whole numbers are REG_DWORD
(REG_QWORD above 32 bits), truth values REG_DWORD, text REG_SZ, lists of text REG_MULTI_SZ. They are found under
Parameters\\Device (all adapters), Parameters\\Device(d) (this one) and in the adapter's key; what the miniport writes
is kept for each of these as long as the server runs, and wins.

Sources: StorPortAllocateRegistryBuffer, StorPortFreeRegistryBuffer, StorPortRegistryRead, StorPortRegistryWrite,
StorPortRegistryReadAdapterKey, StorPortRegistryWriteAdapterKey, StorPortEnableRegistryKeyNotification (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import WORK_ITEM
from hba.port.library.host import Caller
from hba.port.library.later import Later

# Types (winnt.h)
REG_NONE = 0
REG_SZ = 1
REG_EXPAND_SZ = 2
REG_BINARY = 3
REG_DWORD = 4
REG_DWORD_BIG_ENDIAN = 5
REG_MULTI_SZ = 7
REG_QWORD = 11

BUFFER_LIMIT = 64 << 10  # bytes of the registry buffer
Value = tuple[int, bytes]  # (type, data as a miniport gets it: text in ASCII with its NUL)


def encoded(value: Any) -> Value | None:
    """An option as a registry value; None: it has no form there (tables)."""
    if isinstance(value, bool) or (isinstance(value, int) and 0 <= value < 1 << 32):
        return REG_DWORD, int(value).to_bytes(4, "little")
    if isinstance(value, int):
        return REG_QWORD, (value & (1 << 64) - 1).to_bytes(8, "little")
    if isinstance(value, str):
        return REG_SZ, value.encode("ascii", "replace") + b"\0"
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return REG_MULTI_SZ, b"".join(item.encode("ascii", "replace") + b"\0" for item in value) + b"\0"
    return None


class Registry:
    """`options`: what the configuration gives, asked for at each read because a port has its miniport's later."""

    def __init__(self, caller: Caller, later: Later, options: Callable[[], Mapping[str, Any]]) -> None:
        self._caller = caller
        self._later = later
        self._options = options
        self._written: dict[
            tuple[str, str], Value
        ] = {}  # by key and name, in lower case as names are not case-sensitive
        self._buffer: memoryview | None = None
        self._notify: Callable[[], object] | None = None

    def forget(self) -> None:
        """The buffer and who is notified; what was written stays."""
        self._buffer = self._notify = None

    # -- the buffer --------------------------------------------------------------------------------------------

    def allocate_registry_buffer(self, length: int) -> memoryview | None:
        """StorPortAllocateRegistryBuffer: a zeroed buffer of `length` bytes; its len() is what it has. One at a time:
        None when there is one already, and for more than 64 KiB."""
        if self._buffer is not None or not 0 < length <= BUFFER_LIMIT:
            return None
        self._buffer = memoryview(bytearray(length))
        return self._buffer

    def free_registry_buffer(self, buffer: memoryview | None) -> None:
        """StorPortFreeRegistryBuffer."""
        if buffer is None or buffer is not self._buffer:
            self._caller.offence(
                "LB-04", "StorPortFreeRegistryBuffer of what is not the registry buffer, or not any more"
            )
            return
        self._buffer = None

    # -- the service's keys ------------------------------------------------------------------------------------

    def registry_read(
        self, value_name: str, is_global: bool, value_type: int, buffer: memoryview | None, buffer_length: int
    ) -> tuple[bool, int]:
        """StorPortRegistryRead: (TRUE, bytes copied into `buffer`), which is the registry buffer. At PASSIVE_LEVEL.

        `is_global`: Parameters\\Device, else Parameters\\Device(d). (FALSE, size): the buffer is too small; (FALSE, 0):
        no such value, another type, or not the registry buffer."""
        value = self._read("device" if is_global else "device(d)", value_name)
        if buffer is None or buffer is not self._buffer or value is None or value[0] != value_type:
            return False, 0
        data = value[1]
        if len(data) > min(buffer_length, len(buffer)):
            return False, len(data)
        buffer[: len(data)] = data
        return True, len(data)

    def registry_write(
        self, value_name: str, is_global: bool, value_type: int, buffer: memoryview | None, buffer_length: int
    ) -> bool:
        """StorPortRegistryWrite: the first `buffer_length` bytes of the registry buffer become the value. At
        PASSIVE_LEVEL. FALSE: not the registry buffer, or more than it has."""
        if buffer is None or buffer is not self._buffer or not 0 <= buffer_length <= len(buffer) or not value_name:
            return False
        key = "device" if is_global else "device(d)"
        self._written[key, value_name.lower()] = (value_type, bytes(buffer[:buffer_length]))
        if is_global and self._notify is not None:
            self._later.soon(WORK_ITEM, self._notify)
        return True

    # -- the adapter's key -------------------------------------------------------------------------------------

    def registry_read_adapter_key(
        self, sub_key_name: str | None, value_name: str, value_type: int, value_data_length: int
    ) -> tuple[int, bytes]:
        """StorPortRegistryReadAdapterKey: (STOR_STATUS_*, data), of the adapter's hardware key or a subkey of it. At
        PASSIVE_LEVEL. UNSUCCESSFUL: no such value, or of another type; BUFFER_TOO_SMALL: more than
        `value_data_length` bytes."""
        if not value_name:
            return STOR_STATUS_INVALID_PARAMETER, b""
        value = self._read(f"adapter\\{(sub_key_name or '').lower()}", value_name)
        if value is None or value[0] != value_type:
            return STOR_STATUS_UNSUCCESSFUL, b""
        if len(value[1]) > value_data_length:
            return STOR_STATUS_BUFFER_TOO_SMALL, b""
        return STOR_STATUS_SUCCESS, value[1]

    def registry_write_adapter_key(
        self, sub_key_name: str | None, value_name: str, value_type: int, value_data: bytes | None
    ) -> int:
        """StorPortRegistryWriteAdapterKey. At PASSIVE_LEVEL. INVALID_PARAMETER: no name, or no data."""
        if not value_name or value_data is None:
            return STOR_STATUS_INVALID_PARAMETER
        self._written[f"adapter\\{(sub_key_name or '').lower()}", value_name.lower()] = (value_type, bytes(value_data))
        return STOR_STATUS_SUCCESS

    def enable_registry_key_notification(self, notification_callback: Callable[[], object] | None) -> int:
        """StorPortEnableRegistryKeyNotification: have `notification_callback()` called at PASSIVE_LEVEL when something
        changes below Parameters\\Device, which only the miniport's own RegistryWrite does here.
        INVALID_PARAMETER: None."""
        if notification_callback is None:
            return STOR_STATUS_INVALID_PARAMETER
        self._notify = notification_callback
        return STOR_STATUS_SUCCESS

    def _read(self, key: str, name: str) -> Value | None:
        """What was written under `key`, else the option of that name, which all keys but the adapter's subkeys have."""
        written = self._written.get((key, name.lower()))
        if written is not None or (key.startswith("adapter\\") and key != "adapter\\"):
            return written
        for option, value in self._options().items():
            if option.lower() == name.lower():
                return encoded(value)
        return None

"""What a miniport says of its units: state changes, notifications, attributes.

Sources: StorPortStateChangeDetected, HW_STATE_CHANGE, StorPortAsyncNotificationDetected, StorPortSetUnitAttributes,
STOR_UNIT_ATTRIBUTES, STOR_ADDRESS, STOR_ADDR_BTL8 (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import STATE_CHANGE
from hba.port.library.host import Host
from hba.port.library.later import Later

STOR_ADDRESS_TYPE_BTL8 = 0x1
STATE_CHANGE_LUN = 0x1
STATE_CHANGE_TARGET = 0x2
STATE_CHANGE_BUS = 0x4
_ENTITIES = STATE_CHANGE_LUN | STATE_CHANGE_TARGET | STATE_CHANGE_BUS

RAID_ASYNC_NOTIFY_FLAG_MEDIA_STATUS = 0x1
RAID_ASYNC_NOTIFY_FLAG_DEVICE_STATUS = 0x2
RAID_ASYNC_NOTIFY_FLAG_DEVICE_OPERATION = 0x4
RAID_ASYNC_NOTIFY_SUPPORTED_FLAGS = 0x7

Address = tuple[int, int, int]  # STOR_ADDR_BTL8: (path, target, lun)
StateChangeRoutine = Callable[[Any, int, Any, int], object]  # HW_STATE_CHANGE: (context, address type, address, status)


@dataclass
class UnitAttributes:
    """STOR_UNIT_ATTRIBUTES."""

    device_attention_supported: bool = False
    async_notification_supported: bool = False
    d3_cold_not_supported: bool = False
    bypass_io_supported: bool = False
    reserved: int = 0


def btl8(address: Any) -> Address | None:
    """(path, target, lun) of an address: such a tuple, or an object with these attributes, as `srb.address` is."""
    if not isinstance(address, tuple):
        address = tuple(getattr(address, name, None) for name in ("path", "target", "lun"))
    if len(address) != 3 or not all(isinstance(part, int) and 0 <= part <= 0xFF for part in address):
        return None
    return (address[0], address[1], address[2])


class Units:
    """`is_there(key)`: whether the port knows a unit; `rescan(path)`: enumerate a bus again."""

    def __init__(
        self, port: Host, later: Later, is_there: Callable[[Address], bool], rescan: Callable[[int], None]
    ) -> None:
        self._port = port
        self._later = later
        self._is_there = is_there
        self._rescan = rescan
        self._attributes: dict[Address, UnitAttributes] = {}
        self._changing = False
        self._notifying: set[Address] = set()

    def state_change_detected(
        self,
        changed_entity: int,
        address: Any,
        attributes: int = 0,
        hw_state_change: StateChangeRoutine | None = None,
        hw_state_change_context: Any = None,
    ) -> int:
        """StorPortStateChangeDetected: enumerate what has changed again, then call `hw_state_change(context, address
        type, address, status)` at DISPATCH_LEVEL with the StartIo lock held. At any IRQL.

        `changed_entity`: STATE_CHANGE_*, the greatest counts; `address`: (path, target, lun). INVALID_PARAMETER: not
        such; UNSUCCESSFUL: another one is in process.
        """
        where = btl8(address)
        if where is None or not changed_entity or changed_entity & ~_ENTITIES:
            return STOR_STATUS_INVALID_PARAMETER
        if self._changing:
            return STOR_STATUS_UNSUCCESSFUL
        self._changing = True
        self._port.count("state changes")
        self._port.note(None, "state_change", f"{':'.join(map(str, where))} entities {changed_entity:#x}")

        def process() -> None:
            self._changing = False
            self._rescan(where[0])
            if hw_state_change is not None:
                self._later.now(
                    STATE_CHANGE,
                    hw_state_change,
                    hw_state_change_context,
                    STOR_ADDRESS_TYPE_BTL8,
                    address,
                    STOR_STATUS_SUCCESS,
                )

        self._port.loop.call_soon(process)
        return STOR_STATUS_SUCCESS

    def async_notification_detected(self, address: Any, flags: int) -> int:
        """StorPortAsyncNotificationDetected: tell the class driver of a change, later. At any IRQL.

        `flags`: RAID_ASYNC_NOTIFY_FLAG_*, 0 for all. INVALID_PARAMETER: no such address or flags;
        INVALID_DEVICE_REQUEST: no such unit, or one without AsyncNotificationSupported; BUSY: one is in process.
        """
        where = btl8(address)
        if where is None or flags & ~RAID_ASYNC_NOTIFY_SUPPORTED_FLAGS:
            return STOR_STATUS_INVALID_PARAMETER
        attributes = self._attributes.get(where)
        if not self._is_there(where) or attributes is None or not attributes.async_notification_supported:
            return STOR_STATUS_INVALID_DEVICE_REQUEST
        if where in self._notifying:
            return STOR_STATUS_BUSY
        self._notifying.add(where)

        def process() -> None:
            self._notifying.discard(where)
            self._port.count("asynchronous notifications")
            told = flags or RAID_ASYNC_NOTIFY_SUPPORTED_FLAGS
            self._port.note(None, "async_notification", f"{':'.join(map(str, where))} flags {told:#x}")

        self._port.loop.call_soon(process)
        return STOR_STATUS_SUCCESS

    def set_unit_attributes(self, address: Any, attributes: UnitAttributes | None) -> int:
        """StorPortSetUnitAttributes: what a unit can do. At any IRQL, while its INQUIRY completes. INVALID_PARAMETER:
        no such address or unit, no attributes, or reserved bits."""
        where = btl8(address)
        if where is None or attributes is None or attributes.reserved or not self._is_there(where):
            return STOR_STATUS_INVALID_PARAMETER
        self._attributes[where] = attributes
        return STOR_STATUS_SUCCESS

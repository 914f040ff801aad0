"""Config space of the adapter: GetBusData and SetBusDataByOffset (LB-02).

Sources: StorPortGetBusData, StorPortSetBusDataByOffset (storport.h); ScsiPortGetBusData, ScsiPortSetBusDataByOffset
(srb.h); SCSI_ADAPTER_CONTROL_TYPE. Numbers of BUS_DATA_TYPE: wdm.h.
"""

from __future__ import annotations

from collections.abc import Callable

from hba.miniport.base import SCSI_SET_BOOT_CONFIG, SCSI_SET_RUNNING_CONFIG
from hba.pci.config_space import ConfigSpace
from hba.port.context import ADAPTER_CONTROL, CALLBACK_NAMES, FIND_ADAPTER
from hba.port.library.host import Caller

# BUS_DATA_TYPE
CMOS = 0
EISA_CONFIGURATION = 1
POS = 2
PCI_CONFIGURATION = 4

PCI_COMMON_CONFIG_SIZE = 256  # bytes of PCI_COMMON_CONFIG
PCI_INVALID_VENDOR_ID = 0xFFFF
THE_BUS = 0  # config.system_io_bus_number and config.slot_number
THE_SLOT = 0


class BusData:
    """One bus with one device. `control_type`: the SCSI_ADAPTER_CONTROL_TYPE hw_adapter_control is called for."""

    def __init__(self, caller: Caller, config_space: ConfigSpace, control_type: Callable[[], int]) -> None:
        self._caller = caller
        self._space = config_space
        self._control_type = control_type

    def _allowed(self, routine: str) -> bool:
        """LB-02: from hw_find_adapter, or hw_adapter_control for ScsiSetRunningConfig or ScsiSetBootConfig. Elsewhere
        the pages promise "system failure or incorrect operation": here it fails."""
        callback = self._caller.callback
        if callback == FIND_ADAPTER:
            return True
        if callback == ADAPTER_CONTROL and self._control_type() in (SCSI_SET_RUNNING_CONFIG, SCSI_SET_BOOT_CONFIG):
            return True
        self._caller.offence("LB-02", f"{routine} from {CALLBACK_NAMES[callback]}")
        return False

    def get_bus_data(
        self, bus_data_type: int, system_io_bus_number: int, slot_number: int, length: int = 0
    ) -> tuple[int, bytes]:
        """StorPortGetBusData, ScsiPortGetBusData: (number of bytes, PCI_COMMON_CONFIG from its start).

        `length` 0: all 256 bytes, in a buffer of the port. (0, b"") when there is no such bus, and 2 with
        PCI_INVALID_VENDOR_ID when the slot is empty, as the pages say. PCI_CONFIGURATION is the only type there is.
        """
        if not self._allowed("GetBusData") or bus_data_type != PCI_CONFIGURATION or system_io_bus_number != THE_BUS:
            return 0, b""
        if slot_number != THE_SLOT:
            return 2, PCI_INVALID_VENDOR_ID.to_bytes(2, "little")
        size = min(length, PCI_COMMON_CONFIG_SIZE) if length > 0 else PCI_COMMON_CONFIG_SIZE
        data = b"".join(self._space.read(offset, 1).to_bytes(1, "little") for offset in range(size))
        return size, data

    def set_bus_data_by_offset(
        self, bus_data_type: int, system_io_bus_number: int, slot_number: int, buffer: bytes, offset: int, length: int
    ) -> int:
        """StorPortSetBusDataByOffset, ScsiPortSetBusDataByOffset: write `length` bytes at `offset` of the config
        space; returns how many were written. Read-only registers keep what they have."""
        if not self._allowed("SetBusDataByOffset") or bus_data_type != PCI_CONFIGURATION:
            return 0
        if system_io_bus_number != THE_BUS or slot_number != THE_SLOT or offset < 0:
            return 0
        data = bytes(buffer[: max(0, min(length, PCI_COMMON_CONFIG_SIZE - offset))])
        if data:
            self._space.write(offset, len(data), int.from_bytes(data, "little"))
        return len(data)

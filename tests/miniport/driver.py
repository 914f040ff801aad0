"""A miniport as Windows' are: DriverEntry, a table of routines, no class. For both models."""

from __future__ import annotations

from typing import Any

from hba.miniport.base import SP_RETURN_FOUND
from hba.miniport.config import STOR_SYNCHRONIZE_FULL_DUPLEX, PortConfigurationInformation
from hba.miniport.driver_entry import PCI_BUS, DriverObject, HwInitializationData, initialize, sizeof
from hba.miniport.services import NEXT_REQUEST, REQUEST_COMPLETE
from hba.scsi.task import DATA_IN, DATA_OUT, Task
from hba.srb import SRB_FLAGS_DATA_IN, SRB_STATUS_BUS_RESET, SRB_STATUS_SUCCESS, Srb

STATUS = 8
INTERRUPT = 1


def driver_entry(driver_object: DriverObject, registry_path: str) -> int:
    data = HwInitializationData(hw_initialization_data_size=sizeof(driver_object.model))
    data.adapter_interface_type = PCI_BUS
    data.hw_find_adapter = find_adapter
    data.hw_initialize = initialize_adapter
    data.hw_start_io = start_io
    data.hw_interrupt = interrupt
    data.hw_reset_bus = reset_bus
    data.hw_adapter_control = adapter_control
    data.need_physical_addresses = True
    data.tagged_queuing = data.auto_request_sense = data.multiple_request_per_lu = True
    data.srb_extension_size = 64
    data.number_of_access_ranges = 2
    data.map_buffers = 2 if driver_object.model == "storport" else 0
    return initialize(driver_object, registry_path, data)


def find_adapter(
    adapter: Any,
    hw_context: Any,
    bus_information: Any,
    arguments: str,
    config: PortConfigurationInformation,
    again: Any,
) -> int:
    extension, port = adapter.extension, adapter.port
    extension.arguments = arguments
    extension.found = (config.srb_extension_size, config.map_buffers, config.adapter_interface_type, again)
    registers = config.access_ranges[0]
    extension.base = port.get_device_base(
        config.adapter_interface_type, config.system_io_bus_number, *registers, not registers.range_in_memory
    )
    config.master = config.scatter_gather = True
    config.maximum_transfer_length = 1 << 20
    config.number_of_physical_breaks = 255
    if port.model == "storport":
        config.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX
    return SP_RETURN_FOUND


def initialize_adapter(adapter: Any) -> bool:
    adapter.port.write_register_ulong(adapter.extension.base + 4, 1)
    return True


def start_io(adapter: Any, srb: Srb) -> bool:
    task = Task(srb.cdb)
    task.owner = srb
    if srb.data_transfer_length:
        to_guest = bool(srb.srb_flags & SRB_FLAGS_DATA_IN)
        task.direction = DATA_IN if to_guest else DATA_OUT
        address, length = adapter.port.get_physical_address(srb, srb.data_buffer)
        task.data = adapter.chip.map(srb, [(address, min(length, srb.data_transfer_length))], to_guest)
    if adapter.chip.start(srb.target_id, srb.lun, task):
        end(adapter, task)
    if adapter.port.model == "scsiport":
        adapter.port.notification(NEXT_REQUEST)
    return True


def end(adapter: Any, task: Task) -> None:
    task.owner.srb_status = SRB_STATUS_BUS_RESET if task.response else SRB_STATUS_SUCCESS
    adapter.port.notification(REQUEST_COMPLETE, task.owner)


def interrupt(adapter: Any) -> bool:
    port, base = adapter.port, adapter.extension.base
    if not port.read_register_ulong(base + STATUS) & INTERRUPT:
        return False
    port.write_register_ulong(base + STATUS, INTERRUPT)
    while adapter.chip.completed:
        end(adapter, adapter.chip.completed.popleft())
    return True


def reset_bus(adapter: Any, path_id: int) -> bool:
    adapter.chip.reset_bus()
    return interrupt(adapter)


def adapter_control(adapter: Any, control_type: int, parameters: Any) -> int:
    return 1

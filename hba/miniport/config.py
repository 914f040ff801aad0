"""PORT_CONFIGURATION_INFORMATION: what the miniport says of its adapter in hw_find_adapter.

Sources: PORT_CONFIGURATION_INFORMATION (srb.h) and (storport.h); HW_INITIALIZATION_DATA (Storport).
"""

from __future__ import annotations

from dataclasses import dataclass

# MapBuffers under Storport (storport.h)
STOR_MAP_NO_BUFFERS = 0
STOR_MAP_ALL_BUFFERS = 1
STOR_MAP_NON_READ_WRITE_BUFFERS = 2
STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE = 3

# SynchronizationModel
STOR_SYNCHRONIZE_HALF_DUPLEX = 0
STOR_SYNCHRONIZE_FULL_DUPLEX = 1

SP_UNINITIALIZED = 0xFFFFFFFF


@dataclass
class PortConfigurationInformation:
    """Preset by the port for its model, changed by the miniport in hw_find_adapter, frozen afterwards (MB-02)."""

    number_of_buses: int = 1
    maximum_number_of_targets: int = 64
    maximum_number_of_logical_units: int = 8
    initiator_bus_id: int = 7
    maximum_transfer_length: int = SP_UNINITIALIZED  # bytes
    number_of_physical_breaks: int = SP_UNINITIALIZED
    alignment_mask: int = 0
    map_buffers: int = 0  # SCSI Port: FALSE/TRUE; Storport: STOR_MAP_*
    need_physical_addresses: bool = False
    tagged_queuing: bool = False
    auto_request_sense: bool = False
    multiple_request_per_lu: bool = False
    scatter_gather: bool = False
    master: bool = False
    demand_mode: bool = False
    caches_data: bool = False
    dma32_bit_addresses: bool = False
    dma64_bit_addresses: int = 0
    buffer_access_scsi_port_controlled: bool = False
    srb_extension_size: int = 0
    specific_lu_extension_size: int = 0
    synchronization_model: int = STOR_SYNCHRONIZE_HALF_DUPLEX
    interrupt_synchronization_mode: int = 0
    bus_reset_hold_time: int = 4_000_000  # microseconds
    max_number_of_io: int = 1000
    max_ios_per_lun: int = 255
    initial_lun_queue_depth: int = 20
    bus_interrupt_level: int = 1  # 0: polled adapter, no interrupt (IN-07)
    feature_support: int = 0
    srb_type: int = 0  # 1: STORAGE_REQUEST_BLOCK

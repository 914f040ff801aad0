"""PORT_CONFIGURATION_INFORMATION: what the miniport says of its adapter in hw_find_adapter; and the perf options.

Sources: PORT_CONFIGURATION_INFORMATION (srb.h) and (storport.h); HW_INITIALIZATION_DATA (Storport);
PERF_CONFIGURATION_DATA (storport.h).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

# MapBuffers under Storport (storport.h)
STOR_MAP_NO_BUFFERS: Final = 0
STOR_MAP_ALL_BUFFERS: Final = 1
STOR_MAP_NON_READ_WRITE_BUFFERS: Final = 2
STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE: Final = 3

# SynchronizationModel
STOR_SYNCHRONIZE_HALF_DUPLEX: Final = 0
STOR_SYNCHRONIZE_FULL_DUPLEX: Final = 1

# InterruptSynchronizationMode
INTERRUPT_SUPPORT_NONE: Final = 0
INTERRUPT_SYNCHRONIZE_ALL: Final = 1
INTERRUPT_SYNCHRONIZE_PER_MESSAGE: Final = 2

# Dma64BitAddresses: one of these, or 0. The numbers of the first three and of the last are those of storport.h as of
# Windows 8. Microsoft's page names the fourth without one, and so does no header in public: it got the next. Nothing
# depends on it, a miniport uses the name.
SCSI_DMA64_MINIPORT_SUPPORTED: Final = 0x01
SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED: Final = 0x02
SCSI_DMA64_MINIPORT_FULL64BIT_NO_BOUNDARY_REQ_SUPPORTED: Final = 0x03
SCSI_DMA64_MINIPORT_64BIT_ONE_4GB_SUPPORTED: Final = 0x04
SCSI_DMA64_SYSTEM_SUPPORTED: Final = 0x80  # the port's: answer with one of the others

# FeatureSupport
STOR_ADAPTER_FEATURE_ABORT_COMMAND: Final = 0x10

# DumpMode: 0 while Windows runs
DUMP_MODE_CRASH: Final = 1
DUMP_MODE_HIBER: Final = 2
DUMP_MODE_MARK_MEMORY: Final = 3
DUMP_MODE_RESUME: Final = 4

# SrbType
SRB_TYPE_SCSI_REQUEST_BLOCK: Final = 0
SRB_TYPE_STORAGE_REQUEST_BLOCK: Final = 1

# STOR_PERF_* flags of PERF_CONFIGURATION_DATA
STOR_PERF_DPC_REDIRECTION: Final = 0x00000001
STOR_PERF_CONCURRENT_CHANNELS: Final = 0x00000002
STOR_PERF_INTERRUPT_MESSAGE_RANGES: Final = 0x00000004
STOR_PERF_ADV_CONFIG_LOCALITY: Final = 0x00000008
STOR_PERF_OPTIMIZE_FOR_COMPLETION_DURING_STARTIO: Final = 0x00000010
STOR_PERF_DPC_REDIRECTION_CURRENT_CPU: Final = 0x00000020
STOR_PERF_NO_SGL: Final = 0x00000040
STOR_PERF_VERSION: Final = 5

SP_UNINITIALIZED: Final = 0xFFFFFFFF


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
    wmi_data_provider: bool = False  # WMI requests go to the miniport
    dma32_bit_addresses: bool = False
    dma64_bit_addresses: int = 0
    buffer_access_scsi_port_controlled: bool = False
    srb_extension_size: int = 0
    specific_lu_extension_size: int = 0
    synchronization_model: int = STOR_SYNCHRONIZE_HALF_DUPLEX
    interrupt_synchronization_mode: int = INTERRUPT_SUPPORT_NONE
    bus_reset_hold_time: int = 4_000_000  # microseconds
    max_number_of_io: int = 1000
    max_ios_per_lun: int = 255
    initial_lun_queue_depth: int = 20
    bus_interrupt_level: int = 1  # 0: polled adapter, no interrupt (IN-07)
    feature_support: int = 0
    srb_type: int = SRB_TYPE_SCSI_REQUEST_BLOCK
    dump_mode: int = 0  # DUMP_MODE_*
    requested_dump_buffer_size: int = 0  # bytes of uncached extension wanted in dump mode; 0: the usual 32 KiB will do
    virtual_device: bool = False  # a Storport virtual miniport: no locks around its callbacks
    access_ranges: tuple[tuple[int, int], ...] = ()  # (range_start, range_length) of the adapter's BARs (CF-10)
    adapter_interface_type: int = 5  # INTERFACE_TYPE: PCIBus
    system_io_bus_number: int = 0
    slot_number: int = 0
    hw_dma_started: object = None  # Storport: stays None (MB-01)
    hw_adapter_state: object = None  # Storport: stays None (MB-01)
    # HwMSInterruptRoutine: routine(miniport, message_id). A class may have a method hw_msi_interrupt instead.
    hw_ms_interrupt_routine: Callable[..., object] | None = None


@dataclass
class PerfConfigurationData:
    """PERF_CONFIGURATION_DATA: what `initialize_perf_opts` queries and sets."""

    version: int = STOR_PERF_VERSION
    size: int = 0x40
    flags: int = 0
    concurrent_channels: int = 0
    first_redirection_message_number: int = 0
    last_redirection_message_number: int = 0
    device_node: int = 0  # with STOR_PERF_ADV_CONFIG_LOCALITY: the port's answer
    # With STOR_PERF_ADV_CONFIG_LOCALITY: room the miniport has made, an entry for each redirection message, which the
    # port fills. Index 0 is that of the first one, whatever its number is.
    message_targets: list[GroupAffinity | None] = field(default_factory=list)


class GroupAffinity(NamedTuple):
    """GROUP_AFFINITY: processors of a group, a bit for each."""

    mask: int
    group: int = 0


@dataclass
class StartIoPerformanceParameters:
    """STARTIO_PERFORMANCE_PARAMETERS: the miniport sets the size, the port the rest."""

    version: int = 1
    size: int = 0x10
    message_number: int = 0  # the best one to interrupt with; 0 without messages
    channel_number: int = 0  # in which hw_start_io was called; 0 without STOR_PERF_CONCURRENT_CHANNELS


class MessageInterruptInformation(NamedTuple):
    """MESSAGE_INTERRUPT_INFORMATION: what `get_msi_info` tells of a message."""

    message_id: int
    message_data: int
    message_address: int
    interrupt_vector: int
    interrupt_level: int
    interrupt_mode: int  # KINTERRUPT_MODE


LEVEL_SENSITIVE: Final = 0
LATCHED: Final = 1  # KINTERRUPT_MODE of every message

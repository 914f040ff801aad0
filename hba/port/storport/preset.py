"""PORT_CONFIGURATION_INFORMATION under Storport: what is preset, what must not change, what is checked.

MB-01, MB-02, MB-14 to MB-17, ST-09, QD-02, QD-03, CF-07. Sources: PORT_CONFIGURATION_INFORMATION (storport.h);
HW_INITIALIZATION_DATA (Storport); Full-Duplex Mode.
"""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Final

from hba.miniport.base import Miniport
from hba.miniport.board import board_of
from hba.miniport.config import (
    SCSI_DMA64_MINIPORT_64BIT_ONE_4GB_SUPPORTED,
    SCSI_DMA64_MINIPORT_FULL64BIT_NO_BOUNDARY_REQ_SUPPORTED,
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SCSI_DMA64_SYSTEM_SUPPORTED,
    SP_UNINITIALIZED,
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    STOR_SYNCHRONIZE_FULL_DUPLEX,
    STOR_SYNCHRONIZE_HALF_DUPLEX,
    PortConfigurationInformation,
)
from hba.port.reports import Reports
from hba.port.storport.config import MAP_BUFFERS, StorPortConfig

log = logging.getLogger("hba.port")

PRESET_TRUE = (
    "scatter_gather",
    "master",
    "need_physical_addresses",
    "tagged_queuing",
    "auto_request_sense",
    "multiple_request_per_lu",
    "dma32_bit_addresses",
    "wmi_data_provider",
)
PHYSICAL_BREAKS: Final = 0x11  # MB-14
INITIAL_DEPTH_VIRTUAL: Final = 250  # QD-02
MAX_IOS_PER_LUN: Final = 255  # QD-01: without extended SRBs
WIDE_ADDRESSING = (
    SCSI_DMA64_MINIPORT_FULL64BIT_SUPPORTED,
    SCSI_DMA64_MINIPORT_FULL64BIT_NO_BOUNDARY_REQ_SUPPORTED,
    SCSI_DMA64_MINIPORT_64BIT_ONE_4GB_SUPPORTED,
)


def preset(miniport: Miniport, info: PortConfigurationInformation) -> None:
    """What hw_find_adapter finds in the structure."""
    for name in PRESET_TRUE:
        setattr(info, name, True)  # MB-01
    info.maximum_number_of_targets = 255
    info.maximum_number_of_logical_units = 255  # OW-10: FF means all
    info.number_of_physical_breaks = PHYSICAL_BREAKS
    info.dma64_bit_addresses = SCSI_DMA64_SYSTEM_SUPPORTED
    info.access_ranges = board_of(miniport.chip).access_ranges
    # MB-17: zeroed when it is first allocated, kept over stop and restart.
    if not hasattr(miniport, "extension"):
        miniport.extension = SimpleNamespace()


def apply_options(options: StorPortConfig, info: PortConfigurationInformation) -> None:
    """The configuration's limits, which win over the miniport's."""
    mode = options.map_buffers
    if mode is not None:
        info.map_buffers = MAP_BUFFERS[mode] if isinstance(mode, str) else mode
    if options.synchronization_model is not None:
        full = options.synchronization_model == "full_duplex"
        info.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX if full else STOR_SYNCHRONIZE_HALF_DUPLEX
    if options.max_number_of_io is not None:
        info.max_number_of_io = options.max_number_of_io
    if options.max_ios_per_lun is not None:
        info.max_ios_per_lun = options.max_ios_per_lun
    if options.initial_lun_queue_depth is not None:
        info.initial_lun_queue_depth = options.initial_lun_queue_depth
    # QD-01, QD-02: never more than the adapter can have, nor than an 8-bit queue tag can tell apart.
    if info.srb_type != SRB_TYPE_STORAGE_REQUEST_BLOCK:
        info.max_ios_per_lun = min(info.max_ios_per_lun, MAX_IOS_PER_LUN)
    info.max_ios_per_lun = max(1, min(info.max_ios_per_lun, info.max_number_of_io))


def check_configuration(
    options: StorPortConfig, reports: Reports, info: PortConfigurationInformation, extension_size_was: int | None
) -> None:
    """What the miniport made of it. `extension_size_was`: when it called get_uncached_extension (MB-16)."""
    for name in PRESET_TRUE:
        if not getattr(info, name):
            reports.finding("MB-01", f"hw_find_adapter set {name} to FALSE; it is TRUE for every Storport miniport")
            setattr(info, name, True)
    if info.demand_mode:
        reports.finding("MB-01", "hw_find_adapter set demand_mode; a bus master has none")
        info.demand_mode = False
    for name in ("hw_dma_started", "hw_adapter_state"):
        if getattr(info, name) is not None:
            reports.finding("MB-01", f"{name} must be NULL for Storport")
    if info.map_buffers not in (0, 1, 2, 3):
        reports.finding("MB-02", f"MapBuffers {info.map_buffers} is none of 0 to 3; taken as 0")
        info.map_buffers = 0
    info.map_buffers = int(info.map_buffers)
    if info.virtual_device and info.initial_lun_queue_depth == 20:
        info.initial_lun_queue_depth = INITIAL_DEPTH_VIRTUAL
    if info.synchronization_model == STOR_SYNCHRONIZE_HALF_DUPLEX and options.synchronization_model is None:
        reports.finding("ST-09", "SynchronizationModel was left at StorSynchronizeHalfDuplex")
    if info.maximum_transfer_length == SP_UNINITIALIZED:
        reports.finding("MB-14", "hw_find_adapter did not set maximum_transfer_length")
    if info.number_of_physical_breaks in (0, SP_UNINITIALIZED):
        reports.finding("MB-14", "hw_find_adapter did not set number_of_physical_breaks")
        info.number_of_physical_breaks = PHYSICAL_BREAKS
    if info.alignment_mask & (info.alignment_mask + 1) or not 0 <= info.alignment_mask <= 0x1FF:
        reports.finding("CF-07", f"AlignmentMask {info.alignment_mask:#x} is not 2^n - 1 up to 0x1FF; taken as 0")
        info.alignment_mask = 0
    if info.dma64_bit_addresses == SCSI_DMA64_SYSTEM_SUPPORTED and not info.virtual_device:
        log.warning("hw_find_adapter did not say in dma64_bit_addresses whether the adapter has 64-bit addresses")
    if info.max_number_of_io > 1000 and info.dma64_bit_addresses not in WIDE_ADDRESSING:
        reports.finding("MB-15", f"MaxNumberOfIO {info.max_number_of_io} needs 64-bit addressing (Dma64BitAddresses)")
        info.max_number_of_io = 1000
    if info.max_ios_per_lun > MAX_IOS_PER_LUN and info.srb_type != SRB_TYPE_STORAGE_REQUEST_BLOCK:
        reports.finding("QD-02", f"MaxIOsPerLun {info.max_ios_per_lun} needs extended SRBs; taken as {MAX_IOS_PER_LUN}")
    elif info.max_ios_per_lun > info.max_number_of_io:
        reports.finding("QD-02", f"MaxIOsPerLun {info.max_ios_per_lun} is above MaxNumberOfIO {info.max_number_of_io}")
    if extension_size_was is not None and extension_size_was != info.srb_extension_size:
        reports.finding("MB-16", "srb_extension_size was changed after StorPortGetUncachedExtension")

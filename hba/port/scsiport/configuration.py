"""PORT_CONFIGURATION_INFORMATION under SCSI Port: what is preset, what is checked afterwards (CF-*)."""

from __future__ import annotations

from hba.errors import ConfigError
from hba.miniport.base import Miniport
from hba.miniport.board import board_of
from hba.miniport.chip import Chip
from hba.miniport.config import SCSI_DMA64_SYSTEM_SUPPORTED, SP_UNINITIALIZED, PortConfigurationInformation
from hba.miniport.extension import Extension
from hba.port.buffers import BufferPolicy
from hba.port.scsiport.slot import Slot

# CF-12: ScsiPortInitialize refuses a miniport without these.
REQUIRED = ("hw_find_adapter", "hw_initialize", "hw_start_io", "hw_interrupt", "hw_reset_bus")
_NOT_INHERITED = ("hw_start_io", "hw_reset_bus")  # what the base class has of these is no routine
ALIGNMENT_MASKS = (0, 1, 3, 7)


def preset(slot: Slot, miniport: Miniport, chip: Chip, info: PortConfigurationInformation) -> None:
    options = slot.options
    slot.info = info
    missing = [name for name in REQUIRED if not callable(getattr(miniport, name, None))]
    missing += [name for name in _NOT_INHERITED if getattr(type(miniport), name, None) is getattr(Miniport, name)]
    if missing:
        slot.reports.finding("CF-12", f"the miniport has no {', '.join(missing)}")
        raise ConfigError(
            f"the miniport {type(miniport).__name__} has no {', '.join(missing)}; SCSI Port needs {', '.join(REQUIRED)}"
        )
    miniport.extension = Extension()  # CF-11: zeroed before each hw_find_adapter
    slot.fixed_by_extension = None
    info.map_buffers = int(bool(options.map_buffers))
    if options.maximum_sg_list is not None:
        info.number_of_physical_breaks = options.maximum_sg_list
    info.dma64_bit_addresses = SCSI_DMA64_SYSTEM_SUPPORTED
    info.access_ranges = board_of(chip).access_ranges


def configured(slot: Slot, miniport: Miniport, info: PortConfigurationInformation) -> None:
    options = slot.options
    preset_breaks = options.maximum_sg_list
    if preset_breaks is not None and info.number_of_physical_breaks > preset_breaks:
        slot.reports.finding(
            "CF-06",
            f"NumberOfPhysicalBreaks raised from the preset {preset_breaks} to "
            f"{info.number_of_physical_breaks}; set back",
        )
        info.number_of_physical_breaks = preset_breaks
    if info.alignment_mask not in ALIGNMENT_MASKS:
        slot.reports.finding("CF-07", f"AlignmentMask {info.alignment_mask:#x} is none of 0, 1, 3, 7")
        if info.alignment_mask < 0 or info.alignment_mask & (info.alignment_mask + 1):
            raise ConfigError(
                f"the miniport {type(miniport).__name__} sets AlignmentMask {info.alignment_mask:#x}; "
                "expected 0, 1, 3 or 7"
            )
    if info.maximum_transfer_length <= 0:
        raise ConfigError(
            f"the miniport {type(miniport).__name__} sets MaximumTransferLength {info.maximum_transfer_length}; "
            f"expected bytes, or SP_UNINITIALIZED ({SP_UNINITIALIZED:#x}) for no limit"
        )
    _check_fixed(slot, info)

    # CF-13: either one allows several requests per unit, unless switched off.
    slot.overlap = (info.tagged_queuing and not options.disable_tagged_queuing) or (
        info.multiple_request_per_lu and not options.disable_multiple_requests
    )
    slot.adjust = options.disable_disconnects or options.disable_synchronous_transfers or options.small_sense_only
    if options.map_buffers is not None:
        info.map_buffers = int(options.map_buffers)
    slot.mapped = bool(info.map_buffers)
    rule = "CF-08" if info.buffer_access_scsi_port_controlled else ""
    why = "although BufferAccessScsiPortControlled promises not to" if rule else ""
    slot.mapped_policy = BufferPolicy(rule, why, False, slot.reports.offence_of)
    slot.fill_tags()


def _check_fixed(slot: Slot, info: PortConfigurationInformation) -> None:
    """CF-09."""
    set_by_miniport = info.dma64_bit_addresses & ~SCSI_DMA64_SYSTEM_SUPPORTED
    if info.dma32_bit_addresses and set_by_miniport:
        slot.reports.finding("CF-09", "Dma32BitAddresses is TRUE although Dma64BitAddresses is set")
    now = (info.auto_request_sense, info.dma64_bit_addresses, info.srb_extension_size)
    if slot.fixed_by_extension is not None and slot.fixed_by_extension != now:
        slot.reports.finding(
            "CF-09",
            "AutoRequestSense, Dma64BitAddresses or SrbExtensionSize changed after get_uncached_extension: "
            f"{slot.fixed_by_extension} became {now}",
        )

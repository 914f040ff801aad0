"""DriverEntry: a miniport as a table of routines, as on Windows, instead of a class.

    def driver_entry(driver_object, registry_path):
        data = HwInitializationData(hw_initialization_data_size=sizeof(driver_object.model))
        data.adapter_interface_type = PCI_BUS
        data.hw_find_adapter = find_adapter
        data.hw_initialize = initialize_adapter
        ...
        return initialize(driver_object, registry_path, data)

`miniport = "my_module:driver_entry"` in the configuration. The routines get the adapter as their first argument, where
Windows has the device extension: an object with `port`, `chip`, `options` and `extension` like a `Miniport`'s `self`
(it is one). The others are as documented; routines that are optional may be left None.

Sources: ScsiPortInitialize, HW_INITIALIZATION_DATA (srb.h); StorPortInitialize, HW_INITIALIZATION_DATA (storport.h);
PHW_FIND_ADAPTER, HW_FIND_ADAPTER. Sizes are those of the 64-bit structures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

from hba.miniport.base import SP_RETURN_NOT_FOUND, Miniport
from hba.miniport.config import (
    SRB_TYPE_SCSI_REQUEST_BLOCK,
    SRB_TYPE_STORAGE_REQUEST_BLOCK,
    PortConfigurationInformation,
)
from hba.srb import Srb

# NTSTATUS
STATUS_SUCCESS = 0x00000000
STATUS_INVALID_PARAMETER = 0xC000000D
STATUS_REVISION_MISMATCH = 0xC0000059

# INTERFACE_TYPE (wdm.h)
INTERNAL = 0
ISA = 1
EISA = 2
MICRO_CHANNEL = 3
TURBO_CHANNEL = 4
PCI_BUS = 5
LEGACY_BUSES = (ISA, EISA, MICRO_CHANNEL, TURBO_CHANNEL)  # Storport has none of them

# HwInitializationDataSize, which says the version: bytes of the structure up to its last member
SCSIPORT_SIZES = (120, 128)  # without and with HwAdapterControl
HW_INIT_DATA_SIZE_PHYSICAL = 136  # up to HwBuildIo
HW_INIT_DATA_SIZE_VIRTUAL = 176  # up to HwCleanupTracing
STORPORT_SIZES = (HW_INIT_DATA_SIZE_PHYSICAL, HW_INIT_DATA_SIZE_VIRTUAL, 208)  # all of it, up to HwUnitControl
SIZES = {"scsiport": SCSIPORT_SIZES, "storport": STORPORT_SIZES}

# FeatureSupport
STOR_FEATURE_VIRTUAL_MINIPORT = 0x00000001
STOR_FEATURE_ATA_PASS_THROUGH = 0x00000002
STOR_FEATURE_FULL_PNP_DEVICE_CAPABILITIES = 0x00000004
STOR_FEATURE_DUMP_POINTERS = 0x00000008
STOR_FEATURE_DEVICE_NAME_NO_SUFFIX = 0x00000010
STOR_FEATURE_DUMP_RESUME_CAPABLE = 0x00000020
STOR_FEATURE_DEVICE_DESCRIPTOR_FROM_ATA_INFO_VPD = 0x00000040
STOR_FEATURE_SET_ADAPTER_INTERFACE_TYPE = 0x00000800

# SrbTypeFlags, AddressTypeFlags
SRB_TYPE_FLAG_SCSI_REQUEST_BLOCK = 0x1
SRB_TYPE_FLAG_STORAGE_REQUEST_BLOCK = 0x2
ADDRESS_TYPE_FLAG_BTL8 = 0x1

# Routines that must be there, by model; HwInterrupt may be missing for a virtual Storport miniport, which has no
# interrupt, and for a SCSI miniport that polls.
REQUIRED = {
    "scsiport": ("hw_find_adapter", "hw_initialize", "hw_start_io", "hw_reset_bus"),
    "storport": ("hw_find_adapter", "hw_initialize", "hw_start_io", "hw_reset_bus", "hw_adapter_control"),
}
NULL_UNDER_STORPORT = ("hw_dma_started", "hw_adapter_state")  # no subordinate DMA, no legacy drivers
MUST_BE_TRUE_UNDER_STORPORT = (
    "need_physical_addresses",
    "tagged_queuing",
    "auto_request_sense",
    "multiple_request_per_lu",
)

Routine = Callable[..., Any]


def sizeof(model: str) -> int:
    """sizeof(HW_INITIALIZATION_DATA) in the header of a model: "scsiport" (srb.h) or "storport" (storport.h)."""
    return SIZES[model][-1]


@dataclass
class HwInitializationData:
    """HW_INITIALIZATION_DATA, zeroed."""

    hw_initialization_data_size: int = 0
    adapter_interface_type: int = INTERNAL
    hw_initialize: Routine | None = None
    hw_start_io: Routine | None = None
    hw_interrupt: Routine | None = None
    hw_find_adapter: Routine | None = None
    hw_reset_bus: Routine | None = None
    hw_dma_started: Routine | None = None
    hw_adapter_state: Routine | None = None
    device_extension_size: int = 0
    specific_lu_extension_size: int = 0
    srb_extension_size: int = 0
    number_of_access_ranges: int = 0
    map_buffers: int = 0
    need_physical_addresses: bool = False
    tagged_queuing: bool = False
    auto_request_sense: bool = False
    multiple_request_per_lu: bool = False
    receive_event: bool = False
    vendor_id: bytes = b""  # of legacy drivers; a Plug and Play driver leaves these out
    device_id: bytes = b""
    hw_adapter_control: Routine | None = None
    hw_build_io: Routine | None = None
    hw_free_adapter_resources: Routine | None = None
    hw_process_service_request: Routine | None = None
    hw_complete_service_irp: Routine | None = None
    hw_initialize_tracing: Routine | None = None
    hw_cleanup_tracing: Routine | None = None
    hw_tracing_enabled: Routine | None = None
    feature_support: int = 0
    srb_type_flags: int = 0
    address_type_flags: int = 0
    hw_unit_control: Routine | None = None


@dataclass
class DriverObject:
    """What the system calls DriverEntry with: `model` says which port driver the miniport is linked to."""

    model: str
    accepted: list[RoutineMiniport] = field(default_factory=list)  # by `initialize`, in order
    refused: str = ""  # why `initialize` refused the last time


_dumping: list[DriverObject] = []  # whose DriverEntry runs for a dump


def enter(entry: Callable[[Any, Any], int], driver_object: DriverObject, registry_path: str, dump: bool) -> int:
    """Call DriverEntry as the system does when it loads a driver; in dump mode with NULL for both arguments."""
    if not dump:
        return entry(driver_object, registry_path)
    _dumping.append(driver_object)
    try:
        return entry(None, None)
    finally:
        _dumping.pop()


def initialize(
    argument1: DriverObject | None,
    argument2: str | None,
    hw_initialization_data: HwInitializationData | None,
    hw_context: object = None,
) -> int:
    """ScsiPortInitialize, StorPortInitialize: save what DriverEntry says of its adapters. Returns an NTSTATUS.

    `argument1`, `argument2` are those of DriverEntry, in dump mode both None; `hw_context` goes to HwFindAdapter under
    SCSI Port alone.
    STATUS_INVALID_PARAMETER: something is NULL that must not be, or the other way round. STATUS_REVISION_MISMATCH: the
    size is that of no version of the structure, or (CF-12) a required routine is missing.
    """
    if argument1 is None and argument2 is None and _dumping:
        argument1, argument2 = _dumping[-1], ""
    if argument1 is None or argument2 is None or hw_initialization_data is None:
        if argument1 is not None:
            argument1.refused = "the registry path or HwInitializationData is NULL"
        return STATUS_INVALID_PARAMETER
    status, argument1.refused = _check(argument1.model, hw_initialization_data)
    if status == STATUS_SUCCESS:
        context = hw_context if argument1.model == "scsiport" else None
        argument1.accepted.append(RoutineMiniport(hw_initialization_data, context, argument1, argument2))
        if _virtual(hw_initialization_data) and hw_initialization_data.hw_initialize_tracing is not None:
            hw_initialization_data.hw_initialize_tracing(argument1, argument2)
    return status


def _virtual(data: HwInitializationData) -> bool:
    return bool(data.feature_support & STOR_FEATURE_VIRTUAL_MINIPORT)


def _check(model: str, data: HwInitializationData) -> tuple[int, str]:
    size = data.hw_initialization_data_size
    if size not in SIZES[model]:
        sizes = ", ".join(map(str, SIZES[model]))
        return STATUS_REVISION_MISMATCH, f"HwInitializationDataSize is {size}; there are {sizes}"
    virtual = _virtual(data)
    required = list(REQUIRED[model])
    if model == "storport":
        required.append("hw_free_adapter_resources" if virtual else "hw_interrupt")
    missing = [name for name in required if not callable(getattr(data, name))]
    if missing:
        return STATUS_REVISION_MISMATCH, f"{', '.join(missing)} must be there"
    if model == "scsiport":
        return STATUS_SUCCESS, ""
    there = [name for name in NULL_UNDER_STORPORT if getattr(data, name) is not None]
    if there:
        return STATUS_INVALID_PARAMETER, f"{', '.join(there)} must be NULL under Storport"
    if data.adapter_interface_type in LEGACY_BUSES:
        return STATUS_INVALID_PARAMETER, "AdapterInterfaceType is a legacy bus, which Storport does not support"
    untrue = [name for name in MUST_BE_TRUE_UNDER_STORPORT if not getattr(data, name)]
    if untrue and not virtual:
        return STATUS_INVALID_PARAMETER, f"{', '.join(untrue)} must be TRUE under Storport"
    return STATUS_SUCCESS, ""


class RoutineMiniport(Miniport):
    """The routines of a table, called as a port calls a miniport."""

    def __init__(
        self, data: HwInitializationData, hw_context: object, driver_object: DriverObject, registry_path: str
    ) -> None:
        self.data = data
        self.driver_object = driver_object
        self.hw_context = hw_context
        self.registry_path = registry_path

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        routine = self.data.hw_find_adapter
        if routine is None:
            return SP_RETURN_NOT_FOUND
        self._preset(config)
        again = [False]  # SCSI Port: another adapter may be looked for. There is one
        argument_string = _argument_string(self.options) + ("dump=1;" if config.dump_mode else "")
        arguments = (self.hw_context, None, argument_string, config, again)
        return int(routine(self, *arguments))

    def _preset(self, config: PortConfigurationInformation) -> None:
        """What PORT_CONFIGURATION_INFORMATION has of HW_INITIALIZATION_DATA."""
        data = self.data
        both = {one.name for one in fields(data)} & {one.name for one in fields(config)} - {"feature_support"}
        for name in both:
            setattr(config, name, getattr(data, name))
        if self.port.model == "storport":
            config.virtual_device = _virtual(data)
            extended = data.srb_type_flags & SRB_TYPE_FLAG_STORAGE_REQUEST_BLOCK
            config.srb_type = SRB_TYPE_STORAGE_REQUEST_BLOCK if extended else SRB_TYPE_SCSI_REQUEST_BLOCK

    def hw_initialize(self) -> bool:
        return bool(self._call("hw_initialize", default=False))

    def hw_build_io(self, srb: Srb) -> bool:
        return bool(self._call("hw_build_io", srb, default=True))

    def hw_start_io(self, srb: Srb) -> bool:
        return bool(self._call("hw_start_io", srb, default=False))

    def hw_interrupt(self) -> bool:
        return bool(self._call("hw_interrupt", default=False))

    def hw_reset_bus(self, path_id: int) -> bool:
        return bool(self._call("hw_reset_bus", path_id, default=False))

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        return int(self._call("hw_adapter_control", control_type, parameters, default=1))

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        return int(self._call("hw_unit_control", control_type, parameters, default=1))

    def hw_free_adapter_resources(self) -> None:
        self._call("hw_free_adapter_resources", default=None)
        if self.data.hw_cleanup_tracing is not None:
            self.data.hw_cleanup_tracing(self.driver_object)  # the driver is unloaded with its only adapter

    def hw_tracing_enabled(self, enabled: bool) -> None:
        self._call("hw_tracing_enabled", enabled, default=None)

    def _call(self, name: str, *arguments: Any, default: Any) -> Any:
        routine = getattr(self.data, name)
        return default if routine is None else routine(self, *arguments)


def _argument_string(options: dict[str, Any]) -> str:
    """ArgumentString: what the registry's DriverParameters would hold, "name=value;...;"."""
    return "".join(f"{name}={value};" for name, value in options.items())

"""Options of the Storport model: `[adapter.storport]` in the configuration.

Defaults are what Microsoft's documents say. Where two of them disagree there is a switch, and the comment says which
document each position follows. A limit given here wins over what the miniport asks for in hw_find_adapter, as the
registry values of "Registry Entries for StorPort Miniport Drivers" do; None leaves it to the miniport.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from hba.port.config import Count, PortConfig, Positive

MapBuffers = Literal[
    "STOR_MAP_NO_BUFFERS",
    "STOR_MAP_ALL_BUFFERS",
    "STOR_MAP_NON_READ_WRITE_BUFFERS",
    "STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE",
    0,
    1,
    2,
    3,
]
MAP_BUFFERS = {
    "STOR_MAP_NO_BUFFERS": 0,
    "STOR_MAP_ALL_BUFFERS": 1,
    "STOR_MAP_NON_READ_WRITE_BUFFERS": 2,
    "STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE": 3,
}
MAP_BUFFERS_NAMES = {number: name for name, number in MAP_BUFFERS.items()}
# READ and WRITE of 6, 10, 12 and 16 bytes. WRITE AND VERIFY (0x2E, 0xAE, 0x8E), READ(32) and WRITE(32) (0x7F) may be
# added (MB-08).
READ_WRITE_OPCODES = (0x08, 0x0A, 0x28, 0x2A, 0x88, 0x8A, 0xA8, 0xAA)
Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]
Opcode = Annotated[int, msgspec.Meta(ge=0, le=0xFF)]
Version = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Microseconds = Annotated[int, msgspec.Meta(ge=0, le=600_000_000)]


class StorPortConfig(PortConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """[adapter.storport]: what Windows keeps in the registry, and what its documents leave open."""

    # -- buffers ----------------------------------------------------------------------------------------------
    # HW_INITIALIZATION_DATA.MapBuffers, by name or number.
    map_buffers: MapBuffers | None = None
    # What DataBuffer is for a buffer that is not mapped (MB-07): an address that must not be touched ("Use of Mapping
    # Buffers in the Storport I/O Model"), or NULL (HW_BUILDIO).
    unmapped: Literal["opaque", "null"] = "opaque"
    # STOR_MAP_NO_BUFFERS maps the buffers of IO_CONTROL and WMI all the same (PORT_CONFIGURATION_INFORMATION). True:
    # none at all, as "Use of Mapping Buffers in the Storport I/O Model" says (MB-03).
    strict_seed: bool = False
    # Operation codes that count as a read or write for MapBuffers (MB-08).
    rw_opcodes: tuple[Opcode, ...] = READ_WRITE_OPCODES
    # What NumberOfPhysicalBreaks counts (MB-14): physical pages (PORT_CONFIGURATION_INFORMATION), elements of the list
    # (the rule set SrbProcessing), or breaks between them (MINIPORT_DUMP_POINTERS).
    physical_breaks: Literal["pages", "elements", "breaks"] = "pages"
    # Let every n-th mapping fail, as under memory pressure: DataBuffer is NULL (MB-06). 0: never.
    fail_mapping_every: Count = 0
    # Let every n-th StorPortGetSystemAddress fail with INSUFFICIENT_RESOURCES (MB-10). 0: never.
    fail_system_address_every: Count = 0

    # -- synchronisation ---------------------------------------------------------------------------------------
    # PORT_CONFIGURATION_INFORMATION.SynchronizationModel (ST-09).
    synchronization_model: Literal["half_duplex", "full_duplex"] | None = None
    # Channels the port grants to STOR_PERF_CONCURRENT_CHANNELS (ST-11), whatever the miniport asks for.
    concurrent_channels: Positive | None = None
    # Every n-th service call from BuildIo or StartIo, other processors get a turn: interrupts, BuildIos and StartIos
    # that Windows may run at that moment are run (ST-04, ST-10, ST-11). 0: one after the other.
    interleave: Count = 0
    # Message signalled interrupts granted to a miniport whose InterruptSynchronizationMode asks for them: the
    # registry's MessageNumberLimit ("Enabling Message-Signaled Interrupts in the Registry"). 0: MSISupported is 0, the
    # miniport gets its line.
    message_number_limit: Annotated[int, msgspec.Meta(ge=0, le=2048)] = 8
    # Processors of the emulated host, that requests come from in turn: what channels, messages and their targets are
    # chosen by (StorPortGetStartIoPerfParams, PERF_CONFIGURATION_DATA).
    processors: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    # Windows version PF-03 compares with; concurrent channels exist from 6.2 (Windows 8).
    windows_version: tuple[Version, Version] = (10, 0)

    # -- queue depth -------------------------------------------------------------------------------------------
    # InitialLunQueueDepth; documented default 20, 250 for a virtual miniport (QD-02).
    initial_lun_queue_depth: Positive | None = None
    # MaxIOsPerLun; documented default 255, more only with extended SRBs (QD-01, QD-02).
    max_ios_per_lun: Positive | None = None
    # MaxNumberOfIO; documented default 1000 (QD-03).
    max_number_of_io: Positive | None = None
    # Retries of a request the unit is busy for: the registry's BusyRetryCount (10 in the page until October 2021), or
    # without end as "Storport Queue Management" says (QD-08).
    busy_retry: Count | Literal["inf"] = 20
    busy_pause_time: Positive = 250  # milliseconds the unit's queue rests before a retry (QD-08)
    # What a SCSI status BUSY does: the port retries as for SRB_STATUS_BUSY, or it goes up.
    scsi_busy: Literal["retry", "pass"] = "retry"
    # Share of a unit's outstanding requests that must complete after QUEUE FULL (QD-09).
    queue_full_wait_io_percentage: Percent = 25
    link_down_timeout: Annotated[int, msgspec.Meta(ge=0, le=600)] = 30  # seconds (QD-10)
    # What follows then: I/O to the miniport is restarted, as the registry's page says, or requests end with LINK_DOWN.
    link_down_expired: Literal["restart", "fail"] = "restart"
    io_latency_cap: Count = 0  # milliseconds; any request older than this holds new ones. 0: off (QD-11)
    total_sense_data_bytes: Annotated[int, msgspec.Meta(ge=18, le=255)] = 255  # of sense data that go up (QD-11)
    # IoTimeoutValue: seconds for requests without a TimeOutValue (QD-11); None: `default_timeout`.
    io_timeout_value: Annotated[int, msgspec.Meta(ge=0, le=65_535)] | None = None

    # -- resets and timers -------------------------------------------------------------------------------------
    # Microseconds without requests after a bus reset; None: the miniport's BusResetHoldTime (RS-03).
    bus_reset_hold_time: Microseconds | None = None
    # Seconds after which a reset request to the miniport has failed and the next step of RS-01 is taken.
    reset_timeout: Positive = 10
    # A timed-out request is aborted first where the miniport has STOR_ADAPTER_FEATURE_ABORT_COMMAND (ST-14).
    abort_first: bool = True
    # An ABORT_COMMAND from above for a miniport without that feature: reset the unit, or say ABORT_FAILED (ST-14).
    abort_without_feature: Literal["reset", "fail"] = "reset"
    timer_resolution: Positive = 10  # milliseconds of RequestTimerCall (IN-05)

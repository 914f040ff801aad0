"""The port driver: its state, what blocks its queues, every request in them. One form for each model."""

from __future__ import annotations

from typing import Any

from hba.shapes import Bytes, Count, CountByName, HexText, Milliseconds, Result


class PortRequest(Result):
    """An SRB in the port. `where`: how far it is; `function`: of the SRB; `command`: the name of the CDB, or of another
    function than EXECUTE_SCSI; `age_ms`: since it was given to the miniport, null before."""

    number: Count
    where: str
    function: Count
    cdb: HexText
    length: Bytes
    tag: Count
    age_ms: Milliseconds | None
    retries: Count
    command: str


class PortConfiguration(Result):
    """PORT_CONFIGURATION_INFORMATION as it is in force, its fields in lower case."""

    number_of_buses: int
    maximum_number_of_targets: int
    maximum_number_of_logical_units: int
    initiator_bus_id: int
    maximum_transfer_length: Bytes
    number_of_physical_breaks: int
    alignment_mask: int
    map_buffers: int | bool
    need_physical_addresses: bool
    tagged_queuing: bool
    auto_request_sense: bool
    multiple_request_per_lu: bool
    scatter_gather: bool
    master: bool
    demand_mode: bool
    caches_data: bool
    wmi_data_provider: bool
    dma32_bit_addresses: bool
    dma64_bit_addresses: int
    buffer_access_scsi_port_controlled: bool
    srb_extension_size: Bytes
    specific_lu_extension_size: Bytes
    synchronization_model: int
    interrupt_synchronization_mode: int
    bus_reset_hold_time: int
    max_number_of_io: int
    max_ios_per_lun: int
    initial_lun_queue_depth: int
    bus_interrupt_level: int
    feature_support: int
    srb_type: int
    dump_mode: int
    requested_dump_buffer_size: Bytes
    virtual_device: bool
    access_ranges: list[tuple[int, int]]
    adapter_interface_type: int
    system_io_bus_number: int
    slot_number: int
    hw_dma_started: Any
    hw_adapter_state: Any
    hw_ms_interrupt_routine: str | None


class PortState(Result):
    """What both models have. `counters`: rare events by name; `stuck`: a sentence for each queue that stands still."""

    started: bool
    outstanding: Count
    counters: CountByName
    last_crash: str
    stuck: list[str]
    configuration: PortConfiguration


class PortUnit(Result):
    """What both models have of a unit. `started`, `completed`: requests since the start; `timeout_left`: seconds until
    the oldest times out, -1 without one."""

    address: str
    locked: bool
    outstanding: list[PortRequest]
    started: Count
    completed: Count
    timeout_left: int


class ScsiPortUnit(PortUnit):
    """A unit under SCSI Port. `blocked`: every reason why nothing is started; `frozen_ms`: for how long; `last_key`:
    the sort key of the last request, -1 before."""

    queued: list[PortRequest]
    blocked: list[str]
    frozen: bool
    frozen_by: str
    frozen_ms: Milliseconds | None
    retrying: str
    depth: Count
    last_key: int


class ScsiPortAdapter(Result):
    """The slot of SCSI Port. `queue`: numbers of the requests that wait for it."""

    state: str
    blocked: list[str]
    queue: list[Count]
    free_tags: Count
    timer_armed: bool
    map_buffers: bool
    overlap: bool


class ScsiPortState(PortState, tag_field="model", tag="scsiport"):
    """The port under SCSI Port."""

    adapter: ScsiPortAdapter
    units: list[ScsiPortUnit]


class StorPortUnit(PortUnit):
    """A unit under Storport. `queued`: how many wait; `queue`: the first of them; `blocked_by`: every reason."""

    queued: Count
    queue: list[PortRequest]
    depth: Count
    powered: bool
    blocked_by: list[str]


class StorPortAdapter(Result):
    """The adapter under Storport. `held_by`: what stops all units; `messages`: how often each message signalled
    interrupt was served, empty without such; `perf_flags`: the STOR_PERF_* in force; `map_buffers`: the STOR_MAP_*,
    null before the start."""

    state: str
    held_by: list[str]
    max_number_of_io: Count
    half_duplex: bool
    channels: Count
    messages: list[Count]
    perf_flags: list[str]
    map_buffers: str | None
    recoveries: Count


class StorPortState(PortState, tag_field="model", tag="storport"):
    """The port under Storport."""

    adapter: StorPortAdapter
    units: list[StorPortUnit]

"""The system an adapter is in: time, processors, firmware, and what the adapter has of it.

A machine of one processor group and one NUMA node, with as many processors as the option `processors` says.

Sources: StorPortQueryPerformanceCounter, StorPortQuerySystemTime, StorPortQueryTimerMinInterval,
StorPortDelayExecution, StorPortGetCurrentIrql, StorPortQueryDpcWatchdogInformation, StorPortGetActiveGroupCount,
StorPortGetGroupAffinity, StorPortGetActiveNodeCount, StorPortGetHighestNodeNumber, StorPortGetNodeAffinity,
StorPortGetNodeAffinity2, StorPortGetCurrentProcessorNumber, StorPortGetLogicalProcessorRelationship,
StorPortGetMessageInterruptIDFromProcessorIndex, StorPortMaskMsixInterrupt, StorPortSetFeatureList,
STORPORT_FEATURE_TYPE, StorPortSetAdapterBusType, StorPortHardwareReset, StorPortUpdateAdapterMaxIO,
StorPortQueryConfiguration, StorPortIsCurrentOsInstallationUpgrade, StorPortIsDeviceOperationAllowed,
StorPortInvokeAcpiMethod, StorPortGetSystemPortNumber (storport.h); ScsiPortQuerySystemTime (srb.h).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hba.clock import MS, US, Clock, S
from hba.miniport.config import GroupAffinity
from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_NOT_IMPLEMENTED,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import CALLBACK_NAMES, DISPATCH_LEVEL, FIND_ADAPTER, INITIALIZE, PASSIVE_INITIALIZE
from hba.port.library.host import Caller
from hba.port.library.units import btl8

EPOCH = 11_644_473_600 * 10_000_000  # 100 ns from 1601 to 1970
FREQUENCY = 10_000_000  # of the performance counter, per second
TICK = 15_625 * US  # of the system's clock, which DPC time-outs are counted in
DPC_TIME_LIMIT = 20 * S  # of a single DPC (bug check 0x133, parameter 1 = 0)
DPC_WATCHDOG_LIMIT = 120 * S  # of DPCs in a row (parameter 1 = 1)

STOR_FUNCTION_LEVEL_RESET = 0  # STOR_DEVICE_RESET_TYPE
STOR_PLATFORM_LEVEL_RESET = 1
STOR_BUS_SPECIFIC_RESET = 2
STORPORT_QUERY_CONFIGURATION_D3 = 0
STORPORT_FEATURE_MAX = 10  # features of STORPORT_FEATURE_TYPE
BUS_TYPE_MAX = 0x15  # STORAGE_BUS_TYPE, ntddstor.h: BusTypeMax
RELATION_PROCESSOR_CORE = 0  # LOGICAL_PROCESSOR_RELATIONSHIP
RELATION_NUMA_NODE = 1
RELATION_GROUP = 4
RELATION_ALL = 0xFFFF


class ProcessorNumber(NamedTuple):
    """PROCESSOR_NUMBER."""

    group: int
    number: int


@dataclass
class DpcWatchdogInformation:
    """STOR_DPC_WATCHDOG_INFORMATION, in ticks."""

    dpc_time_limit: int
    dpc_time_count: int
    dpc_watchdog_limit: int
    dpc_watchdog_count: int


class SystemTime:
    """Of both models. The clock's time, from the wall clock's at the start; in steps as the system's time has.
    `asked(routine)`: the miniport asked for it."""

    def __init__(self, clock: Clock, resolution: int, asked: Callable[[str], None]) -> None:
        self._clock = clock
        self._asked = asked
        self._resolution = resolution  # milliseconds
        self._start = time.time_ns() - clock.now()

    def query_system_time(self) -> int:
        """StorPortQuerySystemTime, ScsiPortQuerySystemTime: 100 ns since January 1, 1601 (GMT). At any IRQL, but
        not to be relied on in dump mode (DM-03)."""
        self._asked("QuerySystemTime")
        step = self._resolution * MS
        return (self._start + self._clock.now()) // step * step // 100 + EPOCH


class Time(SystemTime):
    """Storport's. `stall(microseconds)`: charge the running callback; `charged()`: ns it was charged so far."""

    def __init__(
        self,
        caller: Caller,
        clock: Clock,
        resolution: int,
        asked: Callable[[str], None],
        stall: Callable[[int], None],
        charged: Callable[[], int],
    ) -> None:
        super().__init__(clock, resolution, asked)
        self._caller = caller
        self._stall = stall
        self._charged = charged

    def query_performance_counter(self) -> tuple[int, int, int]:
        """StorPortQueryPerformanceCounter: (STOR_STATUS_SUCCESS, counter, counts per second). At any IRQL."""
        return STOR_STATUS_SUCCESS, self._clock.now() * FREQUENCY // S, FREQUENCY

    def query_timer_min_interval(self) -> tuple[int, int]:
        """StorPortQueryTimerMinInterval: (STOR_STATUS_SUCCESS, 100 ns between ticks)."""
        return STOR_STATUS_SUCCESS, self._resolution * MS // 100

    def delay_execution(self, delay_in_microseconds: int) -> int:
        """StorPortDelayExecution: STOR_STATUS_SUCCESS. From DISPATCH_LEVEL on a busy-wait, charged to the callback like
        `stall_execution` (IN-03); below it the thread waits, which holds no processor. No time passes either way."""
        if self._caller.irql >= DISPATCH_LEVEL:
            self._stall(delay_in_microseconds)
        return STOR_STATUS_SUCCESS

    def get_current_irql(self) -> tuple[int, int]:
        """StorPortGetCurrentIrql: (STOR_STATUS_SUCCESS, IRQL)."""
        return STOR_STATUS_SUCCESS, self._caller.irql

    def query_dpc_watchdog_information(self) -> tuple[int, DpcWatchdogInformation | None]:
        """StorPortQueryDpcWatchdogInformation: (STOR_STATUS_*, limits and what is left of them). UNSUCCESSFUL below
        DISPATCH_LEVEL. What was used is what the callback was charged."""
        if self._caller.irql < DISPATCH_LEVEL:
            return STOR_STATUS_UNSUCCESSFUL, None
        single, row = DPC_TIME_LIMIT // TICK, DPC_WATCHDOG_LIMIT // TICK
        used = self._charged() // TICK
        return STOR_STATUS_SUCCESS, DpcWatchdogInformation(single, max(0, single - used), row, max(0, row - used))


class Processors:
    """`count`: how many there are; `current()`: the one of the calling thread; `messages()`: message signalled
    interrupts that were granted; `mask(message, on)`."""

    def __init__(
        self, count: int, current: Callable[[], int], messages: Callable[[], int], mask: Callable[[int, bool], None]
    ) -> None:
        self._count = count
        self._current = current
        self._all = GroupAffinity((1 << count) - 1)
        self._messages = messages
        self._mask = mask

    def get_active_group_count(self) -> tuple[int, int]:
        """StorPortGetActiveGroupCount: (STOR_STATUS_SUCCESS, 1). At most at DISPATCH_LEVEL, as all of these."""
        return STOR_STATUS_SUCCESS, 1

    def get_group_affinity(self, group_number: int) -> tuple[int, int]:
        """StorPortGetGroupAffinity: (STOR_STATUS_*, mask of its processors). UNSUCCESSFUL: no such group."""
        return (STOR_STATUS_SUCCESS, self._all.mask) if not group_number else (STOR_STATUS_UNSUCCESSFUL, 0)

    def get_active_node_count(self) -> tuple[int, int]:
        """StorPortGetActiveNodeCount: (STOR_STATUS_SUCCESS, 1)."""
        return STOR_STATUS_SUCCESS, 1

    def get_highest_node_number(self) -> tuple[int, int]:
        """StorPortGetHighestNodeNumber: (STOR_STATUS_SUCCESS, 0)."""
        return STOR_STATUS_SUCCESS, 0

    def get_node_affinity(self, node_number: int) -> tuple[int, GroupAffinity | None]:
        """StorPortGetNodeAffinity: (STOR_STATUS_*, affinity). INVALID_PARAMETER: above 65535; a node that is not there
        has no processors."""
        if not 0 <= node_number <= 0xFFFF:
            return STOR_STATUS_INVALID_PARAMETER, None
        return STOR_STATUS_SUCCESS, self._all if not node_number else GroupAffinity(0)

    def get_node_affinity2(self, node_number: int, group_affinities_count: int) -> tuple[int, list[GroupAffinity], int]:
        """StorPortGetNodeAffinity2: (STOR_STATUS_*, affinities, how many are required). INVALID_PARAMETER: no such
        node; BUFFER_TOO_SMALL: room for fewer than it has."""
        if node_number:
            return STOR_STATUS_INVALID_PARAMETER, [], 0
        if group_affinities_count < 1:
            return STOR_STATUS_BUFFER_TOO_SMALL, [], 1
        return STOR_STATUS_SUCCESS, [self._all], 1

    def get_current_processor_number(self) -> tuple[int, ProcessorNumber]:
        """StorPortGetCurrentProcessorNumber: (STOR_STATUS_SUCCESS, processor): the first the calling thread may run
        on."""
        return STOR_STATUS_SUCCESS, ProcessorNumber(0, self._current())

    def get_logical_processor_relationship(
        self, processor_number: ProcessorNumber | None, relationship_type: int
    ) -> tuple[int, list[tuple[int, GroupAffinity]]]:
        """StorPortGetLogicalProcessorRelationship: (STOR_STATUS_*, [(relationship, affinity)]): each processor is a
        core, all are in one node and group. INVALID_PARAMETER: no such processor or relationship."""
        mask = self._all.mask
        if processor_number is not None:
            if processor_number.group or not 0 <= processor_number.number < self._count:
                return STOR_STATUS_INVALID_PARAMETER, []
            mask = 1 << processor_number.number
        cores = [
            (RELATION_PROCESSOR_CORE, GroupAffinity(1 << number)) for number in range(self._count) if mask >> number & 1
        ]
        by_type = {
            RELATION_PROCESSOR_CORE: cores,
            RELATION_NUMA_NODE: [(RELATION_NUMA_NODE, self._all)],
            RELATION_GROUP: [(RELATION_GROUP, self._all)],
        }
        if relationship_type == RELATION_ALL:
            return STOR_STATUS_SUCCESS, [item for items in by_type.values() for item in items]
        found = by_type.get(relationship_type)
        return (STOR_STATUS_SUCCESS, found) if found is not None else (STOR_STATUS_INVALID_PARAMETER, [])

    def get_message_interrupt_id_from_processor_index(self, processor_index: int) -> tuple[int, int]:
        """StorPortGetMessageInterruptIDFromProcessorIndex: (STOR_STATUS_*, message of a processor), the processors in
        turn. INVALID_PARAMETER: no such processor; UNSUCCESSFUL: no messages were granted."""
        if not 0 <= processor_index < self._count:
            return STOR_STATUS_INVALID_PARAMETER, 0
        messages = self._messages()
        return (STOR_STATUS_SUCCESS, processor_index % messages) if messages else (STOR_STATUS_UNSUCCESSFUL, 0)

    def mask_msix_interrupt(self, message_id: int, mask: bool) -> int:
        """StorPortMaskMsixInterrupt: a masked message waits until it is unmasked. INVALID_PARAMETER: no such
        message."""
        if not 0 <= message_id < self._messages():
            return STOR_STATUS_INVALID_PARAMETER
        self._mask(message_id, bool(mask))
        return STOR_STATUS_SUCCESS


class Platform:
    """`reset()`: a function level reset of the adapter; `set_max_io(count)`: a new MaxNumberOfIO; `is_there`: whether
    the port knows a unit."""

    def __init__(
        self,
        caller: Caller,
        reset: Callable[[], None],
        set_max_io: Callable[[int], None],
        is_there: Callable[[tuple[int, int, int]], bool],
    ) -> None:
        self._caller = caller
        self._reset = reset
        self._set_max_io = set_max_io
        self._is_there = is_there

    def _in_find_adapter(self, routine: str) -> bool:
        """LB-02."""
        if self._caller.callback == FIND_ADAPTER:
            return True
        self._caller.offence("LB-02", f"{routine} from {CALLBACK_NAMES[self._caller.callback]}")
        return False

    def set_feature_list(self, feature_list: Sequence[int]) -> int:
        """StorPortSetFeatureList: STORPORT_FEATURE_TYPE values the miniport supports. From hw_find_adapter (LB-02),
        else UNSUCCESSFUL. INVALID_PARAMETER: none, or one that does not exist."""
        if not self._in_find_adapter("StorPortSetFeatureList"):
            return STOR_STATUS_UNSUCCESSFUL
        if not feature_list or not all(0 <= feature < STORPORT_FEATURE_MAX for feature in feature_list):
            return STOR_STATUS_INVALID_PARAMETER
        return STOR_STATUS_SUCCESS

    def set_adapter_bus_type(self, bus_type: int) -> int:
        """StorPortSetAdapterBusType: a STORAGE_BUS_TYPE instead of the one in the INF. UNSUCCESSFUL outside of
        hw_find_adapter (LB-02); INVALID_PARAMETER: no such type."""
        if not self._in_find_adapter("StorPortSetAdapterBusType"):
            return STOR_STATUS_UNSUCCESSFUL
        if not 0 < bus_type < BUS_TYPE_MAX:
            return STOR_STATUS_INVALID_PARAMETER
        return STOR_STATUS_SUCCESS

    def hardware_reset(self, reset_type: int) -> int:
        """StorPortHardwareReset: STOR_FUNCTION_LEVEL_RESET resets the chip: its registers have their first values, and
        every command comes back with RESPONSE_RESET. Another type: NOT_IMPLEMENTED, as the page says."""
        if reset_type != STOR_FUNCTION_LEVEL_RESET:
            return STOR_STATUS_NOT_IMPLEMENTED
        self._caller.count("hardware resets")
        self._reset()
        return STOR_STATUS_SUCCESS

    def update_adapter_max_io(self, max_io_count: int) -> int:
        """StorPortUpdateAdapterMaxIO: MaxNumberOfIO anew. Only in hw_initialize or the passive initialisation (QD-12),
        else INVALID_DEVICE_REQUEST; INVALID_PARAMETER: 0."""
        if self._caller.callback not in (INITIALIZE, PASSIVE_INITIALIZE):
            self._caller.offence("QD-12", f"StorPortUpdateAdapterMaxIO from {CALLBACK_NAMES[self._caller.callback]}")
            return STOR_STATUS_INVALID_DEVICE_REQUEST
        if max_io_count <= 0:
            return STOR_STATUS_INVALID_PARAMETER
        self._set_max_io(max_io_count)
        return STOR_STATUS_SUCCESS

    def query_configuration(self, configuration_type: int) -> tuple[int, bool]:
        """StorPortQueryConfiguration: (STOR_STATUS_*, enabled). STORPORT_QUERY_CONFIGURATION_D3: no, the platform has
        no D3 for storage. INVALID_PARAMETER: another type."""
        known = configuration_type == STORPORT_QUERY_CONFIGURATION_D3
        return (STOR_STATUS_SUCCESS if known else STOR_STATUS_INVALID_PARAMETER), False

    def is_current_os_installation_upgrade(self) -> tuple[int, bool]:
        """StorPortIsCurrentOsInstallationUpgrade: (STOR_STATUS_SUCCESS, FALSE). INVALID_IRQL above PASSIVE_LEVEL."""
        return STOR_STATUS_SUCCESS, False

    def is_device_operation_allowed(self, address: Any, device_operation: object) -> tuple[int, bool]:
        """StorPortIsDeviceOperationAllowed: (NOT_IMPLEMENTED, FALSE): no management class is available here.
        INVALID_IRQL above PASSIVE_LEVEL; INVALID_PARAMETER: no such unit."""
        where = btl8(address)
        there = where is not None and self._is_there(where)
        return (STOR_STATUS_NOT_IMPLEMENTED if there else STOR_STATUS_INVALID_PARAMETER), False

    def invoke_acpi_method(
        self, address: Any, method_name: int, input_buffer: bytes | None = None
    ) -> tuple[int, bytes]:
        """StorPortInvokeAcpiMethod: (NOT_IMPLEMENTED, b""): the firmware has no method for storage. INVALID_IRQL above
        PASSIVE_LEVEL; INVALID_PARAMETER: no such unit (`address` None: the adapter)."""
        where = None if address is None else btl8(address)
        there = address is None or (where is not None and self._is_there(where))
        return (STOR_STATUS_NOT_IMPLEMENTED if there else STOR_STATUS_INVALID_PARAMETER), b""

    def get_system_port_number(self, address: Any) -> tuple[int, int]:
        """StorPortGetSystemPortNumber: (STOR_STATUS_*, port number), which is 0: a server has one adapter a process.
        INVALID_PARAMETER: no BTL8 address."""
        return (STOR_STATUS_SUCCESS if btl8(address) is not None else STOR_STATUS_INVALID_PARAMETER), 0

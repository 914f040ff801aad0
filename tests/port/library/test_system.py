"""Time, processors, and what an adapter has of the system."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, US, VirtualClock
from hba.miniport.config import INTERRUPT_SYNCHRONIZE_PER_MESSAGE, GroupAffinity
from hba.miniport.services import (
    QUERY_TICK_COUNT,
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_NOT_IMPLEMENTED,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import DIRQL, PASSIVE_LEVEL
from hba.port.library import system
from hba.port.library.system import ProcessorNumber
from hba.scsi.task import RESPONSE_RESET, Task
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig, Scripted


def found(make_rig: MakeRig, action: Callable[[Any], object]) -> tuple[Rig, Any]:
    """A rig, and what `action(port)` returned in its hw_find_adapter."""
    rig = make_rig(start=False)
    got: list[Any] = []
    rig.scripted.find = lambda config: got.append(action(rig.scripted.port))
    rig.port.start()
    return rig, got[0]


def test_system_time_has_steps_and_the_counter_has_none(rig: Rig) -> None:
    port = rig.scripted.port
    first = port.query_system_time()
    now = time.time_ns() // 100 + system.EPOCH
    assert abs(first - now) < 60 * 10_000_000
    _, before, frequency = port.query_performance_counter()
    rig.advance(25 * US)
    assert port.query_performance_counter()[1] - before == 250 and frequency == 10_000_000
    rig.advance(100 * MS)
    assert 900_000 <= port.query_system_time() - first <= 1_100_000
    assert port.query_timer_min_interval() == (STOR_STATUS_SUCCESS, 100_000)  # 10 ms


def test_the_irql_is_that_of_the_callback(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.get_current_irql() == (STOR_STATUS_SUCCESS, PASSIVE_LEVEL)
    assert above_dispatch(rig, port.get_current_irql) == (STOR_STATUS_SUCCESS, DIRQL)


def test_IN_03_a_delay_holds_the_processor_from_dispatch_level_on(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.delay_execution(5_000_000) == STOR_STATUS_SUCCESS
    assert rig.found == set()
    above_dispatch(rig, lambda: port.delay_execution(5_000_000))
    assert "IN-03" in rig.found


def test_what_is_left_of_the_dpc_watchdog(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.query_dpc_watchdog_information() == (STOR_STATUS_UNSUCCESSFUL, None)
    got: list[Any] = []

    def build(_: Any) -> None:
        got.append(port.query_dpc_watchdog_information()[1])
        port.stall_execution(31_250)
        got.append(port.query_dpc_watchdog_information()[1])

    in_build_io(rig, build)
    assert got[0].dpc_time_limit == got[0].dpc_time_count == 1280  # 20 s in ticks of 15.625 ms
    assert got[0].dpc_time_count - got[1].dpc_time_count == 2


def test_one_node_in_one_group(make_rig: MakeRig) -> None:
    port = make_rig(processors=4).scripted.port
    everything = GroupAffinity(0b1111)
    assert port.get_active_group_count() == port.get_active_node_count() == (STOR_STATUS_SUCCESS, 1)
    assert port.get_group_affinity(0) == (STOR_STATUS_SUCCESS, 0b1111)
    assert port.get_group_affinity(1) == (STOR_STATUS_UNSUCCESSFUL, 0)
    assert port.get_highest_node_number() == (STOR_STATUS_SUCCESS, 0)
    assert port.get_node_affinity(0) == (STOR_STATUS_SUCCESS, everything)
    assert port.get_node_affinity(1)[1] == GroupAffinity(0)
    assert port.get_node_affinity(1 << 16) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_node_affinity2(0, 1) == (STOR_STATUS_SUCCESS, [everything], 1)
    assert port.get_node_affinity2(0, 0) == (STOR_STATUS_BUFFER_TOO_SMALL, [], 1)
    assert port.get_node_affinity2(1, 1) == (STOR_STATUS_INVALID_PARAMETER, [], 0)
    assert port.get_current_processor_number() == (STOR_STATUS_SUCCESS, ProcessorNumber(0, 0))


def test_relationships_of_processors(make_rig: MakeRig) -> None:
    port = make_rig(processors=4).scripted.port
    ask = port.get_logical_processor_relationship
    status, cores = ask(None, system.RELATION_PROCESSOR_CORE)
    assert status == STOR_STATUS_SUCCESS and [affinity.mask for _, affinity in cores] == [1, 2, 4, 8]
    assert ask(ProcessorNumber(0, 2), system.RELATION_PROCESSOR_CORE)[1] == [(0, GroupAffinity(4))]
    assert len(ask(None, system.RELATION_ALL)[1]) == 6
    assert ask(ProcessorNumber(0, 4), system.RELATION_ALL) == (STOR_STATUS_INVALID_PARAMETER, [])
    assert ask(None, 77) == (STOR_STATUS_INVALID_PARAMETER, [])


def test_no_messages_were_granted(rig: Rig) -> None:
    port = rig.scripted.port
    ask = port.get_message_interrupt_id_from_processor_index
    assert ask(0) == (STOR_STATUS_UNSUCCESSFUL, 0)
    assert ask(99) == (STOR_STATUS_INVALID_PARAMETER, 0)
    assert port.mask_msix_interrupt(0, True) == STOR_STATUS_INVALID_PARAMETER


def test_features_and_the_bus_type_are_set_while_the_adapter_is_found(make_rig: MakeRig) -> None:
    def action(port: Any) -> list[int]:
        return [
            port.set_feature_list([0, 1]),
            port.set_feature_list([]),
            port.set_feature_list([99]),
            port.set_adapter_bus_type(10),
            port.set_adapter_bus_type(0),
        ]

    rig, got = found(make_rig, action)
    good, bad = STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER
    assert got == [good, bad, bad, good, bad] and "LB-02" not in rig.found
    port = rig.scripted.port
    assert port.set_feature_list([0]) == port.set_adapter_bus_type(10) == STOR_STATUS_UNSUCCESSFUL
    assert rig.messages("LB-02") == [
        "StorPortSetFeatureList from no callback",
        "StorPortSetAdapterBusType from no callback",
    ]


def test_a_function_level_reset(rig: Rig) -> None:
    port = rig.scripted.port
    rig.bus.hold = True
    port.write_register_ulong(port.get_device_base(5, 0, 0xF0000000, 0x1000, False) + 0x18, 77)
    assert port.hardware_reset(system.STOR_PLATFORM_LEVEL_RESET) == STOR_STATUS_NOT_IMPLEMENTED
    assert port.hardware_reset(system.STOR_FUNCTION_LEVEL_RESET) == STOR_STATUS_SUCCESS
    assert rig.port.counters["hardware resets"] == 1


def test_QD_12_most_requests_of_an_adapter(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    got: list[int] = []

    def initialize() -> bool:
        got.extend(rig.scripted.port.update_adapter_max_io(count) for count in (2, 0))
        return True

    rig.scripted.initialize = initialize
    rig.port.start()
    port = rig.scripted.port
    assert got == [STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER]
    for _ in range(4):
        rig.submit()
    assert len(rig.scripted.started) == 2
    assert port.update_adapter_max_io(8) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert rig.messages("QD-12") == ["StorPortUpdateAdapterMaxIO from no callback"]


def test_what_the_platform_does_not_have(rig: Rig) -> None:
    port = rig.scripted.port
    rig.inquire()
    here, there = (0, 0, 0), (0, 5, 0)
    assert port.query_configuration(0) == (STOR_STATUS_SUCCESS, False)
    assert port.query_configuration(1) == (STOR_STATUS_INVALID_PARAMETER, False)
    assert port.is_current_os_installation_upgrade() == (STOR_STATUS_SUCCESS, False)
    assert port.is_device_operation_allowed(here, None) == (STOR_STATUS_NOT_IMPLEMENTED, False)
    assert port.is_device_operation_allowed(there, None) == (STOR_STATUS_INVALID_PARAMETER, False)
    assert port.invoke_acpi_method(None, 0) == (STOR_STATUS_NOT_IMPLEMENTED, b"")
    assert port.invoke_acpi_method(there, 0) == (STOR_STATUS_INVALID_PARAMETER, b"")
    assert port.get_system_port_number(here) == (STOR_STATUS_SUCCESS, 0)
    assert port.get_system_port_number("?") == (STOR_STATUS_INVALID_PARAMETER, 0)


@pytest.mark.parametrize("level", ["report", None])
def test_LB_01_some_are_passive_only(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level)
    port = rig.scripted.port
    got: list[Any] = []
    in_build_io(rig, lambda _: got.append(port.is_current_os_installation_upgrade()))
    in_build_io(rig, lambda _: got.append(port.invoke_acpi_method(None, 0)))
    assert [answer[0] for answer in got] == [STOR_STATUS_INVALID_IRQL] * 2
    if level:
        assert len(rig.messages("LB-01")) == 2


def test_ticks_are_those_of_the_interval_timer(make_rig: MakeRig) -> None:
    rig = make_rig(timer_resolution=10)
    before = rig.scripted.port.notification(QUERY_TICK_COUNT)
    rig.advance(1000 * MS)
    assert rig.scripted.port.notification(QUERY_TICK_COUNT) - before == 100


def test_the_system_time_is_that_of_the_wall_at_the_start(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the port's own clock counts, in steps of the timer's resolution, from 1601 on."""
    wall = 1_700_000_000 * 10**9 + 123_456_789
    monkeypatch.setattr(time, "time_ns", lambda: wall)
    rig = make_rig(start=False, timer_resolution=10)
    rig.port.start()
    monkeypatch.undo()
    ask = rig.scripted.port.query_system_time
    first = wall // (10 * MS) * 10 * MS // 100 + 11_644_473_600 * 10_000_000
    assert ask() == first
    rig.advance(6 * MS)
    assert ask() == first  # 129.46 ms: the same step
    rig.advance(1 * MS)
    assert ask() == first + 100_000
    now = rig.clock.now()
    assert rig.scripted.port.query_performance_counter() == (STOR_STATUS_SUCCESS, now // 100, 10_000_000)


def test_the_wall_is_looked_at_once_however_long_the_clock_has_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000 * MS)
    clock = VirtualClock(7_000 * MS)
    asked: list[str] = []
    system_time = system.SystemTime(clock, 1, asked.append)
    monkeypatch.undo()
    assert system_time.query_system_time() == 1_000_000 * 10_000 + system.EPOCH
    clock.advance(3 * MS)
    assert system_time.query_system_time() == 1_000_003 * 10_000 + system.EPOCH
    assert asked == ["QuerySystemTime"] * 2


@pytest.mark.parametrize(("resolution", "interval"), [(1, 10_000), (10, 100_000), (15, 150_000)])
def test_the_interval_of_the_timer(make_rig: MakeRig, resolution: int, interval: int) -> None:
    port = make_rig(timer_resolution=resolution).scripted.port
    assert port.query_timer_min_interval() == (STOR_STATUS_SUCCESS, interval)


def test_the_dpc_watchdog_of_one_callback(rig: Rig) -> None:
    """What a callback was charged, by stalls and by delays; nothing is left in the end, and no less than that."""
    port = rig.scripted.port
    got: list[Any] = []

    def ask() -> None:
        status, found = port.query_dpc_watchdog_information()
        assert status == STOR_STATUS_SUCCESS and found is not None
        got.append((found.dpc_time_limit, found.dpc_time_count, found.dpc_watchdog_limit, found.dpc_watchdog_count))

    def build(_: Any) -> None:
        ask()
        for seconds in (0.0625, 20 - 0.0625 - 0.015625, 0.015625, 0.015625, 100 - 0.03125, 0.015625, 5):
            port.delay_execution(round(seconds * 1_000_000))
            ask()

    in_build_io(rig, build)
    assert got == [
        (1280, 1280, 7680, 7680),
        (1280, 1276, 7680, 7676),
        (1280, 1, 7680, 6401),
        (1280, 0, 7680, 6400),
        (1280, 0, 7680, 6399),
        (1280, 0, 7680, 1),
        (1280, 0, 7680, 0),
        (1280, 0, 7680, 0),
    ]
    assert port.query_dpc_watchdog_information() == (STOR_STATUS_UNSUCCESSFUL, None)


def test_IN_03_a_delay_at_passive_level_is_charged_to_nobody(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    rig.scripted.find = lambda config: rig.scripted.port.delay_execution(60_000_000)
    rig.port.start()
    assert rig.found == set()


def test_relationships_one_by_one(make_rig: MakeRig) -> None:
    port = make_rig(processors=3).scripted.port
    ask = port.get_logical_processor_relationship
    everything = GroupAffinity(0b111)
    cores = [(0, GroupAffinity(1 << number)) for number in range(3)]
    node, group = [(1, everything)], [(4, everything)]
    good, bad = STOR_STATUS_SUCCESS, (STOR_STATUS_INVALID_PARAMETER, [])
    assert ask(None, system.RELATION_PROCESSOR_CORE) == (good, cores)
    assert ask(None, system.RELATION_NUMA_NODE) == (good, node)
    assert ask(None, system.RELATION_GROUP) == (good, group)
    assert ask(None, system.RELATION_ALL) == (good, cores + node + group)
    for number in range(3):
        assert ask(ProcessorNumber(0, number), system.RELATION_ALL) == (good, [cores[number], *node, *group])
    for wrong in (ProcessorNumber(0, -1), ProcessorNumber(0, 3), ProcessorNumber(1, 0)):
        assert ask(wrong, system.RELATION_PROCESSOR_CORE) == bad
    assert ask(None, 2) == bad


def test_nodes_at_their_edges(make_rig: MakeRig) -> None:
    port = make_rig(processors=2).scripted.port
    everything = GroupAffinity(0b11)
    bad = (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_node_affinity(-1) == port.get_node_affinity(0x10000) == bad
    assert port.get_node_affinity(0xFFFF) == port.get_node_affinity(1) == (STOR_STATUS_SUCCESS, GroupAffinity(0))
    assert port.get_node_affinity2(0, 2) == (STOR_STATUS_SUCCESS, [everything], 1)
    ask = port.get_message_interrupt_id_from_processor_index
    assert ask(-1) == ask(2) == (STOR_STATUS_INVALID_PARAMETER, 0)
    assert ask(1) == (STOR_STATUS_UNSUCCESSFUL, 0)


def test_messages_of_processors_and_their_masks(make_rig: MakeRig) -> None:
    """The processors in turn; a masked message waits, and no other one does."""
    told: list[int] = []

    class WithMessages(Scripted):
        def hw_msi_interrupt(self, message_id: int) -> bool:
            told.append(message_id)
            return True

    miniport = WithMessages(interrupt_synchronization_mode=INTERRUPT_SYNCHRONIZE_PER_MESSAGE)
    rig = make_rig(miniport=miniport, processors=4, message_number_limit=2)
    port = rig.scripted.port
    ask = port.get_message_interrupt_id_from_processor_index
    assert [ask(index) for index in range(4)] == [(STOR_STATUS_SUCCESS, index % 2) for index in range(4)]
    for message in (-1, 2):
        assert port.mask_msix_interrupt(message, True) == STOR_STATUS_INVALID_PARAMETER
    for message in (0, 1):
        told.clear()
        assert port.mask_msix_interrupt(message, True) == STOR_STATUS_SUCCESS
        rig.chip.raise_interrupt(message)
        rig.chip.raise_interrupt(1 - message)
        assert told == [1 - message]
        assert port.mask_msix_interrupt(message, False) == STOR_STATUS_SUCCESS
        assert told == [1 - message, message]


def test_features_and_bus_types_there_are(make_rig: MakeRig) -> None:
    def action(port: Any) -> list[int]:
        features = [port.set_feature_list([0, number]) for number in (-1, 0, 9, 10)]
        return features + [port.set_adapter_bus_type(number) for number in (-1, 0, 1, 0x14, 0x15)]

    _, got = found(make_rig, action)
    good, bad = STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER
    assert got == [bad, good, good, bad, bad, bad, good, good, bad]


def test_a_function_level_reset_ends_commands_and_sets_registers_back(rig: Rig) -> None:
    port = rig.scripted.port
    base = port.get_device_base(5, 0, 0xF000_0000, 0x1000, False)
    port.write_register_ulong(base + 0x18, 77)
    rig.bus.hold = True
    task = Task(bytes(6))
    rig.chip.start(0, 0, task)
    for other in (system.STOR_PLATFORM_LEVEL_RESET, system.STOR_BUS_SPECIFIC_RESET, 3):
        assert port.hardware_reset(other) == STOR_STATUS_NOT_IMPLEMENTED
    assert port.read_register_ulong(base + 0x18) == 77 and rig.bus.tasks == [task]
    assert port.hardware_reset(system.STOR_FUNCTION_LEVEL_RESET) == STOR_STATUS_SUCCESS
    assert port.read_register_ulong(base + 0x18) == 0
    assert rig.bus.tasks == [] and task.response == RESPONSE_RESET
    assert rig.port.counters["hardware resets"] == 1


def test_QD_12_the_least_and_where(make_rig: MakeRig) -> None:
    """One request is the least; hw_initialize and the passive initialisation are the places."""
    rig = make_rig(start=False)
    got: list[int] = []

    def initialize() -> bool:
        got.extend(rig.scripted.port.update_adapter_max_io(count) for count in (-1, 0, 3))
        return rig.scripted.port.enable_passive_initialization(passive)

    def passive() -> bool:
        got.append(rig.scripted.port.update_adapter_max_io(1))
        return True

    rig.scripted.initialize = initialize
    rig.port.start()
    assert got == [STOR_STATUS_INVALID_PARAMETER] * 2 + [STOR_STATUS_SUCCESS] * 2
    rig.submit()
    rig.submit()
    assert len(rig.scripted.started) == 1 and rig.port.info.max_number_of_io == 1
    assert above_dispatch(rig, lambda: rig.scripted.port.update_adapter_max_io(8)) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert rig.messages("QD-12") == ["StorPortUpdateAdapterMaxIO from hw_interrupt"]


def test_units_the_platform_is_asked_about(rig: Rig) -> None:
    rig.inquire()
    port = rig.scripted.port
    here, there = (0, 0, 0), (0, 0, 1)
    missing, bad = STOR_STATUS_NOT_IMPLEMENTED, STOR_STATUS_INVALID_PARAMETER
    assert port.is_device_operation_allowed("?", None) == port.is_device_operation_allowed(there, None) == (bad, False)
    assert port.invoke_acpi_method(here, 0) == (missing, b"")
    assert port.invoke_acpi_method("?", 0) == port.invoke_acpi_method(there, 0) == (bad, b"")
    assert port.get_system_port_number(there) == (STOR_STATUS_SUCCESS, 0)

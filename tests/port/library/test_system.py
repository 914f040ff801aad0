"""Time, processors, and what an adapter has of the system."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from hba.clock import MS, US
from hba.miniport.config import GroupAffinity
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
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


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

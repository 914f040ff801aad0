"""Run-time power management."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from hba.miniport.base import (
    SCSI_ADAPTER_PO_FX_POWER_ACTIVE,
    SCSI_QUERY_SUPPORTED_CONTROL_TYPES,
    SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES,
    SCSI_UNIT_PO_FX_POWER_ACTIVE,
    SCSI_UNIT_PO_FX_POWER_INFO,
)
from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import DISPATCH_LEVEL, PASSIVE_LEVEL
from hba.port.library.power import ComponentIdleState, PoFxComponent, PoFxDevice
from tests.port.library.conftest import MakeRig, above_dispatch
from tests.port.storport.rig import Rig

HERE = (0, 0, 0)


def passively(make_rig: MakeRig, action: Callable[[Any], object]) -> tuple[Rig, list[Any]]:
    """A rig whose passive initialisation did `action(port)`; what that returned."""
    rig = make_rig(start=False)
    told: list[Any] = []

    def passive() -> bool:
        told.append(action(rig.scripted.port))
        return True

    rig.scripted.initialize = lambda: rig.scripted.port.enable_passive_initialization(passive)
    rig.port.start()
    return rig, told


def test_an_adapter_becomes_active_and_idle_again(make_rig: MakeRig) -> None:
    rig, told = passively(make_rig, lambda port: port.initialize_po_fx_power(None, PoFxDevice()))
    port = rig.scripted.port
    assert told == [(STOR_STATUS_SUCCESS, False)]
    assert port.po_fx_activate_component(None, None, 0) == STOR_STATUS_BUSY  # idle still
    rig.turn()
    assert port.po_fx_activate_component(None, None, 0) == STOR_STATUS_SUCCESS
    assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_BUSY
    assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_SUCCESS
    rig.turn()
    assert rig.found == set()
    assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert rig.messages("LB-04") == ["StorPortPoFxIdleComponent without a StorPortPoFxActivateComponent before"]
    for call in (port.po_fx_set_component_latency, port.po_fx_set_component_residency):
        assert call(None, 0, 1000) == STOR_STATUS_SUCCESS
        assert call(None, 1, 1000) == STOR_STATUS_INVALID_PARAMETER
    assert port.po_fx_set_idle_timeout(None, 500) == STOR_STATUS_SUCCESS
    assert port.po_fx_set_idle_timeout(HERE, 500) == STOR_STATUS_INVALID_PARAMETER
    assert port.po_fx_set_perf_state(None, 0, 0, 0, 0) == STOR_STATUS_UNSUCCESSFUL
    assert port.po_fx_power_control(None, UUID(int=1)) == (STOR_STATUS_UNSUCCESSFUL, b"")


def test_a_unit_is_registered_from_unit_control(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    got: list[Any] = []

    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES:
            parameters[SCSI_UNIT_PO_FX_POWER_INFO] = parameters[SCSI_UNIT_PO_FX_POWER_ACTIVE] = True
        elif control_type == SCSI_UNIT_PO_FX_POWER_INFO:
            assert parameters == (*HERE, 1) and rig.port.irql == PASSIVE_LEVEL
            got.append(rig.scripted.port.initialize_po_fx_power(HERE, PoFxDevice()))
        else:
            got.append((*parameters, rig.port.irql))
        return 0

    rig.scripted.unit_control = control
    rig.port.start()
    rig.inquire()
    port = rig.scripted.port
    assert got == [(STOR_STATUS_SUCCESS, False)]
    assert port.po_fx_activate_component(HERE, None, 0) == STOR_STATUS_BUSY
    rig.turn()
    assert got[1:] == [(*HERE, 0, 1, DISPATCH_LEVEL)]


@pytest.mark.parametrize(
    "device",
    [
        None,
        PoFxDevice(version=4),
        PoFxDevice(components=[]),
        PoFxDevice(components=[PoFxComponent([])]),
        PoFxDevice(components=[PoFxComponent([ComponentIdleState(1)])]),  # F0 is at once
        PoFxDevice(components=[PoFxComponent([ComponentIdleState()] * 9)]),
        PoFxDevice(components=[PoFxComponent(deepest_wakeable_f_state=1)]),
    ],
)
def test_a_device_that_is_not_one(make_rig: MakeRig, device: PoFxDevice | None) -> None:
    _, told = passively(make_rig, lambda port: port.initialize_po_fx_power(None, device))
    assert told == [(STOR_STATUS_INVALID_PARAMETER, False)]


def test_LB_02_from_elsewhere(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.initialize_po_fx_power(None, PoFxDevice()) == (STOR_STATUS_UNSUCCESSFUL, False)
    port.set_power_setting_notification_guids([UUID(int=1)])
    assert rig.messages("LB-02") == [
        "StorPortInitializePoFxPower of an adapter from no callback",
        "StorPortSetPowerSettingNotificationGuids from no callback",
    ]


def test_twice_is_once_too_often(make_rig: MakeRig) -> None:
    _, told = passively(make_rig, lambda port: [port.initialize_po_fx_power(None, PoFxDevice()) for _ in range(2)])
    assert told == [[(STOR_STATUS_SUCCESS, False), (STOR_STATUS_UNSUCCESSFUL, False)]]


def test_a_device_that_was_not_registered(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.po_fx_activate_component(None, None, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert port.po_fx_activate_component(HERE, None, 0) == STOR_STATUS_INVALID_PARAMETER
    assert port.po_fx_set_idle_timeout(None, 1) == STOR_STATUS_UNSUCCESSFUL
    activate = lambda: port.po_fx_activate_component(None, None, 0)  # noqa: E731
    assert above_dispatch(rig, activate) == STOR_STATUS_INVALID_IRQL


def test_power_settings_are_named_while_the_adapter_is_found(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    rig.scripted.find = lambda config: rig.scripted.port.set_power_setting_notification_guids([UUID(int=7)])
    rig.port.start()
    assert "LB-02" not in rig.found


def test_an_adapter_is_told_when_it_is_active_and_when_it_is_idle(make_rig: MakeRig) -> None:
    """ScsiAdapterPoFxPowerActive: with the component, and whether it is active; at DISPATCH_LEVEL, and only then."""
    told: list[Any] = []

    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_CONTROL_TYPES:
            parameters[SCSI_ADAPTER_PO_FX_POWER_ACTIVE] = True
        else:
            told.append((control_type, parameters, rig.port.irql))
        return 0

    rig, _ = passively(make_rig, lambda port: port.initialize_po_fx_power(None, PoFxDevice()))
    rig.scripted.control = control
    rig.port.start()
    port = rig.scripted.port
    active = (SCSI_ADAPTER_PO_FX_POWER_ACTIVE, (0, 1), DISPATCH_LEVEL)
    idle = (SCSI_ADAPTER_PO_FX_POWER_ACTIVE, (0, 0), DISPATCH_LEVEL)
    for _ in range(2):  # the second time as the first
        told.clear()
        assert port.po_fx_activate_component(None, None, 0) == STOR_STATUS_BUSY
        assert told == []  # not from inside
        rig.turn()
        assert port.po_fx_activate_component(None, None, 0) == STOR_STATUS_SUCCESS
        rig.turn()
        assert told == [active]
        assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_BUSY
        rig.turn()
        assert told == [active]
        assert port.po_fx_idle_component(None, None, 0) == STOR_STATUS_SUCCESS
        rig.turn()
        assert told == [active, idle]
    rig.port.stop()
    assert rig.found == set()


def unit_control(rig: Rig, got: list[Any], device: PoFxDevice | None = None, address: Any = HERE) -> None:
    """Have the miniport register a unit when it is asked to, and note what it is told."""

    def control(control_type: int, parameters: Any) -> int:
        if control_type == SCSI_QUERY_SUPPORTED_UNIT_CONTROL_TYPES:
            parameters[SCSI_UNIT_PO_FX_POWER_INFO] = parameters[SCSI_UNIT_PO_FX_POWER_ACTIVE] = True
        elif control_type == SCSI_UNIT_PO_FX_POWER_INFO:
            got.append(rig.scripted.port.initialize_po_fx_power(address, device or PoFxDevice()))
        else:
            got.append(parameters)
        return 0

    rig.scripted.unit_control = control


def test_a_unit_becomes_idle_again_and_is_forgotten_with_its_adapter(make_rig: MakeRig) -> None:
    rig = make_rig(start=False)
    got: list[Any] = []
    unit_control(rig, got)
    rig.port.start()
    rig.inquire()
    port = rig.scripted.port
    port.po_fx_activate_component(HERE, None, 0)
    rig.turn()
    assert port.po_fx_idle_component(HERE, None, 0) == STOR_STATUS_SUCCESS
    rig.turn()
    assert got == [(STOR_STATUS_SUCCESS, False), (*HERE, 0, 1), (*HERE, 0, 0)]
    assert port.po_fx_set_component_latency(HERE, 0, 5) == STOR_STATUS_SUCCESS
    rig.scripted.unit_control = None
    rig.port.start()
    rig.inquire()
    for call in (
        port.po_fx_activate_component(HERE, None, 0),
        port.po_fx_idle_component(HERE, None, 0),
        port.po_fx_set_component_latency(HERE, 0, 5),
        port.po_fx_set_component_residency(HERE, 0, 5),
        port.po_fx_power_control(HERE, UUID(int=1))[0],
    ):
        assert call == STOR_STATUS_INVALID_DEVICE_REQUEST


def of_states(count: int, **more: Any) -> PoFxDevice:
    return PoFxDevice(components=[PoFxComponent([ComponentIdleState()] * count, **more)])


@pytest.mark.parametrize(
    ("device", "of_adapter", "of_unit"),
    [
        (of_states(1), True, True),
        (of_states(2), True, True),
        (of_states(3), True, False),
        (of_states(8), True, False),
        (of_states(9), False, False),
        (of_states(2, deepest_wakeable_f_state=1), True, True),
        (of_states(2, deepest_wakeable_f_state=2), False, False),
        (PoFxDevice(version=1), True, True),
        (PoFxDevice(version=0), False, False),
        (PoFxDevice(components=[PoFxComponent(), PoFxComponent()]), False, False),
        (PoFxDevice(components=[PoFxComponent([ComponentIdleState(0, 1)])]), False, False),
        (PoFxDevice(components=[PoFxComponent([ComponentIdleState(), ComponentIdleState(9, 9)])]), True, True),
    ],
)
def test_how_many_f_states_a_device_may_have(
    make_rig: MakeRig, device: PoFxDevice, of_adapter: bool, of_unit: bool
) -> None:
    good, bad = (STOR_STATUS_SUCCESS, False), (STOR_STATUS_INVALID_PARAMETER, False)
    _, told = passively(make_rig, lambda port: port.initialize_po_fx_power(None, device))
    assert told == [good if of_adapter else bad]
    rig = make_rig(start=False)
    got: list[Any] = []
    unit_control(rig, got, device)
    rig.port.start()
    rig.inquire()
    assert got == [good if of_unit else bad]


def test_LB_02_devices_are_registered_from_their_own_callbacks(make_rig: MakeRig) -> None:
    """An adapter from its passive initialisation, a unit from hw_unit_control; and not the other way round."""
    rig, told = passively(make_rig, lambda port: port.initialize_po_fx_power(HERE, PoFxDevice()))
    assert told == [(STOR_STATUS_INVALID_PARAMETER, False)]  # there is no unit yet
    rig.inquire()
    port = rig.scripted.port
    assert port.initialize_po_fx_power(HERE, PoFxDevice()) == (STOR_STATUS_UNSUCCESSFUL, False)
    assert port.initialize_po_fx_power((0, 5, 0), PoFxDevice()) == (STOR_STATUS_INVALID_PARAMETER, False)
    assert port.initialize_po_fx_power("?", PoFxDevice()) == (STOR_STATUS_INVALID_PARAMETER, False)
    assert rig.messages("LB-02") == ["StorPortInitializePoFxPower of a unit from no callback"]
    rig = make_rig(start=False)
    got: list[Any] = []
    unit_control(rig, got, address=None)
    rig.port.start()
    rig.inquire()
    assert got == [(STOR_STATUS_UNSUCCESSFUL, False)]
    assert rig.messages("LB-02") == ["StorPortInitializePoFxPower of an adapter from hw_unit_control"]


def test_arguments_of_power_routines(make_rig: MakeRig) -> None:
    device = PoFxDevice()
    rig, _ = passively(make_rig, lambda port: port.initialize_po_fx_power(None, device))
    port = rig.scripted.port
    bad = STOR_STATUS_INVALID_PARAMETER
    assert port.po_fx_activate_component(None, None, 1) == port.po_fx_activate_component(None, None, 0, 1) == bad
    assert port.po_fx_idle_component(None, None, 1) == port.po_fx_idle_component(None, None, 0, 1) == bad
    assert port.po_fx_set_perf_state(None, 0, 1, 0, 0) == port.po_fx_set_perf_state(HERE, 0, 0, 0, 0) == bad
    assert port.po_fx_power_control("?", UUID(int=1)) == (bad, b"")
    assert port.po_fx_set_idle_timeout(None, 500) == STOR_STATUS_SUCCESS and device.idle_timeout == 500

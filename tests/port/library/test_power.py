"""Run-time power management."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from hba.miniport.base import (
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
    _, told = passively(make_rig, lambda port: [port.initialize_po_fx_power(None, PoFxDevice())[0] for _ in range(2)])
    assert told == [[STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL]]


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

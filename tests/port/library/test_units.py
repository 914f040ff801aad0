"""State changes, notifications and attributes of units."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hba.miniport.services import (
    STOR_STATUS_BUSY,
    STOR_STATUS_INVALID_DEVICE_REQUEST,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.context import DISPATCH_LEVEL
from hba.port.library.units import (
    RAID_ASYNC_NOTIFY_FLAG_MEDIA_STATUS,
    STATE_CHANGE_BUS,
    STATE_CHANGE_LUN,
    STOR_ADDRESS_TYPE_BTL8,
    UnitAttributes,
    btl8,
)
from tests.port.library.conftest import MakeRig, above_dispatch
from tests.port.storport.rig import Rig

HERE = (0, 0, 0)


def test_a_state_change_is_told_when_it_is_done(rig: Rig) -> None:
    port = rig.scripted.port
    got: list[Any] = []

    def changed(*arguments: Any) -> None:
        got.append((*arguments, rig.port.irql, rig.port.callback))

    def detect() -> list[int]:
        return [port.state_change_detected(STATE_CHANGE_BUS, HERE, 0, changed, "mine") for _ in range(2)]

    # At any IRQL; one at a time.
    assert above_dispatch(rig, detect) == [STOR_STATUS_SUCCESS, STOR_STATUS_UNSUCCESSFUL]
    assert got == []
    rig.turn()
    assert got[0][:5] == ("mine", STOR_ADDRESS_TYPE_BTL8, HERE, STOR_STATUS_SUCCESS, DISPATCH_LEVEL)
    assert rig.port.counters["bus changes"] == 1
    assert port.state_change_detected(STATE_CHANGE_LUN, HERE) == STOR_STATUS_SUCCESS
    rig.turn()
    assert len(got) == 1 and rig.found == set()


@pytest.mark.parametrize("entities, address", [(0, HERE), (8, HERE), (1, (0, 0)), (1, (0, 300, 0)), (1, None)])
def test_a_state_change_of_nothing(rig: Rig, entities: int, address: Any) -> None:
    assert rig.scripted.port.state_change_detected(entities, address) == STOR_STATUS_INVALID_PARAMETER


def test_notifications_of_units_that_have_said_so(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST  # no such unit
    rig.inquire()
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert port.set_unit_attributes(HERE, UnitAttributes(async_notification_supported=True)) == STOR_STATUS_SUCCESS
    flags = RAID_ASYNC_NOTIFY_FLAG_MEDIA_STATUS
    assert above_dispatch(rig, lambda: port.async_notification_detected(HERE, flags)) == STOR_STATUS_SUCCESS
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_BUSY
    rig.turn()
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_SUCCESS
    assert port.async_notification_detected(HERE, 8) == STOR_STATUS_INVALID_PARAMETER
    rig.turn()
    assert rig.port.counters["asynchronous notifications"] == 2


def test_attributes_of_units_that_are_there(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.set_unit_attributes(HERE, UnitAttributes()) == STOR_STATUS_INVALID_PARAMETER
    rig.inquire()
    assert port.set_unit_attributes(HERE, None) == STOR_STATUS_INVALID_PARAMETER
    assert port.set_unit_attributes(HERE, UnitAttributes(reserved=1)) == STOR_STATUS_INVALID_PARAMETER
    assert port.set_unit_attributes(HERE, UnitAttributes(d3_cold_not_supported=True)) == STOR_STATUS_SUCCESS


def test_an_address_is_a_tuple_or_has_three_parts() -> None:
    address = SimpleNamespace(path=0, target=3, lun=1)
    assert btl8((0, 3, 1)) == btl8(address) == (0, 3, 1)
    assert btl8("b:t:l") is None


@pytest.mark.parametrize(
    ("address", "good"),
    [
        ((0, 0, 0), True),
        ((255, 255, 255), True),
        ((256, 0, 0), False),
        ((0, 256, 0), False),
        ((0, 0, 256), False),
        ((-1, 0, 0), False),
        ((0, -1, 0), False),
        ((0, 0, -1), False),
        ((0, 0), False),
        ((0, 0, 0, 0), False),
        ((0, 0, "0"), False),
        ((0, None, 0), False),
        (SimpleNamespace(path=1, target=2, lun=255), True),
        (SimpleNamespace(path=1, target=2, lun=256), False),
        (SimpleNamespace(path=1, target=2), False),
    ],
)
def test_which_addresses_there_are(address: Any, good: bool) -> None:
    wanted = tuple(address) if isinstance(address, tuple) else (1, 2, 255)
    assert btl8(address) == (wanted if good else None)


@pytest.mark.parametrize("entities", [1, 2, 4, 7])
def test_a_state_change_is_counted_traced_and_has_its_bus_enumerated(make_rig: MakeRig, entities: int) -> None:
    rig = make_rig(trace=True)
    paths: list[int] = []
    rig.port.on_bus_change = paths.append
    port = rig.scripted.port
    address = SimpleNamespace(path=3, target=2, lun=1)
    assert port.state_change_detected(entities, address) == STOR_STATUS_SUCCESS
    assert port.state_change_detected(entities, address) == STOR_STATUS_UNSUCCESSFUL
    assert paths == [] and "bus changes" not in rig.port.counters
    rig.turn()
    rig.turn()
    assert paths == [3]
    assert (rig.port.counters["state changes"], rig.port.counters["bus changes"]) == (1, 1)
    assert noted(rig, "state_change") == [f"3:2:1 entities {entities:#x}"]
    assert port.state_change_detected(entities, address) == STOR_STATUS_SUCCESS
    for wrong in (0, 8, 9, -1):
        assert port.state_change_detected(wrong, address) == STOR_STATUS_INVALID_PARAMETER


def noted(rig: Rig, kind: str) -> list[Any]:
    assert rig.recorder is not None
    return [event.detail for event in rig.recorder.events if event.kind == kind]


def test_notifications_are_traced_with_their_flags(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True)
    rig.inquire()
    port = rig.scripted.port
    port.set_unit_attributes(HERE, UnitAttributes(async_notification_supported=True))
    for flags in (0, 1, 7):
        assert port.async_notification_detected(HERE, flags) == STOR_STATUS_SUCCESS
        assert noted(rig, "async_notification") == [] or flags
        rig.turn()
    assert noted(rig, "async_notification") == ["0:0:0 flags 0x7", "0:0:0 flags 0x1", "0:0:0 flags 0x7"]
    assert rig.port.counters["asynchronous notifications"] == 3
    assert port.async_notification_detected("?", 0) == STOR_STATUS_INVALID_PARAMETER
    assert port.async_notification_detected((0, 0, 1), 0) == STOR_STATUS_INVALID_DEVICE_REQUEST
    assert port.set_unit_attributes("?", UnitAttributes()) == STOR_STATUS_INVALID_PARAMETER
    # What was said last counts.
    assert port.set_unit_attributes(HERE, UnitAttributes()) == STOR_STATUS_SUCCESS
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST


def test_a_unit_that_is_gone_has_nothing_to_notify_of(rig: Rig) -> None:
    rig.inquire()
    port = rig.scripted.port
    port.set_unit_attributes(HERE, UnitAttributes(async_notification_supported=True))
    rig.port.forget_units()
    assert port.async_notification_detected(HERE, 0) == STOR_STATUS_INVALID_DEVICE_REQUEST

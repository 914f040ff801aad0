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
from tests.port.library.conftest import above_dispatch
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

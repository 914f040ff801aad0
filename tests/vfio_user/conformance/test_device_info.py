"""VFIO_USER_DEVICE_GET_INFO."""

from __future__ import annotations

import errno

import pytest

from hba.vfio_user import protocol as p
from tests.vfio_user.conformance.rig import Rig


def test_a_pci_device_that_can_be_reset(rig: Rig) -> None:
    assert rig.call(rig.client.device_info) == p.DeviceInfo(16, p.DEVICE_FLAG_RESET | p.DEVICE_FLAG_PCI, 9, 5)


@pytest.mark.parametrize("argsz", [0, 3, 15])
def test_no_room_for_the_answer(rig: Rig, argsz: int) -> None:
    body = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(argsz, 0, 0, 0))
    assert rig.refused(p.DEVICE_GET_INFO, body) == errno.EINVAL


@pytest.mark.parametrize("argsz", [16, 17, 4096, 0xFFFFFFFF])
def test_the_answer_says_how_much_it_needs(rig: Rig, argsz: int) -> None:
    body = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(argsz, 0, 0, 0))
    answer = rig.call(lambda: rig.client.request(p.DEVICE_GET_INFO, body))
    assert len(answer) == 16 and p.DEVICE_INFO_BODY.decode(answer).argsz == 16


def test_fields_that_should_be_zero_are_not_looked_at(rig: Rig) -> None:
    """A client may send what it got before."""
    body = p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 3, 9, 5))
    assert rig.call(lambda: rig.client.request(p.DEVICE_GET_INFO, body)) == body

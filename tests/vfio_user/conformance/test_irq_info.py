"""VFIO_USER_DEVICE_GET_IRQ_INFO."""

from __future__ import annotations

import errno

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.device import IRQ_AUTOMASKED, IRQ_EVENTFD, IRQ_MASKABLE, IRQ_NORESIZE
from tests.vfio_user.conformance.rig import ERR, INTX, MSI, MSIX, REQ, VECTORS, Rig


def body(index: int, argsz: int = 16) -> bytes:
    return p.IRQ_INFO_BODY.encode(p.IrqInfoBody(argsz, 0, index, 0))


@pytest.mark.parametrize(
    ("index", "count", "flags"),
    [
        (INTX, 1, IRQ_EVENTFD | IRQ_MASKABLE | IRQ_AUTOMASKED),
        (MSI, VECTORS, IRQ_EVENTFD | IRQ_MASKABLE),
        (MSIX, VECTORS, IRQ_EVENTFD | IRQ_MASKABLE),
        (ERR, 1, IRQ_EVENTFD | IRQ_NORESIZE),
        (REQ, 1, IRQ_EVENTFD | IRQ_NORESIZE),
    ],
)
def test_each_index(rig: Rig, index: int, count: int, flags: int) -> None:
    answer = rig.call(lambda: rig.client.request(p.DEVICE_GET_IRQ_INFO, body(index, 99)))
    assert answer == p.IRQ_INFO_BODY.encode(p.IrqInfoBody(16, flags, index, count))


@pytest.mark.parametrize("request_", [body(5), body(0xFFFFFFFF), body(MSI, 15), body(MSI, 0)])
def test_what_is_refused(rig: Rig, request_: bytes) -> None:
    assert rig.refused(p.DEVICE_GET_IRQ_INFO, request_) == errno.EINVAL

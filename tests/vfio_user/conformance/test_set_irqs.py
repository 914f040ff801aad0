"""VFIO_USER_DEVICE_SET_IRQS and the interrupts that follow: flags, ranges, data, eventfds, triggers, masks."""

from __future__ import annotations

import errno
import os

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.device import IRQ_SET_ACTION_MASK as MASK
from hba.vfio_user.device import IRQ_SET_ACTION_TRIGGER as TRIGGER
from hba.vfio_user.device import IRQ_SET_ACTION_UNMASK as UNMASK
from hba.vfio_user.device import IRQ_SET_DATA_BOOL as BOOL
from hba.vfio_user.device import IRQ_SET_DATA_EVENTFD as EVENTFD
from hba.vfio_user.device import IRQ_SET_DATA_NONE as NONE
from tests.vfio_user.conformance.rig import CONFIG, ERR, INTX, MSI, MSIX, REQ, VECTORS, Rig, eventfd

MSI_CONTROL = 0x4A


def body(index: int, flags: int, start: int = 0, count: int = 0, data: bytes = b"", argsz: int | None = None) -> bytes:
    size = 20 + len(data) if argsz is None else argsz
    return p.SET_IRQS_BODY.encode(p.SetIrqs(size, flags, index, start, count)) + data


def give(rig: Rig, index: int, fds: list[int], start: int = 0) -> None:
    rig.call(lambda: rig.client.set_irqs(index, EVENTFD | TRIGGER, start, len(fds), eventfds=fds))


def counted(fds: list[int]) -> list[int]:
    values = []
    for fd in fds:
        try:
            values.append(os.eventfd_read(fd))
        except BlockingIOError:
            values.append(0)
    return values


@pytest.mark.parametrize(
    "request_",
    [
        body(MSI, NONE | TRIGGER, argsz=19),
        body(MSI, NONE | TRIGGER, argsz=0),
        body(5, NONE | TRIGGER),
        body(MSI, MASK | UNMASK, count=1),
        body(MSI, MASK | UNMASK | NONE, count=1),
        body(MSI, MASK | NONE | BOOL, count=1),
        body(MSI, NONE, count=1),
        body(MSI, TRIGGER, count=1),
        body(MSI, 0),
        body(MSI, NONE | TRIGGER | 1 << 6, count=1),
        body(MSI, NONE | MASK, VECTORS - 1, 2),
        body(MSI, NONE | MASK, VECTORS + 1, 1),
        body(MSI, EVENTFD | TRIGGER, 4, 0xFFFFFFFF),
        body(MSI, NONE | TRIGGER, 0xFFFFFFFF, 1),
        body(ERR, NONE | MASK, 0, 1),
        body(REQ, NONE | UNMASK, 0, 1),
        body(ERR, NONE | TRIGGER, 0, 2),
        body(MSI, NONE | TRIGGER, 1, 0),
        body(MSI, NONE | MASK, 0, 0),
        body(MSI, BOOL | TRIGGER, 0, 0),
        body(MSI, EVENTFD | TRIGGER, 0, 0),
        body(MSI, BOOL | TRIGGER, 0, 2, b"\1"),
        body(MSI, BOOL | TRIGGER, 0, 2, b"\1\1\1"),
    ],
)
def test_requests_that_make_no_sense(rig: Rig, request_: bytes) -> None:
    assert rig.refused(p.DEVICE_SET_IRQS, request_) == errno.EINVAL


@pytest.mark.parametrize(("flags", "count", "fds"), [(NONE, 1, 1), (BOOL, 1, 1), (EVENTFD, 1, 2), (EVENTFD, 2, 1)])
def test_descriptors_too_many_and_too_few(rig: Rig, flags: int, count: int, fds: int) -> None:
    data = bytes(count) if flags == BOOL else b""
    events = [eventfd() for _ in range(fds)]
    assert rig.refused(p.DEVICE_SET_IRQS, body(MSI, flags | TRIGGER, 0, count, data), events) == errno.EINVAL
    for fd in events:
        os.close(fd)


def test_a_descriptor_of_the_wrong_kind(rig: Rig) -> None:
    file, (reader, writer) = os.memfd_create("no event"), os.pipe()
    for fd in (file, reader, writer):
        assert rig.refused(p.DEVICE_SET_IRQS, body(MSI, EVENTFD | TRIGGER, 0, 1), [fd]) == errno.EINVAL
        os.close(fd)


@pytest.mark.parametrize("index", [INTX, MSI, MSIX, ERR, REQ])
def test_an_index_can_be_switched_off_at_any_time(rig: Rig, index: int) -> None:
    for _ in range(2):
        rig.call(lambda: rig.client.disable_irqs(index))
    fd = eventfd()
    give(rig, index, [fd])
    rig.call(lambda: rig.client.disable_irqs(index))
    rig.call(lambda: rig.client.set_irqs(index, NONE | TRIGGER, 0, 1))  # nobody hears it
    assert counted([fd]) == [0]
    os.close(fd)


def test_loopback(rig: Rig) -> None:
    """A client triggers interrupts itself: all of a range, or those whose byte is not zero."""
    fds = [eventfd(4), eventfd(8)]
    give(rig, MSIX, fds)
    rig.call(lambda: rig.client.set_irqs(MSIX, NONE | TRIGGER, 1, 1))
    rig.call(lambda: rig.client.set_irqs(MSIX, BOOL | TRIGGER, 0, 2, data=b"\0\1"))
    assert counted(fds) == [4, 10]
    for fd in fds:
        os.close(fd)


def test_eventfds_are_replaced_and_taken_away(rig: Rig) -> None:
    old, new = eventfd(), eventfd()
    give(rig, MSI, [old])
    give(rig, MSI, [new])
    rig.call(lambda: rig.client.set_irqs(MSI, NONE | TRIGGER, 0, 1))
    assert counted([old, new]) == [0, 1]
    rig.call(lambda: rig.client.set_irqs(MSI, EVENTFD | TRIGGER, 0, 1))  # no descriptor
    rig.call(lambda: rig.client.set_irqs(MSI, NONE | TRIGGER, 0, 1))
    assert counted([old, new]) == [0, 0]
    for fd in (old, new):
        os.close(fd)


def test_a_part_of_the_vectors(rig: Rig) -> None:
    fds = [eventfd() for _ in range(3)]
    give(rig, MSIX, fds, start=4)
    rig.call(lambda: rig.client.set_irqs(MSIX, NONE | TRIGGER, 0, VECTORS))
    assert counted(fds) == [1, 1, 1]
    for fd in fds:
        os.close(fd)


def msi_on(rig: Rig) -> None:
    """MSI with all its vectors."""
    rig.call(lambda: rig.client.region_write(CONFIG, MSI_CONTROL, (0x80 | 3 << 4 | 1).to_bytes(2, "little")))


def test_the_device_triggers_its_vectors(rig: Rig) -> None:
    fds = [eventfd() for _ in range(VECTORS)]
    msi_on(rig)
    give(rig, MSI, fds)
    rig.function.interrupts.signal(0)
    rig.function.interrupts.signal(VECTORS - 1)
    assert counted(fds) == [1, *[0] * (VECTORS - 2), 1]
    for fd in fds:
        os.close(fd)


def test_vectors_that_are_not_there_or_have_no_eventfd(rig: Rig) -> None:
    interrupts = rig.function.interrupts
    msi_on(rig)
    interrupts.signal(VECTORS)
    interrupts.signal(1000)
    assert interrupts.ignored == 2
    interrupts.signal(2)
    fd = eventfd()
    give(rig, MSI, [fd], start=2)  # it waited
    assert counted([fd]) == [1]
    os.close(fd)


def test_a_masked_vector_is_sent_when_it_is_unmasked(rig: Rig) -> None:
    fd = eventfd()
    msi_on(rig)
    give(rig, MSI, [fd])
    rig.call(lambda: rig.client.set_irqs(MSI, NONE | MASK, 0, 1))
    rig.function.interrupts.signal(0)
    rig.function.interrupts.signal(0)
    assert counted([fd]) == [0]
    rig.call(lambda: rig.client.set_irqs(MSI, NONE | UNMASK, 0, 1))
    assert counted([fd]) == [1]
    os.close(fd)


def test_masking_by_booleans(rig: Rig) -> None:
    fds = [eventfd(), eventfd()]
    msi_on(rig)
    give(rig, MSI, fds)
    rig.call(lambda: rig.client.set_irqs(MSI, BOOL | MASK, 0, 2, data=b"\0\1"))
    for vector in (0, 1):
        rig.function.interrupts.signal(vector)
    assert counted(fds) == [1, 0]
    for fd in fds:
        os.close(fd)


def test_intx_is_masked_by_its_trigger_and_comes_again(rig: Rig) -> None:
    fd = eventfd()
    give(rig, INTX, [fd])
    rig.function.interrupts.set_line(True)
    rig.function.interrupts.set_line(False)
    rig.function.interrupts.set_line(True)
    assert counted([fd]) == [1]
    rig.call(lambda: rig.client.set_irqs(INTX, NONE | UNMASK, 0, 1))
    assert counted([fd]) == [1]
    rig.function.interrupts.set_line(False)
    rig.call(lambda: rig.client.set_irqs(INTX, NONE | UNMASK, 0, 1))
    assert counted([fd]) == [0]
    os.close(fd)


def test_unmasking_by_an_event(rig: Rig) -> None:
    """The resample eventfd of a client with KVM."""
    fd, resample = eventfd(), eventfd()
    give(rig, INTX, [fd])
    rig.call(lambda: rig.client.set_irqs(INTX, EVENTFD | UNMASK, 0, 1, eventfds=[resample]))
    rig.function.interrupts.set_line(True)
    assert counted([fd]) == [1]
    os.eventfd_write(resample, 1)
    rig.turn()
    assert counted([fd]) == [1]
    rig.call(lambda: rig.client.set_irqs(INTX, EVENTFD | UNMASK, 0, 1))
    os.eventfd_write(resample, 1)
    rig.turn()
    assert counted([fd]) == [0]
    for event in (fd, resample):
        os.close(event)


def test_a_blocked_eventfd_blocks_nobody(rig: Rig) -> None:
    fd = eventfd()
    os.eventfd_write(fd, (1 << 64) - 2)
    give(rig, ERR, [fd])
    rig.call(lambda: rig.client.set_irqs(ERR, NONE | TRIGGER, 0, 1))
    assert rig.function.interrupts.failed == 1
    os.close(fd)

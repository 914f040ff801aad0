"""VFIO_USER_DEVICE_GET_REGION_IO_FDS: doorbells as events."""

from __future__ import annotations

import errno
import os

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.device import IoEventFd
from tests.vfio_user.conformance.rig import BAR, BELL, CONFIG, MAPPED, OTHER_BELL, UNUSED, Rig

HEAD = p.REGION_IO_FDS_BODY.size


def body(index: int = BAR, argsz: int = 512, flags: int = 0, count: int = 0) -> bytes:
    return p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(argsz, flags, index, count))


def answer(rig: Rig, request: bytes) -> tuple[bytes, list[int]]:
    number = rig.client.send(p.DEVICE_GET_REGION_IO_FDS, request)
    return rig.call(lambda: rig.client.wait_reply(number, p.DEVICE_GET_REGION_IO_FDS, 16))


def offered(rig: Rig) -> list[IoEventFd]:
    return rig.call(lambda: rig.client.region_io_fds(BAR))


def close(doorbells: list[IoEventFd]) -> None:
    for doorbell in doorbells:
        os.close(doorbell.fd)


@pytest.mark.parametrize("request_", [body(flags=1), body(count=1), body(argsz=HEAD - 1), body(argsz=0), body(index=9)])
def test_requests_that_are_refused(rig: Rig, request_: bytes) -> None:
    assert rig.refused(p.DEVICE_GET_REGION_IO_FDS, request_) == errno.EINVAL


@pytest.mark.parametrize("index", [CONFIG, MAPPED, UNUSED])
def test_regions_without(rig: Rig, index: int) -> None:
    assert answer(rig, body(index)) == (p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(HEAD, 0, index, 0)), [])


def test_each_doorbell_has_an_event(rig: Rig) -> None:
    reply, fds = answer(rig, body())
    assert reply[:HEAD] == p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(HEAD + 2 * 40, 0, BAR, 2))
    parts = [p.SUB_REGION_BODY.decode(reply[at : at + 40]) for at in (HEAD, HEAD + 40)]
    assert parts == [p.SubRegion(BELL, 4, 0, 0, 0, 0, 0), p.SubRegion(OTHER_BELL, 2, 1, 0, 0, 0, 0)]
    assert len(fds) == 2
    os.eventfd_write(fds[0], 3)  # three writes that came together are one event
    rig.until(lambda: rig.rung == [0])
    assert rig.registers.cell("BELL").writes == 1
    os.eventfd_write(fds[1], 1)
    rig.until(lambda: rig.registers.cell("OTHER_BELL").writes == 1)
    rig.call(lambda: rig.client.region_write(BAR, BELL, b"\1\0\0\0"))  # as ever
    assert rig.rung == [0, 1]
    for fd in fds:
        os.close(fd)


def test_no_room_for_the_answer(rig: Rig) -> None:
    for argsz in (HEAD, HEAD + 79):
        reply, fds = answer(rig, body(argsz=argsz))
        assert reply == p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(HEAD + 80, 0, BAR, 0)) and fds == []


def test_asked_twice_it_is_the_same_event(rig: Rig) -> None:
    first, second = offered(rig), offered(rig)
    os.eventfd_write(first[0].fd, 1)
    rig.until(lambda: rig.rung == [0])
    os.eventfd_write(second[0].fd, 1)
    rig.until(lambda: rig.rung == [0, 0])
    assert len(rig.function._doorbells._offered[BAR]) == 2
    close(first + second)


def test_no_more_descriptors_than_the_client_takes() -> None:
    """What has no event comes as a message."""
    made = Rig(p.Capabilities(max_msg_fds=1))
    doorbells = offered(made)
    assert [doorbell.offset for doorbell in doorbells] == [BELL]
    close(doorbells)
    made.close()
    unsaid = Rig(p.Capabilities())  # the specification: then it is 1
    doorbells = offered(unsaid)
    assert len(doorbells) == 1
    close(doorbells)
    unsaid.close()


def test_a_bar_that_does_not_decode_hears_nothing(rig: Rig) -> None:
    doorbells = offered(rig)
    rig.call(lambda: rig.client.region_write(CONFIG, 4, b"\0\0"))
    os.eventfd_write(doorbells[0].fd, 1)
    rig.turn()
    assert rig.rung == [] and rig.function.refused == 1
    close(doorbells)


def test_a_client_that_has_left_cannot_ring() -> None:
    made = Rig()
    doorbells = offered(made)
    made.client.close()
    made.turn()
    for doorbell in doorbells:
        os.eventfd_write(doorbell.fd, 1)
    made.turn()
    assert made.rung == []
    close(doorbells)
    made.close()

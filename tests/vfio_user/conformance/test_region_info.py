"""VFIO_USER_DEVICE_GET_REGION_INFO: sizes, flags, capabilities, descriptors."""

from __future__ import annotations

import errno
import mmap
import os

import pytest

from hba.vfio_user import protocol as p
from hba.vfio_user.device import REGION_MMAP, REGION_READ, REGION_WRITE
from tests.vfio_user.conformance.rig import (
    AREA_AT,
    AREA_SIZE,
    BAR,
    CONFIG,
    MAPPED,
    MAPPED_SIZE,
    ROM,
    UNUSED,
    VGA,
    WIDE,
    Rig,
)

BOTH = REGION_READ | REGION_WRITE


def body(index: int, argsz: int = 32) -> bytes:
    return p.REGION_INFO_BODY.encode(p.RegionInfoBody(argsz, 0, index, 0, 0, 0))


@pytest.mark.parametrize(
    ("index", "size", "flags"),
    [
        (BAR, 0x2000, BOTH),
        (WIDE, 0x1000, BOTH),
        (WIDE + 1, 0, 0),  # its upper half
        (UNUSED, 0, 0),
        (ROM, 2048, REGION_READ),
        (CONFIG, 4096, BOTH),
        (VGA, 0, 0),
    ],
)
def test_each_region(rig: Rig, index: int, size: int, flags: int) -> None:
    answer = rig.call(lambda: rig.client.request(p.DEVICE_GET_REGION_INFO, body(index)))
    assert answer == p.REGION_INFO_BODY.encode(p.RegionInfoBody(32, flags, index, 0, size, 0))


@pytest.mark.parametrize("index", [9, 10, 0xFFFFFFFF])
def test_regions_there_are_not(rig: Rig, index: int) -> None:
    assert rig.refused(p.DEVICE_GET_REGION_INFO, body(index)) == errno.EINVAL


@pytest.mark.parametrize("argsz", [0, 8, 31])
def test_no_room_for_the_answer(rig: Rig, argsz: int) -> None:
    assert rig.refused(p.DEVICE_GET_REGION_INFO, body(BAR, argsz)) == errno.EINVAL


def test_a_region_that_can_be_mapped(rig: Rig) -> None:
    """One descriptor; where it can be mapped says a capability; what is written there is what a message reads."""
    info = rig.call(lambda: rig.client.region_info(MAPPED))
    assert (info.size, info.offset) == (MAPPED_SIZE, 0)
    assert info.flags == BOTH | REGION_MMAP | p.REGION_INFO_FLAG_CAPS
    assert info.sparse == ((AREA_AT, AREA_SIZE),)
    assert info.fd is not None
    with mmap.mmap(info.fd, AREA_SIZE, offset=info.offset + AREA_AT) as mapped:
        mapped[8:12] = b"here"
        assert rig.call(lambda: rig.client.region_read(MAPPED, AREA_AT + 8, 4)) == b"here"
        rig.call(lambda: rig.client.region_write(MAPPED, AREA_AT + 100, b"there"))
        assert mapped[100:105] == b"there"
        assert rig.call(lambda: rig.client.region_read(MAPPED, AREA_AT - 4, 8)) == bytes(8)
        rig.call(rig.client.reset)
        assert mapped[100:105] == bytes(5)
    os.close(info.fd)


def test_too_little_room_for_the_capabilities(rig: Rig) -> None:
    """`argsz` says how much is needed, and there is none; with room for it, it is there."""
    number = rig.client.send(p.DEVICE_GET_REGION_INFO, body(MAPPED, 47))
    answer, fds = rig.call(lambda: rig.client.wait_reply(number, p.DEVICE_GET_REGION_INFO, 1))
    info = p.REGION_INFO_BODY.decode(answer)
    assert len(answer) == 32 and info.argsz == 64 and info.cap_offset == 0
    assert info.flags & p.REGION_INFO_FLAG_CAPS
    assert len(fds) == 1
    os.close(fds[0])
    number = rig.client.send(p.DEVICE_GET_REGION_INFO, body(MAPPED, 64))
    answer, fds = rig.call(lambda: rig.client.wait_reply(number, p.DEVICE_GET_REGION_INFO, 1))
    assert len(answer) == 64 and p.REGION_INFO_BODY.decode(answer).cap_offset == 32
    os.close(fds[0])


def test_the_file_cannot_be_made_to_say_more_than_the_region(rig: Rig) -> None:
    info = rig.call(lambda: rig.client.region_info(MAPPED))
    assert info.fd is not None
    assert os.fstat(info.fd).st_size == MAPPED_SIZE
    os.close(info.fd)

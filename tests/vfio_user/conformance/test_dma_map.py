"""VFIO_USER_DMA_MAP and _UNMAP: ranges, descriptors, limits, and what is left of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from hba.errors import DmaFault
from hba.vfio_user import protocol as p
from tests.descriptors import open_fds
from tests.vfio_user.conformance.rig import Rig

PAGE = 4096
BOTH = p.DMA_MAP_FLAG_READ | p.DMA_MAP_FLAG_WRITE


@pytest.fixture
def ram() -> Iterator[int]:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 16 * PAGE)
    yield fd
    os.close(fd)


def mapping(iova: int, size: int, flags: int = BOTH, offset: int = 0, argsz: int = 32) -> bytes:
    return p.DMA_MAP_BODY.encode(p.DmaMap(argsz, flags, offset, iova, size))


def unmapping(iova: int, size: int, flags: int = 0, argsz: int = 24) -> bytes:
    return p.DMA_UNMAP_BODY.encode(p.DmaUnmap(argsz, flags, iova, size))


def test_memory_with_a_descriptor_is_reached_in_place(rig: Rig, ram: int) -> None:
    rig.call(lambda: rig.client.dma_map(0x10000, 4 * PAGE, fd=ram, offset=2 * PAGE))
    rig.memory.write(0x10000 + 5, b"hello")
    assert os.pread(ram, 5, 2 * PAGE + 5) == b"hello"
    os.pwrite(ram, b"there", 2 * PAGE + 100)
    assert rig.memory.read(0x10000 + 100, 5) == b"there"
    assert rig.client.dma_reads == rig.client.dma_writes == 0


def test_the_answer_to_map_is_empty_and_that_to_unmap_repeats_it(rig: Rig) -> None:
    assert rig.call(lambda: rig.client.request(p.DMA_MAP, mapping(0, PAGE))) == b""
    body = unmapping(0, PAGE, argsz=99)
    assert rig.call(lambda: rig.client.request(p.DMA_UNMAP, body)) == body


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (mapping(0, PAGE, argsz=31), errno.EINVAL),
        (mapping(0, PAGE, argsz=0), errno.EINVAL),
        (mapping(0, 0), errno.EINVAL),
        (mapping(0, PAGE, 0), errno.EINVAL),  # neither to read nor to write
        (mapping(0, PAGE, BOTH | 4), errno.EINVAL),
        (mapping(0, PAGE, BOTH | 1 << 31), errno.EINVAL),
        (mapping((1 << 64) - PAGE, 2 * PAGE), errno.EINVAL),
        (mapping(0, 1 << 62), errno.EEXIST),
        (mapping(0x8000, PAGE), errno.EEXIST),
        (mapping(0x7000, 2 * PAGE), errno.EEXIST),
        (mapping(0x9000, PAGE), errno.EEXIST),
        (mapping(0x0, 0x20000), errno.EEXIST),
    ],
)
def test_maps_that_make_no_sense(rig: Rig, request_: bytes, code: int) -> None:
    rig.call(lambda: rig.client.dma_map(0x8000, 2 * PAGE))
    assert rig.refused(p.DMA_MAP, request_) == code
    assert [(found.iova, found.size) for found in rig.memory.maps] == [(0x8000, 2 * PAGE)]


@pytest.mark.parametrize(
    ("size", "offset"),
    [(17 * PAGE, 0), (PAGE, 16 * PAGE), (PAGE, 100), (PAGE, (1 << 63) - PAGE), (1 << 62, 0), (PAGE, 1 << 63)],
)
def test_a_file_that_does_not_hold_the_map(rig: Rig, ram: int, size: int, offset: int) -> None:
    before = open_fds()
    assert rig.refused(p.DMA_MAP, mapping(0, size, offset=offset), [ram]) == errno.EINVAL
    assert open_fds() == before and rig.memory.maps == []


def test_descriptors_of_the_wrong_kind(rig: Rig, ram: int) -> None:
    """What cannot be mapped at all, and what cannot be mapped for writing."""
    reader, writer = os.pipe()
    event = os.eventfd(0)
    read_only = os.open(f"/proc/self/fd/{ram}", os.O_RDONLY)
    before = open_fds()
    for fd in (reader, writer, event, read_only):
        assert rig.refused(p.DMA_MAP, mapping(0, PAGE), [fd]) in (errno.EINVAL, errno.EACCES, errno.ENODEV)
    assert open_fds() == before and rig.memory.maps == []
    rig.call(lambda: rig.client.dma_map(0, PAGE, prot=p.DMA_MAP_FLAG_READ, fd=read_only))
    for fd in (reader, writer, event, read_only):
        os.close(fd)


def test_two_descriptors(rig: Rig, ram: int) -> None:
    before = open_fds()
    assert rig.refused(p.DMA_MAP, mapping(0, PAGE), [ram, ram]) == errno.EINVAL
    assert open_fds() == before


def test_a_map_holds_no_descriptor_of_ours_open(rig: Rig, ram: int) -> None:
    before = open_fds()
    for number in range(8):
        rig.call(lambda number=number: rig.client.dma_map(number * PAGE, PAGE, fd=ram))  # type: ignore[misc]
    assert open_fds() - before <= 8  # what a mapping itself may keep
    rig.call(rig.client.dma_unmap_all)
    assert open_fds() == before


def test_no_more_maps_than_were_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hba.vfio_user.limits.dma_maps", lambda: 3)
    made = Rig()
    assert made.client.capabilities is not None and made.client.capabilities.max_dma_maps == 3
    for number in range(3):
        made.call(lambda number=number: made.client.dma_map(number * PAGE, PAGE))  # type: ignore[misc]
    assert made.refused(p.DMA_MAP, mapping(0x10000, PAGE)) == errno.ENOSPC
    made.call(lambda: made.client.dma_unmap(0, 2 * PAGE))  # both
    made.call(lambda: made.client.dma_map(0, PAGE))
    made.close()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (unmapping(0x8000, 2 * PAGE, argsz=8), errno.EINVAL),
        (unmapping(0x8000, 2 * PAGE, argsz=0), errno.EINVAL),
        (unmapping(0x8000, 2 * PAGE, flags=4), errno.EINVAL),
        (unmapping(0x8000, 2 * PAGE, flags=p.DMA_UNMAP_FLAG_ALL), errno.EINVAL),
        (unmapping(0, 0, flags=p.DMA_UNMAP_FLAG_ALL | p.DMA_UNMAP_FLAG_GET_DIRTY_BITMAP), errno.EINVAL),
        (unmapping(0, PAGE), errno.ENOENT),
        (unmapping(0x8000, PAGE), errno.EINVAL),  # a part of it
        (unmapping(0x9000, PAGE), errno.EINVAL),
        (unmapping(0x7000, 2 * PAGE), errno.EINVAL),
        (unmapping((1 << 64) - PAGE, PAGE), errno.ENOENT),
    ],
)
def test_unmaps_that_make_no_sense(rig: Rig, request_: bytes, code: int) -> None:
    rig.call(lambda: rig.client.dma_map(0x8000, 2 * PAGE))
    assert rig.refused(p.DMA_UNMAP, request_) == code
    assert len(rig.memory.maps) == 1


def test_unmapped_memory_is_not_touched_any_more(rig: Rig, ram: int) -> None:
    rig.call(lambda: rig.client.dma_map(0, PAGE, fd=ram))
    rig.memory.write(0, b"x")
    rig.call(lambda: rig.client.dma_unmap(0, PAGE))
    with pytest.raises(DmaFault):
        rig.memory.write(0, b"y")
    assert os.pread(ram, 1, 0) == b"x"


def test_all_at_once(rig: Rig, ram: int) -> None:
    for number in range(20):
        rig.call(lambda number=number: rig.client.dma_map(number * 2 * PAGE, PAGE, fd=ram))  # type: ignore[misc]
    rig.call(rig.client.dma_unmap_all)
    assert rig.memory.maps == []
    rig.call(rig.client.dma_unmap_all)  # and none is fine, too


def test_several_maps_in_one_range(rig: Rig) -> None:
    """More than the specification asks for, which wants the range of one map."""
    for at in (0, PAGE, 4 * PAGE):
        rig.call(lambda at=at: rig.client.dma_map(at, PAGE))  # type: ignore[misc]
    rig.call(lambda: rig.client.dma_unmap(0, 4 * PAGE))
    assert [found.iova for found in rig.memory.maps] == [4 * PAGE]

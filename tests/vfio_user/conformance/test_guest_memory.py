"""What a device does with mapped memory (libvfio-user's scatter lists): in place, by message, with its protections."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from hba.errors import DmaFault
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.client import GuestRam
from tests.vfio_user.conformance.rig import BAR, VALUE, Rig

PAGE = 4096


def in_turn(rig: Rig, work: Callable[[], object]) -> object:
    """Done by the device while it handles a posted write, as real work is; the client serves its messages."""
    results: list[object] = []

    def act(_value: int) -> None:
        try:
            results.append(work())
        except DmaFault as fault:
            results.append(fault)

    rig.registers.cell("VALUE").on_write = act

    def body() -> None:
        rig.client.region_write(BAR, VALUE, bytes(4), posted=True)
        while not results:
            rig.client.poll()

    rig.call(body)
    return results[0]


def test_a_range_over_two_maps(rig: Rig) -> None:
    fd = os.memfd_create("ram")
    os.ftruncate(fd, 4 * PAGE)
    rig.call(lambda: rig.client.dma_map(0, PAGE, fd=fd))
    rig.call(lambda: rig.client.dma_map(PAGE, PAGE, fd=fd, offset=2 * PAGE))
    buffer = rig.memory.buffer([(PAGE - 2, 4)], True)
    assert [len(view) for view in buffer.views] == [2, 2]
    buffer.write(b"abcd")
    assert os.pread(fd, 2, PAGE - 2) + os.pread(fd, 2, 2 * PAGE) == b"abcd"
    assert rig.memory.view(PAGE - 2, 4, False) is None
    del buffer
    os.close(fd)


@pytest.mark.parametrize(
    ("prot", "write"), [(p.DMA_MAP_FLAG_READ, True), (p.DMA_MAP_FLAG_WRITE, False)], ids=["read-only", "write-only"]
)
def test_protections_are_kept(rig: Rig, prot: int, write: bool) -> None:
    with GuestRam(PAGE, prot=prot) as ram:
        rig.call(lambda: rig.client.map_ram(ram))
        with pytest.raises(DmaFault):
            rig.memory.buffer([(0, 16)], write)
        rig.memory.buffer([(0, 16)], not write)
        rig.call(lambda: rig.client.unmap_ram(ram))


@pytest.mark.parametrize(("iova", "length"), [(PAGE, 1), (0, PAGE + 1), (PAGE - 1, 2), ((1 << 64) - 1, 1)])
def test_outside_of_any_map(rig: Rig, iova: int, length: int) -> None:
    with GuestRam(PAGE) as ram:
        rig.call(lambda: rig.client.map_ram(ram))
        for write in (False, True):
            with pytest.raises(DmaFault):
                rig.memory.buffer([(iova, length)], write)
        rig.call(lambda: rig.client.unmap_ram(ram))


def test_without_bus_mastering_there_is_none(rig: Rig) -> None:
    with GuestRam(PAGE) as ram:
        rig.call(lambda: rig.client.map_ram(ram))
        rig.call(lambda: rig.client.region_write(7, 4, b"\2\0"))
        with pytest.raises(DmaFault, match="bus mastering"):
            rig.memory.read(0, 1)
        rig.call(lambda: rig.client.unmap_ram(ram))


@pytest.mark.parametrize("size", [1, PAGE, 65536, 65537, 300_000])
def test_by_message(rig: Rig, size: int) -> None:
    """In pieces of what both sides take."""
    with GuestRam(1 << 20) as ram:
        rig.call(lambda: rig.client.map_ram(ram, shared=False))
        data = bytes(range(251)) * (size // 251 + 1)
        ram.view[100 : 100 + size] = data[:size]
        assert in_turn(rig, lambda: rig.memory.read(100, size)) == data[:size]
        in_turn(rig, lambda: rig.memory.write(500_000, data[:size]))
        assert ram.view[500_000 : 500_000 + size] == data[:size]
        assert rig.client.dma_reads == rig.client.dma_writes == -(-size // 65536)


def test_no_larger_messages_than_the_client_takes() -> None:
    made = Rig(p.Capabilities(max_data_xfer_size=1000))
    with GuestRam(1 << 16) as ram:
        made.call(lambda: made.client.map_ram(ram, shared=False))
        assert in_turn(made, lambda: len(made.memory.read(0, 2500))) == 2500
        assert made.client.dma_reads == 3
    made.close()


def test_a_client_that_refuses(rig: Rig) -> None:
    rig.call(lambda: rig.client.dma_map(0, PAGE))  # it says so, and has none
    assert isinstance(in_turn(rig, lambda: rig.memory.read(0, 4)), DmaFault)


def test_the_answer_to_a_synchronous_write_comes_before_its_dma(rig: Rig) -> None:
    """A client whose processor waits for it could not serve the message."""
    with GuestRam(PAGE) as ram:
        rig.call(lambda: rig.client.map_ram(ram, shared=False))
        ram.view[:4] = b"data"
        seen: list[bytes] = []
        rig.registers.cell("VALUE").on_write = lambda _value: seen.append(rig.memory.read(0, 4))

        def body() -> None:
            rig.client.region_write(BAR, VALUE, bytes(4))
            while not seen:
                rig.client.poll()

        rig.call(body)
        assert seen == [b"data"]
    assert dev.DMA_READ == p.DMA_MAP_FLAG_READ

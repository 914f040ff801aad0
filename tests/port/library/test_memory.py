"""Pool, DMA memory, host memory buffers, descriptor lists, copies."""

from __future__ import annotations

from typing import Any

import pytest

from hba.dma import HOST_MEMORY_BASE, LOW_MEMORY_BASE, LOW_MEMORY_END
from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INSUFFICIENT_RESOURCES,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUCCESSFUL,
)
from hba.port.library.memory import MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS, POOL_LIMIT
from hba.scsi.task import DATA_IN, Task
from tests.miniport.rig import Rig as AnyRig
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import Rig


@pytest.mark.parametrize("level", ["report", None])
def test_LB_01_pool_at_dispatch_level_at_most(make_rig: MakeRig, level: str | None) -> None:
    """It fails above, with the verifier and without."""
    rig = make_rig(level=level)
    port = rig.scripted.port
    status, memory = port.allocate_pool(64, 0x41424344)
    assert status == STOR_STATUS_SUCCESS and memory is not None and bytes(memory) == bytes(64)
    assert above_dispatch(rig, lambda: port.allocate_pool(64)) == (STOR_STATUS_INVALID_IRQL, None)
    assert above_dispatch(rig, lambda: port.free_pool(memory)) == STOR_STATUS_INVALID_IRQL
    got: list[Any] = []
    rig.scripted.initialize = lambda: got.append(port.allocate_pool(8)) or True  # type: ignore[func-returns-value]
    rig.port.start()  # hw_initialize runs at DIRQL
    assert got == [(STOR_STATUS_INVALID_IRQL, None)]
    if level:
        assert rig.messages("LB-01")[0] == "StorPortAllocatePool above DISPATCH_LEVEL, at DIRQL"


def test_LB_04_pool_is_freed_once(rig: Rig) -> None:
    port = rig.scripted.port
    _, memory = port.allocate_pool(64)
    assert memory is not None
    assert port.free_pool(memory[8:]) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_pool(None) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_pool(memory) == STOR_STATUS_SUCCESS
    assert port.free_pool(memory) == STOR_STATUS_INVALID_PARAMETER
    assert len(rig.messages("LB-04")) == 3
    assert rig.port.memory.pool == 0


def test_pool_has_an_end(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.allocate_pool(0) == (STOR_STATUS_INVALID_PARAMETER, None)
    status, memory = port.allocate_pool(POOL_LIMIT)
    assert status == STOR_STATUS_SUCCESS
    assert port.allocate_pool(1) == (STOR_STATUS_INSUFFICIENT_RESOURCES, None)
    port.free_pool(memory)
    assert port.allocate_pool(1)[0] == STOR_STATUS_SUCCESS


def reach(rig: Rig, bus: int, length: int) -> memoryview:
    """What the chip's DMA reaches there."""
    (view,) = rig.chip.map(None, [(bus, length)], 1).views
    return view


def test_the_device_reaches_dma_memory(rig: Rig) -> None:
    port = rig.scripted.port
    status, memory, bus = port.allocate_dma_memory(4096)
    assert status == STOR_STATUS_SUCCESS and memory is not None
    assert port.get_physical_address(None, memory) == (bus, 4096)
    reach(rig, bus + 16, 4)[:] = b"abcd"
    assert bytes(memory[16:20]) == b"abcd"
    assert bytes(port.get_virtual_address(bus + 16)[:4]) == b"abcd"  # type: ignore[index]
    task = Task(bytes(6))
    task.direction = DATA_IN
    task.data = rig.chip.map(None, [(bus, 4096)], 1)
    rig.chip.start(0, 0, task)
    assert rig.found == set()  # a window of its own (MB-13)
    port.allocate_dma_memory(64)
    assert port.free_dma_memory(memory, 4096, 0, bus) == STOR_STATUS_SUCCESS
    assert port.get_virtual_address(bus) is None
    with pytest.raises(Exception, match="no such memory"):
        reach(rig, bus, 4)


def test_contiguous_memory_within_limits(rig: Rig) -> None:
    port = rig.scripted.port
    status, memory = port.allocate_contiguous_memory_specify_cache_node(8192, 0, (1 << 64) - 1, 1 << 16)
    assert status == STOR_STATUS_SUCCESS and memory is not None
    bus, length = port.get_physical_address(None, memory)  # type: ignore[misc]
    assert length == 8192 and bus // (1 << 16) == (bus + 8191) // (1 << 16)
    assert port.allocate_contiguous_memory_specify_cache_node(128, 0, (1 << 64) - 1, 64)[0] == (
        STOR_STATUS_INSUFFICIENT_RESOURCES
    )
    assert port.free_contiguous_memory_specify_cache(memory, 8192) == STOR_STATUS_SUCCESS
    # At 60 KiB, eight KiB would cross the next multiple of 64 KiB.
    first = port.allocate_dma_memory(60 << 10)[2]
    second = port.allocate_dma_memory(8 << 10, boundary_address_multiple=1 << 16)[2]
    assert first == HOST_MEMORY_BASE and second == HOST_MEMORY_BASE + (1 << 16)


def test_memory_below_4_gib_for_adapters_of_32_bits(rig: Rig) -> None:
    port = rig.scripted.port
    most = 0xFFFF_FFFF
    status, memory, bus = port.allocate_dma_memory(8192, 0, most)
    assert (status, bus) == (STOR_STATUS_SUCCESS, LOW_MEMORY_BASE) and memory is not None
    reach(rig, bus + 4096, 4)[:] = b"abcd"
    assert bytes(memory[4096:4100]) == b"abcd"
    assert port.get_physical_address(None, memory[16:]) == (bus + 16, 8176)
    third = port.allocate_dma_memory(4096, 0, most)
    assert third[2] == LOW_MEMORY_BASE + 8192
    assert port.free_dma_memory(memory, 8192) == STOR_STATUS_SUCCESS
    assert port.allocate_dma_memory(4096, 0, most)[2] == LOW_MEMORY_BASE  # where there is room again
    assert port.allocate_dma_memory(8192, 0, most)[2] == LOW_MEMORY_BASE + 12288
    aside = port.allocate_dma_memory(0x3000, LOW_MEMORY_BASE + 0x10_0000, most, 0x4000)
    assert aside[2] == LOW_MEMORY_BASE + 0x10_0000
    for limits in ((0, 1 << 24), (0, LOW_MEMORY_BASE + 4095), (LOW_MEMORY_END - 4096, most)):
        assert port.allocate_dma_memory(8192, *limits) == (STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0)
    assert rig.found == set()
    rig.port.stop()
    rig.port.start()
    assert port.allocate_dma_memory(4096, 0, most)[2] == LOW_MEMORY_BASE


def test_LB_04_dma_memory_is_freed_as_it_was_allocated(rig: Rig) -> None:
    port = rig.scripted.port
    _, memory, bus = port.allocate_dma_memory(4096, cache_type=1)
    assert memory is not None
    for arguments in ((memory, 2048, 1), (memory, 4096, 0), (memory[1:], 4096, 1), (bytearray(8), 8, 1)):
        assert port.free_dma_memory(*arguments) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_dma_memory(memory, 4096, 1, bus + 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_contiguous_memory_specify_cache(memory, 4096, 1) == STOR_STATUS_SUCCESS
    assert port.free_dma_memory(memory, 4096, 1) == STOR_STATUS_INVALID_PARAMETER
    assert len(rig.messages("LB-04")) == 6


def test_a_host_memory_buffer_is_the_devices(rig: Rig) -> None:
    port = rig.scripted.port
    status, ranges = port.allocate_host_memory_buffer(4096, 1 << 16, 1 << 16, 4096)
    assert status == STOR_STATUS_SUCCESS and [length for _, length in ranges] == [1 << 16]
    reach(rig, ranges[0][0], 8)[:] = b"whatever"
    assert port.free_host_memory_buffer(ranges) == STOR_STATUS_SUCCESS
    assert port.free_host_memory_buffer(ranges) == STOR_STATUS_UNSUCCESSFUL and rig.found == {"LB-04"}
    for arguments in ((8192, 4096, 0, 0), (0, 5000, 0, 0), (0, 0, 0, 0)):
        assert port.allocate_host_memory_buffer(*arguments) == (STOR_STATUS_INVALID_PARAMETER, [])
    assert port.allocate_host_memory_buffer(0, 4096, 0, 0, boundary_address_multiple=1)[0] == (
        STOR_STATUS_INVALID_PARAMETER
    )
    assert port.allocate_host_memory_buffer(0, 4096, 0, 1 << 20)[0] == STOR_STATUS_INSUFFICIENT_RESOURCES


def test_descriptor_lists_of_pool(rig: Rig) -> None:
    port = rig.scripted.port
    _, memory = port.allocate_pool(256)
    assert memory is not None
    status, mdl = port.allocate_mdl(memory, 128)
    assert status == STOR_STATUS_SUCCESS and mdl is not None and mdl.length == 128 and mdl.segments == ()
    assert port.build_mdl_for_non_paged_pool(mdl) == STOR_STATUS_SUCCESS
    ((bus, length),) = mdl.segments
    reach(rig, bus, length)[:4] = b"pool"
    assert bytes(memory[:4]) == b"pool"
    assert port.free_mdl(mdl) == STOR_STATUS_SUCCESS
    assert port.free_mdl(mdl) == port.build_mdl_for_non_paged_pool(mdl) == STOR_STATUS_INVALID_PARAMETER
    assert port.allocate_mdl(memory, 257) == port.allocate_mdl(None, 1) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert above_dispatch(rig, lambda: port.allocate_mdl(memory, 1)) == (STOR_STATUS_INVALID_IRQL, None)


def test_LB_02_dump_memory_is_marked_in_find_adapter(make_rig: MakeRig) -> None:
    got: list[int] = []

    def find(config: Any) -> None:
        port = rigs[0].scripted.port
        _, memory, bus = port.allocate_dma_memory(4096)
        got.append(port.mark_dump_memory(memory, 0))
        got.append(port.mark_dump_memory(bus + 512, 512, MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS))
        got.append(port.mark_dump_memory(memory, 0, 0x8))
        got.append(port.mark_dump_memory(bytearray(8), 8))

    rigs = [make_rig()]
    rig = rigs[0]
    rig.scripted.find = find
    rig.port.start()
    assert got == [STOR_STATUS_SUCCESS] * 2 + [STOR_STATUS_INVALID_PARAMETER] * 2
    assert rig.found == set()
    _, memory, _ = rig.scripted.port.allocate_dma_memory(64)
    rig.scripted.port.mark_dump_memory(memory, 64)
    assert rig.found == {"LB-02"}


@pytest.mark.parametrize("model", ["scsiport", "storport"])
def test_copies_and_addresses(model: str) -> None:
    port: Any = AnyRig(model).miniport.port
    buffer = bytearray(b"abcdef")
    port.move_memory(memoryview(buffer)[1:], memoryview(buffer)[:-1], 5)  # they overlap
    assert buffer == b"aabcde"
    with pytest.raises(ValueError, match="moving 7 bytes"):
        port.move_memory(buffer, buffer, 7)
    assert port.convert_ulong_to_physical_address(0xF000_0000) == 0xF000_0000
    assert port.get_virtual_address(0x1000) is None
    if model == "scsiport":
        assert port.convert_physical_address_to_ulong(0x1_F000_0000) == 0xF000_0000
        return
    assert port.secure_copy_memory(buffer, 6, b"xyz", 3) == STOR_STATUS_SUCCESS and buffer == b"xyzcde"
    assert port.secure_copy_memory(buffer, 2, b"xyz", 3) == STOR_STATUS_BUFFER_TOO_SMALL
    assert port.secure_copy_memory(None, 2, b"xyz", 1) == STOR_STATUS_INVALID_PARAMETER
    assert port.secure_copy_memory(buffer, 6, b"xyz", 4) == STOR_STATUS_INVALID_PARAMETER


def test_the_address_of_an_extension_leads_back(rig: Rig) -> None:
    got: list[Any] = []

    def build(srb: Any) -> None:
        port = rig.scripted.port
        bus, _ = port.get_physical_address(None, srb.srb_extension)  # type: ignore[misc]
        view = port.get_virtual_address(bus)
        assert view is not None
        view[:4] = b"mine"
        got.append(bytes(srb.srb_extension[0:4]))

    in_build_io(rig, build)
    assert got == [b"mine"] and rig.found == set()

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
from hba.port.library import memory as memory_routines
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


def test_what_an_earlier_find_adapter_gave_is_nobodys(rig: Rig) -> None:
    """All of it is gone, and counts against no limit."""
    port = rig.scripted.port
    _, pool = port.allocate_pool(64)
    _, shared, _ = port.allocate_dma_memory(4096)
    _, ranges = port.allocate_host_memory_buffer(4096, 4096, 4096, 4096)
    rig.port.start()
    assert rig.port.memory.pool == 0
    assert port.free_pool(pool) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_dma_memory(shared, 4096) == STOR_STATUS_INVALID_PARAMETER  # type: ignore[arg-type]
    assert port.free_host_memory_buffer(ranges) == STOR_STATUS_UNSUCCESSFUL
    assert rig.port.memory.pool == 0
    assert rig.messages("LB-04") == [
        "StorPortFreePool of memory that StorPortAllocatePool did not return",
        "StorPortFreeDmaMemory of memory that is not the port's, or with other arguments",
        f"StorPortFreeHostMemoryBuffer of {ranges}, which is none, or not any more",
    ]


def test_dma_memory_has_an_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is in use counts together; what was freed, or given before a restart, does not."""
    monkeypatch.setattr(memory_routines, "DMA_LIMIT", 3 * 4096)
    port = rig.scripted.port
    nothing = (STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0)
    assert port.allocate_dma_memory(3 * 4096 + 1) == nothing
    _, first, _ = port.allocate_dma_memory(4096)
    _, second, _ = port.allocate_dma_memory(2 * 4096)
    assert first is not None and second is not None
    assert port.allocate_dma_memory(1) == nothing
    assert port.allocate_host_memory_buffer(4096, 4096, 0, 0) == (STOR_STATUS_INSUFFICIENT_RESOURCES, [])
    assert port.free_dma_memory(first, 4096) == STOR_STATUS_SUCCESS
    assert port.allocate_dma_memory(4097) == nothing
    status, ranges = port.allocate_host_memory_buffer(4096, 4096, 0, 0)
    assert status == STOR_STATUS_SUCCESS
    assert port.free_host_memory_buffer(ranges) == STOR_STATUS_SUCCESS
    assert port.allocate_dma_memory(4096)[0] == STOR_STATUS_SUCCESS
    rig.port.start()
    assert port.allocate_dma_memory(3 * 4096)[0] == STOR_STATUS_SUCCESS


@pytest.mark.parametrize("size", [-1, 0])
def test_memory_of_no_bytes(rig: Rig, size: int) -> None:
    port = rig.scripted.port
    assert port.allocate_dma_memory(size) == (STOR_STATUS_INVALID_PARAMETER, None, 0)
    assert port.allocate_contiguous_memory_specify_cache_node(size) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.allocate_pool(size) == (STOR_STATUS_INVALID_PARAMETER, None)
    _, pool = port.allocate_pool(1)
    assert pool is not None and len(pool) == 1 and port.allocate_dma_memory(1)[0] == STOR_STATUS_SUCCESS
    assert port.allocate_mdl(pool, size) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.allocate_mdl(pool, 1)[0] == STOR_STATUS_SUCCESS
    assert port.allocate_mdl(bytearray(1), 1) == (STOR_STATUS_INVALID_PARAMETER, None)  # type: ignore[arg-type]


def test_dma_memory_lies_within_its_limits_all_of_it(rig: Rig) -> None:
    """The highest acceptable address is that of the last byte, not of the first."""
    port = rig.scripted.port
    last = 2 * HOST_MEMORY_BASE - 1
    assert port.allocate_dma_memory(4096, HOST_MEMORY_BASE, last)[2] == HOST_MEMORY_BASE
    assert port.allocate_dma_memory(4096, 0, last)[2] == HOST_MEMORY_BASE + 4096
    nothing = (STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0)
    assert port.allocate_dma_memory(4096, HOST_MEMORY_BASE + 1) == nothing
    assert port.allocate_dma_memory(8192, HOST_MEMORY_BASE, HOST_MEMORY_BASE + 4096) == nothing
    # Memory that goes on beyond the limit would not do, that below 4 GiB does.
    assert port.allocate_dma_memory(8192, 0, HOST_MEMORY_BASE + 4096)[2] == LOW_MEMORY_BASE
    assert port.allocate_dma_memory(8192, 0, last - 1)[2] == LOW_MEMORY_BASE + 8192


def test_a_boundary_and_memory_that_just_fits(rig: Rig) -> None:
    port = rig.scripted.port
    status, memory, bus = port.allocate_dma_memory(8192, boundary_address_multiple=8192)
    assert status == STOR_STATUS_SUCCESS and memory is not None and len(memory) == 8192 and not bus % 8192
    nothing = (STOR_STATUS_INSUFFICIENT_RESOURCES, None, 0)
    assert port.allocate_dma_memory(8193, boundary_address_multiple=8192) == nothing
    assert port.allocate_dma_memory(8193, 0, 0xFFFF_FFFF, 8192) == nothing


@pytest.mark.parametrize(
    ("minimum", "preferred", "alignment", "more", "status"),
    [
        (4096, 4096, 0, {}, STOR_STATUS_SUCCESS),
        (8192, 4096, 0, {}, STOR_STATUS_INVALID_PARAMETER),
        (0, 4096, 1, {}, STOR_STATUS_SUCCESS),
        (1, 4096, 0, {}, STOR_STATUS_INVALID_PARAMETER),
        (0, 4097, 0, {}, STOR_STATUS_INVALID_PARAMETER),
        (0, 0, 0, {}, STOR_STATUS_INVALID_PARAMETER),
        (-4096, -4096, 0, {}, STOR_STATUS_INVALID_PARAMETER),
        (0, 4096, 4096, {}, STOR_STATUS_SUCCESS),
        (0, 4096, 2048, {}, STOR_STATUS_SUCCESS),
        (0, 4096, 8192, {}, STOR_STATUS_INSUFFICIENT_RESOURCES),
        (0, 4096, 3, {}, STOR_STATUS_INSUFFICIENT_RESOURCES),
        (0, 4096, 0, {"boundary_address_multiple": 4096}, STOR_STATUS_INVALID_PARAMETER),
        (0, 4096, 0, {"physical_address_range_count": 0}, STOR_STATUS_INVALID_PARAMETER),
        (0, 4096, 0, {"physical_address_range_count": 1}, STOR_STATUS_SUCCESS),
        (0, 4096, 0, {"highest_acceptable_address": 0xFFFF}, STOR_STATUS_INSUFFICIENT_RESOURCES),
    ],
)
def test_which_host_memory_buffers_there_are(
    rig: Rig, minimum: int, preferred: int, alignment: int, more: dict[str, int], status: int
) -> None:
    got = rig.scripted.port.allocate_host_memory_buffer(minimum, preferred, preferred, alignment, **more)
    assert got == (status, [] if status else [(HOST_MEMORY_BASE, preferred)])


def test_a_host_memory_buffer_that_was_freed_is_out_of_reach(rig: Rig) -> None:
    port = rig.scripted.port
    _, low = port.allocate_host_memory_buffer(4096, 8192, 0, 0, 0, 0xFFFF_FFFF)
    _, ranges = port.allocate_host_memory_buffer(4096, 8192, 0, 0)
    assert (low, ranges) == ([(LOW_MEMORY_BASE, 8192)], [(HOST_MEMORY_BASE, 8192)])
    for wrong in ([], [(HOST_MEMORY_BASE, 4096)], [*ranges, (0, 4096)]):
        assert port.free_host_memory_buffer(wrong) == STOR_STATUS_UNSUCCESSFUL
    reach(rig, HOST_MEMORY_BASE, 4)
    assert port.free_host_memory_buffer(ranges) == STOR_STATUS_SUCCESS
    with pytest.raises(Exception, match="no such memory"):
        reach(rig, HOST_MEMORY_BASE, 4)
    reach(rig, LOW_MEMORY_BASE, 4)  # the other one is there still
    assert len(rig.messages("LB-04")) == 3


def test_MB_13_the_device_may_reach_pool_that_was_described(rig: Rig) -> None:
    """From then on; a list of memory that has addresses already takes those."""
    port = rig.scripted.port
    _, pool = port.allocate_pool(4096)
    _, mdl = port.allocate_mdl(pool, 4096)
    assert mdl is not None and port.build_mdl_for_non_paged_pool(mdl) == STOR_STATUS_SUCCESS
    ((bus, length),) = mdl.segments
    task = Task(bytes(6))
    task.direction = DATA_IN
    task.data = rig.chip.map(None, [(bus, length)], 1)
    rig.chip.start(0, 0, task)
    assert rig.found == set()
    assert port.build_mdl_for_non_paged_pool(mdl) == STOR_STATUS_SUCCESS and mdl.segments == ((bus, length),)
    _, shared, address = port.allocate_dma_memory(4096)
    assert shared is not None
    _, part = port.allocate_mdl(shared[64:], 100)
    assert part is not None and port.build_mdl_for_non_paged_pool(part) == STOR_STATUS_SUCCESS
    assert part.segments == ((address + 64, 100),)


def test_LB_04_a_list_that_is_none(rig: Rig) -> None:
    port = rig.scripted.port
    assert port.build_mdl_for_non_paged_pool(None) == STOR_STATUS_INVALID_PARAMETER
    assert port.free_mdl("list") == STOR_STATUS_INVALID_PARAMETER  # type: ignore[arg-type]
    assert rig.messages("LB-04") == [
        f"{routine}, which is no list of StorPortAllocateMdl, or not any more"
        for routine in ("StorPortBuildMdlForNonPagedPool of None", "StorPortFreeMdl of 'list'")
    ]


def test_what_is_marked_for_a_dump(rig: Rig) -> None:
    """Where it is and how much of it; a bus address needs its flag, and memory must not have it."""
    got: list[Any] = []

    def find(config: Any) -> None:
        port = rig.scripted.port
        _, memory, bus = port.allocate_dma_memory(4096)
        assert memory is not None
        got.append(bus)
        for arguments in (
            (memory, 0),
            (memory, 100),
            (memory[96:], 0),
            (bus, 0, MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS),
            (bus + 4095, 0, MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS),
            (bus, 0),
            (memory, 0, MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS),
            (bus + 4096, 0, MARK_DUMP_MEMORY_FLAG_PHYSICAL_ADDRESS),
            (memory, 0, 2),
            (bus, 0, 3),
        ):
            got.append(port.mark_dump_memory(*arguments))

    rig.scripted.find = find
    rig.port.start()
    bus = got.pop(0)
    assert got == [STOR_STATUS_SUCCESS] * 5 + [STOR_STATUS_INVALID_PARAMETER] * 5
    assert rig.port.memory.marked == [(bus, 4096), (bus, 100), (bus + 96, 4000), (bus, 4096), (bus + 4095, 1)]


def test_copies_at_their_edges(rig: Rig) -> None:
    port = rig.scripted.port
    buffer = bytearray(b"abcdef")
    port.move_memory(buffer, b"", 0)
    port.move_memory(buffer, b"xyz", 3)
    port.move_memory(memoryview(buffer)[5:], b"xyz", 1)
    assert buffer == b"xyzdex"
    for write, source, length in ((buffer, b"xyz", 4), (memoryview(buffer)[5:], b"xyz", 2), (buffer, b"xyz", -1)):
        with pytest.raises(ValueError, match=f"moving {length} bytes from 3 to {len(write)}"):
            port.move_memory(write, source, length)
    good, bad, small = STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_BUFFER_TOO_SMALL
    for size, source, count, status in (
        (6, b"123", 0, good),
        (6, b"123", 3, good),
        (6, b"123456", 6, good),
        (3, b"123456", 3, good),
        (3, b"123456", 4, small),
        (7, b"123", 1, bad),
        (6, b"123", 4, bad),
        (6, b"123", -1, bad),
        (6, None, 0, bad),
    ):
        assert port.secure_copy_memory(buffer, size, source, count) == status, (size, source, count)
    assert buffer == b"123456"
    assert port.convert_ulong_to_physical_address(0x1_2345_6789) == 0x2345_6789


def test_ST_08_pool_in_start_io_is_a_warning(rig: Rig) -> None:
    """HW_STARTIO allows it in full duplex, the rule SpNoWait does not."""
    got: list[Any] = []

    def start(srb: Any) -> bool:
        got.append(rig.scripted.port.allocate_pool(8)[0])
        return True

    rig.scripted.start = start
    rig.submit()
    assert got == [STOR_STATUS_SUCCESS] and rig.verifier is not None
    assert [(f.rule, f.severity, f.message) for f in rig.verifier.findings] == [
        ("ST-08", "warning", "StorPortAllocatePool in a full-duplex hw_start_io")
    ]

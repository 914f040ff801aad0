"""What is asked of a request, and descriptor lists made on request."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from hba.dma import DmaBuffer
from hba.miniport.config import STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE, STOR_SYNCHRONIZE_HALF_DUPLEX
from hba.miniport.services import (
    STOR_STATUS_BUFFER_TOO_SMALL,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
    STOR_STATUS_UNSUPPORTED_VERSION,
)
from hba.port.context import DISPATCH_LEVEL
from hba.port.library.requests import REQUEST_INFO_WRITE_THROUGH_FLAG, STOR_IO_PRIORITY_NORMAL, RequestInfo
from hba.srb import Srb
from tests.port.library.conftest import MakeRig, above_dispatch, in_build_io
from tests.port.storport.rig import WRITE_10, Rig


def in_start_io(rig: Rig, action: Any) -> None:
    """Run `action(srb)` in hw_start_io."""

    def start(srb: Any) -> bool:
        action(srb)
        return True

    rig.scripted.start = start
    rig.submit()
    rig.scripted.start = None


@pytest.mark.parametrize("level", ["report", None])
def test_MB_10_no_system_address_above_dispatch_level(make_rig: MakeRig, level: str | None) -> None:
    """With the verifier and without: hw_interrupt, and hw_start_io in half duplex, are above."""
    got: list[Any] = []
    full = make_rig(level=level)
    in_start_io(full, lambda srb: got.append(full.scripted.port.get_system_address(srb)))
    assert got[0][0] == STOR_STATUS_SUCCESS and len(got[0][1]) == 4096
    mine = full.scripted.started[0]
    assert above_dispatch(full, lambda: full.scripted.port.get_system_address(mine)) == (STOR_STATUS_INVALID_IRQL, None)

    def half_duplex(config: Any) -> None:
        config.synchronization_model = STOR_SYNCHRONIZE_HALF_DUPLEX

    half = make_rig(half_duplex, level)
    in_start_io(half, lambda srb: got.append(half.scripted.port.get_system_address(srb)))
    assert got[1] == (STOR_STATUS_INVALID_IRQL, None)
    if level:
        assert half.messages("MB-10") == ["StorPortGetSystemAddress above DISPATCH_LEVEL, at DIRQL"]
        assert len(full.messages("MB-10")) == 1


def test_the_original_mdl_and_its_pages(rig: Rig) -> None:
    port = rig.scripted.port
    got: list[Any] = []

    def build(srb: Any) -> None:
        status, mdl = port.get_original_mdl(srb)
        got.append((status, mdl.byte_count, port.get_pfns(srb, mdl)))
        got.append(mdl)

    original = rig.srb()
    original.mdl = DmaBuffer(
        [(0x10800, 0x1000), (0x30000, 0x3000)], [memoryview(bytearray(0x1000)), memoryview(bytearray(0x3000))], 0x4000
    )
    original.data_transfer_length = 16384
    rig.scripted.build = lambda srb: build(srb) or True  # type: ignore[func-returns-value]
    rig.port.submit(original)
    pages = [0x10, 0x11, 0x30, 0x31, 0x32]
    assert got[0] == (STOR_STATUS_SUCCESS, 16384, (STOR_STATUS_SUCCESS, pages, 0x800))
    mine = rig.scripted.started[0]
    assert port.get_pfns(mine, None) == (STOR_STATUS_INVALID_PARAMETER, [], 0)
    assert got[1].live
    rig.finish_all()
    assert not got[1].live


def test_an_srb_without_data_has_no_list(rig: Rig) -> None:
    port = rig.scripted.port
    rig.submit(0, 0)
    mine = rig.scripted.started[0]
    assert port.get_original_mdl(mine) == (STOR_STATUS_SUCCESS, None)
    assert port.get_data_in_buffer_mdl(mine) == (STOR_STATUS_SUCCESS, None)
    assert port.get_data_in_buffer_scatter_gather_list(mine) == (STOR_STATUS_SUCCESS, None)
    assert port.get_data_in_buffer_system_address(mine) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_system_address(mine) == (STOR_STATUS_INVALID_PARAMETER, None)


def test_OW_01_of_an_srb_that_is_complete(rig: Rig) -> None:
    port = rig.scripted.port
    rig.submit()
    mine = rig.scripted.started[0]
    rig.finish_all()
    assert port.get_original_mdl(mine) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_request_info(mine) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_activity_id_srb(mine) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert "OW-01" in rig.found


def test_request_information(rig: Rig) -> None:
    port = rig.scripted.port
    write = rig.srb(WRITE_10)
    write.cdb = bytes((WRITE_10, 0x08)) + bytes(14)  # FUA
    rig.port.submit(write)
    rig.submit(length=512)
    first, second = rig.scripted.started
    status, information = port.get_request_info(first)
    assert status == STOR_STATUS_SUCCESS and information is not None
    assert (information.flags, information.length) == (REQUEST_INFO_WRITE_THROUGH_FLAG, 4096)
    assert information.is_write_request and information.priority_hint == STOR_IO_PRIORITY_NORMAL
    information = port.get_request_info(second)[1]
    assert information is not None
    assert (information.flags, information.length, information.is_write_request) == (0, 512, False)
    assert port.get_request_info(second, 2) == (STOR_STATUS_UNSUPPORTED_VERSION, None)
    ids = [port.get_activity_id_srb(srb) for srb in (first, second)]
    assert [status for status, _ in ids] == [STOR_STATUS_SUCCESS] * 2
    assert all(isinstance(one, UUID) for _, one in ids) and ids[0] != ids[1]


def build_list(rig: Rig, srb: Any, length: int, room: int = 256, offset: int = 0) -> tuple[int, list[Any]]:
    """(status, what the execution routine was called with) of a list of the SRB's data."""
    port, got = rig.scripted.port, []

    def execute(*arguments: Any) -> None:
        got.append((*arguments, rig.port.irql))

    _, mdl = port.get_original_mdl(srb)
    _, data = port.get_system_address(srb)
    status = port.build_scatter_gather_list(
        mdl, data + offset, length, execute, "mine", False, memoryview(bytearray(room)), room
    )
    return status, got


def test_a_list_of_part_of_the_data(rig: Rig) -> None:
    port = rig.scripted.port
    results: list[Any] = []
    in_build_io(rig, lambda srb: results.append(build_list(rig, srb, 1024, offset=512)))
    status, got = results[0]
    assert status == STOR_STATUS_SUCCESS and got == []
    rig.turn()
    (device, irp, made, context, irql) = got[0]
    assert (device, irp, context, irql) == (None, None, "mine", DISPATCH_LEVEL)
    (address, length) = made[0]
    assert len(made) == 1 and length == 1024 and address % 4096 == 512
    puts: list[int] = []
    in_build_io(rig, lambda _: puts.extend(port.put_scatter_gather_list(made, False) for _ in range(2)))
    assert puts == [STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER]
    assert rig.messages("LB-04") == ["StorPortPutScatterGatherList of what is no built list, or not any more"]


def test_a_list_that_cannot_be_built(rig: Rig) -> None:
    results: list[Any] = []

    def build(srb: Srb) -> None:
        results.append(build_list(rig, srb, 4096, room=39)[0])
        results.append(build_list(rig, srb, 4097)[0])
        results.append(build_list(rig, srb, 0)[0])
        results.append(
            rig.scripted.port.build_scatter_gather_list(None, None, 64, print, 0, True, memoryview(bytearray(64)), 64)
        )

    in_build_io(rig, build)
    assert results == [STOR_STATUS_BUFFER_TOO_SMALL, *[STOR_STATUS_INVALID_PARAMETER] * 3]


def test_LB_01_lists_are_built_at_dispatch_level_exactly(rig: Rig) -> None:
    port = rig.scripted.port
    arguments = (None, None, 64, print, 0, True, memoryview(bytearray(64)), 64)
    assert port.build_scatter_gather_list(*arguments) == STOR_STATUS_INVALID_IRQL
    assert above_dispatch(rig, lambda: port.build_scatter_gather_list(*arguments)) == STOR_STATUS_INVALID_IRQL
    assert len(rig.messages("LB-01")) == 2


def test_a_list_of_pool_memory(rig: Rig) -> None:
    port = rig.scripted.port
    got: list[Any] = []

    def build(_: Any) -> None:
        _, memory = port.allocate_pool(8192)
        _, mdl = port.allocate_mdl(memory, 8192)
        port.build_mdl_for_non_paged_pool(mdl)
        room = memoryview(bytearray(128))
        got.append(port.build_scatter_gather_list(mdl, memory, 8192, lambda *a: got.append(a), 7, True, room, 128))

    in_build_io(rig, build)
    rig.turn()
    assert got[0] == STOR_STATUS_SUCCESS
    assert sum(length for _, length in got[1][2]) == 8192


def test_map_buffers_of_everything_needs_no_system_address(make_rig: MakeRig) -> None:
    """What is mapped already can be asked for again."""

    def find(config: Any) -> None:
        config.map_buffers = STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE

    rig = make_rig(find)
    got: list[Any] = []
    in_build_io(rig, lambda srb: got.append(rig.scripted.port.get_system_address(srb)))
    assert got[0][0] == STOR_STATUS_SUCCESS


def submit_pieces(rig: Rig, *pieces: tuple[int, int]) -> Any:
    """What the miniport got of a request whose data lies at these (bus address, bytes)."""
    srb = rig.srb(length=0)
    srb.mdl = DmaBuffer(list(pieces), [memoryview(bytearray(size)) for _, size in pieces], sum(s for _, s in pieces))
    srb.data_transfer_length = srb.mdl.length
    rig.port.submit(srb)
    return rig.scripted.started[-1]


@pytest.mark.parametrize(
    ("pieces", "pages", "offset"),
    [
        ([(0x10000, 0x1000)], [0x10], 0),
        ([(0x10000, 0x1001)], [0x10, 0x11], 0),
        ([(0x10FFF, 1)], [0x10], 0xFFF),
        ([(0x10FFF, 2)], [0x10, 0x11], 0xFFF),
        ([(0x10000, 0x800), (0x10800, 0x800)], [0x10], 0),  # adjacent: the page is told once
        ([(0x10004, 8), (0x12000, 8), (0x10004, 8)], [0x10, 0x12, 0x10], 4),
        ([], [], 0),
    ],
)
def test_pages_of_a_list(rig: Rig, pieces: list[tuple[int, int]], pages: list[int], offset: int) -> None:
    port = rig.scripted.port
    mine = submit_pieces(rig, *pieces)
    status, mdl = port.get_original_mdl(mine)
    assert status == STOR_STATUS_SUCCESS and mdl is not None and list(mdl.segments) == pieces
    assert mdl.byte_count == sum(size for _, size in pieces)
    assert port.get_pfns(mine, mdl) == (STOR_STATUS_SUCCESS, pages, offset)


def test_pages_of_somebody_elses_list(rig: Rig) -> None:
    port = rig.scripted.port
    first, second = submit_pieces(rig, (0x1000, 8)), submit_pieces(rig, (0x2000, 8))
    _, mdl = port.get_original_mdl(first)
    nothing = (STOR_STATUS_INVALID_PARAMETER, [], 0)
    assert port.get_pfns(second, mdl) == port.get_pfns(first, "list") == nothing  # type: ignore[arg-type]
    rig.finish_all()
    assert port.get_pfns(first, mdl) == nothing
    assert not mdl.live  # type: ignore[union-attr]
    assert port.get_data_in_buffer_mdl(first) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_data_in_buffer_scatter_gather_list(first) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert port.get_system_address(first) == (STOR_STATUS_INVALID_PARAMETER, None)
    assert len(rig.messages("OW-01")) == 3 and len(rig.messages("MB-10")) == 1


@pytest.mark.parametrize(
    ("cdb", "through"),
    [
        *((bytes((opcode, 0x08)) + bytes(14), True) for opcode in (0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A)),
        *((bytes((opcode, 0xF7)) + bytes(14), False) for opcode in (0x28, 0x2A, 0xA8, 0xAA, 0x88, 0x8A)),
        (b"\x0a\x08" + bytes(4), False),
        (b"\x12\x08" + bytes(4), False),
        (b"\x2a\x08", True),
        (b"\x2a", False),
        (b"", False),
    ],
)
def test_write_through_is_fua_where_a_command_has_it(rig: Rig, cdb: bytes, through: bool) -> None:
    srb = rig.srb(length=0)
    srb.cdb, srb.cdb_length, srb.queue_sort_key = cdb, len(cdb), 77
    rig.port.submit(srb)
    status, found = rig.scripted.port.get_request_info(rig.scripted.started[0])
    assert status == STOR_STATUS_SUCCESS
    flags = REQUEST_INFO_WRITE_THROUGH_FLAG if through else 0
    assert found == RequestInfo(STOR_IO_PRIORITY_NORMAL, flags, 77, 0, False, 1)


def test_the_activity_of_a_request_is_its_number(rig: Rig) -> None:
    port = rig.scripted.port
    for _ in range(3):
        rig.submit()
    ids = [port.get_activity_id_srb(srb) for srb in rig.scripted.started]
    assert ids == [(STOR_STATUS_SUCCESS, UUID(int=number)) for number in (1, 2, 3)]
    assert port.get_request_info(rig.scripted.started[0], 0) == (STOR_STATUS_UNSUPPORTED_VERSION, None)


PIECES = ((0x10000, 512), (0x20000, 1024), (0x30000, 512))


@pytest.mark.parametrize(
    ("offset", "length", "found"),
    [
        (0, 2048, list(PIECES)),
        (0, 512, [(0x10000, 512)]),
        (0, 513, [(0x10000, 512), (0x20000, 1)]),
        (511, 2, [(0x101FF, 1), (0x20000, 1)]),
        (512, 1024, [(0x20000, 1024)]),
        (513, 1023, [(0x20001, 1023)]),
        (1536, 512, [(0x30000, 512)]),
        (2047, 1, [(0x301FF, 1)]),
        (2047, 2, None),
        (2048, 1, None),
        (0, 2049, None),
        (0, 0, None),
        (0, -1, None),
        (-1, 4, None),
    ],
)
def test_lists_of_every_part(rig: Rig, offset: int, length: int, found: list[tuple[int, int]] | None) -> None:
    """What lies in the part that was asked for, piece after piece; all of it, or none."""
    port, got, statuses = rig.scripted.port, [], []

    def build(srb: Any) -> bool:
        _, mdl = port.get_original_mdl(srb)
        _, data = port.get_system_address(srb)
        room = memoryview(bytearray(16 + 24 * 3))
        statuses.append(
            port.build_scatter_gather_list(mdl, data + offset, length, lambda *a: got.append(a), 1, False, room, 88)
        )
        return True

    rig.scripted.build = build
    submit_pieces(rig, *PIECES)
    rig.turn()
    if found is None:
        assert statuses == [STOR_STATUS_INVALID_PARAMETER] and got == []
        return
    assert statuses == [STOR_STATUS_SUCCESS]
    ((_, _, made, _),) = got
    assert list(made) == found and len(made) == len(found) and made[-1] == found[-1]


def test_the_buffer_of_a_list_has_room_for_it(rig: Rig) -> None:
    """16 bytes and 24 for each element: as many as were said, and as it has."""
    port, statuses = rig.scripted.port, []

    def build(srb: Any) -> bool:
        _, mdl = port.get_original_mdl(srb)
        _, data = port.get_system_address(srb)
        for size, told in ((88, 88), (88, 87), (87, 88), (200, 88), (88, 200)):
            room = memoryview(bytearray(size))
            statuses.append(port.build_scatter_gather_list(mdl, data, 2048, print, 1, False, room, told))
        statuses.append(port.build_scatter_gather_list(mdl, data, 2048, print, 1, False, None, 88))
        statuses.append(port.build_scatter_gather_list(mdl, data, 2048, None, 1, False, room, 88))
        statuses.append(port.build_scatter_gather_list(mdl, memoryview(bytearray(8)), 8, print, 1, False, room, 88))
        return True

    rig.scripted.build = build
    submit_pieces(rig, *PIECES)
    good, bad, small = STOR_STATUS_SUCCESS, STOR_STATUS_INVALID_PARAMETER, STOR_STATUS_BUFFER_TOO_SMALL
    assert statuses == [good, small, small, good, good, bad, bad, bad]


def test_lists_of_what_is_not_there_any_more(rig: Rig) -> None:
    port, kept, statuses = rig.scripted.port, [], []
    room = memoryview(bytearray(256))

    def keep(srb: Any) -> bool:
        kept.extend((port.get_original_mdl(srb)[1], port.get_system_address(srb)[1]))
        _, pool = port.allocate_pool(64)
        _, unbuilt = port.allocate_mdl(pool, 64)
        _, freed = port.allocate_mdl(pool, 64)
        _, built = port.allocate_mdl(pool, 64)
        assert freed is not None and built is not None and pool is not None
        port.build_mdl_for_non_paged_pool(freed)
        port.free_mdl(freed)
        port.build_mdl_for_non_paged_pool(built)
        for mdl, at, length in (
            (unbuilt, pool, 64),
            (freed, pool, 64),
            (built, bytearray(64), 64),
            (built, memoryview(bytearray(65)), 64),  # it would begin before
            (built, pool[60:], 5),
            (built, pool[60:], 4),
        ):
            statuses.append(port.build_scatter_gather_list(mdl, at, length, print, 1, True, room, 256))
        return True

    rig.scripted.build = keep
    rig.submit()
    assert statuses == [STOR_STATUS_INVALID_PARAMETER] * 5 + [STOR_STATUS_SUCCESS]
    assert rig.found == set()
    rig.finish_all()
    statuses.clear()

    def late(srb: Any) -> bool:
        statuses.append(port.build_scatter_gather_list(kept[0], kept[1], 8, print, 1, True, room, 256))
        statuses.append(port.put_scatter_gather_list(None, True))
        return True

    rig.scripted.build = late
    rig.submit()
    assert statuses == [STOR_STATUS_INVALID_PARAMETER] * 2
    assert rig.messages("OW-01") == ["StorPortBuildScatterGatherList with the MDL of an SRB that is complete"]
    assert rig.found == {"OW-01", "LB-04"}

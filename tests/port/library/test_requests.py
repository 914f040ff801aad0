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
from hba.port.library.requests import REQUEST_INFO_WRITE_THROUGH_FLAG, STOR_IO_PRIORITY_NORMAL
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

"""MB: buffers, scatter/gather lists, what hw_find_adapter may and must say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.dma import DmaBuffer
from hba.miniport.config import (
    SCSI_DMA64_MINIPORT_SUPPORTED,
    SCSI_DMA64_SYSTEM_SUPPORTED,
    SP_UNINITIALIZED,
    STOR_PERF_NO_SGL,
    PerfConfigurationData,
    PortConfigurationInformation,
)
from hba.miniport.driver_entry import PCI_BUS
from hba.miniport.services import (
    STOR_STATUS_INSUFFICIENT_RESOURCES,
    STOR_STATUS_INVALID_IRQL,
    STOR_STATUS_INVALID_PARAMETER,
    STOR_STATUS_SUCCESS,
)
from hba.port.buffers import ForbiddenAccess, MappedBuffer, OpaqueBuffer
from hba.port.storport.preset import WIDE_ADDRESSING
from hba.scsi.task import DATA_IN, DATA_OUT, Task
from hba.srb import (
    SRB_FUNCTION_IO_CONTROL,
    SRB_FUNCTION_WMI,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_ERROR,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.storport.conftest import MakeRig
from tests.port.storport.rig import INQUIRY, READ_10, WRITE_10, Rig, Scripted


def buffer_of(rig: Rig, *arguments: Any, **named: Any) -> Any:
    """What the miniport sees as data_buffer."""
    seen: list[Any] = []

    def start(srb: Srb) -> bool:
        seen.append(srb.data_buffer)
        return True

    rig.scripted.start = start
    rig.submit(*arguments, **named)
    rig.scripted.start = None
    return seen[0]


def in_start(rig: Rig, action: Any, **named: Any) -> list[Any]:
    results: list[Any] = []

    def start(srb: Srb) -> bool:
        results.append(action(srb))
        return True

    rig.scripted.start = start
    rig.submit(**named)
    rig.scripted.start = None
    return results


PRESET = (
    "scatter_gather",
    "master",
    "need_physical_addresses",
    "tagged_queuing",
    "auto_request_sense",
    "multiple_request_per_lu",
)


def test_MB_01_preset_for_every_storport_adapter(make_rig: MakeRig) -> None:
    seen: dict[str, object] = {}
    miniport = Scripted()
    miniport.find = lambda config: seen.update(vars(config))
    rig = make_rig(miniport)
    assert all(seen[name] is True for name in PRESET)
    assert seen["demand_mode"] is False and seen["hw_dma_started"] is None
    assert rig.found == set()


@pytest.mark.parametrize("name", [*PRESET, "demand_mode", "hw_dma_started", "hw_adapter_state"])
def test_MB_01_changing_one_is_found_and_undone(make_rig: MakeRig, name: str) -> None:
    rig = make_rig(Scripted(**{name: name not in PRESET}))
    assert rig.found == {"MB-01"}
    if name in PRESET:
        assert getattr(rig.port.info, name) is True


def test_MB_02_map_buffers_is_final_after_find_adapter(rig: Rig) -> None:
    rig.port.info.map_buffers = 3
    assert isinstance(buffer_of(rig), OpaqueBuffer)


def test_MB_02_a_value_that_does_not_exist(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(map_buffers=7))
    assert rig.found == {"MB-02"}
    assert rig.port.mapper.mode == 0


@pytest.mark.parametrize("level", [None, "report"])
def test_MB_03_no_buffers_means_none_but_io_control_and_wmi(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level, map_buffers="STOR_MAP_NO_BUFFERS")
    assert isinstance(buffer_of(rig, READ_10), OpaqueBuffer)
    assert isinstance(buffer_of(rig, INQUIRY, 36), OpaqueBuffer)
    assert isinstance(buffer_of(rig, function=SRB_FUNCTION_IO_CONTROL), MappedBuffer)
    assert isinstance(buffer_of(rig, function=SRB_FUNCTION_WMI), MappedBuffer)


def test_MB_03_strict_seed_means_none_at_all(make_rig: MakeRig) -> None:
    rig = make_rig(map_buffers=0, strict_seed=True)
    assert isinstance(buffer_of(rig, function=SRB_FUNCTION_IO_CONTROL), OpaqueBuffer)
    assert isinstance(buffer_of(rig, function=SRB_FUNCTION_WMI), OpaqueBuffer)


def test_MB_03_touching_one_is_found_with_the_source_line(make_rig: MakeRig) -> None:
    rig = make_rig(map_buffers=0)
    rig.scripted.start = lambda srb: bool(srb.data_buffer.read())
    srb = rig.submit(INQUIRY, 36)
    assert rig.found == {"MB-03"}
    assert rig.verifier is not None and "test_mapping.py" in rig.verifier.findings[0].where
    assert rig.done == [srb] and srb.srb_status == SRB_STATUS_INTERNAL_ERROR


def test_MB_04_value_1_acts_as_2(make_rig: MakeRig) -> None:
    rig = make_rig(map_buffers="STOR_MAP_ALL_BUFFERS")
    assert rig.found == {"MB-04"}
    assert rig.port.mapper.mode == 2
    assert isinstance(buffer_of(rig, READ_10), OpaqueBuffer)
    assert isinstance(buffer_of(rig, INQUIRY, 36), MappedBuffer)


@pytest.mark.parametrize("level", [None, "report"])
def test_MB_05_mapped_unless_read_or_write(make_rig: MakeRig, level: str | None) -> None:
    rig = make_rig(level=level, map_buffers=2)
    assert isinstance(buffer_of(rig, READ_10), OpaqueBuffer)
    assert isinstance(buffer_of(rig, WRITE_10), OpaqueBuffer)
    assert isinstance(buffer_of(rig, INQUIRY, 36), MappedBuffer)


@pytest.mark.parametrize("level", [None, "report"])
@pytest.mark.parametrize("access", ["exception", "poison"])
def test_MB_05_touching_a_read_buffer(make_rig: MakeRig, level: str | None, access: str) -> None:
    rig = make_rig(level=level, map_buffers=2, forbidden_access=access)
    rig.inquire()
    got: list[bytes] = []

    def start(srb: Srb) -> bool:
        try:
            got.append(srb.data_buffer.read(0, 4))
        except ForbiddenAccess:
            got.append(b"fault")
        return True

    rig.scripted.start = start
    rig.submit()
    assert got == ([b"fault"] if access == "exception" else [b"\xdb" * 4])
    if level is not None:
        assert rig.found == {"MB-05"}


def test_MB_06_everything_is_mapped_but_a_mapping_may_fail(make_rig: MakeRig) -> None:
    rig = make_rig(map_buffers="STOR_MAP_ALL_BUFFERS_INCLUDING_READ_WRITE", fail_mapping_every=2)
    assert isinstance(buffer_of(rig), MappedBuffer)
    assert buffer_of(rig) is None
    assert rig.port.counters["mappings failed"] == 1


def test_MB_06_a_page_must_be_transferred_all_the_same(make_rig: MakeRig) -> None:
    rig = make_rig(map_buffers=3, fail_mapping_every=1)
    rig.complete(rig.submit(), SRB_STATUS_INTERNAL_ERROR)
    assert rig.found == {"MB-06"}
    rig.complete(rig.submit(length=8192), SRB_STATUS_INTERNAL_ERROR)  # larger than a page: may fail
    assert len(rig.messages("MB-06")) == 1


@pytest.mark.parametrize(("unmapped", "kind"), [("opaque", OpaqueBuffer), ("null", type(None))])
@pytest.mark.parametrize("level", [None, "report"])
def test_MB_07_opaque_or_null(make_rig: MakeRig, unmapped: str, kind: type, level: str | None) -> None:
    rig = make_rig(level=level, unmapped=unmapped)
    assert isinstance(buffer_of(rig), kind)


@pytest.mark.parametrize("opcode", [0x08, 0x0A, 0x28, 0x2A, 0x88, 0x8A, 0xA8, 0xAA])
def test_MB_08_what_counts_as_read_or_write(make_rig: MakeRig, opcode: int) -> None:
    assert isinstance(buffer_of(make_rig(), opcode), OpaqueBuffer)


def test_MB_08_is_a_setting_and_in_the_trace(make_rig: MakeRig) -> None:
    rig = make_rig(trace=True, rw_opcodes=(0x28, 0x2E))
    assert isinstance(buffer_of(rig, 0x2E), OpaqueBuffer)
    assert isinstance(buffer_of(rig, 0x2A), MappedBuffer)
    assert rig.recorder is not None
    details = [event.detail for event in rig.recorder.events if event.kind == "map"]
    assert details == ["read/write: OpaqueBuffer", "other: MappedBuffer"]


def cdb_32(service_action: int) -> bytes:
    return bytes((0x7F, 0, 0, 0, 0, 0, 0, 24)) + service_action.to_bytes(2, "big") + bytes(22)


@pytest.mark.parametrize(("service_action", "hidden"), [(9, True), (11, True), (10, False), (13, False)])
def test_MB_08_variable_length_commands(make_rig: MakeRig, service_action: int, hidden: bool) -> None:
    """READ(32) and WRITE(32) are mapped unless the setting says otherwise; VERIFY(32) and WRITE SAME(32) are always."""
    for opcodes, expected in (((0x28,), False), ((0x28, 0x7F), hidden)):
        rig = make_rig(rw_opcodes=opcodes)
        srb = rig.srb()
        srb.cdb = cdb_32(service_action)
        rig.port.submit(srb)
        assert isinstance(rig.scripted.started[0].data_buffer, OpaqueBuffer) is expected


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_MB_09_io_control_is_always_usable(make_rig: MakeRig, mode: int) -> None:
    buffer = buffer_of(make_rig(map_buffers=mode), function=SRB_FUNCTION_IO_CONTROL)
    assert isinstance(buffer, MappedBuffer)
    assert len(buffer.read()) == 4096


def test_MB_10_system_address(make_rig: MakeRig) -> None:
    rig = make_rig(fail_system_address_every=2)

    def twice(srb: Srb) -> Any:
        first = rig.scripted.port.get_system_address(srb)
        first[1].write(b"hello")
        return first[0], rig.scripted.port.get_system_address(srb)

    ((status, second),) = in_start(rig, twice)
    assert status == STOR_STATUS_SUCCESS
    assert second == (STOR_STATUS_INSUFFICIENT_RESOURCES, None)
    assert rig.port.counters["system addresses"] == 1
    ((status, _),) = in_start(rig, lambda srb: rig.scripted.port.get_system_address(srb), length=0)
    assert status == STOR_STATUS_INVALID_PARAMETER
    assert rig.found == set()


def test_MB_10_not_above_dispatch_level(make_rig: MakeRig) -> None:
    rig = make_rig(synchronization_model="half_duplex")
    ((status, _),) = in_start(rig, lambda srb: rig.scripted.port.get_system_address(srb))
    assert status == STOR_STATUS_INVALID_IRQL
    assert rig.found == {"MB-10"}


def test_MB_11_the_list_is_the_requests_own(rig: Rig) -> None:
    (segments,) = in_start(rig, lambda srb: list(rig.scripted.port.get_scatter_gather_list(srb) or ()), length=4096)
    assert [length for _, length in segments] == [4096]
    assert in_start(rig, lambda srb: rig.scripted.port.get_scatter_gather_list(srb), length=0) == [None]


def test_MB_11_the_list_of_something_that_is_no_srb(rig: Rig) -> None:
    given: list[object] = []

    def build(srb: Srb) -> bool:
        given.append(rig.scripted.port.get_scatter_gather_list("srb"))  # type: ignore[arg-type]
        return True

    rig.scripted.build = build
    rig.submit()
    assert given == [None] and rig.found == {"MB-11"}


def test_MB_11_read_only(rig: Rig) -> None:
    def write(srb: Srb) -> None:
        segments: Any = rig.scripted.port.get_scatter_gather_list(srb)
        segments[0] = (0, 1)

    in_start(rig, write)
    assert rig.found == {"MB-11"}


def test_MB_11_revoked_at_completion(rig: Rig) -> None:
    (segments,) = in_start(rig, lambda srb: rig.scripted.port.get_scatter_gather_list(srb))
    assert segments[0] and rig.found == set()
    rig.finish_all()
    assert len(segments) == 1
    assert rig.found == {"MB-11"}


def test_MB_12_physical_address_needs_its_srb(rig: Rig) -> None:
    port = rig.scripted.port
    (found,) = in_start(rig, lambda srb: port.get_physical_address(srb, srb.data_buffer + 512))
    assert found is not None and found[1] == 4096 - 512
    assert rig.found == set()
    in_start(rig, lambda srb: port.get_physical_address(None, srb.data_buffer))
    assert rig.found == {"MB-12"}


def test_MB_12_what_cannot_be_converted_is_null(rig: Rig) -> None:
    (found,) = in_start(rig, lambda srb: rig.scripted.port.get_physical_address(srb, bytearray(8)))
    assert found is None
    assert rig.found == {"MB-12"}


def mdl_of(srb: Srb) -> DmaBuffer:
    """The data of the request, which a miniport has no way to but the port's routines."""
    mdl: DmaBuffer = srb._port.srb.mdl
    return mdl


def device(rig: Rig, srb: Srb, segments: Any = None, direction: int = DATA_IN) -> Task:
    """A command of the chip for this SRB."""
    data = rig.chip.map(srb, mdl_of(srb).segments, True) if segments is None else segments
    task = Task(srb.cdb, direction, data)
    task.owner = srb
    rig.chip.start(0, 0, task)
    return task


def test_MB_13_dma_inside_the_windows_is_fine(rig: Rig) -> None:
    in_start(rig, lambda srb: device(rig, srb))
    assert rig.found == set()


def test_MB_13_dma_outside_of_every_request(rig: Rig) -> None:
    in_start(rig, lambda srb: device(rig, srb, DmaBuffer.of(bytearray(512), base=0xDEAD000)))
    assert rig.found == {"MB-13"}


def test_MB_13_a_part_of_the_window_is_inside_too(rig: Rig) -> None:
    def start(srb: Srb) -> None:
        mdl = mdl_of(srb)
        address, _ = mdl.segments[0]
        device(rig, srb, DmaBuffer([(address + 512, 512)], mdl.slice(512, 512), 512))

    in_start(rig, start)
    assert rig.found == set()


def test_MB_13_against_the_direction(rig: Rig) -> None:
    in_start(rig, lambda srb: device(rig, srb, direction=DATA_OUT))
    assert rig.found == {"MB-13"}


def test_MB_13_after_the_completion(rig: Rig) -> None:
    rig.bus.hold = True
    in_start(rig, lambda srb: device(rig, srb))
    rig.finish_all()
    assert rig.found == {"MB-13"}
    rig.bus.finish(rig.bus.tasks[0])
    assert len(rig.messages("MB-13")) == 2


def test_MB_13_the_uncached_extension_is_a_window(make_rig: MakeRig) -> None:
    miniport = Scripted()
    views: list[Any] = []

    def find(config: PortConfigurationInformation) -> None:
        views.append(miniport.port.get_uncached_extension(config, 4096))

    miniport.find = find
    rig = make_rig(miniport)

    def start(srb: Srb) -> None:
        address, length = rig.scripted.port.get_physical_address(None, views[0]) or (0, 0)
        device(rig, srb, rig.chip.map(None, [(address, min(length, 512))], True))

    in_start(rig, start)
    assert rig.found == set()


def test_MB_12_extension_without_its_srb_sense_buffer_with_it(rig: Rig) -> None:
    port = rig.scripted.port

    def start(srb: Srb) -> list[Any]:
        asked = (None, srb.srb_extension), (None, srb.srb_extension + 8), (srb, srb.sense_info_buffer)
        return [port.get_physical_address(*each) for each in asked]

    ((base, inside, sense),) = in_start(rig, start)
    assert base[1] == 32 and inside == (base[0] + 8, 24) and sense[1] == 96
    assert rig.found == set()
    refused = in_start(rig, lambda srb: port.get_physical_address(srb, srb.srb_extension))
    refused += in_start(rig, lambda srb: port.get_physical_address(None, srb.sense_info_buffer))
    refused += in_start(rig, lambda srb: port.get_physical_address(None, srb.srb_extension + 32))
    assert refused == [None] * 3
    assert len(rig.messages("MB-12")) == 3 and rig.found == {"MB-12"}


@pytest.mark.parametrize("of", [lambda extension: extension, lambda extension: (extension + 8).memory])
def test_MB_12_an_extension_after_the_completion(rig: Rig, of: Callable[[Any], Any]) -> None:
    ((address, *_),) = in_start(rig, lambda srb: [of(srb.srb_extension)])
    assert rig.scripted.port.get_physical_address(None, address) is not None
    assert rig.found == set()
    rig.finish_all()
    assert rig.scripted.port.get_physical_address(None, address) is None
    assert rig.found == {"MB-12"}


def test_MB_12_a_sense_buffer_is_the_ports_again_without_an_extension_too(make_rig: MakeRig) -> None:
    rig = make_rig(Scripted(srb_extension_size=0))

    def start(srb: Srb) -> tuple[int, int] | None:
        return rig.scripted.port.get_physical_address(srb, srb.sense_info_buffer)  # type: ignore[no-any-return]

    (found,) = in_start(rig, start)
    assert found is not None and rig.port.memory.holder(found[0], 1) is not None
    rig.finish_all()
    assert rig.port.memory.holder(found[0], 1) is None


def test_MB_12_sense_data_by_dma_go_up(rig: Rig) -> None:
    """The adapter writes them to the sense buffer's bus address; the miniport only says how many."""
    sense = bytes.fromhex("70000500000000 0a 00000000 24 00000000 00")

    def start(srb: Srb) -> None:
        address, _ = rig.scripted.port.get_physical_address(srb, srb.sense_info_buffer) or (0, 0)
        assert rig.chip.map(None, [(address, len(sense))], True).write(sense) == 18
        srb.sense_info_buffer_length = len(sense)

    in_start(rig, start)
    rig.finish_all(SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID)
    (srb,) = rig.done
    assert srb.sense_info_buffer == sense
    rig.submit()
    assert rig.scripted.started[0].sense_info_buffer == b""  # and the next request has its own


def test_MB_13_the_extension_is_a_window_both_ways(rig: Rig) -> None:
    def start(srb: Srb) -> bytes:
        address, _ = rig.scripted.port.get_physical_address(None, srb.srb_extension + 16) or (0, 0)
        srb.srb_extension[16:20] = b"down"
        data = rig.chip.map(None, [(address, 16)], True)
        found = data.read(0, 4)
        data.write(b"up", 4)
        for direction in (DATA_IN, DATA_OUT):
            device(rig, srb, rig.chip.map(None, [(address, 16)], True), direction)
        return found + bytes(srb.srb_extension[20:22])

    assert in_start(rig, start) == [b"downup"]
    assert rig.found == set()


def test_MB_13_the_extension_after_the_completion(rig: Rig) -> None:
    rig.bus.hold = True

    def start(srb: Srb) -> None:
        address, length = rig.scripted.port.get_physical_address(None, srb.srb_extension) or (0, 0)
        device(rig, srb, rig.chip.map(None, [(address, length)], True))

    in_start(rig, start)
    rig.finish_all()
    assert rig.messages("MB-13") == ["completed while the device still uses its SRB extension or sense buffer"]
    rig.bus.finish(rig.bus.tasks[0])
    assert len(rig.messages("MB-13")) == 2


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("name", ["mdl", "completion", "context"])
def test_OW_09_no_way_around_the_mapping(make_rig: MakeRig, name: str, kind: int) -> None:
    """What the port and who made the request keep with it is not the miniport's (MB-03, MB-05)."""
    rig = make_rig(Scripted(srb_type=kind))
    assert in_start(rig, lambda srb: getattr(srb, name)) == [None]
    assert rig.found == {"OW-09"}
    in_start(rig, lambda srb: setattr(srb, name, None))
    assert rig.found == {"OW-09", "OW-06"}


@pytest.mark.parametrize("name", ["maximum_transfer_length", "number_of_physical_breaks"])
def test_MB_14_limits_must_be_set(make_rig: MakeRig, name: str) -> None:
    rig = make_rig(Scripted(**{name: SP_UNINITIALIZED}))
    assert rig.found == {"MB-14"}


@pytest.mark.parametrize("counted, most", [("pages", 4), ("elements", 4), ("breaks", 5)])
def test_MB_14_what_is_counted_and_0x11_by_default(make_rig: MakeRig, counted: str, most: int) -> None:
    seen: list[int] = []

    class Looking(Scripted):
        def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
            seen.append(config.number_of_physical_breaks)
            return super().hw_find_adapter(config)

    make_rig(Looking())
    assert seen == [0x11]
    rig = make_rig(Scripted(number_of_physical_breaks=4), physical_breaks=counted)
    lists: list[int] = []

    def start(srb: Srb) -> bool:
        lists.append(len(rig.scripted.port.get_scatter_gather_list(srb) or ()))
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.srb(length=0)
    srb.mdl = DmaBuffer.of(*(bytearray(512) for _ in range(8)))
    srb.data_transfer_length = srb.mdl.length
    srb.srb_flags |= 0x40
    srb.cdb = b"\x28" + bytes(6) + (8).to_bytes(2, "big") + bytes(7)
    rig.port.submit(srb)
    assert lists == [most, 8 - most]
    assert rig.done == [srb]


@pytest.mark.parametrize(
    "first, length, counted, parts",
    [
        (0x10000, 0x4000, "pages", [(0x10000, 0x4000)]),
        (0x10200, 0x4000, "pages", [(0x10200, 0x3E00), (0x14000, 0x200)]),  # five pages
        (0x10200, 0x4000, "elements", [(0x10200, 0x4000)]),
        (0x10000, 0x9000, "pages", [(0x10000, 0x4000), (0x14000, 0x4000), (0x18000, 0x1000)]),
    ],
)
def test_MB_14_an_element_has_as_many_pages_as_it_touches(
    make_rig: MakeRig, first: int, length: int, counted: str, parts: list[tuple[int, int]]
) -> None:
    rig = make_rig(Scripted(number_of_physical_breaks=4), physical_breaks=counted)
    lists: list[tuple[int, int]] = []

    def start(srb: Srb) -> bool:
        lists.extend(rig.scripted.port.get_scatter_gather_list(srb) or ())
        rig.scripted.complete(srb)
        return True

    rig.scripted.start = start
    srb = rig.srb(length=0)
    srb.mdl = DmaBuffer.of(bytearray(length), base=first)
    srb.data_transfer_length = length
    srb.srb_flags |= 0x40
    srb.cdb = b"\x28" + bytes(6) + (length // 512).to_bytes(2, "big") + bytes(7)
    rig.port.submit(srb)
    assert lists == parts
    assert rig.done == [srb]


def test_the_presets_of_addressing(make_rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Any] = []

    class Looking(Scripted):
        def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
            seen.append((config.dma32_bit_addresses, config.dma64_bit_addresses))
            return super().hw_find_adapter(config)

    make_rig(Looking())
    assert seen == [(True, SCSI_DMA64_SYSTEM_SUPPORTED)]
    assert "did not say in dma64_bit_addresses" in caplog.text
    caplog.clear()
    assert make_rig(Scripted(dma64_bit_addresses=0)).found == set()
    assert "dma64_bit_addresses" not in caplog.text
    assert make_rig(Scripted(dma32_bit_addresses=False)).found == {"MB-01"}


@pytest.mark.parametrize("addresses, wide", [(0, False), (SCSI_DMA64_MINIPORT_SUPPORTED, True)])
def test_an_adapter_of_32_bits_has_its_uncached_extension_below_4_gib(
    make_rig: MakeRig, addresses: int, wide: bool
) -> None:
    miniport = Scripted(dma64_bit_addresses=addresses)
    found: list[tuple[int, int] | None] = []

    def find(config: PortConfigurationInformation) -> None:
        memory = miniport.port.get_uncached_extension(config, 4096)
        found.append(miniport.port.get_physical_address(None, memory))

    miniport.find = find
    rig = make_rig(miniport)
    (address, length) = found[0] or (0, 0)
    assert (address >= 1 << 32) == wide and length == 4096
    view = rig.chip.map(None, [(address, 512)], 1)
    in_start(rig, lambda srb: device(rig, srb, view))
    assert rig.found == set()


def test_MB_15_more_than_1000_requests_need_wide_addresses(make_rig: MakeRig) -> None:
    assert make_rig(Scripted(max_number_of_io=2000)).found == {"MB-15"}
    for addresses in (0, SCSI_DMA64_MINIPORT_SUPPORTED):
        assert make_rig(Scripted(max_number_of_io=2000, dma64_bit_addresses=addresses)).found == {"MB-15"}
    for addresses in WIDE_ADDRESSING:
        assert make_rig(Scripted(max_number_of_io=2000, dma64_bit_addresses=addresses)).found == set()


def test_MB_16_uncached_extension_only_in_find_adapter(rig: Rig) -> None:
    rig.in_interrupt(lambda: rig.scripted.port.get_uncached_extension(rig.port.info, 64))
    assert rig.found == {"MB-16"}


@pytest.mark.parametrize("wrong", ["size after", "no master"])
def test_MB_16_uncached_extension_wants_its_order(make_rig: MakeRig, wrong: str) -> None:
    miniport = Scripted()

    def find(config: PortConfigurationInformation) -> None:
        if wrong == "no master":
            config.master = False
        miniport.port.get_uncached_extension(config, 64)
        if wrong == "size after":
            config.srb_extension_size = 99
        config.master = True

    miniport.find = find
    assert make_rig(miniport).found == {"MB-16"}


def test_MB_16_device_base_only_of_what_is_assigned(rig: Rig) -> None:
    assert rig.scripted.port.get_device_base(PCI_BUS, 0, 0xF000_0100, 16, False) is not None
    assert rig.scripted.port.get_device_base(PCI_BUS, 0, 0xE000_0000, 16, False) is None
    assert rig.found == {"MB-16"}
    rig.in_interrupt(lambda: rig.scripted.port.free_device_base(None))
    assert len(rig.messages("MB-16")) == 2


def test_MB_17_the_device_extension_survives_stop_and_restart(rig: Rig) -> None:
    rig.scripted.extension.mine = 5
    rig.port.pnp.stop(lambda steps: None)
    rig.port.pnp.start(lambda steps: None)
    assert rig.scripted.calls.count(("initialize",)) == 2
    assert rig.scripted.extension.mine == 5


def test_MB_18_no_scatter_gather_list(make_rig: MakeRig) -> None:
    for level in (None, "report"):
        miniport = Scripted()

        def initialize(miniport: Scripted = miniport) -> bool:
            return miniport.port.initialize_perf_opts(False, PerfConfigurationData(flags=STOR_PERF_NO_SGL)) == 0

        miniport.initialize = initialize
        rig = make_rig(miniport, level=level)
        rig.inquire()
        assert in_start(rig, lambda srb, rig=rig: rig.scripted.port.get_scatter_gather_list(srb)) == [None]


@pytest.mark.parametrize(
    ("cdb", "kind"),
    [
        (bytes((INQUIRY, READ_10)) + bytes(8), MappedBuffer),  # its second byte says nothing
        (bytes((READ_10, INQUIRY)) + bytes(8), OpaqueBuffer),
        (b"", MappedBuffer),
    ],
)
def test_MB_08_the_operation_code_is_the_first_byte(rig: Rig, cdb: bytes, kind: type) -> None:
    srb = rig.srb()
    srb.cdb, srb.cdb_length = cdb, len(cdb)
    rig.port.submit(srb)
    assert isinstance(rig.scripted.started[0].data_buffer, kind)


def test_MB_09_a_cdb_in_what_is_no_command_is_none(rig: Rig) -> None:
    srb = rig.srb(function=SRB_FUNCTION_IO_CONTROL)
    srb.cdb = bytes((READ_10,)) + bytes(9)
    rig.port.submit(srb)
    assert isinstance(rig.scripted.started[0].data_buffer, MappedBuffer)


@pytest.mark.parametrize(
    ("length", "opcode", "status", "found"),
    [
        (4096, READ_10, SRB_STATUS_ERROR, True),
        (4096, WRITE_10, SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID, True),
        (4096, READ_10, SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID, False),  # it worked
        (4097, READ_10, SRB_STATUS_ERROR, False),
        (4096, INQUIRY, SRB_STATUS_ERROR, False),
    ],
)
def test_MB_06_a_page_of_data_that_failed(
    make_rig: MakeRig, length: int, opcode: int, status: int, found: bool
) -> None:
    rig = make_rig(map_buffers=3, fail_mapping_every=1)
    rig.complete(rig.submit(opcode, length), status, 2)
    message = f"a {length}-byte read or write failed with status {status:#04x} because its buffer could not be mapped"
    assert rig.messages("MB-06") == ([message] if found else [])
    mapped = make_rig(map_buffers=3)
    mapped.complete(mapped.submit(opcode, length), status, 2)
    assert "MB-06" not in mapped.found


@pytest.mark.parametrize("every", [0, 1, 3])
def test_MB_06_and_MB_10_every_so_many_fail(make_rig: MakeRig, every: int) -> None:
    """Of the mappings of commands, and of the addresses that are asked for; each is counted, and in the trace."""
    rig = make_rig(trace=True, map_buffers=3, fail_mapping_every=every, fail_system_address_every=every)
    mapped: list[bool] = []
    statuses: list[int] = []

    def start(srb: Srb) -> bool:
        mapped.append(srb.data_buffer is not None)
        statuses.append(rig.scripted.port.get_system_address(srb)[0])
        return True

    rig.scripted.start = start
    rig.submit(function=SRB_FUNCTION_IO_CONTROL)  # no command, and always mapped
    for _ in range(6):
        rig.submit()
    fails = [bool(every) and number % every == 0 for number in range(1, 8)]
    assert mapped == [True] + [not failed for failed in fails[:6]]
    refused = [STOR_STATUS_INSUFFICIENT_RESOURCES if failed else STOR_STATUS_SUCCESS for failed in fails]
    assert statuses == refused
    counters = rig.port.counters
    assert counters.get("mappings failed", 0) == sum(fails[:6])
    assert counters.get("system addresses refused", 0) == sum(fails)
    assert counters.get("system addresses", 0) == 7 - sum(fails)
    assert rig.recorder is not None
    notes = [event.detail for event in rig.recorder.events if event.kind == "get_system_address"]
    assert notes == ["programmed access to 4096 bytes"] * (7 - sum(fails))

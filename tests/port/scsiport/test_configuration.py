"""CF: configuration and buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hba.dma import DmaBuffer
from hba.errors import ConfigError
from hba.miniport.base import Miniport
from hba.miniport.driver_entry import PCI_BUS
from hba.port.buffers import MappedBuffer, OpaqueBuffer
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_DISABLE_SYNCH_TRANSFER,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_IO_CONTROL,
    SRB_STATUS_INTERNAL_ERROR,
    SRB_STATUS_INVALID_REQUEST,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import READ, WRITE, FakeMiniport, Rig

Make = Callable[..., Rig]


def scattered(*lengths: int) -> DmaBuffer:
    """A buffer of segments that are not adjacent."""
    return DmaBuffer.of(*[bytearray(length) for length in lengths], base=0x10000)


def test_CF_01_mapped_buffers_are_the_requests_own_bytes(rig: Make) -> None:
    r = rig(options={"map_buffers": True})
    mdl = DmaBuffer.of(bytearray(512))
    buffer = r.held(r.command(mdl=mdl)).data_buffer
    assert isinstance(buffer, MappedBuffer)
    assert len(buffer) == 512
    buffer.write(b"hello", 10)
    assert (buffer + 10).read(0, 5) == b"hello" == mdl.read(10, 5)
    buffer.views[0][0] = 7
    assert mdl.read(0, 1) == b"\x07"
    assert r.rules == []


TOUCHES: dict[str, Callable[[Any], object]] = {
    "read": lambda buffer: buffer.read(),
    "write": lambda buffer: buffer.write(b"x"),
    "views": lambda buffer: buffer.views,
    "len": lambda buffer: len(buffer),
    "bytes": lambda buffer: bytes(buffer),
    "index": lambda buffer: buffer[0],
    "slice": lambda buffer: buffer[0:4],
    "iterate": lambda buffer: list(buffer),
    "assign": lambda buffer: buffer.__setitem__(0, 1),
    "offset": lambda buffer: (buffer + 4).read(),
}


@pytest.mark.parametrize("touch", TOUCHES)
@pytest.mark.parametrize("verifier", ["off", "report"])
def test_CF_02_touching_an_unmapped_buffer(rig: Make, touch: str, verifier: str) -> None:
    r = rig(verifier=verifier, traced=False)
    mdl = DmaBuffer.of(bytearray(512))

    def start(srb: Srb) -> None:
        assert isinstance(srb.data_buffer, OpaqueBuffer)
        TOUCHES[touch](srb.data_buffer)

    r.miniport.on_start = start
    srb = r.command(mdl=mdl)
    assert srb.srb_status == SRB_STATUS_INTERNAL_ERROR  # the exception ended the callback
    assert mdl.read() == bytes(512)
    if verifier == "report":
        finding = r.verifier.findings[0]
        assert r.rules == ["CF-02"]
        assert finding.srb.startswith("#1 0:0:0 cdb 28")
        assert "test_configuration.py" in finding.where


@pytest.mark.parametrize("touch", TOUCHES)
def test_CF_02_poison_instead_of_an_exception(rig: Make, touch: str) -> None:
    r = rig(options={"forbidden_access": "poison"}, instantly=SRB_STATUS_SUCCESS)
    got: list[Any] = []
    r.miniport.on_start = lambda srb: got.append(TOUCHES[touch](srb.data_buffer))
    mdl = DmaBuffer.of(bytearray(16))
    srb = r.command(mdl=mdl, size=16)
    assert srb.srb_status == SRB_STATUS_SUCCESS
    assert set(r.rules) == {"CF-02"}
    assert mdl.read() == bytes(16)
    if touch == "read":
        assert got == [b"\xdb" * 16]


def test_CF_03_io_control_is_always_mapped(rig: Make) -> None:
    r = rig(next="next")
    srb = r.submit(SRB_FUNCTION_IO_CONTROL, mdl=DmaBuffer.of(bytearray(64)), data_transfer_length=64)
    assert isinstance(r.held(srb).data_buffer, MappedBuffer)


@pytest.mark.parametrize("mapped", [False, True])
def test_CF_04_the_list_comes_from_repeated_calls(rig: Make, mapped: bool) -> None:
    r = rig(options={"map_buffers": mapped})
    mdl = scattered(512, 1024, 512)
    held = r.held(r.command(mdl=mdl, size=2048))
    port = r.miniport.port
    found, offset = [], 0
    while offset < 2048:
        address, length = port.get_physical_address(held, held.data_buffer + offset)
        found.append((address, length))
        offset += length
    assert found == list(mdl.segments)
    assert port.get_physical_address(held, held.data_buffer + 600) == (mdl.segments[1][0] + 88, 1024 - 88)
    assert r.rules == []


def test_CF_04_bad_addresses(rig: Make) -> None:
    r = rig()
    held, other = r.held(r.command()), r.held(r.command())
    port = r.miniport.port
    assert port.get_physical_address(held, held.data_buffer + 512) is None
    assert r.rules == ["CF-04"]
    port.get_physical_address(other, held.data_buffer)
    assert r.rules == ["CF-04"] * 2
    assert port.get_physical_address(held, bytearray(4)) is None
    assert r.rules == ["CF-04"] * 3
    assert port.get_physical_address(None, 0x1234) is None
    assert r.rules == ["CF-04"] * 4
    buffer = held.data_buffer
    r.finish()
    port.get_physical_address(None, buffer)
    assert r.rules == ["CF-04"] * 5


def test_CF_04_extension_and_uncached_memory(rig: Make) -> None:
    r = rig(start=False, need_physical_addresses=True)
    got: list[memoryview] = []
    r.miniport.on_find = lambda config: got.append(r.miniport.port.get_uncached_extension(config, 4096))
    r.port.start()
    port = r.miniport.port
    base, length = port.get_physical_address(None, got[0])
    assert length == 4096
    assert port.get_physical_address(None, got[0][100:200]) == (base + 100, 3996)
    assert r.rules == []


def test_CF_04_an_extension_without_an_srb_a_sense_buffer_with_or_without(rig: Make) -> None:
    r = rig(srb_extension_size=64, need_physical_addresses=True)
    port, held = r.miniport.port, r.held(r.command())
    base, length = port.get_physical_address(None, held.srb_extension)
    assert length == 64
    assert port.get_physical_address(None, held.srb_extension + 24) == (base + 24, 40)
    assert port.get_physical_address(None, held.srb_extension.memory[8:16]) == (base + 8, 56)
    with_srb = port.get_physical_address(held, held.sense_info_buffer)
    assert with_srb[1] == held.sense_info_buffer_length
    assert port.get_physical_address(None, held.sense_info_buffer) == with_srb
    assert port.get_physical_address(held, held.sense_info_buffer + 8) == (with_srb[0] + 8, with_srb[1] - 8)
    assert r.rules == []
    assert port.get_physical_address(held, held.srb_extension) is None  # the page: must be NULL
    assert port.get_physical_address(None, held.srb_extension + 64) is None
    assert r.rules == ["CF-04"] * 2


def test_CF_04_extensions_need_physical_addresses_declared(rig: Make) -> None:
    r = rig(srb_extension_size=64, need_physical_addresses=False)
    held = r.held(r.command())
    assert r.miniport.port.get_physical_address(None, held.srb_extension) is None
    assert r.rules == ["CF-04"]


def blocks(r: Rig) -> list[tuple[int, int, int]]:
    """(LBA, blocks, bytes) of every start-I/O."""
    found = []
    for started in r.miniport.started:
        srb = r.real(started)
        lba, count = int.from_bytes(srb.cdb[2:6], "big"), int.from_bytes(srb.cdb[7:9], "big")
        found.append((lba, count, srb.data_transfer_length))
    return found


def read_10(lba: int, count: int) -> bytes:
    return bytes((0x28, 0)) + lba.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + b"\0"


@pytest.mark.parametrize("verifier", ["off", "report"])
def test_CF_05_long_reads_are_split(rig: Make, verifier: str) -> None:
    r = rig(maximum_transfer_length=2048, instantly=SRB_STATUS_SUCCESS, verifier=verifier, traced=False)
    srb = r.command(cdb=read_10(100, 10), size=5120, mdl=DmaBuffer.of(bytearray(5120)))
    assert blocks(r) == [(100, 4, 2048), (104, 4, 2048), (108, 2, 1024)]
    assert r.done == [srb]
    assert (srb.srb_status, srb.data_transfer_length) == (SRB_STATUS_SUCCESS, 5120)
    assert r.rules == []


def test_CF_05_the_first_part_that_fails_ends_it(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048)
    srb = r.command(cdb=read_10(100, 10), size=5120, mdl=DmaBuffer.of(bytearray(5120)))
    r.finish(r.real(r.miniport.held[0]))
    r.finish(r.real(r.miniport.held[0]), 0x0F)
    assert (srb.srb_status, len(r.miniport.started)) == (0x0F, 2)


def test_CF_05_anything_else_too_long_is_refused(rig: Make) -> None:
    r = rig(maximum_transfer_length=2048)
    srb = r.command(cdb=bytes((0x12, 0, 0, 0, 255, 0)), size=4096, mdl=DmaBuffer.of(bytearray(4096)))
    assert srb.srb_status == SRB_STATUS_INVALID_REQUEST
    assert r.miniport.started == []


def test_CF_06_no_more_elements_than_breaks_plus_one(rig: Make) -> None:
    r = rig(number_of_physical_breaks=1, instantly=SRB_STATUS_SUCCESS)
    srb = r.command(cdb=read_10(0, 8), size=4096, mdl=scattered(1024, 512, 1024, 1536))
    assert [len(r.real(s).mdl.segments) for s in r.miniport.started] == [2, 2]  # type: ignore[union-attr]
    assert blocks(r) == [(0, 3, 1536), (3, 5, 2560)]
    assert srb.data_transfer_length == 4096


def test_CF_06_parts_end_at_a_whole_block(rig: Make) -> None:
    r = rig(number_of_physical_breaks=1, instantly=SRB_STATUS_SUCCESS)
    mdl = scattered(256, 512, 512, 768)
    srb = r.command(cdb=read_10(0, 4), size=2048, mdl=mdl)
    assert srb.srb_status == SRB_STATUS_SUCCESS
    assert [size for _, _, size in blocks(r)] == [512, 512, 1024]
    parts = [segment for s in r.miniport.started for segment in r.real(s).mdl.segments]  # type: ignore[union-attr]
    assert sum(length for _, length in parts) == 2048
    assert parts[0] == mdl.segments[0]


def test_CF_06_a_preset_may_be_lowered_not_raised(rig: Make) -> None:
    r = rig(options={"maximum_sg_list": 17}, number_of_physical_breaks=16)
    assert r.port.info.number_of_physical_breaks == 16 and r.rules == []
    r = rig(options={"maximum_sg_list": 17}, number_of_physical_breaks=18)
    assert r.port.info.number_of_physical_breaks == 17 and r.rules == ["CF-06"]


def test_CF_07_alignment(rig: Make) -> None:
    r = rig(alignment_mask=3, instantly=SRB_STATUS_SUCCESS)
    guest = bytearray(512)
    aligned = DmaBuffer([(0x1000, 512)], [memoryview(bytearray(512))], 512)
    crooked = DmaBuffer([(0x1002, 512)], [memoryview(guest)], 512)
    r.command(mdl=aligned)
    assert r.real(r.miniport.started[0]).mdl is aligned

    def fill(srb: Srb) -> None:
        real = r.real(srb)
        assert real.mdl is not None and not real.mdl.segments[0][0] & 3
        real.mdl.write(b"data")

    r.miniport.on_start = fill
    srb = r.command(mdl=crooked)
    assert (srb.srb_status, bytes(guest[:4])) == (SRB_STATUS_SUCCESS, b"data")
    guest[:5] = b"write"
    r.miniport.on_start = lambda srb: got.append(r.real(srb).mdl.read(0, 5))  # type: ignore[union-attr]
    got: list[bytes] = []
    r.command(cdb=WRITE, mdl=crooked)
    assert got == [b"write"]


def test_CF_07_misaligned_may_be_refused(rig: Make) -> None:
    r = rig(alignment_mask=3, options={"misaligned": "reject"})
    srb = r.command(mdl=DmaBuffer([(0x1002, 512)], [memoryview(bytearray(512))], 512))
    assert srb.srb_status == SRB_STATUS_INVALID_REQUEST


def test_CF_07_masks_scsi_port_knows(rig: Make) -> None:
    assert rig(alignment_mask=7).rules == []
    assert rig(alignment_mask=15).rules == ["CF-07"]
    with pytest.raises(ConfigError, match="AlignmentMask 0x5"):
        rig(alignment_mask=5)


@pytest.mark.parametrize("length", [0, -1])
def test_a_transfer_length_that_no_request_can_have(rig: Make, length: int) -> None:
    with pytest.raises(ConfigError, match=f"MaximumTransferLength {length}; expected bytes, or SP_UNINITIALIZED"):
        rig(maximum_transfer_length=length)


def test_CF_08_controlled_buffers_are_not_touched_even_if_mapped(rig: Make) -> None:
    r = rig(options={"map_buffers": True}, buffer_access_scsi_port_controlled=True)
    buffer = r.held(r.command()).data_buffer
    assert r.miniport.port.get_physical_address(r.miniport.held[0], buffer)
    assert r.rules == []
    buffer.read()
    assert r.rules == ["CF-08"]


def test_CF_09_what_is_final_before_the_uncached_extension(rig: Make) -> None:
    r = rig(start=False)

    def find(config: Any) -> None:
        r.miniport.port.get_uncached_extension(config, 64)
        config.srb_extension_size = 128

    r.miniport.on_find = find
    r.port.start()
    assert r.rules == ["CF-09"]
    calls: list[Any] = []
    r.hardware(lambda: calls.append(r.miniport.port.get_uncached_extension(r.port.info, 64)))
    assert calls == [None]
    assert r.rules == ["CF-09", "CF-09"]


def test_CF_09_dma32_and_dma64(rig: Make) -> None:
    assert rig(dma32_bit_addresses=True, dma64_bit_addresses=1).rules == ["CF-09"]
    only_the_presets = rig(dma32_bit_addresses=True)
    assert only_the_presets.rules == [] and only_the_presets.port.info.dma64_bit_addresses == 0x80


def test_CF_10_only_assigned_ranges(rig: Make) -> None:
    r = rig()
    port = r.miniport.port
    assert r.port.info.access_ranges == ((0xF000_0000, 0x1000), (0xC000, 0x100))
    assert port.validate_range(PCI_BUS, 0, 0xF000_0100, 16, False)
    assert not port.validate_range(PCI_BUS, 0, 0xF000_0FFF, 2, False)
    base = port.get_device_base(PCI_BUS, 0, 0xF000_0000, 0x1000, False)
    assert base is not None
    assert port.read_register_ulong(base + 4) == 1  # the interrupt is enabled
    assert r.rules == []
    assert port.get_device_base(PCI_BUS, 0, 0xE000_0000, 16, False) is None
    assert port.get_device_base(PCI_BUS, 0, 0xF000_0000, 16, True) is None  # memory, no ports
    assert r.rules == ["CF-10"] * 2


def test_CF_11_the_device_extension_is_zeroed(rig: Make) -> None:
    r = rig(start=False)
    seen: list[dict[str, object]] = []

    def find(config: Any) -> None:
        seen.append(dict(vars(r.miniport.extension)))
        r.miniport.extension.state = 1

    r.miniport.on_find = find
    r.port.start()
    r.port.stop()
    r.port.start()
    assert seen == [{}, {}]


@pytest.mark.parametrize("routine", ["hw_start_io", "hw_reset_bus", "hw_interrupt"])
def test_CF_12_required_routines(rig: Make, routine: str) -> None:
    class Incomplete(FakeMiniport):
        pass

    setattr(Incomplete, routine, getattr(Miniport, routine) if routine != "hw_interrupt" else None)
    r = rig(miniport=Incomplete(), start=False)
    with pytest.raises(ConfigError, match=routine):
        r.port.start()
    assert r.rules == ["CF-12"]


@pytest.mark.parametrize(
    ("info", "options", "depth"),
    [
        ({"tagged_queuing": True}, {}, 2),
        ({"multiple_request_per_lu": True}, {}, 2),
        ({"tagged_queuing": True}, {"disable_tagged_queuing": True}, 1),
        ({"multiple_request_per_lu": True}, {"disable_multiple_requests": True}, 1),
        ({"tagged_queuing": True, "multiple_request_per_lu": True}, {"disable_multiple_requests": True}, 2),
    ],
)
def test_CF_13_overlap(rig: Make, info: dict[str, bool], options: dict[str, bool], depth: int) -> None:
    r = rig(tagged=False, options=options, **info)
    r.command()
    r.command()
    assert len(r.miniport.held) == depth


def test_CF_13_flags_that_are_forced(rig: Make) -> None:
    r = rig(next="next", options={"disable_disconnects": True, "disable_synchronous_transfers": True})
    srb = r.command(cdb=READ, srb_flags=SRB_FLAGS_QUEUE_ACTION_ENABLE)
    flags = r.held(srb).srb_flags
    assert flags & SRB_FLAGS_DISABLE_DISCONNECT and flags & SRB_FLAGS_DISABLE_SYNCH_TRANSFER
    assert flags & SRB_FLAGS_DATA_IN


def test_a_miniport_that_refuses_its_adapter(rig: Make) -> None:
    r = rig(start=False)
    r.miniport.on_find = lambda config: 1 / 0  # type: ignore[assignment,return-value]
    with pytest.raises(ConfigError, match="ZeroDivisionError"):
        r.port.start()

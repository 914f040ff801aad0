"""UNMAP, WRITE SAME, GET LBA STATUS and the pages that announce them."""

from __future__ import annotations

import pytest

from hba.scsi import sense
from hba.scsi.disk.vpd import MAX_UNMAP_BLOCKS, MAX_UNMAP_DESCRIPTORS, MAX_WRITE_SAME_BLOCKS
from hba.scsi.task import DATA_NONE
from hba.storage.memory import PAGE
from tests.scsi.util import Deferred, be, disk, read10, run, write10


def unmap_list(*ranges: tuple[int, int]) -> bytes:
    body = b"".join(lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(4) for lba, count in ranges)
    return (len(body) + 6).to_bytes(2, "big") + len(body).to_bytes(2, "big") + bytes(4) + body


def unmap(*ranges: tuple[int, int]) -> tuple[str, bytes]:
    data = unmap_list(*ranges)
    return f"42000000000000{be(len(data), 2)}00", data


def same10(lba: int, count: int, flags: int = 0) -> str:
    return f"41{flags:02x}{be(lba, 4)}00{be(count, 2)}00"


def same16(lba: int, count: int, flags: int = 0) -> str:
    return f"93{flags:02x}{be(lba, 8)}{be(count, 4)}0000"


def test_unmapped_blocks_read_as_zeros() -> None:
    unit = disk()
    run(unit, write10(0, 10), out=b"x" * 5120)
    cdb, data = unmap((1, 2), (5, 1), (9, 0))
    result = run(unit, cdb, out=data)
    assert (result.status, result.transferred) == (0, len(data))
    expected = b"".join(bytes(512) if lba in (1, 2, 5) else b"x" * 512 for lba in range(10))
    assert run(unit, read10(0, 10), 5120).data == expected


def test_unmap_refuses_what_it_announced_it_would() -> None:
    unit = disk(2 << 30)
    assert run(unit, *unmap_out((0, MAX_UNMAP_BLOCKS + 1))).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    many = [(0, 0)] * (MAX_UNMAP_DESCRIPTORS + 1)
    assert run(unit, *unmap_out(*many)).condition == sense.INVALID_FIELD_IN_PARAMETER_LIST
    assert run(unit, *unmap_out((unit.blocks, 1))).condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, *unmap_out((unit.blocks, 0))).status == 0
    assert run(unit, "42010000000000001800", out=unmap_list((0, 1))).condition == sense.INVALID_FIELD_IN_CDB


def unmap_out(*ranges: tuple[int, int]) -> tuple[str, int, bytes]:
    cdb, data = unmap(*ranges)
    return cdb, 0, data


def test_unmap_parameter_list_length() -> None:
    unit = disk()
    assert run(unit, "42000000000000000000").status == 0
    assert run(unit, "42000000000000000700", out=bytes(7)).condition == sense.PARAMETER_LIST_LENGTH_ERROR
    assert run(unit, "42000000000000001800", out=bytes(8)).condition == sense.PARAMETER_LIST_LENGTH_ERROR


def test_nothing_is_unmapped_when_one_range_is_wrong() -> None:
    unit = disk()
    run(unit, write10(0, 1), out=b"x" * 512)
    assert run(unit, *unmap_out((0, 1), (unit.blocks, 1))).condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, read10(0, 1), 512).data == b"x" * 512


@pytest.mark.parametrize("make", [same10, same16])
def test_write_same_repeats_a_block(make: object) -> None:
    assert callable(make)
    unit = disk(4 << 20)
    block = b"0123456789abcdef" * 32
    assert run(unit, make(3, 5000), out=block).status == 0
    assert run(unit, read10(2, 3), 1536).data == bytes(512) + block * 2
    assert run(unit, read10(5002, 2), 1024).data == block + bytes(512)


@pytest.mark.parametrize("make", [same10, same16])
def test_write_same_refuses(make: object) -> None:
    assert callable(make)
    unit = disk(256 << 20)
    assert run(unit, make(0, 0), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB  # WSNZ
    assert run(unit, make(0, 1, 0x10), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB  # ANCHOR
    assert run(unit, make(0, 1, 0x18), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, make(0, 1, 0x20), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB  # WRPROTECT
    assert run(unit, make(unit.blocks, 1), out=bytes(512)).condition == sense.LBA_OUT_OF_RANGE
    for sent in (256, 1024):
        assert run(unit, make(0, 1), out=bytes(sent)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(disk(read_only=True), make(0, 1), out=bytes(512)).condition == sense.WRITE_PROTECTED


def test_write_same_16_limit_and_no_data_out_buffer() -> None:
    unit = disk(256 << 20)
    assert run(unit, same16(0, MAX_WRITE_SAME_BLOCKS + 1), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB
    run(unit, write10(0, 2), out=b"x" * 1024)
    result = run(unit, same16(1, MAX_WRITE_SAME_BLOCKS, 0x01))
    assert result.status == 0 and result.task.direction == DATA_NONE
    assert run(unit, read10(0, 2), 1024).data == b"x" * 512 + bytes(512)


def test_write_same_unmaps_only_what_reads_the_same_afterwards() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    run(unit, same10(0, 8, 0x08), out=bytes(512))
    run(unit, same10(0, 8), out=bytes(512))
    run(unit, same10(0, 8, 0x08), out=b"y" * 512)
    assert [call[0] for call in backend.calls] == ["discard", "zero", "write"]
    assert run(unit, read10(7, 1), 512).data == b"y" * 512


def status(unit: object, lba: int, room: int = 4096) -> list[tuple[int, int, int]]:
    from hba.scsi.disk.disk import Disk

    assert isinstance(unit, Disk)
    data = run(unit, f"9e12{be(lba, 8)}{be(room, 4)}0000", room).data
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return [
        (int.from_bytes(data[at : at + 8], "big"), int.from_bytes(data[at + 8 : at + 12], "big"), data[at + 12])
        for at in range(8, len(data), 16)
    ]


def test_get_lba_status_tells_extents() -> None:
    unit = disk(1 << 20)
    per = PAGE // 512
    run(unit, write10(per, 1), out=b"x" * 512)
    assert status(unit, 0) == [(0, per, 1), (per, per, 0), (2 * per, unit.blocks - 2 * per, 1)]
    assert status(unit, per + 3) == [(per + 3, per - 3, 0), (2 * per, unit.blocks - 2 * per, 1)]
    assert status(unit, 0, 24) == [(0, per, 1)]
    run(unit, *unmap_out((0, unit.blocks)))
    assert status(unit, 5) == [(5, unit.blocks - 5, 1)]
    assert run(unit, f"9e12{be(unit.blocks, 8)}000000180000", 24).condition == sense.LBA_OUT_OF_RANGE


def test_extents_beyond_32_bits_are_split() -> None:
    unit = disk(3 << 40)
    found = status(unit, 0)
    assert found == [(0, 0xFFFFFFFF, 1), (0xFFFFFFFF, unit.blocks - 0xFFFFFFFF, 1)]


def test_a_thin_disk_says_so_everywhere() -> None:
    unit = disk()
    assert run(unit, "9e10" + "00" * 8 + "000000200000", 32).data[14] == 0xC0
    assert run(unit, "1201b2000800", 8).data == bytes.fromhex("00b2000400e40200")
    limits = run(unit, "1201b0004000", 64).data
    assert len(limits) == 64 and limits[3] == 0x3C and limits[4] == 0x01
    assert int.from_bytes(limits[20:24], "big") == MAX_UNMAP_BLOCKS
    assert int.from_bytes(limits[24:28], "big") == MAX_UNMAP_DESCRIPTORS
    assert int.from_bytes(limits[36:44], "big") == MAX_WRITE_SAME_BLOCKS


def test_a_full_disk_does_not() -> None:
    unit = disk(thin=False)
    assert run(unit, "9e10" + "00" * 8 + "000000200000", 32).data[14] == 0
    assert run(unit, "1201b2000800", 8).condition == sense.INVALID_FIELD_IN_CDB
    assert 0xB2 not in run(unit, "12010000ff00", 255).data[4:]
    assert run(unit, "42000000000000000000").condition == sense.INVALID_COMMAND_OPERATION_CODE
    assert run(unit, same10(0, 1, 0x08), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, same10(0, 1), out=bytes(512)).status == 0
    assert run(unit, "9e12" + "00" * 8 + "000000180000", 24).condition == sense.INVALID_FIELD_IN_CDB
    assert int.from_bytes(run(unit, "1201b0004000", 64).data[20:24], "big") == 0


@pytest.mark.parametrize(("logical", "physical", "exponent"), [(512, 512, 0), (512, 4096, 3), (4096, 4096, 0)])
def test_block_sizes(logical: int, physical: int, exponent: int) -> None:
    unit = disk(block_size=logical, physical_block_size=physical)
    data = run(unit, "9e10" + "00" * 8 + "000000200000", 32).data
    assert int.from_bytes(data[8:12], "big") == logical
    assert data[13] == exponent
    assert int.from_bytes(data[:8], "big") == (1 << 20) // logical - 1

"""VERIFY, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, WRITE ATOMIC."""

from __future__ import annotations

import pytest

from hba.scsi import sense
from hba.scsi.disk.verify import first_difference
from hba.scsi.disk.vpd import MAX_ATOMIC_BYTES
from tests.scsi.util import be, disk, read10, run, write10

VERIFY = {
    10: lambda lba, count, mode: f"2f{mode << 1:02x}{be(lba, 4)}00{be(count, 2)}00",
    12: lambda lba, count, mode: f"af{mode << 1:02x}{be(lba, 4)}{be(count, 4)}0000",
    16: lambda lba, count, mode: f"8f{mode << 1:02x}{be(lba, 8)}{be(count, 4)}0000",
}
WRITE_AND_VERIFY = {
    10: lambda lba, count, mode: f"2e{mode << 1:02x}{be(lba, 4)}00{be(count, 2)}00",
    12: lambda lba, count, mode: f"ae{mode << 1:02x}{be(lba, 4)}{be(count, 4)}0000",
    16: lambda lba, count, mode: f"8e{mode << 1:02x}{be(lba, 8)}{be(count, 4)}0000",
}


def caw(lba: int, count: int, flags: int = 0) -> str:
    return f"89{flags:02x}{be(lba, 8)}000000{count:02x}0000"


@pytest.mark.parametrize("size", [10, 12, 16])
def test_verify_compares_with_what_was_sent(size: int) -> None:
    unit = disk()
    data = bytes(range(256)) * 6
    run(unit, write10(2, 3), out=data)
    assert run(unit, VERIFY[size](2, 3, 1), out=data).status == 0
    wrong = bytearray(data)
    wrong[700] ^= 1
    result = run(unit, VERIFY[size](2, 3, 1), out=bytes(wrong))
    assert result.condition == sense.MISCOMPARE_DURING_VERIFY
    assert int.from_bytes(result.sense[3:7], "big") == 700


@pytest.mark.parametrize("size", [10, 12, 16])
def test_verify_without_compare_reads_the_medium(size: int) -> None:
    unit = disk()
    assert run(unit, VERIFY[size](0, 2048, 0)).status == 0
    assert run(unit, VERIFY[size](0, 2049, 0)).condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, VERIFY[size](2048, 0, 1)).status == 0
    assert run(unit, VERIFY[size](0, 1, 2)).condition == sense.INVALID_FIELD_IN_CDB
    assert unit.verified_blocks == 2048


@pytest.mark.parametrize("size", [10, 12, 16])
def test_verify_with_one_block_over_and_over(size: int) -> None:
    unit = disk(8 << 20)
    block = b"ab" * 256
    run(unit, "93" + "00" + be(0, 8) + be(5000, 4) + "0000", out=block)
    assert run(unit, VERIFY[size](0, 5000, 3), out=block).status == 0
    run(unit, write10(4000, 1), out=b"ab" * 255 + b"aX")
    result = run(unit, VERIFY[size](0, 5000, 3), out=block)
    assert result.condition == sense.MISCOMPARE_DURING_VERIFY
    assert int.from_bytes(result.sense[3:7], "big") == 4000 * 512 + 511


def test_verify_with_too_little_data() -> None:
    assert run(disk(), VERIFY[10](0, 2, 1), out=bytes(512)).condition == sense.INVALID_FIELD_IN_CDB


@pytest.mark.parametrize("size", [10, 12, 16])
@pytest.mark.parametrize("mode", [0, 1])
def test_write_and_verify(size: int, mode: int) -> None:
    unit = disk()
    assert run(unit, WRITE_AND_VERIFY[size](4, 2, mode), out=b"z" * 1024).status == 0
    assert run(unit, read10(4, 2), 1024).data == b"z" * 1024
    assert run(unit, WRITE_AND_VERIFY[size](2047, 2, mode), out=bytes(1024)).condition == sense.LBA_OUT_OF_RANGE
    assert run(disk(read_only=True), WRITE_AND_VERIFY[size](0, 1, mode), out=bytes(512)).condition == 0x072700


def test_compare_and_write_writes_what_it_found_as_expected() -> None:
    unit = disk()
    run(unit, write10(1, 2), out=b"a" * 1024)
    assert run(unit, caw(1, 2), out=b"a" * 1024 + b"b" * 1024).status == 0
    assert run(unit, read10(1, 2), 1024).data == b"b" * 1024
    result = run(unit, caw(1, 2), out=b"b" * 1000 + b"?" * 24 + b"c" * 1024)
    assert result.condition == sense.MISCOMPARE_DURING_VERIFY
    assert int.from_bytes(result.sense[3:7], "big") == 1000
    assert run(unit, read10(1, 2), 1024).data == b"b" * 1024


def test_compare_and_write_needs_exactly_twice_the_data() -> None:
    unit = disk()
    for sent in (512, 1023, 1025, 2048):
        assert run(unit, caw(0, 1), out=bytes(sent)).condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, caw(0, 0)).status == 0
    assert run(unit, caw(0, 0), out=bytes(1024)).status == 0


def test_orwrite() -> None:
    unit = disk()
    run(unit, write10(0, 1), out=b"\x0f" * 512)
    assert run(unit, "8b00" + be(0, 8) + be(2, 4) + "0000", out=b"\xa0" * 1024).status == 0
    assert run(unit, read10(0, 2), 1024).data == b"\xaf" * 512 + b"\xa0" * 512


def test_write_atomic() -> None:
    unit = disk(4 << 20)
    limit = MAX_ATOMIC_BYTES // 512
    data = bytes(MAX_ATOMIC_BYTES)
    assert run(unit, "9c00" + be(0, 8) + "0000" + be(limit, 2) + "0000", out=data).status == 0
    assert (
        run(unit, "9c00" + be(0, 8) + "0000" + be(limit + 1, 2) + "0000", out=data + bytes(512)).condition
        == sense.INVALID_FIELD_IN_CDB
    )
    # there are no atomic boundaries
    assert run(unit, "9c00" + be(0, 8) + "0001" + be(1, 2) + "0000", out=bytes(512)).condition == 0x052400
    limits = run(unit, "1201b0004000", 64).data
    assert int.from_bytes(limits[44:48], "big") == limit


@pytest.mark.parametrize("at", [0, 1, 511, 512, 4095])
def test_first_difference(at: int) -> None:
    left = bytearray(4096)
    right = bytearray(4096)
    assert first_difference(left, right) is None
    right[at] = 1
    right[4095] = 1
    assert first_difference(left, right) == at

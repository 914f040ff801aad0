"""READ and WRITE of every size: data, ranges, short buffers, FUA and write cache."""

from __future__ import annotations

import pytest

from hba.dma import DmaBuffer
from hba.scsi import sense
from hba.scsi.task import DATA_IN, DATA_OUT, Task
from tests.scsi.util import Deferred, be, disk, make_task, read10, read16, run, write10, write16

READS = {
    6: lambda lba, count: f"08{be(lba, 3)}{be(count & 0xFF, 1)}00",
    10: read10,
    12: lambda lba, count: f"a800{be(lba, 4)}{be(count, 4)}0000",
    16: read16,
}
WRITES = {
    6: lambda lba, count: f"0a{be(lba, 3)}{be(count & 0xFF, 1)}00",
    10: write10,
    12: lambda lba, count: f"aa00{be(lba, 4)}{be(count, 4)}0000",
    16: write16,
}


@pytest.mark.parametrize("size", [6, 10, 12, 16])
@pytest.mark.parametrize("block", [512, 4096])
def test_what_was_written_is_read(size: int, block: int) -> None:
    unit = disk(1 << 20, block_size=block)
    data = bytes(range(256)) * (3 * block // 256)
    written = run(unit, WRITES[size](7, 3), out=data)
    assert (written.status, written.transferred) == (0, 3 * block)
    assert run(unit, READS[size](7, 3), 3 * block).data == data
    assert run(unit, READS[size](6, 1), block).data == bytes(block)
    assert unit.written_blocks == 3


def test_read6_of_0_blocks_is_256() -> None:
    unit = disk(1 << 20)
    assert run(unit, READS[6](0, 0), 256 * 512).transferred == 256 * 512


@pytest.mark.parametrize("size", [10, 12, 16])
def test_nothing_to_transfer(size: int) -> None:
    unit = disk(1 << 20)
    assert run(unit, READS[size](2048, 0)).status == 0
    assert run(unit, READS[size](2049, 0)).condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, WRITES[size](2048, 0)).status == 0


@pytest.mark.parametrize("size", [6, 10, 12, 16])
def test_beyond_the_end(size: int) -> None:
    unit = disk(1 << 20)
    result = run(unit, READS[size](2047, 2), 1024)
    assert result.condition == sense.LBA_OUT_OF_RANGE
    assert int.from_bytes(result.sense[3:7], "big") == 2048
    assert run(unit, WRITES[size](2047, 2), out=bytes(1024)).condition == sense.LBA_OUT_OF_RANGE


def test_the_largest_lba_does_not_wrap() -> None:
    unit = disk(1 << 20)
    result = run(unit, read16(0xFFFFFFFFFFFFFFFF, 1), 512)
    assert result.condition == sense.LBA_OUT_OF_RANGE


def test_beyond_2_tib() -> None:
    unit = disk(3 << 40)
    lba = (2 << 40) // 512 + 5
    run(unit, write16(lba, 1), out=b"q" * 512)
    assert run(unit, read16(lba, 1), 512).data == b"q" * 512
    assert run(unit, "25", 8).data[:4] == b"\xff\xff\xff\xff"
    assert int.from_bytes(run(unit, "9e10" + "00" * 8 + "0000002000", 32).data[:8], "big") == (3 << 40) // 512 - 1


def test_a_transfer_longer_than_the_limit_is_refused() -> None:
    unit = disk(128 << 20)
    limit = unit.max_transfer
    result = run(unit, read16(0, limit + 1), 512)
    assert result.condition == sense.INVALID_FIELD_IN_CDB
    assert result.sense[15:18] == bytes((0xC0, 0, 10))


@pytest.mark.parametrize("make", [read10, read16])
def test_a_read_into_less_room_fills_it_and_says_how_much_more_there_was(make: object) -> None:
    assert callable(make)
    unit = disk(1 << 20)
    run(unit, write10(0, 2), out=b"a" * 512 + b"b" * 512)
    result = run(unit, make(0, 2), 600)
    assert result.status == 0
    assert result.data == b"a" * 512 + b"b" * 88
    assert result.task.overrun == 424


def test_a_read_into_more_room_transfers_what_was_asked() -> None:
    unit = disk(1 << 20)
    result = run(unit, read10(0, 1), 4096)
    assert (result.transferred, result.task.overrun) == (512, 0)


@pytest.mark.parametrize("sent", [0, 1, 511, 1023])
def test_a_write_with_fewer_bytes_than_it_says_touches_nothing(sent: int) -> None:
    unit = disk(1 << 20)
    result = run(unit, write10(0, 2), out=b"x" * sent)
    assert result.condition == sense.INVALID_FIELD_IN_CDB
    assert run(unit, read10(0, 2), 1024).data == bytes(1024)


def test_a_write_with_more_bytes_takes_what_it_needs() -> None:
    unit = disk(1 << 20)
    assert run(unit, write10(0, 1), out=b"x" * 1024).transferred == 512
    assert run(unit, read10(0, 2), 1024).data == b"x" * 512 + bytes(512)


def test_the_wrong_direction_moves_nothing() -> None:
    unit = disk(1 << 20)
    task = Task(bytes.fromhex(read10(0, 1)), DATA_OUT, DmaBuffer.of(bytearray(b"k" * 512)))
    assert unit.execute([task])
    assert (task.status, task.transferred) == (0, 0)
    assert task.data is not None and task.data.read() == b"k" * 512
    task = Task(bytes.fromhex(write10(0, 1)), DATA_IN, DmaBuffer.of(bytearray(512)))
    assert unit.execute([task])
    assert task.status == 0x02


def test_scattered_buffers() -> None:
    unit = disk(1 << 20)
    parts = [bytearray(b"1" * 100), bytearray(b"2" * 412), bytearray(b"3" * 512)]
    task = Task(bytes.fromhex(write10(3, 2)), DATA_OUT, DmaBuffer.of(*parts))
    assert unit.execute([task]) and task.status == 0
    into = [bytearray(700), bytearray(324)]
    task = Task(bytes.fromhex(read10(3, 2)), DATA_IN, DmaBuffer.of(*into))
    assert unit.execute([task]) and task.transferred == 1024
    assert bytes(into[0] + into[1]) == b"".join(parts)


@pytest.mark.parametrize(
    "cdb",
    [
        read10(0, 1, 0x20),  # RDPROTECT
        read10(0, 1, 0x02),  # FUA_NV
        "28000000000020000100",  # beside the group number
        "28000000000000000104",  # NACA
        "280000000000000001c0",
        write16(0, 1, 0xE0),
    ],
)
def test_bits_nobody_evaluates_are_refused(cdb: str) -> None:
    unit = disk(1 << 20)
    result = run(unit, cdb, 512) if cdb.startswith("28") else run(unit, cdb, out=bytes(512))
    assert result.condition == sense.INVALID_FIELD_IN_CDB
    assert result.sense[15] & 0xC8 == 0xC8


def test_a_cdb_that_is_cut_short() -> None:
    unit = disk(1 << 20)
    for length in range(10):
        task = Task(bytes.fromhex(read10(0, 1))[:length], DATA_IN, DmaBuffer.of(bytearray(512)))
        assert unit.execute([task])
        assert task.status == 0x02, length
        assert task.transferred == 0


def test_the_write_cache_is_obeyed() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    run(unit, write10(0, 1), out=bytes(512))
    run(unit, write10(0, 1, 0x08), out=bytes(512))
    run(unit, write16(0, 1, 0x08), out=bytes(512))
    assert [call[3] for call in backend.calls] == [False, True, True]
    page = run(unit, "1a080800ff00", 255).data[4:]
    assert page[2] & 0x04
    assert run(unit, "151000001800", out=bytes(4) + page[:2] + bytes((page[2] & ~0x04,)) + page[3:]).status == 0
    backend.calls.clear()
    run(unit, write10(0, 1), out=bytes(512))
    run(unit, WRITES[6](0, 1), out=bytes(512))
    assert [call[3] for call in backend.calls] == [True, True]


def test_fua_reads_come_after_what_the_cache_holds() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    run(unit, read10(0, 1, 0x08), 512)
    assert [call[0] for call in backend.calls] == ["flush", "read"]


@pytest.mark.parametrize("cdb", ["35000000000000000000", "91" + "00" * 15, "35060000000000000100"])
def test_synchronize_cache_flushes(cdb: str) -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    assert run(unit, cdb).status == 0
    assert [call[0] for call in backend.calls] == ["flush"]


def test_prefetch_checks_the_range() -> None:
    unit = disk(1 << 20)
    assert run(unit, "34020000000000000100").status == 0
    assert run(unit, "34000000080000000100").condition == sense.LBA_OUT_OF_RANGE
    assert run(unit, "9000" + be(2048, 8) + "000000010000").condition == sense.LBA_OUT_OF_RANGE


def test_a_write_protected_disk() -> None:
    unit = disk(1 << 20, read_only=True)
    for cdb in (write10(0, 1), write16(0, 1), WRITES[6](0, 1), WRITES[12](0, 1)):
        assert run(unit, cdb, out=bytes(512)).condition == sense.WRITE_PROTECTED
    assert run(unit, read10(0, 1), 512).status == 0
    assert run(unit, "1a003f00ff00", 255).data[2] & 0x80


def test_asynchronous_reads_end_through_done() -> None:
    backend = Deferred(1 << 20)
    unit = disk(backend=backend)
    ended: list[Task] = []
    tasks = [make_task(read10(lba, 1), 512) for lba in range(4)]
    for task in tasks:
        task.done = ended.append
        assert not unit.execute([task])
        assert task.unit is unit
    backend.pending.rotate(-2)
    backend.finish_all()
    assert ended == [tasks[2], tasks[3], tasks[0], tasks[1]]
    assert all(task.unit is None and task.transferred == 512 for task in tasks)

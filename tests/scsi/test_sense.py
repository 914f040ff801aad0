"""Sense data in both formats, and what a storage error becomes."""

from __future__ import annotations

import errno

import pytest

from hba.errors import StorageError
from hba.scsi import sense
from hba.scsi.storage_sense import condition_for
from tests.scsi.util import Deferred, disk, make_task, read10, run, write10


def test_fixed_format_carries_information_and_field_pointer() -> None:
    data = sense.fixed_sense(sense.INVALID_FIELD_IN_CDB, 0x1234, sense.field(2, 5))
    assert len(data) == 18
    assert data[0] == 0xF0 and data[2] == 0x05 and data[7] == 10
    assert data[3:7] == bytes.fromhex("00001234")
    assert data[12:14] == b"\x24\x00"
    assert data[15:18] == bytes((0x80 | 0x40 | 0x08 | 5, 0, 2))


def test_fixed_format_leaves_out_an_lba_that_does_not_fit() -> None:
    data = sense.fixed_sense(sense.LBA_OUT_OF_RANGE, 1 << 32)
    assert data[0] == 0x70 and data[3:7] == bytes(4)


def test_descriptor_format_has_room_for_it() -> None:
    data = sense.descriptor_sense(sense.LBA_OUT_OF_RANGE, 1 << 32, sense.progress(0x8000))
    assert data[:4] == bytes.fromhex("72052100")
    assert data[7] == len(data) - 8 == 20
    assert data[8:12] == bytes.fromhex("000a8000")
    assert int.from_bytes(data[12:20], "big") == 1 << 32
    assert data[20:28] == bytes.fromhex("0206000080800000")


@pytest.mark.parametrize("make", [sense.fixed_sense, sense.descriptor_sense])
def test_condition_is_read_back(make: object) -> None:
    assert callable(make)
    assert sense.condition_of(make(sense.WRITE_PROTECTED)) == sense.WRITE_PROTECTED


def test_condition_of_nothing() -> None:
    assert sense.condition_of(b"") == 0


def test_d_sense_of_the_control_page_is_obeyed() -> None:
    unit = disk()
    assert run(unit, read10(1 << 30, 1), 512).sense[0] == 0xF0
    page = run(unit, "1a080a00ff00", 255).data[4:]
    changed = bytes((page[0], page[1], page[2] | 0x04)) + page[3:]
    assert run(unit, "151000001000", out=bytes(4) + changed).status == 0
    result = run(unit, read10(1 << 30, 1), 512)
    assert result.sense[0] == 0x72
    assert result.condition == sense.LBA_OUT_OF_RANGE


@pytest.mark.parametrize(
    ("code", "reading", "writing"),
    [
        (errno.EIO, sense.UNRECOVERED_READ_ERROR, sense.WRITE_ERROR),
        (errno.ENOSPC, sense.SPACE_ALLOCATION_FAILED_WRITE_PROTECT, sense.SPACE_ALLOCATION_FAILED_WRITE_PROTECT),
        (errno.EROFS, sense.UNRECOVERED_READ_ERROR, sense.WRITE_PROTECTED),
        (errno.ENODEV, sense.NOT_READY_CAUSE_NOT_REPORTABLE, sense.NOT_READY_CAUSE_NOT_REPORTABLE),
        (errno.ECONNRESET, sense.NOT_READY_COMMUNICATION_FAILURE, sense.NOT_READY_COMMUNICATION_FAILURE),
        (errno.ENOMEM, sense.INTERNAL_TARGET_FAILURE, sense.INTERNAL_TARGET_FAILURE),
        (0, sense.UNRECOVERED_READ_ERROR, sense.WRITE_ERROR),
    ],
)
def test_storage_errors_become_truthful_sense(code: int, reading: int, writing: int) -> None:
    assert condition_for(StorageError("x", code), writing=False).condition == reading
    assert condition_for(StorageError("x", code), writing=True).condition == writing


@pytest.mark.parametrize("deferred", [False, True])
@pytest.mark.parametrize(
    ("cdb", "out", "condition", "lba"),
    [
        (write10(5, 2), 1024, sense.WRITE_ERROR, 5),
        ("35000000000000000000", 0, sense.WRITE_ERROR, None),  # SYNCHRONIZE CACHE: of everything
        ("91" + "00" * 15, 0, sense.WRITE_ERROR, None),
        ("1b0000000000", 0, sense.WRITE_ERROR, None),  # START STOP UNIT flushes
        ("2f000000000500000200", 0, sense.UNRECOVERED_READ_ERROR, 5),  # VERIFY, without data and with
        ("2f020000000500000200", 1024, sense.UNRECOVERED_READ_ERROR, 5),
        ("42000000000000001800", 24, sense.WRITE_ERROR, None),  # UNMAP: its ranges are in the data
        ("9300" + "0000000000000005" + "00000002" + "0000", 512, sense.WRITE_ERROR, 5),  # WRITE SAME
    ],
)
def test_an_error_says_what_was_being_done_and_where_if_that_is_known(
    cdb: str, out: int, condition: int, lba: int | None, deferred: bool
) -> None:
    backend = Deferred(1 << 20, deferred)
    backend.unflushed = True
    unit = disk(backend=backend)
    data = bytearray(out)
    if cdb.startswith("42"):
        data[:] = bytes.fromhex("0016001000000000" + "0000000000000005" + "00000002" + "00000000")
    task = make_task(cdb, out=bytes(data) if out else None)
    ended: list[object] = []
    task.done = ended.append
    error = StorageError("broken", errno.EIO)
    if deferred:
        assert not unit.execute([task])
        backend.finish(error)
        assert ended == [task]
    else:
        backend.fail_next = error
        assert unit.execute([task])
    assert task.status == 2
    code = task.sense
    assert (code[2] & 0x0F, code[12], code[13]) == (condition >> 16, condition >> 8 & 0xFF, condition & 0xFF)
    assert (int.from_bytes(code[3:7], "big") if code[0] & 0x80 else None) == lba


@pytest.mark.parametrize("deferred", [False, True])
def test_a_failed_read_reports_the_lba_and_moves_nothing(deferred: bool) -> None:
    backend = Deferred(1 << 20, deferred)
    unit = disk(backend=backend)
    if deferred:
        task = make_task(read10(5, 2), 1024)
        ended: list[object] = []
        task.done = ended.append
        assert not unit.execute([task])
        backend.finish(StorageError("broken", errno.EIO))
        assert ended == [task]
    else:
        backend.fail_next = StorageError("broken", errno.EIO)
        task = run(unit, read10(5, 2), 1024).task
    assert task.status == 0x02
    assert task.transferred == 0
    assert sense.condition_of(task.sense) == sense.UNRECOVERED_READ_ERROR
    assert int.from_bytes(task.sense[3:7], "big") == 5
    assert unit.read_errors == 1


def test_a_full_store_under_a_write_and_recovery_afterwards() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    backend.fail_next = StorageError("full", errno.ENOSPC)
    assert run(unit, write10(0, 1), out=b"a" * 512).condition == sense.SPACE_ALLOCATION_FAILED_WRITE_PROTECT
    assert run(unit, write10(0, 1), out=b"a" * 512).status == 0

"""The sense data is that of the operation that failed, not of the command's direction: each operation, each command."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk
from hba.scsi.storage_sense import SenseError, condition_for
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.memory import MemoryBackend
from tests.scsi.test_copy import copy, second, segment, target
from tests.scsi.util import GOOD, be, disk, make_task, read10, run, write10
from tests.storage.test_granules import Coarse

READ, WRITE = sense.UNRECOVERED_READ_ERROR, sense.WRITE_ERROR
LBA = 8
FUA = 0x08
UNMAP = bytes.fromhex(be(22, 2) + be(16, 2) + be(0, 4) + be(LBA, 8) + be(1, 4) + be(0, 4))
ZEROS = bytes(512)
ONES = b"\x11" * 512


def failing(operation: str, delay: int | None, code: int = errno.EIO, **options: bool) -> tuple[FaultyBackend, Disk]:
    """A disk whose store fails at that, at once or later."""
    clock = VirtualClock()
    store = FaultyBackend(MemoryBackend(1 << 20), clock)
    unit = disk(backend=store, **options)
    unit.clock = clock
    store.inject(Fault(operation, code, delay=delay))
    return store, unit


# what fails, the CDB, what is sent, room, the condition; the medium holds zeros
CASES: dict[str, tuple[str, str, bytes | None, int, int]] = {
    "READ": ("read", read10(LBA, 1), None, 512, READ),
    "READ, FUA: what the cache holds": ("flush", read10(LBA, 1, FUA), None, 512, WRITE),
    "READ, FUA": ("read", read10(LBA, 1, FUA), None, 512, READ),
    "WRITE": ("write", write10(LBA, 1), ONES, 0, WRITE),
    "WRITE, FUA": ("write", write10(LBA, 1, FUA), ONES, 0, WRITE),
    "WRITE(6)": ("write", f"0a{be(LBA, 3)}0100", ONES, 0, WRITE),
    "VERIFY": ("read", f"2f00{be(LBA, 4)}00{be(1, 2)}00", None, 0, READ),
    "VERIFY with data": ("read", f"2f02{be(LBA, 4)}00{be(1, 2)}00", ZEROS, 0, READ),
    "VERIFY with one block": ("read", f"2f06{be(LBA, 4)}00{be(4, 2)}00", ZEROS, 0, READ),
    "VERIFY(16) with data": ("read", f"8f02{be(LBA, 8)}{be(1, 4)}0000", ZEROS, 0, READ),
    "WRITE AND VERIFY, the write": ("write", f"2e00{be(LBA, 4)}00{be(1, 2)}00", ONES, 0, WRITE),
    "WRITE AND VERIFY, the reading": ("read", f"2e00{be(LBA, 4)}00{be(1, 2)}00", ONES, 0, READ),
    "WRITE AND VERIFY, the comparison": ("read", f"2e02{be(LBA, 4)}00{be(1, 2)}00", ONES, 0, READ),
    "WRITE AND VERIFY(16), the comparison": ("read", f"8e02{be(LBA, 8)}{be(1, 4)}0000", ONES, 0, READ),
    "COMPARE AND WRITE, the comparison": ("read", f"8900{be(LBA, 8)}{be(1, 4)}0000", ZEROS + ONES, 0, READ),
    "COMPARE AND WRITE, the write": ("write", f"8900{be(LBA, 8)}{be(1, 4)}0000", ZEROS + ONES, 0, WRITE),
    "ORWRITE, the read": ("read", f"8b00{be(LBA, 8)}{be(1, 4)}0000", ONES, 0, READ),
    "ORWRITE, the write": ("write", f"8b00{be(LBA, 8)}{be(1, 4)}0000", ONES, 0, WRITE),
    "WRITE SAME": ("write", f"4100{be(LBA, 4)}00{be(4, 2)}00", ONES, 0, WRITE),
    "WRITE SAME of zeros": ("zero", f"4100{be(LBA, 4)}00{be(4, 2)}00", ZEROS, 0, WRITE),
    "WRITE SAME, UNMAP": ("discard", f"4108{be(LBA, 4)}00{be(4, 2)}00", ZEROS, 0, WRITE),
    "UNMAP": ("discard", "42000000000000001800", UNMAP, 0, WRITE),
    "SYNCHRONIZE CACHE": ("flush", "35" + "00" * 9, None, 0, WRITE),
    "STOP": ("flush", "1b0000000000", None, 0, WRITE),
}


@pytest.mark.parametrize("delay", [None, 1], ids=["at once", "later"])
@pytest.mark.parametrize("name", CASES)
def test_the_operation_decides(name: str, delay: int | None) -> None:
    operation, cdb, out, room, condition = CASES[name]
    store, unit = failing(operation, delay)
    result = run(unit, cdb, room, out)
    assert result.condition == condition, result
    assert (unit.read_errors, unit.write_errors) == ((1, 0) if condition == READ else (0, 1))
    assert result.transferred == 0
    store.clear()
    assert run(unit, cdb, room, out).status == GOOD


PROTECTED: dict[str, tuple[str, str, bytes | None, int, int]] = {
    "READ": ("read", read10(LBA, 1, 0x20), None, 520, READ),
    "READ, FUA: what the cache holds": ("flush", read10(LBA, 1, 0x20 | FUA), None, 520, WRITE),
    "READ without": ("read", read10(LBA, 1), None, 512, READ),
    "WRITE": ("write", write10(LBA, 1, 0x60), ONES + bytes(8), 0, WRITE),
    "VERIFY": ("read", f"2f20{be(LBA, 4)}00{be(1, 2)}00", None, 0, READ),
    "ORWRITE, the read": CASES["ORWRITE, the read"],
    "COMPARE AND WRITE, the comparison": CASES["COMPARE AND WRITE, the comparison"],
    "COMPARE AND WRITE, the write": CASES["COMPARE AND WRITE, the write"],
}


@pytest.mark.parametrize("delay", [None, 1], ids=["at once", "later"])
@pytest.mark.parametrize("name", PROTECTED)
def test_of_a_unit_with_protection_information(name: str, delay: int | None) -> None:
    operation, cdb, out, room, condition = PROTECTED[name]
    _, unit = failing(operation, delay, protection=True)
    assert run(unit, cdb, room, out).condition == condition


def test_a_guard_that_does_not_fit_is_no_error_of_reading_or_writing() -> None:
    unit = disk(protection=True)
    assert run(unit, write10(LBA, 1, 0x60), out=ONES + b"\x01" * 8).status == GOOD
    assert run(unit, f"8b00{be(LBA, 8)}{be(1, 4)}0000", out=ONES).condition == sense.GUARD_CHECK_FAILED
    error = SenseError(sense.CheckCondition(sense.GUARD_CHECK_FAILED, 3)).during("read")
    assert condition_for(error, writing=True).information == 3


@pytest.mark.parametrize("deferred", [False, True])
def test_a_write_that_has_to_read_first(deferred: bool) -> None:
    """A block of a store with larger ones: the read of the rest fails."""
    store = Coarse(1 << 20, deferred)
    unit = disk(backend=store)
    error = StorageError("bad", errno.EIO)
    if not deferred:
        store.fail_next = error
        assert run(unit, write10(LBA, 1), out=ONES).condition == READ
        return
    task = make_task(write10(LBA, 1), out=ONES)
    assert not unit.execute([task])
    store.finish(error=error)
    assert sense.condition_of(task.sense) == READ
    assert (unit.read_errors, unit.write_errors) == (1, 0)


@pytest.mark.parametrize("delay", [None, 1], ids=["at once", "later"])
@pytest.mark.parametrize("operation", ["read", "write"])
def test_a_copy_blames_the_disk_that_failed(operation: str, delay: int | None) -> None:
    _, unit = failing(operation, delay)
    other = second()
    other.clock = unit.clock
    bus = ScsiBus()
    bus.attach(0, 0, unit)
    bus.attach(1, 0, other)
    while run(unit, "00" * 6).status or run(other, "00" * 6).status:
        pass
    way = (0, 1) if operation == "read" else (1, 0)
    result = copy(unit, [target(unit), target(other)], [segment(*way, 8, 0, 100)])
    assert result.condition == sense.COPY_THIRD_PARTY_FAILURE
    assert (unit.read_errors, unit.write_errors) == ((1, 0) if operation == "read" else (0, 1))
    assert (unit.trouble.count, other.trouble.count) == (1, 0)
    assert (other.read_errors, other.write_errors) == (0, 0)


def fail(operation: str, code: int) -> Callable[[str, bytes | None, int], int]:
    _, unit = failing(operation, None, code)
    return lambda cdb, out, room: run(unit, cdb, room, out).condition


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("name", ["UNMAP", "WRITE SAME, UNMAP", "WRITE SAME of zeros"])
def test_what_a_store_need_not_do_is_a_command_the_unit_has_not(name: str, code: int) -> None:
    operation, cdb, out, room, _ = CASES[name]
    assert fail(operation, code)(cdb, out, room) == sense.INVALID_COMMAND_OPERATION_CODE


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
@pytest.mark.parametrize("name", ["READ", "WRITE", "SYNCHRONIZE CACHE", "ORWRITE, the read"])
def test_what_it_must_do_and_refuses_is_a_failure_of_the_target(name: str, code: int) -> None:
    """The guest asked for nothing that is not announced, and the medium is not at fault."""
    operation, cdb, out, room, _ = CASES[name]
    assert fail(operation, code)(cdb, out, room) == sense.INTERNAL_TARGET_FAILURE

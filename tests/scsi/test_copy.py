"""EXTENDED COPY between disks of one bus."""

from __future__ import annotations

import errno

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.copy import MAX_LIST_LENGTH, MAX_SEGMENTS, MAX_TARGETS
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.server import Identity
from hba.scsi.spc.vpd import naa_of
from tests.scsi.util import Deferred, Result, be, disk, read10, run, settle, write10


def target(unit: Disk, kind: int = 0xE4) -> bytes:
    body = bytes((1, 3, 0, 8)) + naa_of(unit.identity).to_bytes(8, "big") + bytes(12)
    return bytes((kind, 0, 0, 0)) + body + bytes((0,)) + unit.block_size.to_bytes(3, "big")


def segment(source: int, destination: int, blocks: int, from_lba: int, to_lba: int, flags: int = 0) -> bytes:
    return (
        bytes((0x02, flags, 0, 0x18))
        + source.to_bytes(2, "big")
        + destination.to_bytes(2, "big")
        + bytes(2)
        + blocks.to_bytes(2, "big")
        + from_lba.to_bytes(8, "big")
        + to_lba.to_bytes(8, "big")
    )


def copy(unit: Disk, targets: list[bytes], segments: list[bytes], usage: int = 0, cut: int | None = None) -> Result:
    t, s = b"".join(targets), b"".join(segments)
    data = bytes((1, usage << 3)) + len(t).to_bytes(2, "big") + bytes(4) + len(s).to_bytes(4, "big") + bytes(4) + t + s
    data = data[:cut]
    return run(unit, "8300" + "00" * 8 + be(len(data), 4) + "0000", out=data)


def second(size: int = 1 << 20, block_size: int = 512, **options: bool) -> Disk:
    from hba.storage.memory import MemoryBackend

    unit = Disk(
        MemoryBackend(size), Identity(serial="2"), VirtualClock(), DiskOptions(block_size=block_size, **options)
    )
    settle(unit)
    return unit


def test_copy_within_a_disk() -> None:
    unit = disk()
    run(unit, write10(0, 8), out=b"c" * 4096)
    assert copy(unit, [target(unit)], [segment(0, 0, 8, 0, 100)]).status == 0
    assert run(unit, read10(99, 10), 5120).data == bytes(512) + b"c" * 4096 + bytes(512)


def test_copy_to_another_disk_with_other_blocks() -> None:
    first, other = disk(), second(block_size=4096)
    bus = ScsiBus()
    bus.attach(0, 0, first)
    bus.attach(1, 0, other)
    run(first, write10(8, 8), out=b"d" * 4096)
    assert copy(first, [target(first), target(other)], [segment(0, 1, 8, 8, 2)]).status == 0
    assert run(other, read10(2, 1), 4096).data == b"d" * 4096
    # DC: the count is of the destination's blocks
    assert copy(first, [target(first), target(other)], [segment(0, 1, 1, 8, 3, flags=2)]).status == 0
    assert run(other, read10(3, 1), 4096).data == b"d" * 4096
    assert copy(first, [target(first), target(other)], [segment(0, 1, 7, 8, 2)]).condition == 0x052600


@pytest.mark.parametrize("to", [3000, 1, 4999])
def test_overlapping_copies(to: int) -> None:
    unit = disk(8 << 20)
    data = b"".join(number.to_bytes(4, "big") * 128 for number in range(5000))
    run(unit, f"8a00{be(0, 8)}{be(5000, 4)}0000", out=data)
    assert copy(unit, [target(unit)], [segment(0, 0, 5000, 0, to)]).status == 0
    assert run(unit, f"8800{be(to, 8)}{be(5000, 4)}0000", 5000 * 512).data == data


def test_limits() -> None:
    unit = disk()
    one, seg = target(unit), segment(0, 0, 1, 0, 1)
    assert copy(unit, [one] * (MAX_TARGETS + 1), [seg]).condition == sense.TOO_MANY_TARGET_DESCRIPTORS
    assert copy(unit, [one], [seg] * (MAX_SEGMENTS + 1)).condition == sense.TOO_MANY_SEGMENT_DESCRIPTORS
    many = [seg] * (MAX_LIST_LENGTH // 28 + 1)
    assert copy(unit, [one], many).condition == sense.PARAMETER_LIST_LENGTH_ERROR
    parameters = run(unit, "8403" + "00" * 8 + "0000010000", 256).data
    assert int.from_bytes(parameters[8:10], "big") == MAX_TARGETS
    assert int.from_bytes(parameters[10:12], "big") == MAX_SEGMENTS
    assert parameters[43] == 2 and set(parameters[44:46]) == {0x02, 0xE4}


def test_what_is_refused() -> None:
    unit = disk()
    good = [target(unit)]
    assert run(unit, "8300" + "00" * 14).status == 0
    for cut in (10, 16 + 31, 16 + 32 + 27):
        assert copy(unit, good, [segment(0, 0, 1, 0, 1)], cut=cut).condition == sense.PARAMETER_LIST_LENGTH_ERROR
    assert copy(unit, [target(unit, 0xE0)], []).condition == sense.UNSUPPORTED_TARGET_DESCRIPTOR_TYPE
    assert copy(unit, good, [b"\x03" + bytes(27)]).condition == sense.UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE
    assert copy(unit, good, [segment(0, 1, 1, 0, 1)]).condition == sense.COPY_UNREACHABLE_TARGET
    assert copy(unit, [target(second())], [segment(0, 0, 1, 0, 1)]).condition == sense.COPY_UNREACHABLE_TARGET
    assert copy(unit, good, [segment(0, 0, 2, 0, 2047)]).condition == sense.COPY_ABORTED


def test_a_destination_that_cannot_be_written() -> None:
    first, other = disk(), second(read_only=True)
    bus = ScsiBus()
    bus.attach(0, 0, first)
    bus.attach(1, 0, other)
    assert copy(first, [target(first), target(other)], [segment(0, 1, 1, 0, 0)]).condition == 0x0A0D01


def test_results_are_kept_unless_they_are_not_wanted() -> None:
    backend = Deferred(1 << 20, deferred=False)
    unit = disk(backend=backend)
    status = "840001" + "00" * 7 + "0000000c0000"
    assert run(unit, status, 12).condition == sense.INVALID_FIELD_IN_CDB
    for usage in (2, 3):
        assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, 1)], usage=usage).status == 0
        assert run(unit, status, 12).condition == sense.INVALID_FIELD_IN_CDB
    assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, 1)] * 2).status == 0
    assert run(unit, status, 12).data == bytes.fromhex("000000080100020000000000")
    assert run(unit, status, 12).condition == sense.INVALID_FIELD_IN_CDB  # told once
    assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, 1)]).status == 0
    assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, unit.blocks)]).condition == sense.COPY_ABORTED
    assert run(unit, status, 12).condition == sense.INVALID_FIELD_IN_CDB  # another copy has taken the identifier
    backend.fail_next = StorageError("broken", errno.EIO)
    assert copy(unit, [target(unit)], [segment(0, 0, 1, 0, 1)]).condition == sense.COPY_THIRD_PARTY_FAILURE
    assert run(unit, status, 12).data[4] == 0x02

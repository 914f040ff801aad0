"""EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4): block device to block device, among the disks of this bus.

Targets are named by an identification descriptor (E4h) with a designator of page 83h; segments are block to block
(02h). A command ends when the copy has, so its status is known by then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from hba.errors import StorageError
from hba.scsi.command import CONFLICTS, CommandTable
from hba.scsi.disk.verify import CHUNK
from hba.scsi.sense import (
    COPY_ABORTED,
    COPY_THIRD_PARTY_FAILURE,
    COPY_UNREACHABLE_TARGET,
    INLINE_DATA_LENGTH_EXCEEDED,
    PARAMETER_LIST_LENGTH_ERROR,
    TOO_MANY_SEGMENT_DESCRIPTORS,
    TOO_MANY_TARGET_DESCRIPTORS,
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE,
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE,
    CheckCondition,
    invalid_cdb,
    invalid_parameter,
)
from hba.scsi.spc.vpd import device_identification
from hba.scsi.task import Task

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()

IDENTIFICATION_TARGET = 0xE4
BLOCK_TO_BLOCK = 0x02
MAX_TARGETS = 8
MAX_SEGMENTS = 16
MAX_LIST_LENGTH = 1024  # bytes of all descriptors
MAX_SEGMENT_BYTES = 0xFFFF * 4096
KEPT_RESULTS = 16

_HEADER = 16
_TARGET_LENGTH = 32
_SEGMENT_LENGTH = 28
_HOLD, _NO_LIST_ID = 0b00, 0b11  # LIST ID USAGE: keep the result; there is no list identifier. (10b: need not keep it)
_SOURCE_COUNTS = 0x00

Segment = tuple["Disk", int, "Disk", int, int]  # source, LBA, destination, LBA, bytes


@commands.add(
    "83 00 0000000000000000 ffffffff 00 00",
    "EXTENDED COPY(LID1)",
    service=True,
    medium=True,
    access=CONFLICTS,
    exclusive=True,
    timeout=(10, 600),
)
def extended_copy(unit: Disk, task: Task) -> Steps | None:
    length = int.from_bytes(task.cdb[10:14], "big")
    if not length:
        return None
    if length < _HEADER or length > _HEADER + 0xFFFF:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    data = unit.parameters(task, length)
    if len(data) < length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    usage = data[1] >> 3 & 0x03
    key = (task.initiator, data[0])
    if usage != _NO_LIST_ID:
        # The list identifier is in use again: what became of its last copy is told no more, whatever becomes of this.
        unit.copy_results.pop(key, None)
    targets_length = int.from_bytes(data[2:4], "big")
    segments_length = int.from_bytes(data[8:12], "big")
    inline_length = int.from_bytes(data[12:16], "big")
    if inline_length:
        raise CheckCondition(INLINE_DATA_LENGTH_EXCEEDED)
    if targets_length + segments_length > MAX_LIST_LENGTH or _HEADER + targets_length + segments_length > length:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
    end = _HEADER + targets_length
    targets = _targets(unit, data[_HEADER:end])
    segments = _segments(targets, data[end : end + segments_length], end)
    return _copying(unit, segments, key if usage == _HOLD else None)


def _targets(unit: Disk, data: bytes) -> list[Disk | None]:
    """The disks the descriptors name; None for one that is not on this bus."""
    targets: list[Disk | None] = []
    for start in range(0, len(data), _TARGET_LENGTH):
        descriptor = data[start : start + _TARGET_LENGTH]
        if descriptor[0] != IDENTIFICATION_TARGET:
            raise CheckCondition(UNSUPPORTED_TARGET_DESCRIPTOR_TYPE)
        if len(descriptor) < _TARGET_LENGTH:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        if len(targets) == MAX_TARGETS:
            raise CheckCondition(TOO_MANY_TARGET_DESCRIPTORS)
        length = descriptor[7]
        if length > 20:
            raise invalid_parameter(_HEADER + start + 7)
        kind = bytes((descriptor[4] & 0x0F, descriptor[5] & 0x3F, 0, length))
        targets.append(_find(unit, kind + descriptor[8 : 8 + length]))
    return targets


def _find(unit: Disk, designator: bytes) -> Disk | None:
    candidates = [unit] if unit.bus is None else list(unit.bus)
    for candidate in candidates:
        if isinstance(candidate, type(unit)) and designator in _designators(device_identification(candidate.identity)):
            return candidate
    return None


def _designators(page: bytes) -> list[bytes]:
    result = []
    position = 0
    while position < len(page):
        end = position + 4 + page[position + 3]
        result.append(page[position:end])
        position = end
    return result


def _segments(targets: list[Disk | None], data: bytes, offset: int) -> list[Segment]:
    segments: list[Segment] = []
    position = 0
    while position < len(data):
        if len(segments) == MAX_SEGMENTS:
            raise CheckCondition(TOO_MANY_SEGMENT_DESCRIPTORS)
        descriptor = data[position : position + _SEGMENT_LENGTH]
        if descriptor[0] != BLOCK_TO_BLOCK:
            raise CheckCondition(UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE)
        if len(descriptor) < _SEGMENT_LENGTH:
            raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR)
        if int.from_bytes(descriptor[2:4], "big") != _SEGMENT_LENGTH - 4:
            raise invalid_parameter(offset + position + 2)
        source = _target(targets, int.from_bytes(descriptor[4:6], "big"))
        destination = _target(targets, int.from_bytes(descriptor[6:8], "big"))
        blocks = int.from_bytes(descriptor[10:12], "big")
        by_destination = bool(descriptor[1] & 0x02)  # DC: whose blocks are counted
        length = blocks * (destination if by_destination else source).block_size
        source_lba, destination_lba = (int.from_bytes(descriptor[at : at + 8], "big") for at in (12, 20))
        for disk, lba in ((source, source_lba), (destination, destination_lba)):
            if length % disk.block_size:
                raise invalid_parameter(offset + position + 10)
            if lba * disk.block_size + length > disk.blocks * disk.block_size:
                raise CheckCondition(COPY_ABORTED)
        segments.append((source, source_lba, destination, destination_lba, length))
        position += _SEGMENT_LENGTH
    return segments


def _target(targets: list[Disk | None], index: int) -> Disk:
    disk = targets[index] if index < len(targets) else None
    if disk is None:
        raise CheckCondition(COPY_UNREACHABLE_TARGET)
    return disk


def _copying(unit: Disk, segments: list[Segment], key: tuple[int, int] | None) -> Steps:
    done = 0
    good = False
    try:
        for source, source_lba, destination, destination_lba, length in segments:
            yield from _copying_segment(source, source_lba, destination, destination_lba, length)
            done += 1
        good = True
    finally:
        if key is not None:
            unit.copy_results.pop(key, None)
            unit.copy_results[key] = (good, done)
            while len(unit.copy_results) > KEPT_RESULTS:
                del unit.copy_results[next(iter(unit.copy_results))]


def _copying_segment(source: Disk, source_lba: int, destination: Disk, destination_lba: int, length: int) -> Steps:
    try:
        source.check_ready()
        destination.check_ready()
        destination.check_writable()
    except CheckCondition:
        raise CheckCondition(COPY_THIRD_PARTY_FAILURE) from None
    start, target = source_lba * source.block_size, destination_lba * destination.block_size
    offsets = range(0, length, CHUNK)
    overlapping = source is destination and start < target < start + length
    buffer = bytearray(min(CHUNK, length))
    for offset in reversed(offsets) if overlapping else offsets:
        part = memoryview(buffer)[: min(CHUNK, length - offset)]
        unit = source
        try:
            yield partial(source.store().read, [part], start + offset)
            unit = destination
            yield partial(destination.store().write, [part], target + offset, fua=destination.write_through)
        except StorageError as error:
            unit.count_error(error.operation != "read")
            unit.store_failed(error)
            raise CheckCondition(COPY_THIRD_PARTY_FAILURE) from None
        yield None
    destination.written_blocks += length // destination.block_size
    source.read_blocks += length // source.block_size


@commands.add(
    "84 00 ff 00000000000000 ffffffff 00 00", "RECEIVE COPY RESULTS, COPY STATUS", service=True, allocation=(10, 4)
)
def copy_status(unit: Disk, task: Task) -> bytes:
    """Once told, the status of a copy is forgotten: its list identifier is free again."""
    result = unit.copy_results.pop((task.initiator, task.cdb[2]), None)
    if result is None:
        raise invalid_cdb(2)
    good, segments = result
    data = (8).to_bytes(4, "big") + bytes((0x01 if good else 0x02,)) + segments.to_bytes(2, "big")
    return data + bytes((_SOURCE_COUNTS,)) + bytes(4)


@commands.add(
    "84 03 ff 00000000000000 ffffffff 00 00",
    "RECEIVE COPY RESULTS, OPERATING PARAMETERS",
    service=True,
    allocation=(10, 4),
)
def operating_parameters(unit: Disk, task: Task) -> bytes:
    data = bytearray(44)
    data[8:10] = MAX_TARGETS.to_bytes(2, "big")
    data[10:12] = MAX_SEGMENTS.to_bytes(2, "big")
    data[12:16] = MAX_LIST_LENGTH.to_bytes(4, "big")
    data[16:20] = MAX_SEGMENT_BYTES.to_bytes(4, "big")
    data[34:36] = (1).to_bytes(2, "big")
    data[36] = 1
    data[37] = (unit.block_size).bit_length() - 1
    codes = bytes((BLOCK_TO_BLOCK, IDENTIFICATION_TARGET))
    data[43] = len(codes)
    data += codes
    data[0:4] = (len(data) - 4).to_bytes(4, "big")
    return bytes(data)


def third_party_copy_page() -> bytes:
    """VPD page 8Fh: the commands, the parameter limits and the descriptors above."""

    def descriptor(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        return kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body

    supported = bytes((0x83, 1, 0x00)) + bytes((0x84, 2, 0x00, 0x03))
    parameters = (
        bytes(4)
        + MAX_TARGETS.to_bytes(2, "big")
        + MAX_SEGMENTS.to_bytes(2, "big")
        + MAX_LIST_LENGTH.to_bytes(4, "big")
        + bytes(4)  # no inline data
        + bytes(12)
    )
    codes = bytes((BLOCK_TO_BLOCK, IDENTIFICATION_TARGET))
    general = (
        (1).to_bytes(4, "big")
        + (1).to_bytes(4, "big")
        + MAX_SEGMENT_BYTES.to_bytes(4, "big")
        + bytes((9, 9))
        + bytes(18)
    )
    return (
        descriptor(0x0001, bytes((len(supported),)) + supported)
        + descriptor(0x0004, parameters)
        + descriptor(0x0008, len(codes).to_bytes(2, "big") + codes)
        + descriptor(0x8001, general)
    )

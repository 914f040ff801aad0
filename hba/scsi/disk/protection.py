"""T10 protection information, type 1 (SBC-4 "Protection information model"): eight bytes beside every block.

    guard            CRC-16 of the block's data (polynomial 8BB7h)
    application tag  the initiator's; FFFFh switches checking off for the block
    reference tag    the low 32 bits of the LBA

`ProtectedStore` stands in front of the disk's back end. What is written without protection information gets it, what
is read is checked, what is unmapped or zeroed loses it (all FFh). The bytes live in a second store.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hba.errors import StorageError
from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.disk.rw import FUA, read_blocks, write_blocks
from hba.scsi.disk.verify import CHUNK, VERIFY, verify_blocks
from hba.scsi.sense import GUARD_CHECK_FAILED, REFERENCE_TAG_CHECK_FAILED, CheckCondition, invalid_cdb
from hba.scsi.storage_sense import SenseError
from hba.scsi.task import Task
from hba.storage.backend import Backend, Done

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()  # of a disk with protection information; the 32-byte commands are for type 2 only

SIZE = 8  # bytes of protection information
NOTHING = b"\xff" * SIZE  # APPLICATION TAG FFFFh: not checked
_INVERTED = bytes(byte ^ 0xFF for byte in range(256))
_FIELDS = struct.Struct(">HHI")
_POLYNOMIAL = 0x8BB7
_ESCAPE = 0xFFFF


def _table() -> tuple[int, ...]:
    result = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ _POLYNOMIAL if crc & 0x8000 else crc << 1) & 0xFFFF
        result.append(crc)
    return tuple(result)


_CRC = _table()


def guard_of(data: bytes | memoryview) -> int:
    """The CRC-16 of a block."""
    crc = 0
    table = _CRC
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ table[crc >> 8 ^ byte]
    return crc


def check_blocks(
    data: memoryview, information: bytes, lba: int, size: int, guard: bool = True, reference: bool = True
) -> None:
    """Raises `SenseError` for the first block that does not fit its protection information."""
    for index in range(len(information) // SIZE):
        stored_guard, application, tag = _FIELDS.unpack_from(information, index * SIZE)
        if application == _ESCAPE:
            continue
        if guard and guard_of(data[index * size : (index + 1) * size]) != stored_guard:
            raise SenseError(CheckCondition(GUARD_CHECK_FAILED, lba + index))
        if reference and tag != (lba + index) & 0xFFFFFFFF:
            raise SenseError(CheckCondition(REFERENCE_TAG_CHECK_FAILED, lba + index))


def make_all(data: bytes, lba: int, size: int) -> bytes:
    """What the device server adds to blocks that come without; application tag 0."""
    view = memoryview(data)
    return b"".join(
        _FIELDS.pack(guard_of(view[index * size : (index + 1) * size]), 0, (lba + index) & 0xFFFFFFFF)
        for index in range(len(data) // size)
    )


class ProtectedStore(Backend):
    """A back end whose blocks carry protection information. Owns `inner`.

    The information is kept in a sparse map, inverted, so that what was never written is `NOTHING`: in memory, or in
    the file `path`, which then must stay with the disk's own.
    """

    def __init__(self, inner: Backend, block_size: int, path: Path | None = None) -> None:
        """Raises `StorageError` when the file cannot be used."""
        self.inner = inner
        self.block_size = block_size
        self.enabled = True  # FORMAT UNIT may switch it off
        self.kind = inner.kind
        self.read_only = inner.read_only
        self.can_discard = inner.can_discard
        self.physical_block_size = inner.physical_block_size
        self.medium_block = inner.medium_block
        self.size = inner.size
        self._path = path
        self._map = self._open()
        inner.on_event = self._event

    def _open(self) -> mmap.mmap:
        length = max(1, self.inner.size // self.block_size) * SIZE
        if self._path is None:
            return mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(file, length)
                return mmap.mmap(file, length)
            finally:
                os.close(file)
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self._path}: the protection information cannot be kept there: {error}",
                getattr(error, "errno", 0) or 0,
            ) from error

    def _event(self, event: str) -> None:
        if event in ("resized", "back"):
            self._resized()
        if self.on_event is not None:
            self.on_event(event)

    def _resized(self) -> None:
        self.size = self.inner.size
        old, self._map = self._map, self._open()
        if self._path is None:
            kept = min(len(old), len(self._map))
            self._map[:kept] = old[:kept]
        old.close()

    # -- the information --------------------------------------------------------------------------------------------

    def information(self, lba: int, count: int) -> bytes:
        """The protection information of some blocks, eight bytes each."""
        return bytes(self._map[lba * SIZE : (lba + count) * SIZE]).translate(_INVERTED)

    def keep(self, lba: int, information: bytes) -> None:
        self._map[lba * SIZE : lba * SIZE + len(information)] = information.translate(_INVERTED)

    def forget(self, offset: int, length: int) -> None:
        first, last = offset // self.block_size, (offset + length) // self.block_size
        step = 1 << 20
        for lba in range(first, last, step):
            count = min(step, last - lba)
            self._map[lba * SIZE : (lba + count) * SIZE] = bytes(count * SIZE)

    def check(self, data: bytes | bytearray, lba: int, guard: bool = True, reference: bool = True) -> None:
        """Raises `SenseError` when stored blocks do not fit their information."""
        information = self.information(lba, len(data) // self.block_size)
        check_blocks(memoryview(data), information, lba, self.block_size, guard, reference)

    # -- a back end -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        def checked(error: StorageError | None) -> None:
            if error is None:
                try:
                    self._check_views(views, offset)
                except StorageError as failure:
                    error = failure
            done(error)

        if not self.inner.read(views, offset, checked):
            return False
        self._check_views(views, offset)
        return True

    def _check_views(self, views: Sequence[memoryview], offset: int) -> None:
        if self.enabled:
            data = b"".join(views)
            whole = len(data) - len(data) % self.block_size  # less than a block is no block: nothing to check it by
            self.check(data[:whole], offset // self.block_size)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        data = b"".join(views)
        lba = offset // self.block_size
        return self.write_with(data, make_all(data, lba, self.block_size), lba, done, fua)

    def write_with(self, data: bytes, information: bytes, lba: int, done: Done, fua: bool = False) -> bool:
        """Write blocks with the protection information given, unchecked."""

        def written(error: StorageError | None) -> None:
            if error is None:
                self.keep(lba, information)
            done(error)

        if not self.inner.write([memoryview(data)], lba * self.block_size, written, fua):
            return False
        self.keep(lba, information)
        return True

    def forget_lost(self) -> None:
        self.inner.forget_lost()

    @property
    def unstable(self) -> bool:
        return self.inner.unstable

    def flush(self, done: Done) -> bool:
        if self._path is not None:
            self._map.flush()
        return self.inner.flush(done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        self.forget(offset, length)
        return self.inner.discard(offset, length, done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        self.forget(offset, length)
        return self.inner.zero(offset, length, done)

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        return self.inner.allocated(offset, length)

    def resize(self, size: int) -> None:
        self.inner.resize(size)
        self._resized()

    def settle(self, timeout: float) -> bool:
        return self.inner.settle(timeout)

    def close(self) -> None:
        self.inner.on_event = None
        self.inner.close()
        if self._path is not None and not self._map.closed:
            self._map.flush()
        self._map.close()

    def describe(self) -> dict[str, object]:
        return {**self.inner.describe(), "protection": "type 1" if self.enabled else "off"}


# -- the commands that carry it -------------------------------------------------------------------------------------

# RDPROTECT, WRPROTECT, VRPROTECT: whether the guard and the reference tag are checked (SBC-4, tables of READ(10) etc.)
_PROTECT: dict[tuple[int, int], Iterable[int]] = {(1, 0xE0): range(6)}
_VERIFY: dict[str, Any] = {**VERIFY, "values": {**VERIFY["values"], **_PROTECT}}
_CHECKS = {1: (True, True), 2: (False, True), 3: (False, False), 4: (True, False), 5: (True, True)}


def _store(unit: Disk) -> ProtectedStore:
    store = unit.store()
    if not isinstance(store, ProtectedStore) or not store.enabled:
        raise invalid_cdb(1, 7)
    return store


def _checks(cdb: bytes) -> tuple[bool, bool] | None:
    """What to check; None when the field is 0 and the command is as without protection information."""
    field = cdb[1] >> 5
    if not field:
        return None
    return _CHECKS[field]


def _read(unit: Disk, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    cdb = task.cdb
    checks = _checks(cdb)
    if checks is None:
        return read_blocks(unit, task, lba, count, byte, bool(cdb[1] & FUA))
    store = _store(unit)
    unit.check_range(lba, count)
    unit.check_length(count, byte)
    return _reading(unit, task, store, lba, count, checks) if count else None


def _reading(unit: Disk, task: Task, store: ProtectedStore, lba: int, count: int, checks: tuple[bool, bool]) -> Steps:
    if task.cdb[1] & FUA and not unit.write_through:
        yield store.flush
    size = unit.block_size
    data = bytearray(count * size)
    yield partial(store.inner.read, [memoryview(data)], lba * size)
    store.check(data, lba, *checks)
    information = store.information(lba, count)
    mixed = b"".join(
        data[index * size : (index + 1) * size] + information[index * SIZE : (index + 1) * SIZE]
        for index in range(count)
    )
    unit.send(task, mixed, len(mixed))
    unit.reads += 1
    unit.read_blocks += count


def _write(unit: Disk, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    cdb = task.cdb
    checks = _checks(cdb)
    if checks is None:
        return write_blocks(unit, task, lba, count, byte, bool(cdb[1] & FUA))
    store = _store(unit)
    unit.check_writable()
    unit.check_range(lba, count)
    unit.check_length(count, byte)
    if not count:
        return None
    size = unit.block_size
    mixed = b"".join(unit.data_out(task, count * (size + SIZE), byte))
    data = b"".join(mixed[at : at + size] for at in range(0, len(mixed), size + SIZE))
    information = b"".join(mixed[at + size : at + size + SIZE] for at in range(0, len(mixed), size + SIZE))
    check_blocks(memoryview(data), information, lba, size, *checks)
    return _writing(unit, store, data, information, lba, bool(cdb[1] & FUA))


def _writing(unit: Disk, store: ProtectedStore, data: bytes, information: bytes, lba: int, fua: bool) -> Steps:
    yield partial(store.write_with, data, information, lba, fua=fua or unit.write_through)
    unit.writes += 1
    unit.written_blocks += len(information) // SIZE


def _verify(unit: Disk, task: Task, lba: int, count: int, byte: int) -> Steps | None:
    """VRPROTECT with BYTCHK 00b checks the medium; the other modes compare data only, and must say so (VRPROTECT 0)."""
    checks = _checks(task.cdb)
    if checks is None:
        return verify_blocks(unit, task, lba, count, byte)
    store = _store(unit)
    if task.cdb[1] >> 1 & 0x03:
        raise invalid_cdb(1, 7)
    unit.check_range(lba, count)
    return _verifying(unit, store, lba, count, checks)


def _verifying(unit: Disk, store: ProtectedStore, lba: int, count: int, checks: tuple[bool, bool]) -> Steps:
    size = unit.block_size
    done = 0
    while done < count:
        now = min(max(1, CHUNK // size), count - done)
        data = bytearray(now * size)
        yield partial(store.inner.read, [memoryview(data)], (lba + done) * size)
        store.check(data, lba + done, *checks)
        done += now
        yield None
    unit.verified_blocks += count


@commands.add("28 f8 ffffffff 1f ffff 00", "READ(10)", medium=True, access=READS, values=_PROTECT)
def read10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _read(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7)


@commands.add("a8 f8 ffffffff ffffffff 1f 00", "READ(12)", medium=True, access=READS, values=_PROTECT)
def read12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _read(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big"), 6)


@commands.add("88 f8 ffffffffffffffff ffffffff 1f 00", "READ(16)", medium=True, access=READS, values=_PROTECT)
def read16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _read(unit, task, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"), 10)


@commands.add("2a f8 ffffffff 1f ffff 00", "WRITE(10)", medium=True, access=CONFLICTS, values=_PROTECT)
def write10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7)


@commands.add("aa f8 ffffffff ffffffff 1f 00", "WRITE(12)", medium=True, access=CONFLICTS, values=_PROTECT)
def write12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big"), 6)


@commands.add("8a f8 ffffffffffffffff ffffffff 1f 00", "WRITE(16)", medium=True, access=CONFLICTS, values=_PROTECT)
def write16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _write(unit, task, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"), 10)


@commands.add("2f f6 ffffffff 1f ffff 00", "VERIFY(10)", **_VERIFY)
def verify10(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _verify(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[7:9], "big"), 7)


@commands.add("af f6 ffffffff ffffffff 1f 00", "VERIFY(12)", **_VERIFY)
def verify12(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _verify(unit, task, int.from_bytes(cdb[2:6], "big"), int.from_bytes(cdb[6:10], "big"), 6)


@commands.add("8f f6 ffffffffffffffff ffffffff 1f 00", "VERIFY(16)", **_VERIFY)
def verify16(unit: Disk, task: Task) -> Steps | None:
    cdb = task.cdb
    return _verify(unit, task, int.from_bytes(cdb[2:10], "big"), int.from_bytes(cdb[10:14], "big"), 10)

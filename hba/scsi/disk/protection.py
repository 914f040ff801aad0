"""T10 protection information, type 1 (SBC-4 "Protection information model"): eight bytes beside every block.

    guard            CRC-16 of the block's data (polynomial 8BB7h)
    application tag  the initiator's; FFFFh switches checking off for the block
    reference tag    the low 32 bits of the LBA

`ProtectedStore` stands in front of the disk's back end. What is written without protection information gets it, what
is read is checked, what is unmapped or zeroed loses it (all FFh). The bytes live in a second store (`tags`). Work on
many blocks is done a piece in a turn of the event loop.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hba.errors import StorageError
from hba.scsi.command import CONFLICTS, READS, CommandTable
from hba.scsi.disk.rw import FUA, read_blocks, write_blocks
from hba.scsi.disk.tags import SIZE, Tags
from hba.scsi.disk.verify import VERIFY, verify_blocks
from hba.scsi.sense import GUARD_CHECK_FAILED, REFERENCE_TAG_CHECK_FAILED, CheckCondition, invalid_cdb
from hba.scsi.storage_sense import SenseError
from hba.scsi.task import DATA_IN, Task
from hba.storage.backend import Backend, Done
from hba.storage.join import Join
from hba.storage.vectors import cut, length_of

try:
    from fastcrc.crc16 import t10_dif as guard_of
except ModuleNotFoundError:  # where Python's packages are the distribution's, as in the lab's guest
    HAVE_GUARD = False
else:
    HAVE_GUARD = True

if TYPE_CHECKING:
    from hba.scsi.disk.disk import Disk
    from hba.scsi.server import Steps

commands = CommandTable()  # of a disk with protection information; the 32-byte commands are for type 2 only

PIECE = 1 << 20  # bytes of data checked, or given their information, in one turn of the event loop
RETRIES = 8  # of a read that did not fit its information because somebody wrote meanwhile
_FIELDS = struct.Struct(">HHI")
_ESCAPE = 0xFFFF

Later = Callable[[Callable[[], None]], object]  # calls it in the next turn


def require() -> None:
    """Raises `StorageError` where the guards cannot be calculated."""
    if not HAVE_GUARD:
        raise StorageError(
            "protection = true needs the Python package fastcrc, which is not installed; pip install fastcrc"
        )


def check_blocks(
    data: memoryview, information: bytes | bytearray, lba: int, size: int, guard: bool = True, reference: bool = True
) -> None:
    """Raises `SenseError` for the first block that does not fit its protection information."""
    for index, (stored, application, tag) in enumerate(_FIELDS.iter_unpack(information)):
        if application == _ESCAPE:
            continue
        if guard and guard_of(data[index * size : (index + 1) * size]) != stored:
            raise SenseError(CheckCondition(GUARD_CHECK_FAILED, lba + index))
        if reference and tag != (lba + index) & 0xFFFFFFFF:
            raise SenseError(CheckCondition(REFERENCE_TAG_CHECK_FAILED, lba + index))


def make_all(view: memoryview, lba: int, size: int) -> bytes:
    """What the device server adds to blocks that come without; application tag 0."""
    pack = _FIELDS.pack
    return b"".join(
        pack(guard_of(view[at : at + size]), 0, (lba + index) & 0xFFFFFFFF)
        for index, at in enumerate(range(0, len(view), size))
    )


class ProtectedStore(Backend):
    """A back end whose blocks carry protection information. Owns `inner` and `tags`.

    `later(callback)` gives the event loop a turn.
    """

    def __init__(self, inner: Backend, tags: Tags, block_size: int, later: Later) -> None:
        self.inner = inner
        self.tags = tags
        self.block_size = block_size
        self.later = later
        self.kind = inner.kind
        self.lasting = inner.lasting and tags.store.lasting
        self.changes = 0  # begun or ended; who read meanwhile may have got old information with new data
        self.changing = 0
        self._copy()
        inner.on_event = self._event
        tags.store.on_event = self._tags_event

    def _copy(self) -> None:
        inner = self.inner
        self.read_only = inner.read_only
        self.can_discard = inner.can_discard
        self.physical_block_size = inner.physical_block_size
        self.medium_block = inner.medium_block
        self.size = inner.size

    @property
    def enabled(self) -> bool:
        """The medium is formatted with it."""
        return self.tags.enabled

    def _event(self, event: str) -> None:
        if event in ("resized", "back"):
            event = self._resized() or event
        if self.on_event is not None:
            self.on_event(event)

    def _tags_event(self, event: str) -> None:
        if event == "resized":
            event = "error: someone changed the size of the file of the protection information"
        if self.on_event is not None and event.startswith("error"):
            self.on_event(event)

    def _resized(self) -> str:
        """Follow the size of the data; what went wrong with that."""
        self._copy()
        try:
            self.tags.resize(self.inner.size // self.block_size)
        except StorageError as problem:
            return f"error: the protection information cannot follow the size of the disk: {problem}"
        return ""

    # -- a back end -------------------------------------------------------------------------------------------------

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        if not self.enabled:
            return self.inner.read(views, offset, done)
        return _CheckedRead(self, views, offset, done).start()

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        data = b"".join(views)
        lba, size = offset // self.block_size, self.block_size
        if len(data) <= PIECE:
            return self.write_with(data, make_all(memoryview(data), lba, size), lba, done, fua)
        view, information = memoryview(data), bytearray()

        def more() -> None:
            at = len(information) // SIZE
            information.extend(make_all(view[at * size : at * size + PIECE], lba + at, size))
            if len(information) // SIZE * size < len(data):
                self.later(more)
                return
            try:
                if self.write_with(data, bytes(information), lba, done, fua):
                    done(None)
            except StorageError as problem:
                done(problem)

        self.later(more)
        return False

    def write_with(self, data: bytes, information: bytes, lba: int, done: Done, fua: bool = False) -> bool:
        """Write blocks with the protection information given, unchecked."""
        return self._change(
            done,
            lambda done: self.inner.write([memoryview(data)], lba * self.block_size, done, fua),
            lambda done: self.tags.write(lba, information, done, fua),
        )

    def discard(self, offset: int, length: int, done: Done) -> bool:
        return self._erase(self.inner.discard, offset, length, done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        return self._erase(self.inner.zero, offset, length, done)

    def _erase(self, erase: Callable[[int, int, Done], bool], offset: int, length: int, done: Done) -> bool:
        first, last = offset // self.block_size, (offset + length) // self.block_size
        return self._change(
            done, lambda done: erase(offset, length, done), lambda done: self.tags.forget(first, last - first, done)
        )

    def _change(self, done: Done, *parts: Callable[[Done], bool]) -> bool:
        """Data and information together."""
        self.changes += 1
        self.changing += 1
        ended = False

        def end() -> None:
            nonlocal ended
            if not ended:
                ended = True
                self.changing -= 1
                self.changes += 1

        def changed(error: StorageError | None) -> None:
            end()
            done(error)

        join = Join(changed)
        for part in parts:
            join.start(part)
        try:
            finished = join.finish()
        except StorageError:
            end()
            raise
        if finished:
            end()
        return finished

    def enable(self, enabled: bool, done: Done) -> bool:
        """FORMAT UNIT with or without protection information."""
        return self.tags.enable(enabled, done)

    @property
    def unstable(self) -> bool:
        return self.inner.unstable or self.tags.store.unstable

    def flush(self, done: Done) -> bool:
        join = Join(done)
        join.start(self.inner.flush)
        join.start(self.tags.store.flush)
        return join.finish()

    def forget_lost(self) -> None:
        self.inner.forget_lost()

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        return self.inner.allocated(offset, length)

    def resize(self, size: int) -> None:
        self.inner.resize(size)
        problem = self._resized()
        if problem:
            raise StorageError(problem.removeprefix("error: "))

    def settle(self, timeout: float) -> bool:
        settled = self.inner.settle(timeout)
        return self.tags.store.settle(timeout) and settled

    def close(self) -> None:
        self.inner.on_event = None
        self.inner.close()
        self.tags.close()

    def describe(self) -> dict[str, object]:
        return {**self.inner.describe(), "protection": "type 1" if self.enabled else "off"}


class _CheckedRead:
    """A read whose blocks are compared with their information, a piece in a turn."""

    def __init__(self, store: ProtectedStore, views: Sequence[memoryview], offset: int, done: Done) -> None:
        self._store = store
        self._views = views
        self._offset = offset
        self._done = done
        self._lba = offset // store.block_size
        self._count = length_of(views) // store.block_size  # less than a block is no block: nothing to check it by
        self._information = bytearray(self._count * SIZE)
        self._checked = 0  # blocks
        self._changes = 0
        self._left = RETRIES

    def start(self) -> bool:
        store = self._store
        self._changes = store.changes if not store.changing else -1
        self._checked = 0
        join = Join(self._fetched)
        join.start(lambda done: store.inner.read(self._views, self._offset, done))
        join.start(lambda done: store.tags.read(self._lba, self._count, self._information, done))
        return join.finish() and self._check()

    def _fetched(self, error: StorageError | None) -> None:
        if error is not None:
            self._done(error)
        else:
            self._go_on()

    def _go_on(self) -> None:
        try:
            if self._check():
                self._done(None)
        except StorageError as problem:
            self._done(problem)

    def _check(self) -> bool:
        """The next piece; True when it was the last."""
        size = self._store.block_size
        first = self._checked
        blocks = min(self._count - first, PIECE // size)
        data = memoryview(b"".join(cut(self._views, first * size, blocks * size)))
        try:
            check_blocks(data, self._information[first * SIZE : (first + blocks) * SIZE], self._lba + first, size)
        except SenseError:
            if self._changes == self._store.changes or not self._left:
                raise
            self._left -= 1  # data and information may be of different writes
            self._store.later(self._again)
            return False
        self._checked += blocks
        if self._checked < self._count:
            self._store.later(self._go_on)
            return False
        return True

    def _again(self) -> None:
        try:
            if self.start():
                self._done(None)
        except StorageError as problem:
            self._done(problem)


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
    buffer = task.data if task.direction == DATA_IN else None
    total = count * (size + SIZE)
    room = min(total, buffer.length) if buffer is not None else 0
    done = sent = 0
    while done < count:
        now = min(PIECE // size, count - done)
        data, information = bytearray(now * size), bytearray(now * SIZE)
        yield partial(store.inner.read, [memoryview(data)], (lba + done) * size)
        yield partial(store.tags.read, lba + done, now, information)
        check_blocks(memoryview(data), information, lba + done, size, *checks)
        mixed = b"".join(
            data[at * size : (at + 1) * size] + information[at * SIZE : (at + 1) * SIZE] for at in range(now)
        )
        if buffer is not None and sent < room:
            sent += buffer.write(memoryview(mixed)[: room - sent], sent)
        done += now
        if done < count:
            yield None
    task.transferred = sent
    task.overrun = total - sent
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
    views = unit.data_out(task, count * (unit.block_size + SIZE), byte)
    return _writing(unit, store, views, lba, count, checks, bool(cdb[1] & FUA))


def _writing(
    unit: Disk,
    store: ProtectedStore,
    views: list[memoryview],
    lba: int,
    count: int,
    checks: tuple[bool, bool],
    fua: bool,
) -> Steps:
    size = unit.block_size
    step = size + SIZE
    data, information = bytearray(), bytearray()
    while len(information) < count * SIZE:  # all is checked before anything is written
        done = len(information) // SIZE
        now = min(PIECE // size, count - done)
        mixed = b"".join(cut(views, done * step, now * step))
        blocks = b"".join(mixed[at : at + size] for at in range(0, len(mixed), step))
        tags = b"".join(mixed[at + size : at + step] for at in range(0, len(mixed), step))
        check_blocks(memoryview(blocks), tags, lba + done, size, *checks)
        data += blocks
        information += tags
        if done + now < count:
            yield None
    yield partial(store.write_with, bytes(data), bytes(information), lba, fua=fua or unit.write_through)
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
        now = min(PIECE // size, count - done)
        data, information = bytearray(now * size), bytearray(now * SIZE)
        yield partial(store.inner.read, [memoryview(data)], (lba + done) * size)
        yield partial(store.tags.read, lba + done, now, information)
        check_blocks(memoryview(data), information, lba + done, size, *checks)
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

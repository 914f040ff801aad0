"""What the SCSI tests share: units over memory, a back end that answers when told, commands in one line."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hba.clock import VirtualClock
from hba.dma import DmaBuffer
from hba.errors import StorageError
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.sense import condition_of
from hba.scsi.server import DeviceServer, Identity
from hba.scsi.state import SavedState
from hba.scsi.task import DATA_IN, DATA_NONE, DATA_OUT, SIMPLE, Task
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend, Done
from hba.storage.memory import MemoryBackend

GOOD, CHECK_CONDITION, RESERVATION_CONFLICT = 0x00, 0x02, 0x18


class Deferred(Backend):
    """Memory whose every call waits for `finish`, or fails as told."""

    kind = "deferred"
    can_discard = True

    def __init__(self, size: int, deferred: bool = True) -> None:
        self.memory = MemoryBackend(size)
        self.size = size
        self.deferred = deferred
        self.pending: deque[tuple[str, Callable[[], Any], Done]] = deque()
        self.calls: list[tuple[str, int, int, bool]] = []  # (what, offset, length, fua)
        self.fail_next: StorageError | None = None
        self.closed = False
        self.unflushed = False

    @property
    def unstable(self) -> bool:
        return self.unflushed

    def _change(self) -> None:
        self.unflushed = True

    def _clean(self) -> None:
        self.unflushed = False

    def _call(self, what: str, action: Callable[[], Any], done: Done) -> bool:
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        if not self.deferred:
            action()
            return True
        self.pending.append((what, action, done))
        return False

    def finish(self, error: StorageError | None = None) -> None:
        """Answer the oldest call."""
        _, action, done = self.pending.popleft()
        if error is None:
            action()
        done(error)

    def finish_all(self) -> None:
        while self.pending:
            self.finish()

    def read(self, views: Sequence[memoryview], offset: int, done: Done) -> bool:
        self.calls.append(("read", offset, sum(map(len, views)), False))
        return self._call("read", lambda: self.memory.read(views, offset, done), done)

    def write(self, views: Sequence[memoryview], offset: int, done: Done, fua: bool = False) -> bool:
        self.calls.append(("write", offset, sum(map(len, views)), fua))
        return self._call("write", lambda: (self._change(), self.memory.write(views, offset, done)), done)

    def flush(self, done: Done) -> bool:
        self.calls.append(("flush", 0, 0, False))
        return self._call("flush", self._clean, done)

    def zero(self, offset: int, length: int, done: Done) -> bool:
        self.calls.append(("zero", offset, length, False))
        return self._call("zero", lambda: (self._change(), self.memory.zero(offset, length, done)), done)

    def discard(self, offset: int, length: int, done: Done) -> bool:
        self.calls.append(("discard", offset, length, False))
        return self._call("discard", lambda: (self._change(), self.memory.discard(offset, length, done)), done)

    def allocated(self, offset: int, length: int) -> tuple[bool, int]:
        return self.memory.allocated(offset, length)

    def resize(self, size: int) -> None:
        self.memory.resize(size)
        self.size = size

    def close(self) -> None:
        self.closed = True


class Result:
    """How a command ended."""

    def __init__(self, task: Task, data: bytes) -> None:
        self.task = task
        self.status = task.status
        self.sense = task.sense
        self.condition = condition_of(task.sense)
        self.transferred = task.transferred
        self.data = data[: task.transferred]

    def __repr__(self) -> str:
        return f"status {self.status:02x} sense {self.condition:06x} {self.transferred} bytes"


def make_task(
    cdb: str | bytes, room: int = 0, out: bytes | None = None, initiator: int = 7, attribute: int = SIMPLE
) -> Task:
    """A task with a 16-byte CDB: `room` bytes for data-in, or `out` to send."""
    raw = bytes.fromhex(cdb) if isinstance(cdb, str) else cdb
    direction, buffer = DATA_NONE, None
    if out is not None:
        direction, buffer = DATA_OUT, DmaBuffer.of(bytearray(out))
    elif room:
        direction, buffer = DATA_IN, DmaBuffer.of(bytearray(room))
    task = Task(raw.ljust(16, b"\x00"), direction, buffer)
    task.initiator = initiator
    task.attribute = attribute
    return task


def run(
    unit: LogicalUnit,
    cdb: str | bytes,
    room: int = 0,
    out: bytes | None = None,
    initiator: int = 7,
    attribute: int = SIMPLE,
) -> Result:
    """Execute to the end; moves the unit's virtual clock when the command waits for it."""
    task = make_task(cdb, room, out, initiator, attribute)
    ended: list[Task] = []
    task.done = ended.append
    if unit.execute([task]):
        assert not ended
    else:
        clock = unit.clock if isinstance(unit, DeviceServer) else None
        for _ in range(100_000):
            if ended or not isinstance(clock, VirtualClock):
                break
            clock.advance(1)
        assert ended == [task], "the command never ended, or more than once"
    return Result(task, task.data.read() if task.data is not None else b"")


def disk(
    size: int = 1 << 20,
    *,
    backend: Backend | None = None,
    absent: bool = False,
    attentions: bool = False,
    state: SavedState | None = None,
    **options: Any,
) -> Disk:
    """A disk over memory; without `attentions` the power-on unit attention has been taken already."""
    store = None if absent else backend if backend is not None else MemoryBackend(size)
    unit = Disk(store, Identity(), VirtualClock(), DiskOptions(**options), state)
    if not attentions:
        settle(unit)
    return unit


def settle(unit: DeviceServer, *initiators: int) -> None:
    """Take all unit attentions that are pending."""
    for initiator in initiators or (7,):
        while unit.attentions.next(initiator) is not None:
            pass
    unit.refresh()


def be(value: int, length: int) -> str:
    """Hex of a big-endian number, for CDBs."""
    return value.to_bytes(length, "big").hex()


def read10(lba: int, count: int, flags: int = 0) -> str:
    return f"28{flags:02x}{be(lba, 4)}00{be(count, 2)}00"


def write10(lba: int, count: int, flags: int = 0) -> str:
    return f"2a{flags:02x}{be(lba, 4)}00{be(count, 2)}00"


def read16(lba: int, count: int, flags: int = 0) -> str:
    return f"88{flags:02x}{be(lba, 8)}{be(count, 4)}0000"


def write16(lba: int, count: int, flags: int = 0) -> str:
    return f"8a{flags:02x}{be(lba, 8)}{be(count, 4)}0000"

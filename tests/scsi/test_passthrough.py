"""A host's SCSI device as a unit."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from hba.clock import VirtualClock
from hba.errors import StorageError
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.passthrough import PassThrough, cdb_of
from hba.scsi.task import RESPONSE_ABORTED, RESPONSE_NO_TARGET, RESPONSE_RESET, Task
from hba.storage.sg import FROM_DEVICE, NO_DATA, TO_DEVICE, ScsiResult
from hba.storage.sysfs import Limits
from tests.scsi.util import disk, make_task, read10, write10


class FakeDevice:
    """Answers when told."""

    def __init__(self) -> None:
        self.gone = False
        self.limits = Limits(0, 0)
        self.device_type: int | None = 5
        self.on_event: Callable[[str], None] | None = None
        self.sent: list[tuple[bytes, int, Sequence[memoryview], Callable[[ScsiResult], None]]] = []
        self.refuse: StorageError | None = None
        self.closed = False
        self.withdrawn: list[bytes] = []

    def execute(
        self,
        cdb: bytes,
        direction: int,
        views: Sequence[memoryview],
        timeout: int,
        done: Callable[[ScsiResult], None],
    ) -> Callable[[], None]:
        if self.refuse is not None:
            raise self.refuse
        self.sent.append((cdb, direction, views, done))
        return lambda: self.withdrawn.append(cdb)

    def describe(self) -> dict[str, object]:
        return {"kind": "scsi"}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice()


def start(unit: PassThrough, cdb: str, room: int = 0, out: bytes | None = None) -> tuple[Task, list[Task]]:
    task = make_task(cdb, room, out)
    ended: list[Task] = []
    task.done = ended.append
    if unit.execute([task]):
        ended.append(task)
    return task, ended


def settled(device: FakeDevice) -> PassThrough:
    """A unit whose power-on unit attention has been taken."""
    unit = PassThrough(device, VirtualClock())
    task, _ = start(unit, "000000000000")
    assert sense.condition_of(task.sense) == sense.POWER_ON_OCCURRED
    assert not device.sent
    return unit


@pytest.mark.parametrize(
    ("raw", "length"), [("00" * 16, 6), ("28" + "00" * 15, 10), ("88" + "00" * 15, 16), ("a8" + "00" * 15, 12), ("", 0)]
)
def test_the_padding_of_a_cdb_is_not_sent(raw: str, length: int) -> None:
    assert len(cdb_of(bytes.fromhex(raw))) == length


def test_data_and_status_come_back(device: FakeDevice) -> None:
    unit = settled(device)
    task, ended = start(unit, read10(0, 1), 512)
    cdb, direction, views, done = device.sent[0]
    assert (cdb.hex(), direction, ended) == (read10(0, 1), FROM_DEVICE, [])
    views[0][:4] = b"data"
    done(ScsiResult(0, b"", 500))
    assert ended == [task] and (task.status, task.transferred) == (0, 12)
    task, ended = start(unit, write10(0, 1), out=bytes(512))
    assert device.sent[1][1] == TO_DEVICE
    device.sent[1][3](ScsiResult(2, sense.fixed_sense(sense.WRITE_PROTECTED), 512))
    assert sense.condition_of(task.sense) == sense.WRITE_PROTECTED and task.transferred == 0
    start(unit, "000000000000")
    assert device.sent[2][1] == NO_DATA


def test_errors(device: FakeDevice) -> None:
    unit = settled(device)
    task, ended = start(unit, write10(0, 1), out=bytes(512))
    device.sent[0][3](ScsiResult(0, b"", 512, StorageError("late", errno.ETIMEDOUT)))
    assert sense.condition_of(task.sense) == sense.NOT_READY_COMMUNICATION_FAILURE
    device.refuse = StorageError("read-only", errno.EROFS)
    task, ended = start(unit, write10(0, 1), out=bytes(512))
    assert ended == [task] and sense.condition_of(task.sense) == sense.WRITE_PROTECTED
    device.refuse = StorageError("too long", errno.EINVAL)
    task, ended = start(unit, write10(0, 1), out=bytes(512))
    assert ended == [task] and sense.condition_of(task.sense) == sense.INVALID_FIELD_IN_CDB


def test_a_device_that_has_gone_takes_the_unit_with_it(device: FakeDevice) -> None:
    unit = settled(device)
    unit.leaves_with_store = True
    task, ended = start(unit, read10(0, 1), 512)
    device.sent[-1][3](ScsiResult(0, b"", 512, StorageError("gone", errno.ENODEV)))
    assert ended == [task] and task.response == RESPONSE_NO_TARGET
    device.gone = True
    assert start(unit, read10(0, 1), 512)[0].response == RESPONSE_NO_TARGET


def test_or_the_unit_stays_and_is_not_ready(device: FakeDevice) -> None:
    unit = settled(device)
    task, ended = start(unit, read10(0, 1), 512)
    device.sent[-1][3](ScsiResult(0, b"", 512, StorageError("gone", errno.ENODEV)))
    assert ended == [task] and sense.condition_of(task.sense) == sense.NOT_READY_CAUSE_NOT_REPORTABLE
    device.gone = True
    for _ in range(2):
        task, _ = start(unit, "000000000000")
        assert sense.condition_of(task.sense) == sense.NOT_READY_CAUSE_NOT_REPORTABLE
    device.gone = False
    assert device.on_event is not None
    device.on_event("back")
    task, _ = start(unit, "000000000000")
    assert sense.condition_of(task.sense) == sense.NOT_READY_TO_READY_CHANGE


@pytest.mark.parametrize(("longest", "best", "says"), [(0, 0, (128, 0)), (65536, 2048, (128, 128)), (64, 8, (64, 8))])
def test_no_longer_transfers_than_the_kernel_sends(
    device: FakeDevice, longest: int, best: int, says: tuple[int, int]
) -> None:
    device.limits = Limits(512 * 1024, 4096)
    task, _ = start(PassThrough(device, VirtualClock()), "1201b0004000", 64)
    page = bytes((0, 0xB0, 0, 60)) + bytes(4) + longest.to_bytes(4, "big") + best.to_bytes(4, "big") + b"x" * 48
    views, done = device.sent[0][2:]
    views[0][:] = page
    done(ScsiResult(0, b"", 0))
    assert task.data is not None
    told = task.data.read()
    assert (int.from_bytes(told[8:12], "big"), int.from_bytes(told[12:16], "big")) == says
    assert (told[:8], told[16:]) == (page[:8], page[16:])


def test_abort_and_reset_drop_the_late_answer(device: FakeDevice) -> None:
    unit = settled(device)
    task, ended = start(unit, read10(0, 1), 512)
    assert unit.abort(task) and not unit.abort(task)
    device.sent[0][3](ScsiResult(0, b"", 0))
    assert ended == [task] and task.response == RESPONSE_ABORTED
    task, ended = start(unit, read10(0, 1), 512)
    unit.reset("bus")
    assert ended == [task] and task.response == RESPONSE_RESET
    task, _ = start(unit, "000000000000")
    assert sense.condition_of(task.sense) == sense.BUS_RESET_OCCURRED


def test_report_luns_is_ours(device: FakeDevice) -> None:
    unit = PassThrough(device, VirtualClock())
    bus = ScsiBus()
    bus.attach(0, 0, unit)
    bus.attach(0, 4, disk())
    task, _ = start(unit, "a0" + "00" * 5 + "000001000000", 256)
    assert task.data is not None and task.data.read(0, 24)[8:] == bytes(9) + b"\x04" + bytes(6)
    assert not device.sent
    absent = make_task("000000000000")
    assert bus.execute(0, 7, [absent])
    assert sense.condition_of(absent.sense) == sense.LOGICAL_UNIT_NOT_SUPPORTED


def test_closing(device: FakeDevice) -> None:
    unit = PassThrough(device, VirtualClock())
    task, ended = start(unit, read10(0, 1), 512)
    unit.close()
    assert device.closed and ended == [task]


def test_a_new_unit_was_powered_on_and_keeps_what_else_is_due(device: FakeDevice) -> None:
    """Another device under an address the guest still has something at must not be taken for the old one."""
    bus = ScsiBus()
    unit = settled(device)
    bus.attach(0, 0, unit)
    assert bus.detach(0, 0) is unit
    other = PassThrough(device, VirtualClock())
    bus.attach(0, 0, other)
    bus.attach(0, 1, disk())
    device.gone = True
    device.gone = False
    assert device.on_event is not None
    device.on_event("back")  # which was all that was left to tell
    conditions = []
    for _ in range(3):
        task, _ = start(other, "000000000000")
        conditions.append(sense.condition_of(task.sense))
    assert conditions == [
        sense.POWER_ON_OCCURRED,
        sense.REPORTED_LUNS_DATA_HAS_CHANGED,
        sense.NOT_READY_TO_READY_CHANGE,
    ]

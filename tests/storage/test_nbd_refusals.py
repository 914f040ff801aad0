"""An NBD server that says no: it shuts down and does not go, it leaves at every command, it has not what it offered.

The clock is virtual: connections are counted over its time.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.clock import MS, S, VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi import sense
from hba.scsi.disk.disk import Disk
from hba.scsi.server import Identity
from hba.scsi.task import Task
from hba.storage import libnbd
from hba.storage.nbd import NbdBackend
from tests.scsi.util import GOOD, be, make_task, read10, settle, write10
from tests.storage.fake_nbd import (
    EINVAL,
    EIO,
    ENOTSUP,
    ESHUTDOWN,
    FLUSH,
    FUA,
    LEAVE,
    READ,
    WRITE,
    WRITE_ZEROES,
    Answer,
    FakeNbd,
)

HOLD = 5
DATA = b"\x5a" * 4096


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeNbd]:
    try:
        libnbd.load()
    except StorageError as problem:
        pytest.skip(str(problem))
    server = FakeNbd(tmp_path)
    yield server
    server.close()


class Rig:
    """A back end on the fake server, on a clock that is moved by hand."""

    def __init__(self, server: FakeNbd) -> None:
        self.clock = VirtualClock()
        self.loop = EventLoop(self.clock)
        self.backend = NbdBackend(server.uri, self.loop, hold=HOLD)
        self.events: list[str] = []
        self.backend.on_event = self.events.append
        self.outcomes: list[StorageError | None] = []

    def read(self) -> memoryview:
        data = memoryview(bytearray(512))
        assert not self.backend.read([data], 0, self.outcomes.append)
        return data

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.loop.run_once(10 * MS)

    @property
    def resting(self) -> bool:
        """The back end waits for the clock to try again, and for nothing else."""
        timer = self.backend._retry_timer
        return timer is not None and timer.pending

    @property
    def idle(self) -> bool:
        state = self.backend.describe()
        return state["state"] == "connected" and not state["in_flight"]

    def pass_time(self, span: int) -> None:
        """Let that much time go by, whenever the back end waits for nothing else."""
        end = self.clock.now() + span
        while True:
            self.until(lambda: self.resting or self.idle)
            due = self.clock.next_deadline()
            if due is None or due > end:
                break
            self.clock.advance(due - self.clock.now())
        self.clock.advance(end - self.clock.now())

    def close(self) -> None:
        self.backend.close()
        self.loop.close()


@pytest.fixture
def rig(server: FakeNbd) -> Iterator[Rig]:
    rig = Rig(server)
    yield rig
    rig.close()


def always(error: int) -> Answer:
    return lambda kind, flags, offset, length: error


@pytest.mark.parametrize("error", [ESHUTDOWN, LEAVE], ids=["it says that it shuts down", "it leaves"])
def test_a_server_that_connects_and_does_not_serve_is_away(server: FakeNbd, rig: Rig, error: int) -> None:
    server.answer = always(error)
    rig.read()
    rig.until(lambda: rig.resting)
    assert server.connections == 2, "the first one, and one attempt at once"
    rig.pass_time(HOLD * S - 1)
    assert (rig.outcomes, rig.events) == ([], [])
    rig.pass_time(1)
    assert [outcome and outcome.errno for outcome in rig.outcomes] == [errno.ENODEV]
    assert rig.events == ["gone"]
    assert server.connections == 7, "after 100, 200, 400, 800, 1600 ms"
    with pytest.raises(StorageError, match="the server has gone"):
        rig.backend.read([memoryview(bytearray(512))], 0, rig.outcomes.append)
    rig.pass_time(100 * S)
    assert server.connections < 7 + 100 // 5 + 2, "every 5 s"
    assert rig.events == ["gone"], "it was never back"
    server.answer = always(0)
    rig.pass_time(5 * S)
    rig.until(lambda: rig.events == ["gone", "back"])
    rig.read()
    rig.until(lambda: len(rig.outcomes) == 2)
    assert rig.outcomes[1] is None


def test_a_server_that_shuts_down_and_comes_back_in_time_is_not_noticed(server: FakeNbd, rig: Rig) -> None:
    server.content[:512] = DATA[:512]
    server.answer = always(ESHUTDOWN)
    data = rig.read()
    rig.pass_time(1 * S)
    server.answer = always(0)
    rig.pass_time(2 * S)
    rig.until(lambda: bool(rig.outcomes))
    assert (rig.outcomes, rig.events, bytes(data)) == ([None], [], DATA[:512])


def test_a_command_that_ends_every_connection_fails_in_time(server: FakeNbd, rig: Rig) -> None:
    """Everything else is answered, so the server looks as if it were back each time."""
    server.answer = lambda kind, flags, offset, length: LEAVE if kind == WRITE else 0
    assert not rig.backend.write([memoryview(DATA)], 0, rig.outcomes.append)
    rig.until(lambda: rig.resting)
    rig.pass_time(HOLD * S)
    assert [outcome and outcome.errno for outcome in rig.outcomes] == [errno.ENODEV]
    assert server.connections < 12
    rig.pass_time(5 * S)
    rig.until(lambda: rig.events == ["gone", "back"])
    rig.read()
    rig.until(lambda: len(rig.outcomes) == 2)
    assert rig.outcomes[1] is None


def test_each_leave_of_a_server_that_had_done_its_work_is_waited_for_anew(server: FakeNbd, rig: Rig) -> None:
    for number in range(1, 4):
        server.leave()
        rig.until(lambda: rig.backend.describe()["state"] != "connected")
        rig.read()
        rig.until(lambda number=number: len(rig.outcomes) == number)  # type: ignore[misc]
        rig.clock.advance(HOLD * S)
        assert server.connections == number + 1
    assert (rig.outcomes, rig.events) == ([None] * 3, [])


def test_a_server_that_only_fails_to_read_is_back(server: FakeNbd, rig: Rig) -> None:
    server.answer = always(EIO)
    server.leave()
    rig.until(lambda: rig.backend.reconnects == 1)
    rig.read()
    rig.until(lambda: bool(rig.outcomes))
    assert [outcome and outcome.errno for outcome in rig.outcomes] == [errno.EIO]


# -- what it offered and has not --------------------------------------------------------------------------------------


def refusing(kind: int, error: int, with_flags: int = 0) -> Answer:
    return lambda what, flags, offset, length: error if what == kind and flags & with_flags == with_flags else 0


@pytest.fixture
def unit(rig: Rig) -> Disk:
    unit = Disk(rig.backend, Identity(), rig.clock)
    settle(unit)
    return unit


def command(rig: Rig, unit: Disk, cdb: str, room: int = 0, out: bytes | None = None) -> int:
    """The condition it ends with; 0 for none."""
    task = make_task(cdb, room, out)
    ended: list[Task] = []
    task.done = ended.append
    if not unit.execute([task]):
        rig.until(lambda: bool(ended))
    return sense.condition_of(task.sense) or task.status


UNMAP = bytes.fromhex(be(22, 2) + be(16, 2) + be(0, 4) + be(0, 8) + be(8, 4) + be(0, 4))


@pytest.mark.parametrize("error", [ENOTSUP, EINVAL])
@pytest.mark.parametrize(
    ("cdb", "out"),
    [("42000000000000001800", UNMAP), ("41080000000000000800", bytes(512)), ("41000000000000000800", bytes(512))],
    ids=["UNMAP", "WRITE SAME, UNMAP", "WRITE SAME"],
)
def test_zeros_are_written_where_the_server_cannot_make_them(
    server: FakeNbd, rig: Rig, unit: Disk, cdb: str, out: bytes, error: int
) -> None:
    assert command(rig, unit, write10(0, 16), out=DATA * 2) == GOOD
    server.answer = refusing(WRITE_ZEROES, error)
    for _ in range(2):
        assert command(rig, unit, cdb, out=out) == GOOD
    assert server.content[:8192] == bytes(4096) + DATA
    kinds = [kind for kind, *_ in server.commands]
    assert kinds.count(WRITE_ZEROES) == 1, "asked once"


@pytest.mark.parametrize("error", [ENOTSUP, EINVAL])
def test_fua_that_is_refused_is_a_flush(server: FakeNbd, rig: Rig, unit: Disk, error: int) -> None:
    server.answer = refusing(WRITE, error, FUA)
    for _ in range(2):
        assert command(rig, unit, write10(0, 8, 0x08), out=DATA) == GOOD
    assert server.content[:4096] == DATA
    assert [(kind, flags) for kind, flags, *_ in server.commands] == [
        (WRITE, FUA), (WRITE, 0), (FLUSH, 0), (WRITE, 0), (FLUSH, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [ENOTSUP, EINVAL])
@pytest.mark.parametrize(
    ("kind", "cdb", "room", "out"),
    [
        (READ, read10(0, 1), 512, None),
        (WRITE, write10(0, 1), 0, DATA[:512]),
        (WRITE, write10(0, 1, 0x08), 0, DATA[:512]),
        (FLUSH, "35" + "00" * 9, 0, None),
    ],
)
def test_what_cannot_be_done_another_way_is_no_medium_error(
    server: FakeNbd, rig: Rig, unit: Disk, kind: int, cdb: str, room: int, out: bytes | None, error: int
) -> None:
    assert command(rig, unit, write10(8, 8), out=DATA) == GOOD
    server.answer = refusing(kind, error)
    assert command(rig, unit, cdb, room, out) == sense.INTERNAL_TARGET_FAILURE


def test_an_error_of_the_medium_stays_one(server: FakeNbd, rig: Rig, unit: Disk) -> None:
    server.answer = always(EIO)
    assert command(rig, unit, "42000000000000001800", out=UNMAP) == sense.WRITE_ERROR
    assert command(rig, unit, write10(0, 1, 0x08), out=DATA[:512]) == sense.WRITE_ERROR
    assert command(rig, unit, read10(0, 1), 512) == sense.UNRECOVERED_READ_ERROR


@pytest.mark.parametrize("what", ["FUA", "zero"])
def test_nothing_is_done_another_way_for_a_command_that_was_withdrawn(server: FakeNbd, rig: Rig, what: str) -> None:
    """Its memory may be the guest's again, and its blocks another command's."""
    server.answer = refusing(WRITE, ENOTSUP, FUA) if what == "FUA" else refusing(WRITE_ZEROES, ENOTSUP)
    if what == "FUA":
        assert not rig.backend.write([memoryview(DATA)], 0, rig.outcomes.append, fua=True)
    else:
        assert not rig.backend.zero(0, 4096, rig.outcomes.append)
    rig.backend.settle(60)
    rig.until(lambda: bool(rig.outcomes))
    assert [outcome and outcome.errno for outcome in rig.outcomes] == [errno.EOPNOTSUPP]
    assert len(server.commands) == 1

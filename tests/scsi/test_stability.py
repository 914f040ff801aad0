"""No way out of write-back caching without a flush: every transition after which nobody would ask for one, over every
kind of store. The power is cut after each: what is left is what the last fdatasync covered.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.control.method import Later, Refused
from hba.control.methods import lun
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi import sense
from hba.scsi.bus import ScsiBus
from hba.scsi.disk.disk import Disk, DiskOptions
from hba.scsi.server import Identity
from hba.scsi.state import SavedState
from hba.scsi.task import Task
from hba.storage import linux
from hba.storage.backend import Backend
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.nbd import NbdBackend
from hba.storage.overlay import open_overlay
from hba.storage.workers import WorkerPool
from tests.scsi.util import GOOD, Result, be, disk, make_task, run, settle, write10
from tests.storage.test_nbd import Server, needs, until

SIZE = 1 << 20
DATA = b"\xa5" * 4096
EJECT = "1b0000000200"
STOP = "1b0000000000"


def mode_select(page: int, length: int, position: int, value: int, save: bool = False, ten: bool = False) -> str:
    """CDB and parameter list, separated by a slash."""
    body = bytearray(length)
    body[position] = value
    if page == 0x0A:
        body[0], body[1] = 0x02, 0x10  # GLTSD and the queue algorithm, which cannot be changed
    header = 8 if ten else 4
    data = bytes(header) + bytes((page, length)) + bytes(body)
    cdb = f"5511{be(0, 5)}{be(len(data), 2)}00" if ten else f"1511{be(0, 2)}{be(len(data), 1)}00"
    if not save:
        cdb = cdb.replace("11", "10", 1)
    return f"{cdb}/{data.hex()}"


WRITE_BACK = mode_select(0x08, 18, 0, 0x04)
WRITE_THROUGH = mode_select(0x08, 18, 0, 0)
SAVED_WRITE_THROUGH = mode_select(0x08, 18, 0, 0, save=True)
PROTECT = mode_select(0x0A, 10, 2, 0x08)


class Rig:
    """A removable disk on a bus over a store whose flushes are counted, and whose power can be cut."""

    def __init__(self, loop: EventLoop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.flushes: Callable[[], int] = lambda: 0
        self.survives: Callable[[], bool] = lambda: True
        self.bus = ScsiBus()
        self.unit: Disk
        self.medium: Backend

    def plug(self, store: Backend, saved: bool = False, **options: object) -> None:
        state = SavedState(self.folder / "state" if saved else None)
        self.medium = store
        self.unit = Disk(store, Identity(), self.loop.clock, DiskOptions(removable=True, **options), state)  # type: ignore[arg-type]
        self.bus.attach(0, 0, self.unit)
        settle(self.unit)

    def command(self, text: str, room: int = 0, out: bytes | None = None) -> Result:
        cdb, _, data = text.partition("/")
        task = make_task(cdb, room, bytes.fromhex(data) if data else out)
        ended: list[Task] = []
        task.done = ended.append
        if not self.unit.execute([task]):
            until(self.loop, lambda: bool(ended))
        return Result(task, task.data.read() if task.data is not None else b"")

    def good(self, text: str, room: int = 0, out: bytes | None = None) -> None:
        assert self.command(text, room, out).status == GOOD

    def idle(self) -> None:
        """Until the unit has nothing to do any more."""
        until(self.loop, lambda: not self.unit.describe()["in_flight"] and self.unit.background is None)

    def method(self, begin: Callable[[object, object], object], params: object) -> object:
        """A method of the control socket, to its end."""
        call = type("Call", (), {"parts": type("Parts", (), {"bus": self.bus})})
        call.parts.events = type("Events", (), {"publish": staticmethod(lambda topic, data: None)})  # type: ignore[attr-defined]
        call.parts.adapter = type("Adapter", (), {"announcement": staticmethod(lambda target, lun: {})})  # type: ignore[attr-defined]
        result = begin(call, params)
        while isinstance(result, Later):
            answers: list[Callable[[], object]] = []
            result.start(answers.append)
            until(self.loop, lambda answers=answers: bool(answers))  # type: ignore[misc]
            result = answers[0]()
        return result


# -- stores ---------------------------------------------------------------------------------------------------------


class Power:
    """`os.fdatasync` that keeps what it made stable: the copy is what is left after a power cut."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.path = path
        self.stable = bytes(path.stat().st_size) if path.exists() else b""
        self.count = 0
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            real(fd)
            if os.fstat(fd).st_ino == path.stat().st_ino:
                self.count += 1
                self.stable = path.read_bytes()

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        monkeypatch.setattr(linux, "lives_in_memory", lambda fd: False)


def image(folder: Path) -> Path:
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


KINDS = ("file", "overlay", "protected", "faulty", "nbd")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(
    kind: str, tmp_path: Path, loop: EventLoop, workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    rig = Rig(loop, tmp_path)
    path = image(tmp_path)
    server: Server | None = None
    if kind == "nbd":
        log = tmp_path / "log"
        program = needs("nbdkit", "nbdkit")
        server = Server(
            tmp_path,
            lambda socket: [
                program, "-f", "-t", "1", "-U", str(socket), "--filter=log", "file", str(path), f"logfile={log}",
            ],
        )  # fmt: skip
        server.start()
        rig.flushes = lambda: log.read_text().count(" Flush id=")
        rig.plug(NbdBackend(server.uri, loop))
    else:
        kept = tmp_path / "kept"
        power = Power(monkeypatch, kept if kind == "overlay" else path)
        rig.flushes = lambda: power.count
        rig.survives = lambda: DATA in power.stable
        file = FileBackend(path, loop, workers)
        store: Backend = file
        if kind == "overlay":
            store = open_overlay(file, loop, workers, path=kept)
        elif kind == "faulty":
            store = FaultyBackend(file, loop.clock)
        rig.plug(store, saved=True, protection=kind == "protected")
        # A file that was opened may have been written by others before: the first flush is for them.
        rig.good("35" + "00" * 9)
    yield rig
    rig.bus.close()
    if server is not None:
        server.kill()


# -- transitions ----------------------------------------------------------------------------------------------------


def wce_off_6(rig: Rig) -> None:
    rig.good(WRITE_THROUGH)


def wce_off_10(rig: Rig) -> None:
    rig.good(mode_select(0x08, 18, 0, 0, ten=True))


def software_write_protect(rig: Rig) -> None:
    rig.good(PROTECT)


def host_read_only(rig: Rig) -> None:
    rig.method(lun.read_only, lun.ReadOnly(0))


def stop(rig: Rig) -> None:
    rig.good(STOP)


def guest_ejects(rig: Rig) -> None:
    rig.good(EJECT)


def host_ejects(rig: Rig) -> None:
    rig.method(lun.eject, lun.Eject(0))


def host_ejects_by_force(rig: Rig) -> None:
    rig.good("1e0000000100")
    with pytest.raises(Refused, match="locked"):
        rig.method(lun.eject, lun.Eject(0))
    rig.method(lun.eject, lun.Eject(0, force=True))


def resize(rig: Rig) -> None:
    if isinstance(rig.medium, NbdBackend) or rig.medium.kind == "overlay":
        with pytest.raises(StorageError, match="cannot be resized"):
            rig.method(lun.resize, lun.Resize(0, size=2 * SIZE))
    else:
        rig.method(lun.resize, lun.Resize(0, size=2 * SIZE))


def unplug(rig: Rig) -> None:
    rig.method(lun.remove, lun.Address(0))


def end(rig: Rig) -> None:
    rig.bus.close()


def client_leaves(rig: Rig) -> None:
    rig.bus.power_cycle()
    rig.idle()


def reset(kind: str) -> Callable[[Rig], None]:
    def transition(rig: Rig) -> None:
        rig.unit.reset(kind)
        rig.idle()

    return transition


TRANSITIONS: dict[str, Callable[[Rig], None]] = {
    "WCE off by MODE SELECT(6)": wce_off_6,
    "WCE off by MODE SELECT(10)": wce_off_10,
    "SWP set": software_write_protect,
    "the host's read-only": host_read_only,
    "STOP": stop,
    "eject by the guest": guest_ejects,
    "eject by the host": host_ejects,
    "forced eject": host_ejects_by_force,
    "resize": resize,
    "unplug": unplug,
    "the client leaves": client_leaves,
    "the end of the server": end,
}
FROM_SAVED_PAGES = {f"{kind} reset": reset(kind) for kind in ("lun", "target", "bus", "power-on")}


def written(rig: Rig) -> int:
    """Acknowledged, in no promise; how many flushes there were before."""
    rig.good(write10(8, 8), out=DATA)
    assert rig.unit.unstable and rig.unit.describe()["unflushed"]
    return rig.flushes()


def lasting(rig: Rig, before: int) -> None:
    assert rig.flushes() > before
    if not isinstance(rig.medium, NbdBackend):
        assert rig.survives()
    assert not rig.medium.unstable


@pytest.mark.parametrize("name", TRANSITIONS)
def test_what_was_acknowledged_survives(rig: Rig, name: str) -> None:
    before = written(rig)
    TRANSITIONS[name](rig)
    lasting(rig, before)


@pytest.mark.parametrize("name", FROM_SAVED_PAGES)
def test_a_reset_to_saved_pages_without_a_cache(rig: Rig, kind: str, name: str) -> None:
    if kind == "nbd":
        rig.bus.detach(0, 0)
        rig.plug(rig.medium, saved=True)
    rig.good(SAVED_WRITE_THROUGH)
    rig.good(WRITE_BACK)
    before = written(rig)
    FROM_SAVED_PAGES[name](rig)
    assert rig.unit.write_through
    lasting(rig, before)


@pytest.mark.parametrize("protect", ["SWP set", "the host's read-only"])
@pytest.mark.parametrize("then", ["STOP", "eject by the guest", "eject by the host", "the client leaves"])
def test_protection_is_no_reason_not_to_flush(rig: Rig, kind: str, protect: str, then: str) -> None:
    """What went round the rule (a write that was under way, say) is still there when the unit is protected."""
    TRANSITIONS[protect](rig)
    settle(rig.unit)
    before = rig.flushes()
    inner = rig.unit.store()
    ended: list[object] = []
    if not inner.write([memoryview(DATA)], 8 * 512, ended.append):
        until(rig.loop, lambda: bool(ended))
    TRANSITIONS[then](rig)
    lasting(rig, before)


@pytest.mark.parametrize("kind", ["file"], indirect=True)
@pytest.mark.parametrize("text", ["041000000000/00000000", "48220000000000000000", "48a20000000000000000"])
def test_format_and_sanitize_end_stable(rig: Rig, text: str) -> None:
    rig.good(write10(8, 8), out=DATA)
    rig.good("35" + "00" * 9)
    assert rig.survives()
    before = rig.flushes()
    rig.good(text)
    rig.idle()
    assert rig.flushes() > before
    assert not rig.survives() and not rig.unit.unstable


@pytest.mark.parametrize("kind", ["file"], indirect=True)
def test_nothing_is_flushed_twice(rig: Rig) -> None:
    rig.good(write10(8, 8), out=DATA)
    rig.good(WRITE_THROUGH)
    before = rig.flushes()
    for name in ("SWP set", "STOP", "eject by the guest", "the client leaves"):
        TRANSITIONS[name](rig)
    assert rig.flushes() == before


# -- when it fails --------------------------------------------------------------------------------------------------


@pytest.fixture
def failing(tmp_path: Path, loop: EventLoop) -> Rig:
    """Over a store whose next flush fails."""
    rig = Rig(loop, tmp_path)
    rig.plug(FaultyBackend(MemoryBackend(SIZE), loop.clock, [Fault("flush", errno.EIO, count=1)]))
    return rig


@pytest.mark.parametrize("text", [WRITE_THROUGH, PROTECT, STOP, EJECT])
def test_the_command_ends_with_the_error_and_changes_nothing(failing: Rig, text: str) -> None:
    unit = failing.unit
    before = failing.command("1a003f00ff00", 255).data
    assert failing.command(text).condition == sense.WRITE_ERROR
    assert failing.command("1a003f00ff00", 255).data == before
    assert unit.medium_state() == "ready" and not unit.write_through and not unit.protected
    failing.good(text)


@pytest.mark.parametrize(
    ("begin", "params"),
    [(lun.read_only, lun.ReadOnly(0)), (lun.resize, lun.Resize(0, size=2 * SIZE))],
    ids=["read-only", "resize"],
)
def test_the_hosts_change_ends_with_the_error(failing: Rig, begin: Callable[..., object], params: object) -> None:
    with pytest.raises(StorageError, match="injected: flush"):
        failing.method(begin, params)
    assert not failing.unit.protected and failing.unit.blocks == SIZE // 512
    failing.method(begin, params)
    assert failing.unit.protected or failing.unit.blocks == 2 * SIZE // 512


@pytest.mark.parametrize(
    ("begin", "params", "what"),
    [
        (lun.eject, lun.Eject(0), "the medium of 0:0:0 is out"),
        (lun.remove, lun.Address(0), "the unit at 0:0:0 is removed"),
    ],
    ids=["eject", "remove"],
)
def test_what_cannot_be_kept_back_says_what_may_be_lost(
    failing: Rig, begin: Callable[..., object], params: object, what: str
) -> None:
    with pytest.raises(Refused, match=f"{what}, but what the guest wrote last may be lost: injected: flush"):
        failing.method(begin, params)


def test_after_a_reset_the_next_command_hears_of_it(failing: Rig) -> None:
    unit = failing.unit
    unit.mode._saved[0x08, 0] = bytes(18)
    unit.reset("lun")
    assert failing.command("00" * 6).condition == sense.BUS_DEVICE_RESET_OCCURRED
    told = failing.command(write10(0, 8), out=DATA)
    assert (told.condition, told.sense[0] & 0x7F) == (sense.WRITE_ERROR, 0x71)
    failing.good(write10(0, 8), out=DATA)


def test_a_new_guest_does_not_hear_of_what_the_one_before_lost(failing: Rig) -> None:
    told: list[str] = []
    failing.bus.on_storage = lambda event, target, lun: told.append(event)
    failing.bus.power_cycle()
    assert failing.command("00" * 6).condition == sense.POWER_ON_OCCURRED
    failing.good(write10(0, 8), out=DATA)
    assert any("injected: flush" in event for event in told)


# -- the order ------------------------------------------------------------------------------------------------------


def test_commands_wait_while_the_host_changes_the_unit(loop: EventLoop, tmp_path: Path) -> None:
    rig = Rig(loop, tmp_path)
    store = FaultyBackend(MemoryBackend(SIZE), loop.clock, [Fault("write", hang=True, count=1)])
    rig.plug(store)
    order: list[str] = []
    first, second = make_task(write10(0, 8), out=DATA), make_task(write10(8, 8), out=DATA)
    first.done = lambda task: order.append("first")
    second.done = lambda task: order.append("second")
    assert not rig.unit.execute([first])
    store.inject(Fault("flush", hang=True, count=1))
    rig.unit.set_read_only(True, lambda error: order.append(f"read-only {error}"))
    assert not rig.unit.execute([second]), "it waits for its turn"
    assert order == [] and not rig.unit.protected
    store.release()
    assert order == ["first"] and not rig.unit.protected
    store.release()
    assert order == ["first", "read-only None", "second"]
    assert rig.unit.protected and second.sense[2:3] == b"\x06"  # it hears that the mode parameters have changed


def test_a_reset_ends_what_the_host_waits_for(loop: EventLoop, tmp_path: Path) -> None:
    rig = Rig(loop, tmp_path)
    store = FaultyBackend(MemoryBackend(SIZE), loop.clock, [Fault("flush", hang=True, count=1)])
    rig.plug(store)
    ended: list[StorageError | None] = []
    rig.unit.set_read_only(True, ended.append)
    rig.unit.reset("lun")
    assert [error.errno for error in ended if error is not None] == [errno.ECANCELED]
    assert not rig.unit.protected
    assert run(rig.unit, "00" * 6).condition == sense.BUS_DEVICE_RESET_OCCURRED
    assert run(rig.unit, "00" * 6).status == GOOD


def test_a_unit_that_formats_is_not_changed_by_the_host() -> None:
    unit = disk(removable=True)
    assert unit.execute([make_task("041000000000", out=bytes((0, 0x82, 0, 0)))])
    for change in (lambda: unit.resize(1 << 19), lambda: unit.set_read_only(True), unit.eject):
        with pytest.raises(ValueError, match="formatted or sanitized"):
            change()

"""Every control method, asked of a whole adapter: its answer is what its schema says, and all of that does come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hba.adapters.bench import BASE
from hba.adapters.pvscsi.bench import PvscsiBenchDriver
from hba.adapters.pvscsi.registers import CMD_ADAPTER_RESET, CMD_SETUP_MSG_RING, CMD_SETUP_RINGS
from hba.adapters.pvscsi.structures import SETUP_MSG_RING, SETUP_RINGS
from hba.contract import SCHEMA_VERSION
from hba.control.client import CallRefused, ControlClient
from hba.control.events import TOPICS
from hba.control.methods import METHODS
from hba.control.parts import Parts
from hba.control.protocol import encode
from hba.control.results import lines
from hba.control.results.events import TOPIC_DATA
from hba.errors import GuestError, StorageError
from hba.scsi.build import build_unit
from hba.scsi.config import LunConfig
from hba.storage import libnbd
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.memory import MemoryBackend
from hba.storage.opener import Store
from hba.storage.sg import ScsiPassThrough
from hba.storage.workers import WorkerPool
from hba.vfio_user.client import GuestRam, ReplyError, VfioUserClient
from tests.contract.adapter import CAUSES, NAME, Coarse, Device, config, running, within
from tests.contract.checker import Checker
from tests.storage.fake_nbd import FakeNbd

KINDS = {method.name: method.result for method in METHODS}
MEMORY = {"kind": "memory", "size": "1M"}
SIZE = 1 << 20


class Asking:
    """A client whose every answer and event is checked."""

    def __init__(self, folder: Path, checker: Checker) -> None:
        self.client = ControlClient(folder / f"{NAME}.ctl")
        self._checker = checker
        self.asked: set[str] = set()

    def __call__(self, method: str, **params: Any) -> Any:
        return self.checked(method, self.client.call(method, **params))

    def checked(self, method: str, result: Any) -> Any:
        self._checker.check(result, KINDS[method])
        self.asked.add(method)
        return result

    def begin(self, method: str, **params: Any) -> Callable[[], Any]:
        """Send the request; what is returned waits for the answer."""
        self.client._socket.sendall(encode({"id": 999, "method": method, "params": params}))

        def end() -> Any:
            line = self.client._line()
            while "event" in line:
                line = self.client._line()
            return self.checked(method, line["result"])

        return end

    def events(self, until: Callable[[dict[str, Any]], bool]) -> None:
        """Check those that come, to the one that is waited for."""
        for event in self.client.events():
            self._checker.check(event, lines.EventLine)
            self._checker.check(event["data"], TOPIC_DATA[event["event"]])
            if until(event):
                return


@pytest.fixture
def nbd(tmp_path: Path) -> Iterator[FakeNbd]:
    try:
        libnbd.load()
    except StorageError as problem:
        pytest.skip(str(problem))
    server = FakeNbd(tmp_path)
    yield server
    server.close()


def attach(parts: Parts, target: int, store: Store, **options: Any) -> None:
    """A unit on a store that no configuration can name."""
    table = {"target": target, "storage": MEMORY, **options}

    def work() -> None:
        unit = build_unit(msgspec.convert(table, LunConfig), store, parts.loop.clock)
        parts.bus.attach(target, 0, unit)

    within(parts, work)


def hanging(parts: Parts, operation: str) -> FaultyBackend:
    return FaultyBackend(MemoryBackend(SIZE), parts.loop.clock, [Fault(operation, hang=True)])


def everything(ask: Asking) -> None:
    for method in KINDS:
        if method.startswith("show."):
            ask(method)


def test_every_method_answers_what_its_schema_says(tmp_path: Path, nbd: FakeNbd) -> None:
    checker = Checker()
    asked: set[str] = set()
    for port in ("scsiport", "storport"):
        folder = tmp_path / port
        folder.mkdir()
        with running(folder, config(port)) as parts:
            ask = Asking(folder, checker)
            ask("events.topics")
            ask("events.subscribe", topics=list(TOPICS))
            of_the_server(ask)
            everything(ask)  # before there is a guest
            of_units(ask, parts, folder, nbd)
            of_a_guest(ask, parts, folder)
            of_injection(ask)
            of_events(ask, parts)
            everything(ask)
            ask("trace.read", limit=20)
            ask("verifier.reset")
            ask("events.unsubscribe", topics=["trace"])
            ask("server.stop")
            ask.client.close()
            asked |= ask.asked
    assert asked == set(KINDS)
    assert sorted(checker.unseen([*KINDS.values(), *TOPIC_DATA.values()])) == []


def of_the_server(ask: Asking) -> None:
    ask("ping")
    for method in ask("methods"):
        assert ask("schema", name=method["name"])["params"] == method["params"]


def of_units(ask: Asking, parts: Parts, folder: Path, nbd: FakeNbd) -> None:
    """Each kind of unit and of store, and each change of one."""
    ask("lun.add", unit={"target": 10, "removable": True, "storage": MEMORY})
    ask("lun.resize", target=10, size="2M")
    ask("lun.read_only", target=10)
    ask("lun.eject", target=10)
    ask("lun.insert", target=10, storage=MEMORY)
    ask("lun.remove", target=10)
    ask("lun.add", unit={"target": 11, "storage": {"kind": "nbd", "uri": nbd.uri}})
    workers = WorkerPool(parts.loop)
    backing = folder / "device"
    backing.write_bytes(bytes(SIZE))
    attach(parts, 12, within(parts, lambda: Device(backing, parts.loop, workers)))
    attach(parts, 13, within(parts, lambda: passed_through(parts, workers)))
    attach(parts, 14, Coarse(SIZE))
    ask("lun.ls")
    for target in range(11, 15):
        ask("lun.remove", target=target)
    assert workers.shutdown()
    removed_while_it_is_ejected(ask, parts, folder)


def of_injection(ask: Asking) -> None:
    """Each kind of request from above the port, and each sequence."""
    ask("inject.scsi", target=0, cdb="12000000ff00", length=255)
    ask("inject.scsi", target=0, cdb="28" + "ff" * 9, length=512)
    ask("inject.io_control", target=0, code=0x1B0500, signature="HBATEST", length=16)
    ask("inject.wmi")
    ask("inject.pnp", action="query-capabilities")
    ask("inject.power", target=0, state="D0")
    for function in ("LOCK_QUEUE", "UNLOCK_QUEUE"):
        if function == "UNLOCK_QUEUE":
            assert ask("inject.scsi", target=0, cdb="00" * 6, wait=0)["where"] == "QUEUED"
        ask("inject.control", target=0, function=function)
    ask("inject.rescan")
    assert ask("inject.dump", target=0, lba=1)["steps"][-2:] == [
        {"what": "compare", "unit": "0:0:0", "outcome": "the same"},
        {"what": "recover", "unit": None, "outcome": "success"},
    ]
    ask("inject.tracing", enabled=True)
    ask("inject.remove", target=4, surprise=True)
    for what in ("sleep", "resume", "rebalance"):
        assert ask("inject.machine", what=what)["completed"]


def passed_through(parts: Parts, workers: WorkerPool) -> ScsiPassThrough:
    return ScsiPassThrough(Path("/dev/null"), parts.loop, workers, ioctl=lambda fd, header: None)


def removed_while_it_is_ejected(ask: Asking, parts: Parts, folder: Path) -> None:
    store = hanging(parts, "flush")
    attach(parts, 15, store, removable=True)
    end = ask.begin("lun.eject", target=15)
    with ControlClient(folder / f"{NAME}.ctl") as other:
        while not store.describe()["hanging"]:
            other.call("ping")
        other.call("lun.remove", target=15)
    within(parts, store.release)
    assert end()["type"] == "removed"


def of_a_guest(ask: Asking, parts: Parts, folder: Path) -> None:
    """Rings, requests under way and waiting, memory of both kinds; and what the guest is not told."""
    store = hanging(parts, "read")
    attach(parts, 8, store)
    socket = folder / f"{NAME}.sock"
    with PvscsiBenchDriver(socket, SIZE, target=8) as driver:
        page = (BASE + driver._data_at) >> 12
        driver._command(CMD_SETUP_MSG_RING, SETUP_MSG_RING.pack(1, 0, page, *[0] * 15))
        driver.prepare([(False, 0, 4096)], 512)
        driver._submit(3)
        busy: list[Any] = []
        while not busy:  # one is under way and others wait for it
            units = ask("show.queues")["port"]["units"]
            busy = [unit for unit in units if unit["outstanding"] and unit["queued"]]
        assert ask("show.summary")["client"] == ask("show.counters")["vfio_user"]["client"] is not None
        a_second_client(ask, socket)
        everything_but_units = [name for name in KINDS if name.startswith("show.") and name not in _WITH_UNITS]
        for method in everything_but_units:
            ask(method)
        store.plan.clear()
        within(parts, store.release)
        driver._wait(driver._produced)
        ask.client.call("lun.remove", target=8)  # its store has no schema
        ask("lun.add", unit={"target": 7, "storage": MEMORY})
        driver._command(CMD_ADAPTER_RESET, b"")
        ask.events(lambda event: event["data"].get("change") == "untold")
        rings_out_of_reach(ask, driver)
    with VfioUserClient.connect(socket) as second, GuestRam(SIZE, BASE) as ram:
        second.version()
        second.map_ram(ram, shared=False)
        second.region_write(7, 0x04, b"\x06\x00")
        ask.events(lambda event: event["data"].get("event") == "note")
        ask("show.dma")


def a_second_client(ask: Asking, socket: Path) -> None:
    with VfioUserClient.connect(socket) as second, pytest.raises(ReplyError):
        second.version()
    ask.events(lambda event: event["data"].get("event") == "refused")


def rings_out_of_reach(ask: Asking, driver: PvscsiBenchDriver) -> None:
    nowhere = [1, 1, *[1] * (1 + 32 + 32)]
    with pytest.raises(GuestError):
        driver._command(CMD_SETUP_RINGS, SETUP_RINGS.pack(*nowhere))
    ask.events(lambda event: event["data"].get("event") == "unreachable")
    assert ask("show.queues")["adapter"]["unreachable"]


_WITH_UNITS = ("show.luns", "show.all")


def of_events(ask: Asking, parts: Parts) -> None:
    for topic, cause in CAUSES.items():
        within(parts, lambda cause=cause: cause(parts))
        ask.events(lambda event, topic=topic: event["event"] == topic)


def test_the_lines_are_what_their_schemas_say(tmp_path: Path) -> None:
    checker = Checker()
    with running(tmp_path, config("storport")), ControlClient(tmp_path / f"{NAME}.ctl") as client:
        greeting: list[dict[str, Any]] = []
        client._greeted = lambda line: greeting.append(line) or ("", 0)  # type: ignore[method-assign,func-returns-value]
        client.__init__(client.path)  # type: ignore[misc]
        checker.check(greeting[0], lines.Greeting)
        for request in (
            {"id": 1, "method": "ping"},
            {"id": "two", "method": "ping", "params": {"a": 1}},
            {"id": 3, "method": "nothing"},
            {"id": 4},
            {"method": "lun.remove", "params": {"target": 99}},
            [],
        ):
            client._socket.sendall(encode(request))
            line = client._line()
            checker.check(line, lines.ErrorReply if "error" in line else lines.Reply)
            assert line["schema_version"] == SCHEMA_VERSION
        assert greeting[0]["schema_version"] == SCHEMA_VERSION


def test_the_schema_of_a_method_that_is_not_there(tmp_path: Path) -> None:
    with running(tmp_path, config("storport")), ControlClient(tmp_path / f"{NAME}.ctl") as client:
        with pytest.raises(CallRefused) as told:
            client.call("schema", name="show.queus")
        assert 'did you mean "show.queues"' in str(told.value)


def test_every_method_has_a_result_of_its_own() -> None:
    assert [method.name for method in METHODS if method.result is Any] == []
    assert set(TOPIC_DATA) == set(TOPICS)

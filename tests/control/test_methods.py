"""What can be called, through the socket as anybody would."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hba import compiled
from hba.clock import MonotonicClock
from hba.control.client import CallRefused, ControlClient
from hba.control.events import TOPICS
from hba.control.methods import METHODS
from hba.control.parts import Parts
from hba.control.protocol import REFUSED, encode
from hba.errors import StorageError
from hba.rules import RULES
from hba.scsi.build import build_unit
from hba.scsi.config import LunConfig
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.config import MemoryStorage, StorageConfig
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.memory import MemoryBackend
from hba.storage.opener import Store
from tests.control.fakes import FakeUnit, serving


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    with serving(tmp_path / "c") as parts:
        yield parts


@pytest.fixture
def client(parts: Parts, tmp_path: Path) -> Iterator[ControlClient]:
    with ControlClient(tmp_path / "c") as client:
        yield client


def refusal(client: ControlClient, method: str, **params: Any) -> str:
    with pytest.raises(CallRefused) as caught:
        client.call(method, **params)
    return str(caught.value)


MEMORY = {"kind": "memory", "size": "1M"}


def test_every_method_is_listed_with_its_parameters(client: ControlClient) -> None:
    listed = {item["name"]: item for item in client.call("methods")}
    assert set(listed) == {method.name for method in METHODS}
    assert all(item["doc"] for item in listed.values())
    assert "target" in str(listed["lun.remove"]["params"])


def test_names_are_unique() -> None:
    names = [method.name for method in METHODS]
    assert len(set(names)) == len(names)


def test_every_subject_can_be_shown_and_all_has_each(client: ControlClient) -> None:
    subjects = {m.name.removeprefix("show.") for m in METHODS if m.name.startswith("show.")} - {"all"}
    everything = client.call("show.all")
    assert set(everything) == subjects
    for subject in subjects - {"counters"}:  # its CPU time moves on
        assert client.call(f"show.{subject}") == everything[subject]
    assert everything["summary"] | {"pid": 0} == {
        "name": "fake0",
        "type": "pvscsi",
        "port": "storport",
        "engine": "native",
        "miniport": "dma",
        "pid": 0,
        "compiled": compiled.in_use(),
        "version": everything["summary"]["version"],
        "socket": "/run/fake0.sock",
        "connected": True,
        "client": None,
        "luns": 0,
        "violations": 0,
    }
    assert everything["counters"]["process"]["VmRSS"] > 1 << 20
    assert everything["irq"] == {"mode": "msi", "signals": 3}


def test_units_come_and_go(parts: Parts, client: ControlClient) -> None:
    added = client.call("lun.add", unit={"target": 2, "lun": 1, "storage": MEMORY})
    assert (added["target"], added["lun"], added["storage"]["size"]) == (2, 1, 1 << 20)
    assert [unit["target"] for unit in client.call("lun.ls")] == [2]
    unit = parts.bus.units[2][1]
    assert isinstance(unit, FakeUnit)
    client.call("lun.remove", target=2, lun=1)
    assert unit.closed
    assert client.call("lun.ls") == []


def test_units_that_cannot_be_added(client: ControlClient) -> None:
    client.call("lun.add", unit={"storage": MEMORY})
    assert "there is a unit at 0:0:0 already" in refusal(client, "lun.add", unit={"storage": MEMORY})
    assert "target 200 is beyond max_targets = 64" in refusal(
        client, "lun.add", unit={"target": 200, "storage": MEMORY}
    )
    both = refusal(client, "lun.add", unit={"tarlet": 1, "storage": {"kind": "memory", "size": "1x"}})
    assert 'tarlet: no such key; did you mean "target"?' in both
    assert '"1x" is not a size' in both


def test_a_medium_is_ejected_and_inserted(parts: Parts, client: ControlClient) -> None:
    client.call("lun.add", unit={"storage": MEMORY, "removable": True})
    unit = parts.bus.units[0][0]
    assert isinstance(unit, FakeUnit)
    unit.locked = True
    assert "locked" in refusal(client, "lun.eject", target=0)
    assert client.call("lun.eject", target=0, force=True)["storage"] is None
    assert client.call("lun.insert", target=0, storage=MEMORY)["storage"]["size"] == 1 << 20
    assert "there is a medium" in refusal(client, "lun.insert", target=0, storage=MEMORY)
    assert "expected one of" in refusal(client, "lun.insert", target=0, storage={"kind": "floppy"})


class Slowly:
    """What opens stores: each but memory waits for `gate`, and then opens, or fails with `error`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.error: StorageError | None = None
        self.stores: list[Closing] = []

    def __call__(self, storage: StorageConfig) -> Backend:
        if not isinstance(storage, MemoryStorage):
            self.gate.wait()
        if self.error is not None:
            raise self.error
        self.stores.append(Closing(1 << 20))
        return self.stores[-1]


class Closing(MemoryBackend):
    closed = False

    def close(self) -> None:
        self.closed = True


NBD = {"kind": "nbd", "uri": "nbd://name.that.takes.long/"}


@pytest.fixture
def slowly(tmp_path: Path) -> Iterator[tuple[Slowly, Parts]]:
    slow = Slowly()
    with serving(tmp_path / "c", open_store=slow, open_medium=slow) as parts:
        yield slow, parts
        slow.gate.set()


def begun(client: ControlClient, method: str, **params: Any) -> Callable[[], dict[str, Any]]:
    """Send a request; what is returned reads its reply."""
    client._socket.sendall(encode({"id": 99, "method": method, "params": params}))
    return client._line


def test_others_are_served_while_a_store_opens(slowly: tuple[Slowly, Parts], tmp_path: Path) -> None:
    slow, parts = slowly
    with ControlClient(tmp_path / "c") as one, ControlClient(tmp_path / "c") as other:
        reply = begun(one, "lun.add", unit={"target": 3, "storage": NBD})
        while not parts.opening:
            other.call("ping")
        assert "being opened for 0:3:0 already" in refusal(other, "lun.add", unit={"target": 3, "storage": MEMORY})
        assert other.call("lun.ls") == []
        other.call("lun.add", unit={"target": 4, "storage": MEMORY})
        slow.gate.set()
        assert reply()["result"]["target"] == 3
        assert [unit["target"] for unit in other.call("lun.ls")] == [3, 4]


def test_a_store_that_does_not_open_leaves_nothing_behind(slowly: tuple[Slowly, Parts], tmp_path: Path) -> None:
    slow, parts = slowly
    slow.error = StorageError("the server did not answer within 3 s", 110)
    slow.gate.set()
    with ControlClient(tmp_path / "c") as client:
        assert "did not answer within 3 s" in refusal(client, "lun.add", unit={"storage": NBD})
        assert client.call("lun.ls") == [] and not parts.opening
        slow.error = None
        client.call("lun.add", unit={"storage": NBD})
        assert len(client.call("lun.ls")) == 1


def test_a_client_that_leaves_meanwhile_has_its_unit_all_the_same(slowly: tuple[Slowly, Parts], tmp_path: Path) -> None:
    slow, _ = slowly
    with ControlClient(tmp_path / "c") as one:
        begun(one, "lun.add", unit={"storage": NBD})
        one.call("ping")
    with ControlClient(tmp_path / "c") as other:
        other.call("events.subscribe", topics=["hotplug"])
        slow.gate.set()
        while not other.call("lun.ls"):
            pass


def test_an_address_that_is_taken_while_its_store_opens(slowly: tuple[Slowly, Parts], tmp_path: Path) -> None:
    """By a unit that was withdrawn with its device, and is back."""
    slow, parts = slowly
    with ControlClient(tmp_path / "c") as one, ControlClient(tmp_path / "c") as other:
        reply = begun(one, "lun.add", unit={"target": 3, "storage": NBD})
        while not parts.opening:
            other.call("ping")
        back = FakeUnit(None)
        parts.bus.attach(3, 0, back)  # type: ignore[arg-type]
        slow.gate.set()
        assert "there is a unit at 0:3:0 already" in reply()["error"]["message"]
        assert [store.closed for store in slow.stores] == [True]
        assert parts.bus.units[3][0] is back  # type: ignore[comparison-overlap]


def test_a_unit_that_goes_while_its_medium_opens(slowly: tuple[Slowly, Parts], tmp_path: Path) -> None:
    slow, parts = slowly
    with ControlClient(tmp_path / "c") as one, ControlClient(tmp_path / "c") as other:
        one.call("lun.add", unit={"removable": True})
        reply = begun(one, "lun.insert", target=0, storage=NBD)
        while not parts.opening:
            other.call("ping")
        assert "being opened for 0:0:0 already" in refusal(other, "lun.insert", target=0, storage=MEMORY)
        other.call("lun.remove", target=0)
        slow.gate.set()
        assert "there is no unit at 0:0:0" in reply()["error"]["message"]
        assert [store.closed for store in slow.stores] == [True] and not parts.opening


def test_a_medium_is_resized_and_protected(client: ControlClient) -> None:
    client.call("lun.add", unit={"storage": MEMORY})
    assert client.call("lun.resize", target=0, size="2M")["storage"]["size"] == 2 << 20
    assert client.call("lun.read_only", target=0)["read_only"] is True
    assert client.call("lun.read_only", target=0, read_only=False)["read_only"] is False
    assert '"big" is not a size' in refusal(client, "lun.resize", target=0, size="big")


@pytest.mark.parametrize("method", ["lun.remove", "lun.eject", "lun.read_only"])
def test_a_unit_that_is_not_there(client: ControlClient, method: str) -> None:
    client.call("lun.add", unit={"storage": MEMORY})
    assert "there is no unit at 0:7:0; units: 0:0:0" in refusal(client, method, target=7)


def test_findings_are_counted_shown_and_forgotten(parts: Parts, client: ControlClient) -> None:
    rules = list(RULES)[:2]
    assert parts.verifier is not None
    for number in range(25):
        parts.verifier.report(rules[number % 2], f"finding {number}", where="slot 3", index=number)
    shown = client.call("show.verifier")
    assert sum(shown["counts"].values()) == 25
    assert [item["message"] for item in shown["findings"]] == [f"finding {number}" for number in range(5, 25)]
    assert shown["findings"][-1]["details"] == {"index": 24}
    only = client.call("show.verifier", rule=rules[1], limit=2)["findings"]
    assert [item["message"] for item in only] == ["finding 21", "finding 23"]
    assert client.call("show.verifier", limit=0)["findings"] == []
    assert client.call("verifier.reset") == {"forgotten": 25}
    assert client.call("show.verifier")["counts"] == {}


def test_the_verifier_may_be_off(tmp_path: Path) -> None:
    with serving(tmp_path / "off", verifier=None), ControlClient(tmp_path / "off") as client:
        assert client.call("show.verifier")["level"] == "off"
        assert client.call("show.summary")["violations"] is None
        assert "the verifier is off" in refusal(client, "verifier.reset")


def test_events_reach_those_who_subscribed(parts: Parts, client: ControlClient, tmp_path: Path) -> None:
    with ControlClient(tmp_path / "c") as other:
        client.call("events.subscribe")
        other.call("events.subscribe", topics=["storage"])
        parts.loop.call_from_thread(lambda: parts.events.publish("hotplug", {"change": "added"}))
        parts.loop.call_from_thread(lambda: parts.events.publish("trace", {"kind": "submit"}))
        parts.loop.call_from_thread(lambda: parts.events.publish("storage", {"what": "gone"}))
        assert next(client.events()) == {"event": "hotplug", "data": {"change": "added"}}
        assert next(other.events()) == {"event": "storage", "data": {"what": "gone"}}
        client.call("events.unsubscribe", topics=["storage", "hotplug", "verifier", "client"])


def test_changes_of_units_are_events(client: ControlClient) -> None:
    client.call("events.subscribe", topics=["hotplug"])
    client.call("lun.add", unit={"storage": MEMORY})
    client.call("lun.resize", target=0, size="2M")
    assert next(client.events())["data"] == {"change": "resized", "unit": "0:0:0", "target": 0, "lun": 0}


def test_topics_are_known(client: ControlClient) -> None:
    assert client.call("events.topics") == TOPICS
    assert 'did you mean "trace"' in refusal(client, "events.subscribe", topics=["tarce"])


def test_there_is_no_trace_of_an_adapter_that_does_not_trace(tmp_path: Path) -> None:
    with serving(tmp_path / "off", recorder=None), ControlClient(tmp_path / "off") as client:
        assert "[adapter.trace]" in refusal(client, "events.subscribe", topics=["trace"])
        client.call("events.subscribe")


def test_stop_stops(parts: Parts, client: ControlClient) -> None:
    assert client.call("server.stop") == {"stopping": True}


@pytest.mark.parametrize("method", ["lun.remove", "lun.eject"])
def test_a_store_is_flushed_before_it_is_closed_and_nobody_waits(
    method: str, parts: Parts, client: ControlClient, tmp_path: Path
) -> None:
    unit = FakeUnit(MemoryBackend(1 << 20))
    parts.bus.attach(0, 0, unit)
    assert unit.backend is not None
    store = FaultyBackend(unit.backend, parts.loop.clock, [Fault("flush", hang=True)])
    unit.backend = store
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(client.call(method, target=0)))
    waiting.start()
    with ControlClient(tmp_path / "c") as other:
        while not store.describe()["hanging"]:
            other.call("ping")  # answered while the flush hangs
        assert answers == []
        assert not unit.closed
    parts.loop.call_from_thread(lambda: store.release())
    waiting.join(10)
    assert len(answers) == 1
    assert unit.closed == (method == "lun.remove")


@pytest.mark.parametrize(
    ("unit", "method", "params", "says"),
    [
        ({"type": "cdrom"}, "lun.read_only", {"read_only": False}, "an optical medium cannot be written"),
        ({"type": "cdrom"}, "lun.resize", {"size": "2M"}, "has the size of its image"),
        ({"type": "cdrom", "storage": MEMORY}, "lun.read_only", {"read_only": False}, "cannot be written"),
        ({"type": "enclosure"}, "lun.read_only", {"read_only": False}, "has no medium"),
        ({"type": "enclosure"}, "lun.eject", {}, "has no medium"),
        ({"storage": MEMORY}, "lun.eject", {}, "is not removable"),
        ({"storage": MEMORY}, "lun.resize", {"size": 1000}, "must be a multiple of the block size"),
        ({"storage": MEMORY}, "lun.resize", {"size": "999999999P"}, "is larger than 4096P"),
        ({"removable": True}, "lun.resize", {"size": "1M"}, "there is no medium to resize"),
    ],
)
def test_what_a_real_unit_cannot_is_refused(
    tmp_path: Path, unit: dict[str, Any], method: str, params: dict[str, Any], says: str
) -> None:
    """With a message, and not as a defect: whatever the kind of unit, whatever the change."""
    clock = MonotonicClock()

    def make_unit(config: LunConfig, store: Store | None) -> LogicalUnit:
        return build_unit(config, store, clock)

    with serving(tmp_path / "real", make_unit=make_unit), ControlClient(tmp_path / "real") as client:
        client.call("lun.add", unit=unit)
        with pytest.raises(CallRefused, match=says) as caught:
            client.call(method, target=0, **params)
        assert caught.value.code == REFUSED
        assert client.call("lun.ls")

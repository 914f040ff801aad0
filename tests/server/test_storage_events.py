"""What a store reports of itself, as far as the bus and the guest's adapter: gone, back, resized."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from hba.adapters.adapter import Adapter
from hba.config.model import adapter_config
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi.disk.disk import Disk
from hba.scsi.sense import CAPACITY_DATA_HAS_CHANGED, NOT_READY_CAUSE_NOT_REPORTABLE, POWER_ON_OCCURRED, condition_of
from hba.scsi.task import RESPONSE_NO_TARGET, Task
from hba.server.assemble import Assembled, Assembler
from hba.storage.memory import MemoryBackend
from tests.storage.test_nbd import Server, needs, until

Changes = list[tuple[str, int, int]]


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop()
    yield loop
    loop.close()


@pytest.fixture
def adapter(loop: EventLoop, tmp_path: Path) -> Iterator[Assembled]:
    """Target 0 leaves with its store, target 1 stays."""
    storage = {"kind": "memory", "size": "1M"}
    config = msgspec.convert(
        {
            "type": "pvscsi",
            "name": "test",
            "socket": str(tmp_path / "sock"),
            "lun": [{"target": 0, "storage": storage, "on_gone": "remove"}, {"target": 1, "storage": storage}],
        },
        adapter_config(),
    )
    assembled = Assembler()(config, tmp_path, loop)
    yield assembled
    assembled.close()


@pytest.fixture
def changes(adapter: Assembled) -> Changes:
    """What the guest's adapter is told."""
    seen: Changes = []
    tell = adapter.parts.bus.on_change
    assert tell is not None

    def changed(change: str, target: int, lun: int, known: bool) -> None:
        seen.append((change, target, lun))
        tell(change, target, lun, known)

    adapter.parts.bus.on_change = changed
    return seen


def store(adapter: Assembled, target: int) -> MemoryBackend:
    return cast(MemoryBackend, cast(Disk, adapter.parts.bus.units[target][0]).backend)


def report(loop: EventLoop, backend: MemoryBackend, event: str) -> None:
    assert backend.on_event is not None
    backend.on_event(event)
    loop.run_once(0)


def answer(adapter: Assembled, target: int) -> int:
    """The condition TEST UNIT READY ends with; -1 when nobody is there."""
    task = Task(bytes(6))
    assert adapter.parts.bus.execute(target, 0, [task])
    return -1 if task.response == RESPONSE_NO_TARGET else condition_of(task.sense)


def settle(adapter: Assembled, target: int) -> None:
    while answer(adapter, target) > 0:
        pass


def test_a_unit_leaves_with_its_store_and_comes_back_as_after_power_on(
    adapter: Assembled, loop: EventLoop, changes: Changes
) -> None:
    backend = store(adapter, 0)
    settle(adapter, 0)
    report(loop, backend, "gone")
    assert changes == [("removed", 0, 0)]
    assert answer(adapter, 0) == -1
    report(loop, backend, "back")
    assert changes == [("removed", 0, 0), ("added", 0, 0)]
    assert answer(adapter, 0) == POWER_ON_OCCURRED
    settle(adapter, 0)


def test_or_stays_and_is_not_ready(adapter: Assembled, loop: EventLoop, changes: Changes) -> None:
    backend = store(adapter, 1)
    settle(adapter, 1)
    report(loop, backend, "gone")
    assert answer(adapter, 1) == NOT_READY_CAUSE_NOT_REPORTABLE
    report(loop, backend, "back")
    settle(adapter, 1)
    assert changes == []


def test_resized_is_a_unit_attention(adapter: Assembled, loop: EventLoop) -> None:
    backend = store(adapter, 1)
    settle(adapter, 1)
    backend.resize(2 << 20)
    report(loop, backend, "resized")
    assert answer(adapter, 1) == CAPACITY_DATA_HAS_CHANGED
    assert cast(Disk, adapter.parts.bus.units[1][0]).blocks == 4096


def test_everything_is_published(adapter: Assembled, loop: EventLoop) -> None:
    heard: list[object] = []
    adapter.parts.events.subscribe("storage", lambda topic, data: heard.append(data))
    for event in ("gone", "back", "error: it smells"):
        report(loop, store(adapter, 1), event)
    assert heard == [
        {"event": event, "unit": "0:1:0", "target": 1, "lun": 0} for event in ("gone", "back", "error: it smells")
    ]


def test_a_new_unit_takes_the_place_of_one_that_left(adapter: Assembled, loop: EventLoop, changes: Changes) -> None:
    bus = adapter.parts.bus
    old = store(adapter, 0)
    report(loop, old, "gone")
    fresh = bus.units[1][0]
    bus.detach(1, 0)
    bus.attach(0, 0, fresh)
    assert bus.withdrawn == {}
    assert old.on_event is None
    with pytest.raises(StorageError):
        old.read([memoryview(bytearray(512))], 0, lambda error: None)
    assert changes[-1] == ("added", 0, 0)


def test_one_that_left_is_closed_at_the_end(adapter: Assembled, loop: EventLoop) -> None:
    backend = store(adapter, 0)
    report(loop, backend, "gone")
    adapter.parts.bus.close()
    assert backend.on_event is None


def test_gone_twice_is_gone_once(adapter: Assembled, loop: EventLoop, changes: Changes) -> None:
    backend = store(adapter, 0)
    report(loop, backend, "gone")
    report(loop, backend, "gone")
    assert changes == [("removed", 0, 0)]


def test_the_host_hears_of_what_the_guest_does_not(
    adapter: Assembled, loop: EventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[object] = []
    adapter.parts.events.subscribe("hotplug", lambda topic, data: heard.append(data))
    report(loop, store(adapter, 0), "gone")
    (removed,) = heard
    assert isinstance(removed, dict) and removed["change"] == "removed"
    assert "no driver has set up the adapter's rings" in removed["untold"]
    assert isinstance(adapter.parts.adapter, Adapter) and adapter.parts.adapter.on_untold is not None
    adapter.parts.adapter.on_untold("the guest sleeps")
    assert heard[1:] == [{"change": "untold", "message": "the guest sleeps"}]
    assert "the guest sleeps" in caplog.text


def test_the_end_says_what_could_not_be_made_stable(loop: EventLoop, tmp_path: Path) -> None:
    """An NBD server that left with what it had acknowledged: the adapter ends with an error, exit code 5."""
    server = Server(tmp_path, lambda socket: [needs("nbdkit", "nbdkit"), "-f", "-U", str(socket), "memory", "1M"])
    server.start()
    storage = {"kind": "nbd", "uri": server.uri, "hold": 0.0}
    config = msgspec.convert(
        {"type": "pvscsi", "name": "test", "socket": str(tmp_path / "sock"), "lun": [{"storage": storage}]},
        adapter_config(),
    )
    assembled = Assembler()(config, tmp_path, loop)
    unit = cast(Disk, assembled.parts.bus.units[0][0])
    ended: list[object] = []
    if not unit.store().write([memoryview(b"x" * 4096)], 0, ended.append):
        until(loop, lambda: bool(ended))
    server.kill()
    until(loop, lambda: unit.gone)
    with pytest.raises(StorageError, match="written last to 0:0:0 may be lost") as caught:
        assembled.close()
    assert caught.value.exit_code == 5

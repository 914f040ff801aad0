"""An adapter's parts without an adapter, and a control server for them in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hba.config.model import adapter_config
from hba.control.method import Method
from hba.control.methods import METHODS
from hba.control.parts import Parts
from hba.control.server import ControlServer
from hba.loop import EventLoop
from hba.pci.registers import Register, RegisterBlock
from hba.scsi.bus import ScsiBus
from hba.scsi.config import LunConfig
from hba.scsi.medium import Ended
from hba.scsi.task import Task
from hba.scsi.unit import LogicalUnit
from hba.storage.backend import Backend
from hba.storage.config import StorageConfig, parse_size
from hba.storage.memory import MemoryBackend
from hba.storage.opener import Opener, Store
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

REGISTERS = RegisterBlock("FAKE", [Register("STATUS", 0x10, fields={"BUSY": 0})]).decode()


class FakeSnapshot:
    def __init__(self, **value: object) -> None:
        self.value = value

    def snapshot(self) -> dict[str, object]:
        return dict(self.value)


class FakeAdapter(FakeSnapshot):
    """`told`: what it says of every announcement."""

    told: Mapping[str, object] = {"state": "posted", "why": ""}

    def announcement(self, target: int, lun: int) -> Mapping[str, object]:
        return self.told


class FakeUnit(LogicalUnit):
    """A disk as far as the control methods know one."""

    def __init__(self, backend: Backend | None) -> None:
        self.backend = backend
        self.read_only = False
        self.locked = False
        self.closed = False

    def execute(self, tasks: list[Task]) -> list[Task]:
        return tasks

    def execute_for_absent_lun(self, task: Task) -> bool:
        return True

    def abort(self, task: Task) -> bool:
        return False

    def abort_all(self, response: int) -> None:
        pass

    def reset(self, kind: str) -> None:
        pass

    def luns_changed(self) -> None:
        pass

    def luns_reported(self, initiator: int) -> None:
        pass

    def saved(self) -> dict[str, object]:
        return {}

    def restore(self, state: object) -> None:
        pass

    def describe(self) -> dict[str, object]:
        storage = None if self.backend is None else self.backend.describe()
        return {"type": "disk", "read_only": self.read_only, "storage": storage}

    def close(self) -> None:
        self.closed = True

    def eject(self, force: bool = False) -> Backend | None:
        if self.locked and not force:
            raise ValueError("locked")
        medium, self.backend = self.backend, None
        return medium

    def insert(self, backend: Backend) -> None:
        if self.backend is not None:
            raise ValueError("there is a medium")
        self.backend = backend

    def resize(self, size: int, ended: Ended) -> None:
        if self.backend is None:
            raise ValueError("no medium")
        self.backend.size = size
        ended(None)

    def set_read_only(self, read_only: bool, ended: Ended) -> None:
        self.read_only = read_only
        ended(None)


def open_store(storage: StorageConfig) -> Backend:
    return MemoryBackend(parse_size(storage.size or 0))  # type: ignore[union-attr]


def make_unit(config: LunConfig, store: Store | None) -> LogicalUnit:
    return FakeUnit(store)


def make_parts(loop: EventLoop, name: str = "fake0", **changes: Any) -> Parts:
    values: dict[str, Any] = {
        "name": name,
        "config": adapter_config()(type="pvscsi", name=name, socket=f"/run/{name}.sock"),
        "loop": loop,
        "engine": FakeSnapshot(state="connected", bytes_received=1),
        "function": FakeSnapshot(identity=None, interrupts={"mode": "msi", "signals": 3}, dma=[]),
        "adapter": FakeAdapter(registers=REGISTERS, rings=None, counters={"requests": 7}),
        "max_targets": 64,
        "port": FakeSnapshot(model="storport", counters={"submitted": 7}, units=[]),
        "bus": ScsiBus(),
        "verifier": Verifier(loop.clock),
        "recorder": Recorder(loop.clock),
        "open_store": open_store,
        "open_medium": open_store,
        "make_unit": make_unit,
        "opener": Opener(loop),
        "stop": loop.stop,
    }
    return Parts(**(values | changes))


@contextmanager
def serving(path: Path, methods: tuple[Method, ...] = METHODS, **changes: Any) -> Iterator[Parts]:
    """A control server at `path`, its loop in a thread."""
    loop = EventLoop()
    parts = make_parts(loop, **changes)
    server = ControlServer(loop, path, parts, methods)
    server.start()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield parts
    finally:
        loop.stop()
        thread.join()
        parts.opener.close()
        server.close()
        loop.close()

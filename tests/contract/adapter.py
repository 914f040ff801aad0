"""A whole adapter in a thread of this process: real layers behind a real control socket, and a guest's driver."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from hba.adapters.registry import ADAPTERS
from hba.adapters.types import Registry
from hba.clock import MS
from hba.config.load import parse
from hba.control.method import Call, Later
from hba.control.methods import inject, methods
from hba.control.parts import Parts
from hba.control.results.show import shown
from hba.control.server import ControlServer
from hba.loop import EventLoop
from hba.rules import RULES
from hba.server.assemble import Assembler
from hba.storage.file import FileBackend
from hba.storage.host import HostBackend
from hba.storage.memory import MemoryBackend
from hba.storage.workers import WorkerPool

T = TypeVar("T")

NAME = "pvscsi0"
UNITS = """
[[adapter.lun]]
storage = { kind = "file", path = "a.img", size = "1M", create = true }
[[adapter.lun]]
target = 1
block_size = 4096
protection = 1
storage = { kind = "memory", size = "1M" }
[[adapter.lun]]
target = 2
type = "cdrom"
storage = { kind = "memory", size = "1M", read_only = true }
[[adapter.lun]]
target = 3
type = "enclosure"
[[adapter.lun]]
target = 4
storage = { kind = "overlay", base = { kind = "memory", size = "1M" } }
[[adapter.lun]]
target = 5
removable = true
"""


def config(port: str) -> str:
    """Some of everything."""
    depth = "requests_per_unit = 1" if port == "scsiport" else "initial_lun_queue_depth = 1"
    class_driver = "class_driver = { enabled = true }\n" if port == "storport" else ""
    return (
        f'[[adapter]]\ntype = "pvscsi"\nname = "{NAME}"\nport = "{port}"\n{class_driver}'
        f"trace = {{ enabled = true }}\n{port} = {{ {depth} }}\n" + UNITS
    )


@contextmanager
def running(folder: Path, text: str, known: Registry = ADAPTERS) -> Iterator[Parts]:
    """The adapter of the configuration `text`, which serves `NAME.sock` and `NAME.ctl` in `folder`; `known`: the types
    of adapters there are."""
    (adapter,) = parse(text, folder / "hba.toml", known).adapters
    adapter.socket = str(folder / f"{adapter.name}.sock")
    loop = EventLoop()
    assembled = Assembler(known=known)(adapter, folder, loop)
    control = ControlServer(loop, folder / f"{adapter.name}.ctl", assembled.parts, methods(shown(known)))
    control.start()
    assembled.start()
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield assembled.parts
    finally:
        loop.stop()
        thread.join()
        assembled.close()
        control.close()
        loop.close()


def within(parts: Parts, work: Callable[[], T]) -> T:
    """`work()` in the adapter's event loop, as everything of it must be."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    parts.loop.call_from_thread(run)
    return outcome.result(20)


# What makes an event of each topic.
CAUSES: dict[str, Callable[[Parts], object]] = {
    "verifier": lambda parts: find(parts),
    "trace": lambda parts: parts.recorder is not None and parts.recorder.add("submit", 4, "a detail"),
    "storage": lambda parts: parts.bus.on_storage("resized", 0, 0),
    "hotplug": lambda parts: parts.bus.on_change("added", 9, 0, True),
    "inject": lambda parts: late(parts),
    "client": lambda parts: [told(True) for told in parts.function.on_client],  # type: ignore[attr-defined]
}


def find(parts: Parts) -> None:
    assert parts.verifier is not None
    parts.verifier.report(next(iter(RULES)), "the sky fell", where="slot 9", srb="#4", history=("one",), height=3)


def late(parts: Parts) -> None:
    """A request and a sequence that end after their methods have answered: they wait behind a lock that is opened."""
    call = Call(parts, None)  # type: ignore[arg-type]

    def begin(made: object) -> None:
        assert isinstance(made, Later)
        made.start(lambda finish: None)

    begin(inject.control(call, inject.Control(target=0, function="LOCK_QUEUE")))
    begin(inject.scsi(call, inject.Scsi(target=0, cdb="00" * 6, wait=0)))
    begin(inject.whole(call, inject.Whole(what="shutdown", wait=0)))

    def unlock() -> None:
        begin(inject.control(call, inject.Control(target=0, function="UNLOCK_QUEUE")))
        parts.loop.clock.call_later(MS, lambda: begin(inject.whole(call, inject.Whole(what="start"))))

    parts.loop.clock.call_later(20 * MS, unlock)


class Coarse(MemoryBackend):
    """A store that takes only pieces larger than a unit's blocks."""

    granule = 4096


class Device(HostBackend):
    """A device of the host as far as it is described; that it is one is for the guest's tests."""

    unstable = False  # type: ignore[assignment]

    def __init__(self, path: Path, loop: EventLoop, workers: WorkerPool) -> None:
        self._file = FileBackend(path, loop, workers)
        vars(self).update(vars(self._file))
        self.gone = False
        self._watch_udev = None

    def close(self) -> None:
        self._file.close()

"""A device that remembers what was asked of it, and a server and a client in one process."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from mmap import mmap
from types import MappingProxyType
from typing import TypeVar

from hba.clock import MS, S
from hba.loop import EventLoop
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user.client import VfioUserClient
from hba.vfio_user.device import Client, Done, IoEventFd, IrqInfo, RegionInfo, RequestError, Wire
from hba.vfio_user.libvfio_user.engine import LibraryEngine
from hba.vfio_user.server import NativeEngine, Server

T = TypeVar("T")

BAR0, BAR1, ROM, CONFIG = 0, 1, 6, 7
INTX, MSI, MSIX, ERR = 0, 1, 2, 3

ENGINES: dict[str, type[Server]] = {engine.name: engine for engine in (NativeEngine, LibraryEngine)}


class FakeDevice:
    """BAR 0 and the config space are plain bytes; BAR 1 can be mapped; the ROM is read-only."""

    num_regions = 9
    num_irqs = 5

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.bytes = {BAR0: bytearray(1 << 20), CONFIG: bytearray(range(256)) * 16, ROM: bytearray(b"ROM!" * 1024)}
        self.infos = {
            BAR0: RegionInfo(1 << 20, dev.REGION_READ | dev.REGION_WRITE),
            ROM: RegionInfo(4096, dev.REGION_READ),
            CONFIG: RegionInfo(4096, dev.REGION_READ | dev.REGION_WRITE),
        }
        self.irqs = {
            INTX: IrqInfo(1, dev.IRQ_EVENTFD | dev.IRQ_MASKABLE | dev.IRQ_AUTOMASKED),
            MSI: IrqInfo(32, dev.IRQ_EVENTFD | dev.IRQ_NORESIZE),
            ERR: IrqInfo(1, dev.IRQ_EVENTFD),
        }
        self.maps: dict[tuple[int, int], tuple[int, int | None, int]] = {}
        self.mapped: dict[tuple[int, int], memoryview] = {}  # memory the engine has mapped
        self.fds: list[int] = []  # eventfds and memory, ours
        self.wires: dict[tuple[int, int], Wire | None] = {}
        self.io_fds: dict[int, tuple[IoEventFd, ...]] = {}
        self.local: set[tuple[int, int, int]] = set()  # writes that are carried out at once
        self.client: Client | None = None
        self.on_read: Callable[[], None] = lambda: None
        self.on_write: Callable[[int, int, bytes], None] = lambda region, offset, data: None
        self.on_reset: Callable[[], None] = lambda: None
        self.state: bytes | None = None  # None: it cannot be moved
        self.busy = False
        self.on_stop: Callable[[Done], None] = lambda done: done(None)

    def region_info(self, index: int) -> RegionInfo:
        return self.infos.get(index, RegionInfo())

    def irq_info(self, index: int) -> IrqInfo:
        return self.irqs.get(index, IrqInfo())

    def region_read(self, index: int, offset: int, count: int) -> bytes:
        self.calls.append(("read", index, offset, count))
        self.on_read()
        return bytes(self.bytes[index][offset : offset + count])

    def region_write(self, index: int, offset: int, data: bytes | memoryview) -> None:
        value = bytes(data)
        self.calls.append(("write", index, offset, value))
        self.bytes[index][offset : offset + len(value)] = value
        self.on_write(index, offset, value)
        assert bytes(data) == value, "the engine changed the data under the device's eyes"

    def at_once(self, index: int, offset: int, count: int) -> bool:
        return (index, offset, count) in self.local

    def dma_map(self, iova: int, size: int, prot: int, fd: int | None, offset: int) -> None:
        if fd is not None:
            self.fds.append(fd)
        if any(iova < at + length and at < iova + size for at, length in self.maps):
            raise RequestError(errno.EEXIST, "overlap")
        self.maps[iova, size] = (prot, fd, offset)

    def dma_map_here(self, iova: int, size: int, prot: int, memory: mmap, at: int) -> None:
        self.dma_map(iova, size, prot, None, at)
        self.mapped[iova, size] = memoryview(memory)[at : at + size]

    def dma_unmap(self, iova: int, size: int) -> int:
        doomed = [key for key in self.maps if iova <= key[0] and key[0] + key[1] <= iova + size]
        if not doomed:
            raise RequestError(errno.ENOENT, "no such map")
        for key in doomed:
            del self.maps[key]
            self.mapped.pop(key, None)
        return len(doomed)

    def dma_unmap_all(self) -> None:
        self.maps.clear()
        self.mapped.clear()

    def set_irqs(self, index: int, flags: int, start: int, count: int, fds: list[int], data: bytes) -> None:
        self.fds += fds
        self.calls.append(("irqs", index, flags, start, count, len(fds), data))

    def connect_irqs(self, index: int, start: int, wires: Sequence[Wire | None]) -> None:
        self.calls.append(("wires", index, start, [wire is not None for wire in wires]))
        self.wires.update({(index, vector): wire for vector, wire in enumerate(wires, start)})

    def region_io_fds(self, index: int) -> tuple[IoEventFd, ...]:
        return self.io_fds.get(index, ())

    def uses(self, iova: int, size: int) -> bool:
        return self.busy

    def rest(self, done: Done) -> None:
        self.calls.append(("rest",))
        self.on_stop(done)

    def release(self) -> None:
        self.calls.append(("release",))

    @property
    def can_migrate(self) -> bool:
        return self.state is not None

    def stop(self, done: Done) -> None:
        self.calls.append(("stop",))
        self.on_stop(done)

    def resume(self) -> None:
        self.calls.append(("resume",))

    def save(self) -> bytes:
        self.calls.append(("save",))
        assert self.state is not None
        return self.state

    def restore(self, state: bytes) -> None:
        self.calls.append(("restore", len(state)))
        if not state:
            raise RequestError(errno.EINVAL, "an empty state")
        self.state = state

    def log_dma(self, done: Done) -> None:
        self.calls.append(("log",))
        done(None)

    def stop_logging_dma(self) -> None:
        self.calls.append(("stop logging",))

    def dirty_bitmap(self, iova: int, length: int, page_size: int) -> bytes:
        self.calls.append(("dirty", iova, length, page_size))
        return b"\x05".ljust(-(-length // page_size // 64) * 8, b"\0")

    def reset(self) -> None:
        self.calls.append(("reset",))
        self.on_reset()

    def connected(self, client: Client) -> None:
        self.calls.append(("connected",))
        self.client = client

    def disconnected(self) -> None:
        self.calls.append(("disconnected",))
        self.client = None
        self.dma_unmap_all()
        self.close_fds()

    def close_fds(self) -> None:
        while self.fds:
            os.close(self.fds.pop())


class Bench:
    """A server in the loop of this thread, and calls of a client in another thread while the loop turns."""

    def __init__(self, engine: str, device: FakeDevice, dma_timeout: int = 2 * S) -> None:
        self.loop = EventLoop()
        self.device = device
        ours, theirs = socket.socketpair()
        self.engine = ENGINES[engine].from_fd(self.loop, ours.detach(), self.device, dma_timeout=dma_timeout)
        self.engine.start()
        self.client = VfioUserClient(theirs, timeout=10)

    def call(self, function: Callable[[], T]) -> T:
        return run_beside(self.loop, function)

    def kick(self, done: Callable[[], bool], data: bytes = b"go") -> None:
        """Write to BAR 0 and serve the server's DMA messages until `done()`."""

        def body() -> None:
            self.client.region_write(BAR0, 0, data, posted=True)
            while not done():
                self.client.poll()

        self.call(body)

    def turn(self) -> None:
        """Let the server work off what is there."""
        for _ in range(6):
            self.loop.run_once(0)

    def raw(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        self.client.send_raw(data, fds)
        self.turn()

    def replies(self) -> list[tuple[p.Header, bytes]]:
        """What the server has sent so far."""
        found = []
        while (message := self.client.receive(wait=False)) is not None:
            found.append((message[0], message[1]))
            for fd in message[2]:
                os.close(fd)
        return found

    def close(self) -> None:
        self.client.close()
        self.turn()
        self.engine.close()
        self.device.close_fds()
        self.loop.close()


def run_beside(loop: EventLoop, function: Callable[[], T]) -> T:
    """Run `function` in another thread and the loop in this one until it returns."""
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            loop.call_from_thread(lambda: None)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    while thread.is_alive():
        loop.run_once(20 * MS)
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def bench(
    engine: str = NativeEngine.name,
    *,
    dma_timeout: int = 2 * S,
    negotiate: bool = True,
    infos: Mapping[int, RegionInfo] = MappingProxyType({}),
    io_fds: Mapping[int, tuple[IoEventFd, ...]] = MappingProxyType({}),
) -> Iterator[Bench]:
    """`infos`: regions of the device beside those it has anyway. `io_fds`: where writes may come as events."""
    device = FakeDevice()
    device.infos.update(infos)
    device.io_fds.update(io_fds)
    it = Bench(engine, device, dma_timeout)
    try:
        if negotiate:
            it.call(it.client.version)
            it.device.calls.clear()
        yield it
    finally:
        it.close()


def message(command: int, body: bytes = b"", *, flags: int = 0, message_id: int = 77, size: int | None = None) -> bytes:
    length = p.HEADER_SIZE + len(body) if size is None else size
    return p.HEADER.pack(message_id, command, length, flags, 0) + body


def write_message(region: int, offset: int, data: bytes, *, posted: bool = True, message_id: int = 78) -> bytes:
    body = p.REGION_ACCESS_BODY.struct.pack(offset, region, len(data)) + data
    return message(p.REGION_WRITE, body, flags=p.NO_REPLY if posted else 0, message_id=message_id)


def read_message(region: int, offset: int, count: int, *, message_id: int = 79) -> bytes:
    body = p.REGION_ACCESS_BODY.struct.pack(offset, region, count)
    return message(p.REGION_READ, body, message_id=message_id)

"""One client after the other, and one that leaves after any byte of any message: nothing of it is left."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.loop import EventLoop
from hba.pci.memory import GuestMemory
from hba.vfio_user import migration as states
from hba.vfio_user import protocol as p
from hba.vfio_user.client import VfioUserClient
from hba.vfio_user.framing import close_fds, send_message
from hba.vfio_user.server import NativeEngine
from tests.adapters.pvscsi.driver import Driver
from tests.adapters.pvscsi.test_saved import keep, unit
from tests.descriptors import open_fds
from tests.vfio_user.conformance.rig import BAR, CONFIG, MSI, Rig, eventfd

PAGE = 4096


class Device:
    """A whole PVSCSI adapter behind a socket, and clients one after the other."""

    def __init__(self, folder: Path) -> None:
        self.driver = keep(Driver(ram=False), None, unit())
        self.loop: EventLoop = self.driver.loop
        self.memory: GuestMemory = self.driver.memory
        self.function = self.driver.adapter.function
        self.function.reset()  # as the first client finds it
        self.path = folder / "s"
        self.engine = NativeEngine(self.loop, self.path, self.function)
        self.engine.start()

    def turn(self) -> None:
        for _ in range(4):
            self.loop.run_once(0)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(str(self.path))
        return sock

    def leave(self, sock: socket.socket) -> None:
        sock.close()
        self.turn()

    @property
    def traces(self) -> tuple[object, ...]:
        """All a client can leave behind."""
        interrupts = self.function.interrupts.snapshot()
        adapter = self.driver.adapter
        return (
            open_fds(),
            len(self.loop._readers),
            len(self.loop._writers),
            self.memory.maps,
            self.memory.log,
            self.memory.enabled,
            self.memory.client,
            interrupts["indexes"],
            interrupts["mode"],
            adapter.access.rings,
            adapter.held,
            self.function.stopped,
            self.function.config.save(),
            adapter.registers.save(),
            self.engine.connected,
        )

    def close(self) -> None:
        self.engine.close()
        self.driver.close()


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    made = Device(tmp_path_factory.mktemp("s"))
    yield made
    made.close()


def message(command: int, body: bytes = b"", flags: int = 0) -> bytes:
    return p.HEADER.pack(7, command, p.HEADER_SIZE + len(body), flags, 0) + body


def feature(number: int, operation: int, data: bytes = b"") -> bytes:
    return message(p.DEVICE_FEATURE, p.FEATURE_BODY.encode(p.DeviceFeature(4096, number | operation)) + data)


def state(number: int) -> bytes:
    return feature(
        p.FEATURE_MIG_DEVICE_STATE, p.FEATURE_SET, p.MIGRATION_STATE_BODY.encode(p.MigrationState(number, 0))
    )


def access(region: int, offset: int, count: int) -> bytes:
    return p.REGION_ACCESS_BODY.encode(p.RegionAccess(offset, region, count))


VERSION = message(p.VERSION, p.encode_version(0, 0, p.OURS))
RAM = message(p.DMA_MAP, p.DMA_MAP_BODY.encode(p.DmaMap(32, 3, 0, 0, 16 * PAGE)))
CONTROL = p.LOGGING_CONTROL_BODY.encode(p.LoggingControl(PAGE, 0, 0))
DATA = p.MIGRATION_DATA_BODY
# A life: everything a client can say, in an order in which all of it has an effect; "fd" and "event" come with one.
LIFE: list[tuple[str, bytes, str]] = [
    ("version", VERSION, ""),
    ("map", RAM, "fd"),
    ("info", message(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))), ""),
    (
        "region info",
        message(p.DEVICE_GET_REGION_INFO, p.REGION_INFO_BODY.encode(p.RegionInfoBody(64, 0, 5, 0, 0, 0))),
        "",
    ),
    ("io fds", message(p.DEVICE_GET_REGION_IO_FDS, p.REGION_IO_FDS_BODY.encode(p.RegionIoFds(512, 0, 0, 0))), ""),
    ("irq info", message(p.DEVICE_GET_IRQ_INFO, p.IRQ_INFO_BODY.encode(p.IrqInfoBody(16, 0, 1, 0))), ""),
    ("irqs", message(p.DEVICE_SET_IRQS, p.SET_IRQS_BODY.encode(p.SetIrqs(20, 0x24, MSI, 0, 1))), "event"),
    ("config", message(p.REGION_WRITE, access(CONFIG, 4, 2) + b"\6\0"), ""),
    ("read", message(p.REGION_READ, access(BAR, 8, 4)), ""),
    ("write", message(p.REGION_WRITE, access(BAR, 0x2010, 4) + b"\x0f\0\0\0", p.NO_REPLY), ""),
    ("writes", message(p.REGION_WRITE_MULTI, p.encode_multi([(0, BAR, b"\3\0\0\0"), (4, BAR, bytes(4))])), ""),
    ("log", feature(p.FEATURE_DMA_LOGGING_START, p.FEATURE_SET, CONTROL), ""),
    (
        "report",
        feature(
            p.FEATURE_DMA_LOGGING_REPORT, p.FEATURE_GET, p.LOGGING_REPORT_BODY.encode(p.LoggingReport(0, PAGE, PAGE))
        ),
        "",
    ),
    ("stop", state(states.STOP), ""),
    ("stop and copy", state(states.STOP_COPY), ""),
    ("data", message(p.MIG_DATA_READ, DATA.encode(p.MigrationData(108, 100))), ""),
    ("resuming", state(states.RESUMING), ""),
    ("more data", message(p.MIG_DATA_WRITE, DATA.encode(p.MigrationData(12, 4)) + b"data"), ""),
    ("unmap", message(p.DMA_UNMAP, p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, 0, 0, 16 * PAGE))), ""),
    ("reset", message(p.DEVICE_RESET), ""),
]


class Speaker:
    """Says a life up to some byte of some message."""

    def __init__(self) -> None:
        self.ram, self.event = os.memfd_create("ram"), eventfd()
        os.ftruncate(self.ram, 16 * PAGE)

    def say(self, sock: socket.socket, data: bytes, what: str) -> None:
        fds = {"fd": [self.ram], "event": [self.event], "": []}[what]
        send_message(sock, [data], fds)

    def close(self) -> None:
        close_fds([self.ram, self.event])


@pytest.mark.parametrize("number", range(len(LIFE)), ids=[name for name, _, _ in LIFE])
def test_a_client_that_leaves_after_any_byte(device: Device, number: int) -> None:
    """The next one finds the device as the first one did."""
    speaker = Speaker()
    before = device.traces
    _, last, what = LIFE[number]
    for cut in range(len(last) + 1):
        sock = device.connect()
        for _, data, fd in LIFE[:number]:
            speaker.say(sock, data, fd)
        if cut:
            speaker.say(sock, last[:cut], what)
        device.turn()
        device.leave(sock)
        assert device.traces == before, f"cut after {cut} bytes of {len(last)}"
    speaker.close()


def test_one_byte_at_a_time(device: Device) -> None:
    """A life in single bytes is the same life."""
    speaker = Speaker()
    before = device.traces
    sock = device.connect()
    for name, data, what in LIFE[:-2]:
        for at in range(len(data)):
            speaker.say(sock, data[at : at + 1], what if at == 0 else "")
            device.loop.run_once(0)
        device.turn()
        if name == "irqs":
            assert len(device.memory.maps) == 1
            assert device.function.interrupts.snapshot()["indexes"][MSI]["connected"] == [0]  # type: ignore[index]
        if name == "stop":
            assert device.function.stopped
    device.leave(sock)
    assert device.traces == before
    speaker.close()


def test_a_client_that_is_there_when_the_server_ends() -> None:
    made = Rig()
    fd = eventfd()
    made.call(lambda: made.client.set_eventfds(MSI, [fd]))
    made.call(lambda: made.client.dma_map(0, PAGE))
    made.engine.close()
    assert made.memory.maps == [] and not made.function.is_connected
    made.close()
    os.close(fd)


def test_the_socket_goes_with_the_server(tmp_path: Path) -> None:
    made = Device(tmp_path)
    assert made.path.is_socket()
    made.close()
    assert not made.path.exists()


def test_a_client_that_comes_back_sets_everything_up_anew(device: Device) -> None:
    """Its device is as after power on: a machine that went has taken its device's power along."""
    for _ in range(2):
        with VfioUserClient(device.connect(), 10) as client:
            client.send(p.VERSION, p.encode_version(0, 0, p.OURS))
            client.send(p.REGION_READ, access(CONFIG, 4, 2))
            client.send(p.REGION_WRITE, access(CONFIG, 4, 2) + b"\6\0")
            device.turn()
            replies = []
            while (found := client.receive(wait=False)) is not None:
                replies.append(found[1])
            assert replies[1][-2:] == b"\0\0"
        device.turn()

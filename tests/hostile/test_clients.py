"""Clients that mean harm: they come by the thousand, stop reading, flood, or leave memory behind that shrinks.

`HBA_CONNECTIONS` sets how many connections are made (default 1000; 10000 take some half a minute).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hba.adapters.bench import CONFIG
from hba.bench import own_server
from hba.bench.own_server import OwnServer
from hba.control.client import CallRefused, ControlClient
from hba.errors import ControlError
from hba.loop import EventLoop
from hba.vfio_user import connection as c
from hba.vfio_user import outbox
from hba.vfio_user import protocol as p
from hba.vfio_user.client import Disconnected, GuestRam, VfioUserClient
from hba.vfio_user.server import NativeEngine
from tests.vfio_user.support import BAR0, FakeDevice, message, write_message

CONNECTIONS = int(os.environ.get("HBA_CONNECTIONS", "1000"))
GROWTH = 4 << 20  # bytes a server may be larger after all of them: no more than it was larger after some
KINDS = 6


@pytest.fixture
def server() -> Iterator[OwnServer]:
    with own_server.start(None, size=1 << 20) as server:
        yield server


class Crowd:
    """One connection after the other, each with something it leaves behind. `server`: what it is."""

    def __init__(self, server: OwnServer) -> None:
        self.server = server
        self.process = psutil.Process(server.pid)
        self._ram = GuestRam(1 << 20)
        self._first = 0
        self._first, _ = self.seen()

    def close(self) -> None:
        self._ram.close()

    def come(self, number: int) -> None:
        """Connect, in one of several ways, and go."""
        try:
            with VfioUserClient.connect(self.server.socket, timeout=20) as client:
                self._do(client, number % KINDS)
        except Disconnected:
            pass

    def _do(self, client: VfioUserClient, kind: int) -> None:
        if kind == 0:
            return  # not a word
        client.version()
        if kind == 1:
            client.map_ram(self._ram)
            client.region_write(CONFIG, 0x04, b"\x06\x00")
        elif kind == 2:
            fds = [os.eventfd(0), os.eventfd(0)]
            body = p.SET_IRQS_BODY.encode(p.SetIrqs(20, 0x24, 1, 0, 1))
            client.send_raw(message(p.DEVICE_SET_IRQS, body), fds[:1])
            client.send_raw(message(p.DEVICE_GET_INFO)[:20], fds)  # half a message, with descriptors
            for fd in fds:
                os.close(fd)
        elif kind == 3:
            client.send_raw(p.HEADER.pack(1, p.REGION_WRITE, 0xFFFFFFFF, 0, 0))  # ends it
            client.receive()
        elif kind == 4:
            for _ in range(50):  # answers nobody reads
                client.send(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0)))
        else:
            client.map_ram(self._ram)
            client.send(p.DMA_UNMAP, p.DMA_UNMAP_BODY.encode(p.DmaUnmap(24, p.DMA_UNMAP_FLAG_ALL, 0, 0)))

    def _control(self) -> ControlClient:
        """One of the few that are let in, once the crowd has gone."""
        while True:
            with contextlib.suppress(CallRefused):
                return ControlClient(self.server.control)

    def settled(self) -> tuple[int, int]:
        """As `seen`, when it is as large as it was when nobody had come."""
        return self.seen(self._first)

    def seen(self, descriptors: int = 0) -> tuple[int, int]:
        """Descriptors and bytes of its own that the server has once everybody is gone. `descriptors`: how many it
        should come to; it may take a moment to notice the last who left."""
        with self._control() as control:
            for _ in range(1000):
                control.call("ping")
                if not descriptors or self.process.num_fds() == descriptors:
                    break
            while control.call("show.counters")["vfio_user"]["state"] != "listening":
                pass
            memory = self.process.memory_info()
            return self.process.num_fds(), memory.rss - memory.shared


@pytest.mark.timeout(900)
def test_connections_leave_nothing_behind(server: OwnServer) -> None:
    crowd = Crowd(server)
    for number in range(CONNECTIONS // 5):
        crowd.come(number)
    descriptors, memory = crowd.settled()
    for number in range(CONNECTIONS - CONNECTIONS // 5):
        crowd.come(number)
    descriptors_now, memory_now = crowd.seen(descriptors)
    crowd.close()
    print(
        f"{CONNECTIONS} connections: {descriptors} and {descriptors_now} descriptors, "
        f"{memory >> 10} and {memory_now >> 10} KiB of its own after a fifth and after all"
    )
    assert descriptors_now == descriptors
    assert memory_now - memory < GROWTH


def test_control_connections_leave_nothing_behind(server: OwnServer) -> None:
    crowd = Crowd(server)
    ends = (
        b"",
        b'{"id": 1, "method": "show.queues"}\n',
        b"{" * 4000,
        b"\n" * 1000,
        b'{"method": "events.subscribe"}\n',
    )

    def come(times: int) -> None:
        for number in range(times):
            # Some find that there are too many, and are hung up on.
            with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.connect(str(server.control))
                sock.sendall(ends[number % len(ends)])

    come(CONNECTIONS // 5)
    before = crowd.settled()
    come(CONNECTIONS)
    now = crowd.seen(before[0])
    crowd.close()
    assert now[0] == before[0]
    assert now[1] - before[1] < GROWTH


def test_a_control_client_waits_in_line(server: OwnServer) -> None:
    """More at once than the kernel keeps for a server that is busy."""
    process = psutil.Process(server.pid)
    process.suspend()
    try:
        with contextlib.ExitStack() as line:
            for _ in range(64):
                sock = line.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    sock.connect(str(server.control))
            with pytest.raises(ControlError, match="takes no connection"):
                ControlClient(server.control, timeout=0.2)
            threading.Timer(0.2, process.resume).start()
            with ControlClient(server.control) as control:
                control.call("ping")
    finally:
        process.resume()


# -- what floods, and what does not read ------------------------------------------------------------------------------


class Wire:
    """A server in this process, and the bytes of a client that go as far as they go."""

    def __init__(self, path: Path) -> None:
        self.loop = EventLoop()
        self.device = FakeDevice()
        self.engine = NativeEngine(self.loop, path, self.device)
        self.engine.start()
        self.client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.client.connect(str(path))
        self.client.setblocking(False)
        self.send(message(p.VERSION, p.encode_version(0, 0, None)))
        self.turn()

    def send(self, data: bytes) -> int:
        """Bytes that were taken; 0: the server takes no more, -1: it has hung up."""
        try:
            return self.client.send(data, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:
            return -1

    def turn(self) -> None:
        for _ in range(4):
            self.loop.run_once(0)

    @property
    def rests(self) -> bool:
        """Nothing is due and no descriptor is ready: the next turn would wait."""
        return not self.loop._soon and not self.loop._epoll.poll(0)

    def close(self) -> None:
        self.client.close()
        self.turn()
        self.engine.close()
        self.loop.close()


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(tmp_path / "s")
    yield wire
    wire.close()


def big_read() -> bytes:
    return message(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 1 << 20))


def test_who_stops_reading_is_dropped_and_not_waited_for_in_circles(wire: Wire) -> None:
    """Its answers are kept up to a bound; a socket that stays full wakes nobody."""
    for _ in range(3):
        wire.send(big_read())
        wire.turn()
    kept = wire.engine._client._outbox._unsent_bytes  # type: ignore[union-attr]
    assert 0 < kept <= outbox.MAX_UNSENT
    assert wire.rests
    while wire.engine.connected:
        assert wire.send(big_read()) >= 0
        wire.turn()
    assert "does not read" in str(wire.engine.snapshot()["last_error"])
    assert wire.rests and wire.device.client is None


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(write_message(BAR0, 0, b"abcd") * 500, id="posted writes"),
        pytest.param(
            message(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))) * 500, id="questions"
        ),
        pytest.param(message(999, bytes(64)) * 500, id="unknown commands"),
        pytest.param(message(p.DEVICE_RESET) * 500, id="resets"),
        pytest.param(message(p.REGION_WRITE, bytes(4096)) * 20, id="bad writes"),
    ],
)
def test_a_flood_leaves_the_loop_to_others(wire: Wire, piece: bytes) -> None:
    """In each turn so much is done and no more, whatever stands ready: everybody else's turn comes."""
    others = [0]

    def other() -> None:
        others[0] += 1
        wire.loop.call_soon(other)

    wire.loop.call_soon(other)
    buffer = len(wire.engine._client._stream._buffer)  # type: ignore[union-attr]
    turns = 0
    while turns < 60 and wire.engine.connected:
        left = piece
        while (sent := wire.send(left)) > 0:
            left = left[sent:] or piece
        wire.loop.run_once(0)
        turns += 1
        wire.device.calls.clear()
    assert others[0] >= turns - 1
    if wire.engine.connected:
        client = wire.engine._client
        assert client is not None
        assert len(client._stream._buffer) == buffer
        assert client._outbox._unsent_bytes <= outbox.MAX_UNSENT
        assert len(client._deferred) <= c.MAX_DEFERRED


def test_half_a_message_for_ever(wire: Wire) -> None:
    """Byte by byte, with descriptors in every piece: what is kept for it is bounded, and it wakes nobody."""
    data = write_message(BAR0, 0, bytes(2000))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    most = 0
    for at in range(1500):
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", 0, 1, 2))]
        wire.client.sendmsg([data[at : at + 1]], rights)
        wire.loop.run_once(0)
        most = max(most, len(os.listdir("/proc/self/fd")) - before)  # noqa: PTH208
    assert most <= 4 * p.MAX_MSG_FDS
    assert wire.rests
    wire.client.close()
    wire.turn()
    assert len(os.listdir("/proc/self/fd")) < before  # noqa: PTH208


def test_a_hundred_who_want_the_seat_of_one(wire: Wire, tmp_path: Path) -> None:
    waiting = []
    for _ in range(100):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(str(tmp_path / "s"))
        except BlockingIOError:
            pass  # the kernel's queue is full: they wait, there
        waiting.append(sock)
        wire.turn()
    assert len(wire.engine._refusals) <= 16
    assert wire.rests
    for sock in waiting:
        sock.close()
    wire.turn()
    assert wire.engine.connected, "who had the seat has it still"


def test_the_server_is_itself_after_a_flood(server: OwnServer) -> None:
    """A whole adapter, its control socket meanwhile, and a guest afterwards."""
    process = psutil.Process(server.pid)
    begin = process.memory_info()
    with ControlClient(server.control) as control, socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.socket)
        sock.setblocking(False)
        sock.send(message(p.VERSION, p.encode_version(0, 0, None)))
        flood = message(p.DEVICE_GET_INFO, p.DEVICE_INFO_BODY.encode(p.DeviceInfo(16, 0, 0, 0))) * 200
        for _ in range(50):
            try:
                while True:
                    sock.send(flood)
            except OSError:
                pass
            control.call("ping")
            memory = process.memory_info()
            assert memory.rss - memory.shared - (begin.rss - begin.shared) < 32 << 20
    with VfioUserClient.connect(server.socket, timeout=20) as client:
        client.version()
        assert client.region_read(CONFIG, 0, 4) == bytes.fromhex("ad15c007")

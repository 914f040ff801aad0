"""The socket: who may have it, what it looks like, who comes and goes."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.clock import S, VirtualClock
from hba.errors import EXIT_SOCKET, SocketError
from hba.loop import EventLoop
from hba.vfio_user import device as dev
from hba.vfio_user import protocol as p
from hba.vfio_user import refusal
from hba.vfio_user.client import Disconnected, GuestRam, ReplyError, VfioUserClient
from hba.vfio_user.server import MAX_PATH, MAX_REFUSALS
from tests.descriptors import open_fds
from tests.engines import only_native
from tests.vfio_user.support import BAR0, ENGINES, INTX, FakeDevice, message, run_beside


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    it = EventLoop()
    yield it
    it.close()


def turn(loop: EventLoop) -> None:
    for _ in range(6):
        loop.run_once(0)


def test_the_socket_is_ours_alone_whatever_the_umask(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "s"
    server = ENGINES[engine](loop, path, FakeDevice())
    old = os.umask(0)
    try:
        server.start()
    finally:
        os.umask(old)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    server.close()
    assert not path.exists()


def test_a_stale_socket_is_replaced(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    server = ENGINES[engine](loop, path, FakeDevice())
    server.start()
    with VfioUserClient.connect(path) as client:
        run_beside(loop, client.version)
    server.close()


def test_a_living_server_keeps_its_socket(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "s"
    server = ENGINES[engine](loop, path, FakeDevice())
    server.start()
    with pytest.raises(SocketError, match="taken") as caught:
        ENGINES[engine](loop, path, FakeDevice()).start()
    assert caught.value.exit_code == EXIT_SOCKET
    assert str(path) in str(caught.value)
    with VfioUserClient.connect(path) as client:
        run_beside(loop, client.version)
    server.close()


def test_a_file_in_the_way_is_left_alone(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(SocketError, match="not a socket"):
        ENGINES[engine](loop, path, FakeDevice()).start()
    assert path.read_text() == "precious"


def test_a_path_that_is_too_long(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    name = "x" * (MAX_PATH - len(str(tmp_path)) - 1)
    fits = ENGINES[engine](loop, tmp_path / name, FakeDevice())
    fits.start()
    fits.close()
    with pytest.raises(SocketError, match="at most 107"):
        ENGINES[engine](loop, tmp_path / (name + "x"), FakeDevice()).start()


def test_no_directory(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    with pytest.raises(SocketError, match="does not exist"):
        ENGINES[engine](loop, tmp_path / "no" / "s", FakeDevice()).start()
    (tmp_path / "file").touch()
    with pytest.raises(SocketError, match="cannot open the directory"):
        ENGINES[engine](loop, tmp_path / "file" / "s", FakeDevice()).start()


def test_no_permission(loop: EventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    # Root may write anywhere, so the refusal of the system is brought about by hand.
    def refuse(self: socket.socket, name: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    before = open_fds()
    with pytest.raises(SocketError, match="Permission denied"):
        ENGINES[engine](loop, tmp_path / "s", FakeDevice()).start()
    assert open_fds() == before


def test_a_second_client_is_refused_at_once(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    server = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    server.start()
    with VfioUserClient.connect(tmp_path / "s") as first:
        run_beside(loop, first.version)
        told: list[str] = []
        server.on_refused = told.append
        for _ in range(2):
            with VfioUserClient.connect(tmp_path / "s") as second, pytest.raises(ReplyError, match="busy") as caught:
                run_beside(loop, second.version)
            assert (caught.value.command, caught.value.errno) == (p.VERSION, errno.EBUSY)
        assert server.snapshot()["refused"] == 2
        (why,) = told  # once for each process
        assert why.count(f"pid {os.getpid()} (") == 2 and "end that one first" in why
        assert str(server.snapshot()["client"]).startswith(f"pid {os.getpid()} (")
        assert run_beside(loop, lambda: first.region_read(BAR0, 0, 4)) == bytes(4)
    turn(loop)
    assert server.snapshot()["client"] is None
    server.close()


def test_second_clients_that_say_nothing_are_not_waited_for(tmp_path: Path, engine: str) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    server = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    server.start()
    before = open_fds()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(MAX_REFUSALS + 3)]
    for client in clients:
        client.connect(str(tmp_path / "s"))
        turn(loop)
    assert open_fds() == before + len(clients) + 1 + MAX_REFUSALS  # the first is served, the last two are gone
    clients[1].sendall(b"nonsense")
    clients[2].sendall(bytes(1 << 17))
    clients[3].close()
    turn(loop)
    clock.advance(refusal.PATIENCE)
    turn(loop)
    assert open_fds() == before + len(clients) - 1  # nothing of the server's: the first has not said what it is, either
    for client in clients:
        client.close()
    server.close()
    loop.close()


def test_who_left_with_much_unread_leaves_the_seat(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    """The next client, which came at once, was refused."""
    server = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    server.start()
    first = VfioUserClient.connect(tmp_path / "s")
    run_beside(loop, first.version)
    for _ in range(200):
        first.region_write(BAR0, 0, bytes(4), posted=True)
    first.close()
    with VfioUserClient.connect(tmp_path / "s") as second:
        server._accept()  # before what the first one sent was looked at
        run_beside(loop, second.version)
        assert server.snapshot()["refused"] == 0
    server.close()


def test_the_client_may_leave_and_come_back(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    device = FakeDevice()
    server = ENGINES[engine](loop, tmp_path / "s", device)
    server.start()
    before = open_fds()
    for turn_number in range(3):
        with VfioUserClient.connect(tmp_path / "s") as client, GuestRam(0x2000) as ram:
            run_beside(loop, client.version)
            assert server.snapshot()["state"] == "connected"
            run_beside(loop, lambda client=client, ram=ram: client.map_ram(ram))  # type: ignore[misc]
            eventfd = os.eventfd(0)
            run_beside(loop, lambda client=client, fd=eventfd: client.set_eventfds(INTX, [fd]))  # type: ignore[misc]
            os.close(eventfd)
            old = run_beside(loop, lambda client=client: client.region_read(BAR0, 0, 1))  # type: ignore[misc]
            assert old == bytes([turn_number])  # the device's state outlives its clients
            data = bytes([turn_number + 1])
            run_beside(loop, lambda client=client, data=data: client.region_write(BAR0, 0, data))  # type: ignore[misc]
        turn(loop)
        assert device.calls[-1] == ("disconnected",)
        assert device.client is None
        assert server.snapshot()["state"] == "listening"
    assert server.snapshot()["connections"] == 3
    assert server.snapshot()["last_error"] is None
    assert open_fds() == before
    server.close()


def test_the_next_client_is_there_before_the_end_of_the_last_was_noticed(
    loop: EventLoop, tmp_path: Path, engine: str
) -> None:
    device = FakeDevice()
    server = ENGINES[engine](loop, tmp_path / "s", device)
    server.start()
    first = VfioUserClient.connect(tmp_path / "s")
    run_beside(loop, first.version)
    first.close()
    with VfioUserClient.connect(tmp_path / "s") as second:
        server._accept()
        run_beside(loop, second.version)
    assert server.snapshot()["refused"] == 0
    assert [call[0] for call in device.calls] == ["connected", "disconnected", "connected"]
    server.close()


def test_a_probe_does_not_reach_the_device(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    device = FakeDevice()
    server = ENGINES[engine](loop, tmp_path / "s", device)
    server.start()
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(tmp_path / "s"))
        turn(loop)
        assert server.snapshot()["state"] == "negotiating"
    turn(loop)
    assert device.calls == []
    server.close()


def test_close_tells_the_client_and_the_device(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    device = FakeDevice()
    server = ENGINES[engine](loop, tmp_path / "s", device)
    before = open_fds()
    server.start()
    with VfioUserClient.connect(tmp_path / "s") as client:
        run_beside(loop, client.version)
        server.close()
        assert device.calls[-1] == ("disconnected",)
        with pytest.raises(Disconnected):
            client.poll()
    turn(loop)
    assert open_fds() == before
    assert server.snapshot()["state"] == "closed"


def test_close_leaves_the_socket_of_a_successor(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    server = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    server.start()
    (tmp_path / "s").unlink()
    successor = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    successor.start()
    server.close()
    assert (tmp_path / "s").exists()
    successor.close()


def test_from_fd_with_a_listening_socket(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        server = ENGINES[engine].from_fd(loop, listener.detach(), FakeDevice())
    server.start()
    with VfioUserClient.connect(tmp_path / "s") as client:
        run_beside(loop, client.version)
    turn(loop)
    assert server.snapshot()["state"] == "listening"
    server.close()


def test_from_fd_with_a_connected_socket(loop: EventLoop, engine: str) -> None:
    ours, theirs = socket.socketpair()
    server = ENGINES[engine].from_fd(loop, ours.detach(), FakeDevice())
    server.start()
    with VfioUserClient(theirs) as client:
        run_beside(loop, client.version)
    turn(loop)
    assert server.snapshot()["state"] == "closed"
    server.close()


def test_from_fd_with_something_else(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(SocketError, match="not a socket"):
        ENGINES[engine].from_fd(loop, fd, FakeDevice())
    os.close(fd)
    with pytest.raises(SocketError, match="cannot be used"):
        ENGINES[engine].from_fd(loop, fd, FakeDevice())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram, pytest.raises(SocketError, match="stream"):
        ENGINES[engine].from_fd(loop, datagram.fileno(), FakeDevice())


def test_a_client_that_does_not_read_is_dropped(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    device = FakeDevice()
    server = ENGINES[engine](loop, tmp_path / "s", device)
    server.start()
    with VfioUserClient.connect(tmp_path / "s") as client:
        run_beside(loop, client.version)
        request = message(p.REGION_READ, p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 1 << 20))
        for _ in range(8):
            client.send_raw(request)
            turn(loop)
            if device.client is None:
                break
        assert device.calls[-1] == ("disconnected",)
        why = "does not read" if engine == "native" else "failed to reply"  # libvfio-user's own words
        assert why in str(server.snapshot()["last_error"])
    server.close()


@only_native
def test_a_slow_reader_gets_everything_in_order(loop: EventLoop, tmp_path: Path, engine: str) -> None:
    device = FakeDevice()
    device.bytes[BAR0][:] = os.urandom(1 << 20)
    memory = os.memfd_create("bar")
    os.ftruncate(memory, 4096)
    device.infos[1] = dev.RegionInfo(4096, 7, memory)
    server = ENGINES[engine](loop, tmp_path / "s", device)
    server.start()
    with VfioUserClient.connect(tmp_path / "s") as client:
        run_beside(loop, client.version)
        for number in range(3):
            body = p.REGION_ACCESS_BODY.struct.pack(0, BAR0, 1 << 20)
            client.send_raw(message(p.REGION_READ, body, message_id=number))
        body = p.REGION_INFO_BODY.encode(p.RegionInfoBody(32, 0, 1, 0, 0, 0))
        client.send_raw(message(p.DEVICE_GET_REGION_INFO, body, message_id=3))
        turn(loop)  # the replies do not fit the socket now
        os.close(memory)  # and the device may close its own descriptor meanwhile
        for number in range(4):
            received = run_beside(loop, client.receive)
            assert received is not None
            header, body, fds = received
            assert header[0] == number
            if number < 3:
                assert body[16:] == device.bytes[BAR0]
            else:
                assert os.fstat(fds[0]).st_size == 4096
                os.close(fds[0])
    server.close()


def test_running_out_of_descriptors_neither_spins_nor_ends_it(tmp_path: Path, engine: str) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    server = ENGINES[engine](loop, tmp_path / "s", FakeDevice())
    server.start()
    client = socket.socket(socket.AF_UNIX)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        highest = os.open("/dev/null", os.O_RDONLY)
        os.close(highest)
        client.connect(str(tmp_path / "s"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        loop.run_once(0)
        assert "accept" in server.counters.last_error
        assert server._listener is not None
        assert server._listener.fileno() not in loop._readers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not server.connected
    clock.advance(2 * S)
    turn(loop)
    assert server.connected
    client.close()
    server.close()
    loop.close()


def test_a_listener_that_is_closed_while_it_rests_is_left_alone(tmp_path: Path) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        loop.add_reader(listener.fileno(), lambda: None)
        loop.rest(listener, S)
    clock.advance(2 * S)
    assert not loop._readers
    loop.close()

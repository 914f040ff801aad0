"""The control socket: what a client may do wrong, and that it hurts nobody but itself."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hba.clock import MS, S, VirtualClock
from hba.control import protocol
from hba.control.client import CallRefused, ControlClient
from hba.control.method import Call, Method, NoParams, Refused
from hba.control.methods import METHODS
from hba.control.server import ControlServer
from hba.errors import ControlError, SocketError, StorageError
from hba.loop import EventLoop
from tests.control.fakes import make_parts, serving


class Amount(msgspec.Struct, forbid_unknown_fields=True):
    count: int = 0


def _refuse(call: Call, params: NoParams) -> object:
    raise Refused("not today", "try tomorrow")


def _storage(call: Call, params: NoParams) -> object:
    raise StorageError("the disk is full; make room")


def _crash(call: Call, params: NoParams) -> object:
    raise KeyError("a defect")


TEST_METHODS = (
    *METHODS,
    Method("test.refuse", _refuse, "-"),
    Method("test.storage", _storage, "-"),
    Method("test.crash", _crash, "-"),
    Method("test.long", lambda call, params: "x" * params.count, "-", Amount),
    Method("test.odd", lambda call, params: {"set": {2, 1}, "path": Path("/x")}, "-"),
)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    with serving(tmp_path / "c", TEST_METHODS):
        yield tmp_path / "c"


class Raw:
    """A client without manners."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def line(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.file.readline())
        return value

    def ask(self, data: bytes) -> dict[str, Any]:
        self.send(data + b"\n")
        return self.line()


@pytest.fixture
def raw(path: Path) -> Iterator[Raw]:
    raw = Raw(path)
    yield raw
    raw.file.close()
    raw.sock.close()


def test_greeting_and_mode(path: Path, raw: Raw) -> None:
    greeting = raw.line()
    assert greeting == {
        "hba": greeting["hba"], "protocol": 1, "schema_version": 1, "adapter": "fake0", "pid": os.getpid(),
    }  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_requests_may_be_torn_and_may_come_together(raw: Raw) -> None:
    raw.line()
    raw.send(b'{"id": 1, "meth')
    raw.send(b'od": "ping"}\n\n  \n{"id": "two", "method": "ping"}\n{"method": "ping"}\n')
    assert [raw.line()["id"] for _ in range(3)] == [1, "two", None]


@pytest.mark.parametrize(
    ("line", "request_id", "code"),
    [
        (b"nonsense", None, protocol.BAD_JSON),
        (b"\xff\xfe\x00", None, protocol.BAD_JSON),
        (b'{"id": 1', None, protocol.BAD_JSON),
        (b'{"method": "ping", "params": {"a": ' + b"[" * 100_000, None, protocol.BAD_JSON),
        (b"[1, 2]", None, protocol.BAD_REQUEST),
        (b"{}", None, protocol.BAD_REQUEST),
        (b'{"id": 5}', 5, protocol.BAD_REQUEST),
        (b'{"id": 5, "method": 6}', 5, protocol.BAD_REQUEST),
        (b'{"id": 5, "method": "ping", "params": []}', 5, protocol.BAD_REQUEST),
        (b'{"id": [1], "method": "ping"}', None, protocol.BAD_REQUEST),
        (b'{"id": 5, "method": "pong"}', 5, protocol.NO_SUCH_METHOD),
        (b'{"id": 5, "method": "ping", "params": {"x": 1}}', 5, protocol.BAD_PARAMS),
        (b'{"id": 5, "method": "lun.remove", "params": {"target": 999}}', 5, protocol.BAD_PARAMS),
        (b'{"id": 5, "method": "test.refuse"}', 5, protocol.REFUSED),
        (b'{"id": 5, "method": "test.storage"}', 5, protocol.REFUSED),
        (b'{"id": 5, "method": "test.crash"}', 5, protocol.INTERNAL),
    ],
)
def test_what_is_wrong_is_answered_and_the_connection_goes_on(
    raw: Raw, line: bytes, request_id: object, code: str
) -> None:
    raw.line()
    answer = raw.ask(line)
    assert (answer["id"], answer["error"]["code"]) == (request_id, code)
    assert answer["error"]["message"]
    assert raw.ask(b'{"id": 6, "method": "ping"}')["id"] == 6


def test_a_refusal_has_a_next_step(path: Path) -> None:
    with ControlClient(path) as client, pytest.raises(CallRefused) as caught:
        client.call("test.refuse")
    assert (caught.value.code, caught.value.message, caught.value.next_step) == (
        protocol.REFUSED,
        "not today",
        "try tomorrow",
    )
    assert str(caught.value) == "not today; try tomorrow"


def test_values_json_has_no_word_for(path: Path) -> None:
    with ControlClient(path) as client:
        assert client.call("test.odd") == {"set": [1, 2], "path": "/x"}


def test_a_line_without_end_is_refused_and_ends_the_connection(raw: Raw) -> None:
    raw.line()
    try:
        raw.send(b"x" * (protocol.MAX_LINE + 100_000))
    except OSError:
        pass  # it was hung up on in the middle
    assert "longer than" in raw.line()["error"]["message"]
    with pytest.raises((OSError, ValueError)):
        while True:
            raw.line()


def test_the_longest_line_is_still_served(raw: Raw) -> None:
    raw.line()
    request = b'{"id": 1, "method": "ping"}'
    assert raw.ask(request + b" " * (protocol.MAX_LINE - 1 - len(request)))["id"] == 1


def test_large_replies_arrive_whole(path: Path) -> None:
    with ControlClient(path) as client:
        assert len(client.call("test.long", count=5_000_000)) == 5_000_000


def test_who_asks_without_reading_is_not_served_until_it_reads(path: Path, raw: Raw) -> None:
    raw.line()
    count = 20  # 60 MB of replies, if they were all made at once
    raw.send(b"".join(b'{"id": %d, "method": "test.long", "params": {"count": 3000000}}\n' % n for n in range(count)))
    with ControlClient(path) as other:  # the others are served meanwhile
        other.call("ping")
    for number in range(count):
        assert raw.line()["id"] == number


def test_who_subscribes_without_reading_is_dropped(tmp_path: Path) -> None:
    with serving(tmp_path / "c") as parts:
        raw = Raw(tmp_path / "c")
        raw.line()
        raw.ask(b'{"id": 1, "method": "events.subscribe", "params": {"topics": ["storage"]}}')
        gone = threading.Event()

        def flood() -> None:
            parts.events.publish("storage", "x" * 100_000)
            if parts.events._listeners["storage"]:
                parts.loop.call_soon(flood)
            else:
                gone.set()

        parts.loop.call_from_thread(flood)
        assert gone.wait(20)
        raw.file.close()
        raw.sock.close()


def test_too_many_clients_are_refused_and_room_is_made_again(path: Path) -> None:
    clients = [ControlClient(path) for _ in range(protocol.MAX_CLIENTS)]
    with pytest.raises(ControlError, match="too many control clients"):
        ControlClient(path)
    clients[0].close()
    clients[1].call("ping")  # by its reply the end of the first has been seen
    ControlClient(path).close()
    for client in clients:
        client.close()


def test_a_client_may_vanish_at_any_moment(path: Path) -> None:
    for line in (b"", b'{"id"', b'{"id": 1, "method": "test.long", "params": {"count": 3000000}}\n'):
        raw = Raw(path)
        raw.send(line)
        raw.sock.shutdown(socket.SHUT_RDWR)
        raw.file.close()
        raw.sock.close()
    with ControlClient(path) as client:
        client.call("ping")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"\n", b'{"id":1,"method":"ping"}', b"{", b'"', b"[]"])))
def test_any_bytes_are_survived(path: Path, chunks: list[bytes]) -> None:
    raw = Raw(path)
    try:
        for chunk in chunks:
            raw.send(chunk)
    except OSError:
        pass
    raw.file.close()
    raw.sock.close()
    with ControlClient(path) as client:
        client.call("ping")


def test_a_living_servers_socket_is_not_taken(path: Path) -> None:
    loop = EventLoop()
    with pytest.raises(SocketError):
        ControlServer(loop, path, make_parts(loop), METHODS).start()
    loop.close()
    with ControlClient(path) as client:
        client.call("ping")


def test_a_dead_servers_socket_is_replaced_and_goes_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "c"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    with serving(path), ControlClient(path) as client:
        client.call("ping")
    assert not path.exists()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no adapter answers"):
        ControlClient(tmp_path / "none")


def test_somebody_else_there(tmp_path: Path) -> None:
    other = socket.socket(socket.AF_UNIX)
    other.bind(str(tmp_path / "o"))
    other.listen()

    def answer(line: bytes) -> None:
        peer, _ = other.accept()
        peer.sendall(line)
        peer.close()

    for line, message in (
        (b"SSH-2.0\n", "is no hba adapter"),
        (b"[1]\n", "is no hba adapter"),
        (b"", "closed the connection"),
        (b'{"protocol": 99, "adapter": "x", "pid": 1}\n', "speaks control protocol 99"),
    ):
        thread = threading.Thread(target=answer, args=(line,))
        thread.start()
        with pytest.raises(ControlError, match=message):
            ControlClient(tmp_path / "o")
        thread.join()
    other.close()


def test_the_server_goes_while_a_client_waits(tmp_path: Path) -> None:
    with serving(tmp_path / "c"):
        client = ControlClient(tmp_path / "c")
        client.call("events.subscribe")
    with client, pytest.raises(ControlError, match="closed the connection"):
        next(client.events())


def test_waiting_for_events_may_end(path: Path) -> None:
    with ControlClient(path) as client:
        client.call("events.subscribe")
        assert list(client.events(timeout=0.01)) == []
        client.call("ping")


def test_running_out_of_descriptors_neither_spins_nor_ends_it(tmp_path: Path) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    server = ControlServer(loop, tmp_path / "c", make_parts(loop), METHODS)
    server.start()
    clients = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        highest = os.open("/dev/null", os.O_RDONLY)
        os.close(highest)
        clients[0].connect(str(tmp_path / "c"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        loop.run_once(0)
        assert server._socket is not None
        assert server._socket.fileno() not in loop._readers
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    clock.advance(2 * S)
    for _ in range(3):
        loop.run_once(0)
    assert json.loads(clients[0].recv(1000))["adapter"] == "fake0"
    for client in clients:
        client.close()
    server.close()
    loop.close()


def test_one_request_a_turn_whoever_asks(tmp_path: Path) -> None:
    """Many clients that ask without a pause leave the loop to the guest: it gets a turn after every request."""
    order: list[str] = []

    def slow(call: Call, params: NoParams) -> object:
        order.append("request")
        return None

    with serving(tmp_path / "c", (Method("slow", slow, ""),)) as parts:
        clients = [ControlClient(tmp_path / "c") for _ in range(6)]
        for client in clients:
            client._socket.sendall(protocol.encode({"id": 1, "method": "slow", "params": {}}) * 20)

        def turn() -> None:
            order.append("turn")
            if order.count("request") < 6 * 20:
                parts.loop.call_soon(turn)

        parts.loop.call_from_thread(turn)
        for client in clients:
            for _ in range(20):
                client._line()
            client.close()
    text = "".join("r" if what == "request" else "t" for what in order)
    assert "rr" not in text.strip("r")


def test_after_a_costly_request_the_loop_is_the_guests(tmp_path: Path) -> None:
    clock = VirtualClock()
    loop = EventLoop(clock)
    served: list[int] = []

    def costly(call: Call, params: NoParams) -> object:
        served.append(clock.now())
        clock.advance(10 * MS)
        return None

    server = ControlServer(loop, tmp_path / "c", make_parts(loop), [Method("costly", costly, "")])
    server.start()
    peers = []
    for _ in range(2):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(tmp_path / "c"))
        peer.sendall(protocol.encode({"id": 1, "method": "costly", "params": {}}) * 2)
        peers.append(peer)
    for _ in range(20):
        loop.run_once(0)
    assert served == [0], "the next one waits, whoever asked"
    for _ in range(3):
        clock.advance(30 * MS)
        for _ in range(5):
            loop.run_once(0)
    assert served == [0, 40 * MS, 80 * MS, 120 * MS]
    server.close()
    loop.close()
    for peer in peers:
        peer.close()

"""The host's half of the agent against the guest's real one, over a socket pair instead of a virtio port."""

from __future__ import annotations

import importlib.util
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hba.errors import GuestError
from hba.lab import paths
from hba.lab.agent import PORT_NAME, Agent


def load_guest_half() -> object:
    spec = importlib.util.spec_from_file_location("guest_agent", paths.QEMU / "guest" / "agent.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GUEST = load_guest_half()


class Port(GUEST.Port):  # type: ignore[name-defined,misc]
    """The guest's port, which in the guest waits for ever when the other end is closed; here the test is over then."""

    def _more(self) -> None:
        before = self._received
        super()._more()
        if self._received == before:
            raise OSError("closed")


class Line:
    """QEMU's place: a UNIX socket the host's agent connects to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "agent.sock"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self.alive: Exception | None = None

    def accept(self) -> socket.socket:
        return self._listener.accept()[0]

    def check(self) -> None:
        if self.alive is not None:
            raise self.alive

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield line
    line.close()


@pytest.fixture
def agent(line: Line) -> Iterator[Agent]:
    agent = Agent(line.path, line.check)
    guest = line.accept()
    port = Port(guest.fileno())
    port.send({"event": "ready", "release": "6.12-test"})

    def serve() -> None:
        try:
            GUEST.Agent(port).serve()  # type: ignore[attr-defined]
        except OSError:
            pass  # the test is over

    before = set(threading.enumerate())
    server = threading.Thread(target=serve, daemon=True)
    server.start()
    agent.wait_ready(time.monotonic() + 10)
    yield agent
    # Answers still under way have to be over before their file descriptor's number means another test's socket.
    for thread in set(threading.enumerate()) - before - {server}:
        thread.join(10)
    guest.shutdown(socket.SHUT_RDWR)
    server.join(10)
    guest.close()
    agent.close()


def test_both_halves_mean_the_same_port() -> None:
    assert GUEST.PORT_NAME == PORT_NAME  # type: ignore[attr-defined]


def test_the_greeting(agent: Agent) -> None:
    assert agent.release == "6.12-test"
    agent.ping()


def test_a_command_with_input_environment_and_both_streams(agent: Agent) -> None:
    result = agent.exec(
        ["sh", "-c", 'cat; echo "$WORD"; echo bad >&2; exit 3'], stdin=b"in\n", env={"WORD": "out"}, cwd="/"
    )
    assert (result.code, result.stdout, result.stderr) == (3, b"in\nout\n", b"bad\n")


def test_output_comes_while_the_command_runs(agent: Agent) -> None:
    pieces: list[bytes] = []
    agent.exec(["sh", "-c", "echo one; echo two"], cwd="/", on_output=pieces.append)
    assert b"".join(pieces) == b"one\ntwo\n"


def test_check_turns_a_bad_exit_into_an_error(agent: Agent) -> None:
    with pytest.raises(GuestError, match="exit code 1"):
        agent.exec(["false"], cwd="/", check=True)


def test_a_program_that_is_not_there(agent: Agent) -> None:
    with pytest.raises(GuestError, match="FileNotFoundError"):
        agent.exec(["/no/such/program"], cwd="/")


def test_a_command_that_takes_too_long_is_ended(agent: Agent) -> None:
    with pytest.raises(GuestError, match="longer than"):
        agent.exec(["sh", "-c", "echo begun; exec sleep 1000"], cwd="/", timeout=0.5)
    agent.ping()  # and the line is good for more


def test_a_daemon_that_keeps_the_pipes_does_not_hold_us(agent: Agent) -> None:
    assert agent.exec(["sh", "-c", "sleep 30 & echo done"], cwd="/", timeout=20).stdout == b"done\n"


def test_files_both_ways(agent: Agent, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    path = tmp_path / "new" / "file"
    agent.put(str(path), content, 0o600)
    assert path.stat().st_mode & 0o777 == 0o600
    assert agent.get(str(path)) == content


def test_a_file_that_is_not_there(agent: Agent, tmp_path: Path) -> None:
    with pytest.raises(GuestError, match="cannot get"):
        agent.get(str(tmp_path / "nothing"))


def test_no_greeting_in_time(line: Line) -> None:
    agent = Agent(line.path, line.check)
    with pytest.raises(TimeoutError):
        agent.wait_ready(time.monotonic())
    agent.close()


def test_why_it_is_gone_is_asked(line: Line) -> None:
    agent = Agent(line.path, line.check)
    line.alive = GuestError("QEMU has ended")
    line.accept().close()
    with pytest.raises(GuestError, match="QEMU has ended"):
        agent.wait_ready(time.monotonic() + 10)
    agent.close()


@pytest.mark.parametrize("garbage", [b"\n", b"{\n", b"[1]\n", b"\xff\xfe\n", b'{"event": "hello"}\n'])
def test_garbage_instead_of_a_greeting(line: Line, garbage: bytes) -> None:
    agent = Agent(line.path, line.check)
    guest = line.accept()
    guest.sendall(garbage)
    with pytest.raises(GuestError, match=r"garbage|greets"):
        agent.wait_ready(time.monotonic() + 10)
    agent.close()
    guest.close()

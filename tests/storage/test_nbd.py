"""Against real servers: nbdkit and qemu-nbd."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from hba.errors import StorageError
from hba.loop import EventLoop
from hba.storage import libnbd
from hba.storage.granules import fit
from hba.storage.nbd import NbdBackend
from hba.storage.open import open_backend
from hba.storage.workers import WorkerPool
from tests.storage.util import Sync, operations, run_against_model

SIZE = 1 << 20


def needs(program: str, package: str) -> str:
    try:
        libnbd.load()
    except StorageError as problem:
        pytest.skip(str(problem))
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return found


class Server:
    """A server process on a UNIX socket; may be stopped and started again."""

    def __init__(self, tmp_path: Path, command: Callable[[Path], list[str]]) -> None:
        self.socket = tmp_path / "nbd.sock"
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command(self.socket), stdin=subprocess.DEVNULL)
        while True:
            assert self._process.poll() is None, "the server ended"
            probe = socket.socket(socket.AF_UNIX)
            try:
                probe.connect(str(self.socket))
                return
            except OSError:
                os.sched_yield()
            finally:
                probe.close()

    def ask_to_end(self) -> None:
        assert self._process is not None
        self._process.terminate()

    def signal(self, number: int) -> None:
        """Send a signal; returns when the process has stopped, if that is what it is told."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def wait(self) -> None:
        assert self._process is not None
        self._process.wait()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(SIZE)
    return path


@pytest.fixture
def server(tmp_path: Path, disk: Path) -> Iterator[Server]:
    nbdkit = needs("nbdkit", "nbdkit")
    server = Server(tmp_path, lambda path: [nbdkit, "-f", "-U", str(path), "file", str(disk)])
    server.start()
    yield server
    server.kill()


def until(loop: EventLoop, condition: Callable[[], bool]) -> None:
    while not condition():
        loop.run_once(None)


BLOCKS = ["--filter=blocksize-policy"]
POLICY = ["blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=1M", "blocksize-error-policy=error"]


@pytest.mark.parametrize(
    "which", ["nbdkit", "qemu-nbd", "nbdkit without FUA and zero", "nbdkit with a minimum block of 4096"]
)
def test_behaves_like_a_bytearray(which: str, tmp_path: Path, disk: Path) -> None:
    if which == "qemu-nbd":
        program = needs("qemu-nbd", "qemu-utils")
        image = tmp_path / "image.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), str(SIZE)], check=True)
        server = Server(
            tmp_path,
            lambda path: [program, "-t", "-e", "8", "-f", "qcow2", "--discard=unmap", "-k", str(path), str(image)],
        )
    else:
        program = needs("nbdkit", "nbdkit")
        filters, policy = {
            "nbdkit": ([], []),
            "nbdkit without FUA and zero": (["--filter=nozero", "--filter=fua"], []),
            "nbdkit with a minimum block of 4096": (BLOCKS, POLICY),
        }[which]
        server = Server(tmp_path, lambda path: [program, "-f", "-U", str(path), *filters, "file", str(disk), *policy])
    server.start()

    @settings(max_examples=15, deadline=None)
    @given(operations(SIZE))
    def check(todo: list[tuple[str, int, int, int]]) -> None:
        loop = EventLoop()
        backend = fit(NbdBackend(server.uri, loop), 512)
        sync = Sync(loop, backend)
        sync.zero(0, SIZE)
        run_against_model(sync, bytearray(SIZE), todo)
        backend.close()
        loop.close()

    try:
        check()
    finally:
        server.kill()


def test_many_at_once_and_large(server: Server, disk: Path, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop)
    backend._max_payload = 65536  # as a server with a small maximum would say
    data = os.urandom(SIZE)
    sync = Sync(loop, backend)
    sync.write(0, data, 4096, 70000)
    sync.flush()
    assert disk.read_bytes() == data
    buffers = [bytearray(4096) for _ in range(64)]
    outcomes: list[StorageError | None] = []
    for number, buffer in enumerate(buffers):
        assert not backend.read([memoryview(buffer)], number * 8192, outcomes.append)
    until(loop, lambda: len(outcomes) == 64)
    assert outcomes == [None] * 64
    assert all(bytes(buffer) == data[n * 8192 : n * 8192 + 4096] for n, buffer in enumerate(buffers))
    assert sync.read(0, SIZE) == data
    backend.close()


def test_block_status(server: Server, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop)
    sync = Sync(loop, backend)
    sync.write(65536, b"x" * 65536)
    sync.flush()

    def ask(offset: int, length: int) -> object:
        answers: list[object] = []
        answer = backend.allocation(offset, length, answers.append)
        if answer is not None:
            return answer
        until(loop, lambda: bool(answers))
        return answers[0]

    assert ask(0, SIZE) == (False, 65536)
    assert ask(65536, SIZE - 65536) == (True, 65536)
    assert ask(131072, 4096) == (False, 4096)
    backend.close()


def test_a_server_that_comes_back_in_time_is_not_noticed(server: Server, disk: Path, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop, hold=60)
    events: list[str] = []
    backend.on_event = events.append
    sync = Sync(loop, backend)
    sync.write(0, b"before" + bytes(506), fua=True)
    server.kill()
    outcomes: list[StorageError | None] = []
    target = bytearray(512)
    assert not backend.read([memoryview(target)], 0, outcomes.append)
    until(loop, lambda: backend.describe()["state"] == "waiting for the server")
    assert not backend.write([memoryview(b"during" + bytes(506))], 512, outcomes.append)
    server.start()
    until(loop, lambda: len(outcomes) == 2)
    assert outcomes == [None, None]
    assert target[:6] == b"before"
    assert disk.read_bytes()[512:518] == b"during"
    assert (events, backend.reconnects) == ([], 1)
    sync.flush()
    backend.close()


def test_a_server_that_stays_away_is_gone_and_may_come_back(server: Server, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop, hold=0.05)
    events: list[str] = []
    backend.on_event = events.append
    server.kill()
    outcomes: list[StorageError | None] = []
    assert not backend.read([memoryview(bytearray(512))], 0, outcomes.append)
    until(loop, lambda: bool(outcomes))
    assert outcomes[0] is not None and outcomes[0].errno == errno.ENODEV
    assert events == ["gone"]
    with pytest.raises(StorageError, match="the server has gone") as caught:
        backend.write([memoryview(bytes(512))], 0, outcomes.append)
    assert caught.value.errno == errno.ENODEV
    server.start()
    until(loop, lambda: len(events) == 2)
    assert events == ["gone", "back"]
    assert Sync(loop, backend).read(0, 512) == bytes(512)
    backend.close()


def test_a_flush_does_not_vouch_for_what_another_server_run_acknowledged(server: Server, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop, hold=60)
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 512)
    server.kill()
    server.start()
    sync.read(0, 512)
    with pytest.raises(StorageError, match="may be lost") as caught:
        sync.flush()
    assert caught.value.errno == errno.EIO
    sync.flush()
    backend.close()


def test_a_size_that_changed_meanwhile_is_told(server: Server, disk: Path, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop, hold=60)
    events: list[str] = []
    backend.on_event = events.append
    server.kill()
    os.truncate(disk, 2 * SIZE)
    server.start()
    until(loop, lambda: bool(events))
    assert (events, backend.size) == (["resized"], 2 * SIZE)
    backend.close()


def test_a_server_that_says_it_shuts_down_has_left(server: Server, loop: EventLoop) -> None:
    """nbdkit told to end answers every command with ESHUTDOWN until its client goes."""
    backend = NbdBackend(server.uri, loop, hold=30)
    sync = Sync(loop, backend)
    sync.write(0, b"x" * 4096)
    server.ask_to_end()
    data = memoryview(bytearray(4096))
    ended: list[object] = [None]
    while ended:  # nbdkit comes to its signal in its own time; until then it answers
        ended.clear()
        assert not backend.read([data], 0, ended.append)
        until(loop, lambda: bool(ended) or backend.describe()["state"] != "connected")
    assert backend.describe()["state"] != "connected"
    server.wait()
    server.start()
    until(loop, lambda: bool(ended))
    assert ended == [None]
    assert bytes(data) == b"x" * 4096
    assert backend.reconnects == 1
    backend.close()


def test_errors_of_the_server_keep_their_errno(tmp_path: Path, loop: EventLoop) -> None:
    program = needs("nbdkit", "nbdkit")
    server = Server(
        tmp_path,
        lambda path: [program, "-f", "-U", str(path), "--filter=error", "memory", "1M", "error-pwrite=ENOSPC",
                      "error-pwrite-rate=1"],
    )  # fmt: skip
    server.start()
    backend = NbdBackend(server.uri, loop)
    with pytest.raises(StorageError, match="cannot write 512 bytes at 1024") as caught:
        Sync(loop, backend).write(1024, bytes(512))
    assert caught.value.errno == errno.ENOSPC
    backend.close()
    server.kill()


def test_no_server_a_silent_one_and_a_read_only_one(tmp_path: Path, disk: Path, loop: EventLoop) -> None:
    program = needs("nbdkit", "nbdkit")
    workers = WorkerPool(loop)
    path = tmp_path / "nothing.sock"
    with pytest.raises(StorageError, match=r"cannot connect: .*check that the server runs"):
        open_backend({"kind": "nbd", "uri": f"nbd+unix:///?socket={path}"}, loop, workers)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    with pytest.raises(StorageError, match=r"did not answer within 0\.1 s"):
        NbdBackend(f"nbd+unix:///?socket={path}", loop, connect_timeout=0.1)
    listener.close()
    server = Server(tmp_path, lambda path: [program, "-r", "-f", "-U", str(path), "file", str(disk)])
    server.start()
    with pytest.raises(StorageError, match="read_only = true"):
        NbdBackend(server.uri, loop)
    backend = NbdBackend(server.uri, loop, read_only=True)
    sync = Sync(loop, backend)
    assert sync.read(0, 512) == bytes(512)
    with pytest.raises(StorageError) as caught:
        sync.write(0, bytes(512))
    assert caught.value.errno == errno.EROFS
    backend.close()
    backend.close()
    server.kill()


def test_closing_finishes_what_was_sent(server: Server, disk: Path, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop)
    outcomes: list[StorageError | None] = []
    for number in range(20):
        assert not backend.write([memoryview(b"q" * 4096)], number * 4096, outcomes.append)
    backend.close()
    assert outcomes == [None] * 20
    assert disk.read_bytes()[: 20 * 4096] == b"q" * 20 * 4096


def test_without_the_binding_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nbd", None)
    with pytest.raises(StorageError, match="apt-get install python3-libnbd"):
        libnbd.load(tmp_path)
    (tmp_path / "libnbdmod.cpython-27-x86.so").touch()
    with pytest.raises(StorageError, match="only for another Python"):
        libnbd.load(tmp_path)
    (tmp_path / f"libnbdmod{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    with pytest.raises(StorageError, match="cannot be loaded"):
        libnbd.load(tmp_path)


def test_an_export_that_comes_back_with_larger_blocks_is_not_taken(tmp_path: Path, disk: Path, loop: EventLoop) -> None:
    """What stands on it has been told what it can write; the next one that fits is taken."""
    program = needs("nbdkit", "nbdkit")
    larger = True
    plain = [program, "-f", "-U", "{}", "file", str(disk)]

    def command(path: Path) -> list[str]:
        words = [word.format(path) for word in plain]
        return [*words[:4], *BLOCKS, *words[4:], *POLICY] if larger else words

    larger = False
    server = Server(tmp_path, command)
    server.start()
    backend = NbdBackend(server.uri, loop, hold=0.0)
    news: list[str] = []
    backend.on_event = news.append
    server.kill()
    until(loop, lambda: "gone" in news)
    larger = True
    server.start()
    refused: list[StorageError] = []
    connected = backend._connected

    def watched(found: list[Any], error: StorageError | None) -> None:
        if error is not None:
            refused.append(error)
        connected(found, error)

    backend._connected = watched  # type: ignore[method-assign]
    until(loop, lambda: any("minimum block size of 4096, it had 1" in str(error) for error in refused))
    assert "back" not in news
    server.kill()
    larger = False
    server.start()
    until(loop, lambda: "back" in news)
    backend.close()
    server.kill()

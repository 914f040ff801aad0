"""`settle`: afterwards nothing that was asked for before touches its caller's memory any more."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hba.clock import S, VirtualClock
from hba.errors import StorageError
from hba.loop import EventLoop
from hba.scsi.disk.protection import ProtectedStore
from hba.scsi.disk.tags import in_memory
from hba.storage.backend import Backend
from hba.storage.descriptor import NEVER
from hba.storage.faulty import Fault, FaultyBackend
from hba.storage.file import FileBackend
from hba.storage.memory import MemoryBackend
from hba.storage.nbd import NbdBackend
from hba.storage.overlay import OverlayBackend
from hba.storage.workers import WorkerPool
from tests.storage.test_nbd import Server, needs, until

LENGTH = 4096
CONTENT = b"\x5a" * LENGTH
UNTOUCHED = bytes(LENGTH)
LONG = 30.0  # s; only a defect takes that long


class Gate:
    """Worker threads stop in `wait` until it is opened; `entered` says that one has come."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.open = threading.Event()

    def wait(self) -> None:
        self.entered.set()
        self.open.wait()

    def open_once_entered(self) -> threading.Thread:
        """From another thread: this one is about to block."""
        thread = threading.Thread(target=lambda: (self.entered.wait(), self.open.set()))
        thread.start()
        return thread


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


# -- the pool -------------------------------------------------------------------------------------------------------


def test_the_pool_waits_for_the_owners_calls_and_delivers_nothing(
    loop: EventLoop, workers: WorkerPool, gate: Gate
) -> None:
    ended: list[StorageError | None] = []
    workers.submit(gate.wait, ended.append, "mine")
    workers.submit(lambda: None, ended.append, "mine")
    opener = gate.open_once_entered()
    assert workers.settle("mine", LONG)
    opener.join()
    assert ended == []
    until(loop, lambda: len(ended) == 2)


def test_the_pool_does_not_wait_for_others(loop: EventLoop, workers: WorkerPool, gate: Gate) -> None:
    ended: list[StorageError | None] = []
    workers.submit(gate.wait, ended.append, "another")
    assert workers.settle("mine", LONG)
    assert not workers.settle("another", 0)
    gate.open.set()
    assert workers.settle("another", LONG)


# -- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(tmp_path: Path, loop: EventLoop, workers: WorkerPool, gate: Gate) -> Iterator[FileBackend]:
    """A file whose reads stop at the gate."""
    path = tmp_path / "disk"
    path.write_bytes(CONTENT * 16)
    backend = FileBackend(path, loop, workers)
    backend._read_flags = NEVER  # as for direct I/O: every read goes to a worker
    read = backend._read_blocking

    def later(*arguments: object) -> None:
        gate.wait()
        read(*arguments)  # type: ignore[arg-type]

    backend._read_blocking = later  # type: ignore[method-assign,assignment]
    yield backend
    gate.open.set()
    backend.close()


def over_a_file(backend: Backend) -> Backend:
    return backend


def over_a_fresh_overlay(backend: Backend) -> Backend:
    return OverlayBackend(backend, MemoryBackend(backend.size))


def over_protection(backend: Backend) -> Backend:
    return ProtectedStore(backend, in_memory(backend.size // 512, 512), 512, lambda callback: callback())


@pytest.mark.parametrize("over", [over_a_file, over_a_fresh_overlay, over_protection])
def test_a_read_in_a_worker_ends_first(
    loop: EventLoop, slow: FileBackend, gate: Gate, over: Callable[[Backend], Backend]
) -> None:
    backend = over(slow)
    memory, ended = memoryview(bytearray(LENGTH)), []
    assert not backend.read([memory], 0, ended.append)
    assert not backend.settle(0)
    opener = gate.open_once_entered()
    assert backend.settle(LONG)
    opener.join()
    assert memory == CONTENT  # it will not come later
    assert ended == []
    until(loop, lambda: bool(ended))
    assert backend.settle(0)


# -- NBD ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    path = tmp_path / "disk"
    path.write_bytes(CONTENT * 16)
    nbdkit = needs("nbdkit", "nbdkit")
    # One thread: with more, nbdkit 1.32 aborts when a connection goes that two of them have an answer for.
    server = Server(tmp_path, lambda socket: [nbdkit, "-f", "-t", "1", "-U", str(socket), "file", str(path)])
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize("pieces", [1, 4])
def test_nbd_waits_for_the_answer(server: Server, loop: EventLoop, pieces: int) -> None:
    backend = NbdBackend(server.uri, loop)
    memory, ended = memoryview(bytearray(LENGTH)), []
    size = LENGTH // pieces
    assert not backend.read([memory[at : at + size] for at in range(0, LENGTH, size)], 0, ended.append)
    assert backend.settle(LONG)
    assert memory == CONTENT and ended == []
    until(loop, lambda: bool(ended))
    assert ended == [None] and backend.reconnects == 0
    backend.close()


def test_nbd_gives_a_silent_server_up(server: Server, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop)
    memory, ended = memoryview(bytearray(LENGTH)), []
    server.signal(signal.SIGSTOP)
    assert not backend.read([memory], 0, ended.append)
    assert not backend.write([memoryview(CONTENT)], LENGTH, ended.append)
    assert backend.settle(0.05)
    assert ended == []
    until(loop, lambda: len(ended) == 2)
    assert all(error is not None and error.errno == errno.ETIMEDOUT for error in ended)
    server.signal(signal.SIGCONT)
    until(loop, lambda: backend.reconnects == 1)
    fresh: list[StorageError | None] = []
    again = memoryview(bytearray(LENGTH))
    if not backend.read([again], 0, fresh.append):
        until(loop, lambda: bool(fresh))
    assert again == CONTENT
    assert memory == UNTOUCHED  # the first one was not sent again
    backend.close()


def test_nbd_forgets_what_waits_for_a_server_that_left(server: Server, loop: EventLoop) -> None:
    backend = NbdBackend(server.uri, loop, hold=LONG)
    server.kill()
    memory, ended = memoryview(bytearray(LENGTH)), []
    assert not backend.read([memory], 0, ended.append)
    until(loop, lambda: backend.describe()["state"] == "waiting for the server")
    assert backend.settle(LONG)
    until(loop, lambda: bool(ended))
    assert ended[0] is not None and ended[0].errno == errno.ETIMEDOUT
    server.start()
    until(loop, lambda: backend.reconnects == 1)
    assert memory == UNTOUCHED
    backend.close()


# -- the others -----------------------------------------------------------------------------------------------------


def test_what_a_fault_holds_back_does_nothing_any_more(loop: EventLoop) -> None:
    clock = VirtualClock()
    inner = MemoryBackend(LENGTH)
    inner.write([memoryview(CONTENT)], 0, lambda error: None)
    backend = FaultyBackend(inner, clock, [Fault("read", count=1, delay=S), Fault("read", hang=True)])
    memory, ended = memoryview(bytearray(LENGTH)), []
    for _ in range(2):
        assert not backend.read([memory], 0, ended.append)
    assert backend.settle(LONG)
    clock.advance(2 * S)
    backend.release()
    assert [error.errno for error in ended if error is not None] == [errno.ECANCELED] * 2
    assert memory == UNTOUCHED

"""One device behind one UNIX socket: who may have it. `NativeEngine` speaks to its client in pure Python.

One client at a time; it may leave and another (or the same) may come. What a client sends wrongly is refused or ends
its connection, never the server.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self

import msgspec

from hba.clock import S
from hba.errors import SocketError
from hba.loop import EventLoop
from hba.peer import called, peer_pid
from hba.vfio_user.connection import Connection
from hba.vfio_user.counters import Counters
from hba.vfio_user.device import Device
from hba.vfio_user.protocol import Capabilities
from hba.vfio_user.refusal import Refusal

log = logging.getLogger(__name__)

MAX_PATH = 107  # bytes in sockaddr_un, without the NUL
LOCK_PATIENCE = 3.0  # s
# How long a DMA by message may take. Less than the 5 s QEMU itself waits for a reply.
DMA_TIMEOUT = 2 * S
MAX_REFUSALS = 16  # clients that are being told that there is one already; those beyond are hung up on at once


class Session(Protocol):
    """One client that has the socket, until either side hangs up."""

    capabilities: Capabilities | None
    """What the client announced; None before it has."""

    @property
    def gone(self) -> bool:
        """The client has hung up, whether that was noticed yet or not; what it sent before may be unread."""
        ...

    def close(self) -> None:
        """Hang up now. Not from inside the device."""
        ...


class Server(ABC):
    """The half of a `device.Engine` that all engines share: serves `device` at `path`, inside `loop`."""

    name: str  # of the engine, as in a configuration

    def __init__(self, loop: EventLoop, path: str | Path, device: Device, *, dma_timeout: int = DMA_TIMEOUT) -> None:
        self._loop = loop
        self._path: Path | None = Path(path)
        self._device = device
        self._dma_timeout = dma_timeout
        self._listener: socket.socket | None = None
        self._given: socket.socket | None = None
        self._bound: tuple[int, int] | None = None  # (device, inode) of the socket file that is ours
        self._client: Session | None = None
        self._refusals: set[Refusal] = set()
        self._told: set[int] = set()  # processes that were refused while this client is there
        self.on_refused: Callable[[str], None] | None = None  # a second client was sent away: who, and who has the seat
        self.client_pid = 0  # of the process that has the socket; 0: nobody, or the kernel does not say
        self.counters = Counters()

    @abstractmethod
    def _open(self, sock: socket.socket, left: Callable[[], None]) -> Session:
        """Serve a connected client; `left` is called once, when its socket is closed and the device knows."""
        ...

    @classmethod
    def from_fd(cls, loop: EventLoop, fd: int, device: Device, *, dma_timeout: int = DMA_TIMEOUT) -> Self:
        """One that serves a socket somebody else opened; see `take`."""
        engine = cls(loop, "", device, dma_timeout=dma_timeout)
        engine.take(fd)
        return engine

    def take(self, fd: int) -> None:
        """Serve a socket somebody else opened instead of the path: a listening one, or one that is connected to the
        client already. Before `start`.

        Takes over `fd`. Raises `SocketError` when it is no UNIX stream socket.
        """
        self._path = None
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise SocketError(f"file descriptor {fd} is not a socket; pass a UNIX stream socket")
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise SocketError(f"file descriptor {fd} cannot be used: {error.strerror}") from None
        if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
            sock.detach()
            raise SocketError(f"file descriptor {fd} is not a UNIX stream socket")
        self._given = sock

    @property
    def connected(self) -> bool:
        """A client has the socket (it may not have negotiated yet)."""
        return self._client is not None

    def start(self) -> None:
        """Listen. Raises `SocketError`: taken, too long, no directory, no permission."""
        sock = self._given
        if sock is None:
            assert self._path is not None
            sock, self._bound = listen(self._path)
        elif not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._given = None
            self._serve(sock)
            return
        self._given = None
        sock.setblocking(False)
        self._listener = sock
        self._loop.add_reader(sock.fileno(), self._accept)

    def close(self) -> None:
        """Hang up and stop listening; the socket file goes if it is still ours."""
        if self._client is not None:
            self._client.close()
        for refusal in list(self._refusals):
            refusal.close()
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            if self._path is not None and self._bound is not None:
                _remove(self._path, self._bound)
            self._listener.close()
            self._listener = None
        if self._given is not None:
            self._given.close()
            self._given = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EINTR):
                self.counters.last_error = f"accept: {error.strerror}"
                log.warning("accept: %s", error.strerror)
                self._loop.rest(self._listener, S)  # it would stay readable: try again, but do not spin
            return
        if self._client is not None and self._client.gone:
            self._client.close()  # its end is still waiting in the loop, and the next one is here already
        if self._client is not None:
            self._refuse(sock)
            return
        self._serve(sock)

    def _refuse(self, sock: socket.socket) -> None:
        self.counters.refused += 1
        pid = peer_pid(sock)
        if len(self._refusals) < MAX_REFUSALS:
            self._refusals.add(Refusal(self._loop, sock, self._refusals.discard))
        else:
            sock.close()
        if pid in self._told or len(self._told) >= MAX_REFUSALS:
            return  # one that tries again and again is told of once
        self._told.add(pid)
        why = (
            f"a second client, {called(pid)}, was refused: {called(self.client_pid)} has the socket; "
            "end that one first, or give each its own adapter"
        )
        log.warning("%s", why)
        if self.on_refused is not None:
            self.on_refused(why)

    def _serve(self, sock: socket.socket) -> None:
        self.counters.connections += 1
        self.client_pid = peer_pid(sock)
        self._client = self._open(sock, self._left)

    def _left(self) -> None:
        self._client = None
        self.client_pid = 0
        self._told.clear()

    def snapshot(self) -> dict[str, object]:
        """For `hba show`: state (closed, listening, negotiating, connected), the client's process, what it announced,
        counters."""
        client = self._client
        capabilities = client.capabilities if client is not None else None
        if client is None:
            state = "listening" if self._listener is not None else "closed"
        else:
            state = "negotiating" if capabilities is None else "connected"
        return {
            "engine": self.name,
            "library": None,
            "socket": None if self._path is None else str(self._path),
            "state": state,
            "client": called(self.client_pid) if self.client_pid else None,
            "client_capabilities": None if capabilities is None else msgspec.structs.asdict(capabilities),
            **self.counters.snapshot(),
        }


class NativeEngine(Server):
    """The engine in pure Python."""

    name = "native"

    def _open(self, sock: socket.socket, left: Callable[[], None]) -> Session:
        return Connection(self._loop, sock, self._device, self.counters, left, self._dma_timeout)


def listen(path: Path) -> tuple[socket.socket, tuple[int, int]]:
    """A listening UNIX socket at `path`, mode 0600, and the (device, inode) of its file.

    The file of a server that died is replaced; a server that lives is not. Raises `SocketError`.
    """
    name = os.fsencode(path)
    if len(name) > MAX_PATH:
        raise SocketError(
            f"socket path {path} is {len(name)} bytes long, at most {MAX_PATH} are possible; choose a shorter one"
        )
    try:
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SocketError(f"socket {path}: the directory {path.parent} does not exist; create it first") from None
    except OSError as error:
        raise SocketError(f"socket {path}: cannot open the directory {path.parent}: {error.strerror}") from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Of two servers that start at once on the same stale socket, one must not remove what the other has bound.
        _lock(directory, path)
        # The file gets its mode from the socket, so there is no moment and no umask at which others could connect.
        os.fchmod(sock.fileno(), 0o600)
        try:
            sock.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            remove_stale(path)
            sock.bind(name)
        sock.listen(4)
        status = path.stat()
        return sock, (status.st_dev, status.st_ino)
    except OSError as error:
        sock.close()
        raise SocketError(f"socket {path}: {error.strerror}; choose a path you may write to") from None
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(directory)


def _lock(directory: int, path: Path) -> None:
    """Lock the folder of a socket, which takes a moment when another server starts there. Raises `SocketError` when
    somebody holds it for longer."""
    end = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise SocketError(
                    f"socket {path}: another process holds a lock on the folder {path.parent} (`lslocks` names it); "
                    "end it, or choose a folder of your own"
                ) from None
            time.sleep(0.02)  # there is no lock with a time limit


def remove_stale(path: Path) -> None:
    """Remove the socket file of a dead server. Raises `SocketError` for anything that is not one."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise SocketError(f"socket path {path} is taken by something that is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fsencode(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
        raise SocketError(f"socket path {path} is taken: a running server listens there; stop it or choose another")


def _remove(path: Path, ours: tuple[int, int]) -> None:
    try:
        status = path.lstat()
        if (status.st_dev, status.st_ino) == ours:
            path.unlink()
    except OSError:
        pass  # gone already, or the directory is; nothing of ours is left behind

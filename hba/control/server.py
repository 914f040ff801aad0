"""The control socket, inside the adapter's event loop.

Nothing here blocks and nothing a client does reaches further than its own connection: lines are bounded, replies are
bounded, a client that does not read is first not listened to and then dropped, and one request is served in a turn of
the loop, because the guest's register reads wait in the same loop.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from hba import __version__
from hba.clock import MS, S
from hba.control import protocol
from hba.control.method import Call, Later, Method, Refused
from hba.control.parts import Parts
from hba.errors import HbaError
from hba.loop import EventLoop
from hba.vfio_user.server import listen

_CHUNK = 65536
COSTLY = MS // 2  # a request that takes as long is followed by a rest
REST = 3  # times as long


class ControlServer:
    """Listens at `path` and serves `methods` on `parts`."""

    def __init__(self, loop: EventLoop, path: Path, parts: Parts, methods: Iterable[Method]) -> None:
        self.loop = loop
        self.path = path
        self.parts = parts
        self.methods = {method.name: method for method in methods}
        self._socket: socket.socket | None = None
        self._identity = (0, 0)  # device and inode of the socket that is ours
        self._connections: set[Connection] = set()
        self._asking: deque[Connection] = deque()  # those with a request, in turn
        self._due = False
        self._resting = False

    def start(self) -> None:
        """Listen. Raises `SocketError`."""
        self._socket, self._identity = listen(self.path)
        self._socket.setblocking(False)
        self.loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Send what is waiting as far as that goes at once, then close everything and remove the socket."""
        for connection in list(self._connections):
            connection.flush()
            connection.close()
        if self._socket is None:
            return
        self.loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._socket = None
        try:
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:  # not one that somebody else has put there since
                self.path.unlink()
        except OSError:
            pass

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            peer, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self.loop.rest(self._socket, S)
            return  # else it left again before we came
        if len(self._connections) >= protocol.MAX_CLIENTS:
            _send_last(
                peer, protocol.error(None, protocol.REFUSED, "too many control clients", "close one of the others")
            )
            return
        peer.setblocking(False)
        connection = Connection(self, peer)
        self._connections.add(connection)
        connection.send(protocol.greeting(__version__, self.parts.name, os.getpid()))

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)

    # -- whose turn it is -------------------------------------------------------------------------------------

    def wanted(self, connection: Connection) -> None:
        """A client has a request. One request is served in a turn of the loop, whoever's it is, and after one that took
        long the loop is the guest's for a while: however many clients ask, most of the time is not theirs."""
        if connection not in self._asking:
            self._asking.append(connection)
        self._serve_soon()

    def _serve_soon(self) -> None:
        if self._asking and not self._due and not self._resting:
            self._due = True
            self.loop.call_soon(self._serve)

    def _serve(self) -> None:
        taken = 0
        if self._asking:
            connection = self._asking.popleft()
            begin = self.loop.clock.now()
            connection.serve()
            taken = self.loop.clock.now() - begin
        self._due = False
        if taken >= COSTLY:
            self._resting = True
            self.loop.clock.call_later(taken * REST, self._rested)
        else:
            self._serve_soon()

    def _rested(self) -> None:
        self._resting = False
        self._serve_soon()


def _send_last(peer: socket.socket, line: bytes) -> None:
    try:
        peer.setblocking(False)
        peer.send(line)
    except OSError:
        pass
    peer.close()


class Connection:
    """One client: bytes in, lines out."""

    def __init__(self, server: ControlServer, peer: socket.socket) -> None:
        self.server = server
        self._peer = peer
        self._fd = peer.fileno()
        self._input = bytearray()
        self._output = bytearray()
        self._flush_due = False
        self._closed = False
        server.loop.add_reader(self._fd, self._readable)

    # -- out --------------------------------------------------------------------------------------------------

    def event(self, topic: str, data: object) -> None:
        """A listener of the event hub."""
        self.send(protocol.encode({"event": topic, "data": data}))

    def send(self, line: bytes) -> None:
        if self._closed:
            return
        self._output += line
        if len(self._output) > protocol.MAX_BACKLOG:
            self.close()
        elif not self._flush_due:  # once per turn, however many lines there are
            self._flush_due = True
            self.server.loop.call_soon(self.flush)

    def flush(self) -> None:
        self._flush_due = False
        if self._closed:
            return
        try:
            while self._output:
                sent = self._peer.send(memoryview(self._output)[: _CHUNK * 4])
                del self._output[:sent]
        except BlockingIOError:
            self.server.loop.add_writer(self._fd, self.flush)
            return
        except OSError:
            self.close()
            return
        self.server.loop.remove_writer(self._fd)
        if self._input:
            self._look()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.server.loop.remove_reader(self._fd)
        self.server.loop.remove_writer(self._fd)
        self.server.parts.events.drop(self.event)
        self.server.forget(self)
        self._peer.close()
        self._input.clear()
        self._output.clear()

    # -- in ---------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = self._peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        self._look()

    def _look(self) -> None:
        """Whether there is a request to be served, or more to be read."""
        if self._input.find(b"\n", 0, protocol.MAX_LINE) >= 0:
            self.server.loop.remove_reader(self._fd)  # no more is read while there is a rest
            if len(self._output) <= protocol.PAUSE_BACKLOG:
                self.server.wanted(self)  # else flush() comes back here
        elif len(self._input) >= protocol.MAX_LINE:
            self._input.clear()
            self.send(
                protocol.error(None, protocol.BAD_JSON, f"a line is longer than {protocol.MAX_LINE} bytes", "send less")
            )
            self.flush()
            self.close()
        else:
            self.server.loop.add_reader(self._fd, self._readable)

    def serve(self) -> None:
        """One complete line; its turn has come."""
        if self._closed:
            return
        end = self._input.find(b"\n", 0, protocol.MAX_LINE)
        if end >= 0:
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            if line.strip():
                self.send(self._answer(line))
        if not self._closed:
            self._look()

    def _answer(self, line: bytes) -> bytes:
        request_id: object = None
        try:
            try:
                request = msgspec.json.decode(line, type=protocol.Request)
            except msgspec.ValidationError as error:
                return protocol.error(_id_of(line), protocol.BAD_REQUEST, str(error), 'send {"id", "method", "params"}')
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                return protocol.error(None, protocol.BAD_JSON, str(error), "send one JSON object per line")
            request_id = request.id
            method = self.server.methods.get(request.method)
            if method is None:
                return protocol.error(
                    request_id,
                    protocol.NO_SUCH_METHOD,
                    f"there is no method {request.method[:100]!r}",
                    'call "methods" for the list',
                )
            try:
                params = msgspec.convert(request.params, method.params, strict=True)
            except msgspec.ValidationError as error:
                return protocol.error(request_id, protocol.BAD_PARAMS, str(error), f'see {method.name} in "methods"')
        except Exception as error:
            return _failed(request_id, error)
        return self._run(request_id, lambda: method.run(Call(self.server.parts, self), params))

    def _run(self, request_id: object, work: Callable[[], object]) -> bytes:
        """The reply to a request whose method, or the rest of it, is `work`; empty when there is more to come."""
        try:
            result = work()
            if isinstance(result, Later):
                result.start(lambda finish: self.send(self._run(request_id, finish)))
                return b""
            return protocol.reply(request_id, result)
        except Refused as error:
            return protocol.error(request_id, protocol.REFUSED, str(error), error.next_step)
        except HbaError as error:
            return protocol.error(request_id, protocol.REFUSED, str(error))
        except Exception as error:
            return _failed(request_id, error)


def _failed(request_id: object, error: Exception) -> bytes:
    """The reply when we are at fault; for an `except` clause."""
    traceback.print_exc(file=sys.stderr)
    return protocol.error(
        request_id,
        protocol.INTERNAL,
        f"{type(error).__name__}: {error}",
        "this is a defect of hba; the server's standard error has the traceback",
    )


def _id_of(line: bytes) -> object:
    """The id of a request that is wrong otherwise, so that its sender can tell which one it was."""
    try:
        return msgspec.json.decode(line, type=_OnlyId).id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class _OnlyId(msgspec.Struct):
    id: int | str | None = None

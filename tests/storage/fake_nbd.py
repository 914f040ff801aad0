"""An NBD server in a thread that answers as it is told: fixed newstyle handshake, simple replies.

Source: doc/proto.md of the NetworkBlockDevice project.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS = range(8)
FUA = 1  # NBD_CMD_FLAG_FUA

HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES = 0x01, 0x04, 0x08, 0x20, 0x40
EVERYTHING = HAS_FLAGS | SEND_FLUSH | SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES

EIO, EINVAL, ENOTSUP, ESHUTDOWN = 5, 22, 95, 108  # as they are on the wire
LEAVE = -1  # instead of an error: the server closes the connection without an answer

_OPTION = struct.Struct(">8sII")
_REQUEST = struct.Struct(">IHHQQI")
_GO, _ACK, _INFO, _UNSUPPORTED = 7, 1, 3, 0x80000001

Command = tuple[int, int, int, int]  # type, flags, offset, length
Answer = Callable[[int, int, int, int], int]  # of those: 0 for success, an error of the protocol, or LEAVE


class FakeNbd:
    """Serves `size` bytes of memory. `answer` may be changed at any time; `connections` and `commands` came."""

    def __init__(self, folder: Path, size: int = 1 << 20, flags: int = EVERYTHING) -> None:
        self.uri = f"nbd+unix:///?socket={folder / 'fake.sock'}"
        self.content = bytearray(size)
        self.answer: Answer = lambda kind, flags, offset, length: 0
        self.connections = 0
        self.commands: list[Command] = []
        self._flags = flags
        self._peers: set[socket.socket] = set()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "fake.sock"))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        for open_socket in (self._listener, *self._peers):
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already
        for thread in list(self._threads):
            thread.join()
        self._listener.close()

    def leave(self) -> None:
        """Hang up on everybody; they may come back."""
        for peer in list(self._peers):
            peer.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._peers.add(peer)
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, peer.makefile("rb") as stream:
            try:
                self._handshake(peer, lambda count: self._exactly(stream.read(count), count))
                self._transmission(peer, lambda count: self._exactly(stream.read(count), count))
            except OSError:
                pass  # the client has gone
            finally:
                self._peers.discard(peer)

    @staticmethod
    def _exactly(data: bytes, count: int) -> bytes:
        if len(data) < count:
            raise ConnectionResetError
        return data

    def _handshake(self, peer: socket.socket, read: Callable[[int], bytes]) -> None:
        peer.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 0x0003))
        read(4)
        while True:
            _, option, length = _OPTION.unpack(read(_OPTION.size))
            read(length)

            def reply(kind: int, data: bytes = b"", option: int = option) -> None:
                peer.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

            if option != _GO:
                reply(_UNSUPPORTED)
                continue
            reply(_INFO, struct.pack(">HQH", 0, len(self.content), self._flags))
            reply(_ACK)
            return

    def _transmission(self, peer: socket.socket, read: Callable[[int], bytes]) -> None:
        while True:
            _, flags, kind, cookie, offset, length = _REQUEST.unpack(read(_REQUEST.size))
            data = read(length) if kind == WRITE else b""
            if kind == DISC:
                return
            self.commands.append((kind, flags, offset, length))
            error = self.answer(kind, flags, offset, length)
            if error == LEAVE:
                return
            if not error and kind == WRITE:
                self.content[offset : offset + length] = data
            if not error and kind == WRITE_ZEROES:
                self.content[offset : offset + length] = bytes(length)
            back = bytes(self.content[offset : offset + length]) if kind == READ and not error else b""
            peer.sendall(struct.pack(">IIQ", 0x67446698, error, cookie) + back)

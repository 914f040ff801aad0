"""Stands between a virtual machine monitor that cannot migrate devices, as QEMU's vfio-user client, and its server; and
moves the device to another server while the machine is paused.

It hands every message on as it is, and remembers what a client has to tell a new server: the version it has agreed on,
its memory, its interrupts.
"""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from hba.vfio_user import migrating
from hba.vfio_user import protocol as p
from hba.vfio_user.client import VfioUserClient
from hba.vfio_user.framing import Stream, close_fds, send_message

QUIET = 0.3  # s without a message: nobody waits for anything


class Mover:
    """One device's. `path`: where the monitor is to connect; `server`: where the device is."""

    def __init__(self, path: Path, server: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._server_path = server
        self._version = b""
        self._maps: dict[tuple[int, int], tuple[bytes, list[int]]] = {}
        self._irqs: dict[tuple[int, int, int], tuple[bytes, list[int]]] = {}  # by index, what to do, first vector
        self._lock = threading.Lock()
        self._ended = False
        self.messages = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended = True
        self._listener.close()
        self._thread.join(5)
        for _, fds in [*self._maps.values(), *self._irqs.values()]:
            close_fds(fds)

    # -- handing on -----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            monitor, _ = self._listener.accept()
        except OSError:
            return
        self._monitor, self._from_monitor = monitor, Stream(monitor)
        self._connect(self._server_path)
        while not self._ended:
            with self._lock:
                if not self._hand_on(0.05):
                    break
        monitor.close()
        self._server.close()

    def _connect(self, path: Path) -> None:
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.connect(str(path))
        self._from_server = Stream(self._server)

    def _hand_on(self, patience: float) -> bool:
        """What has arrived; False when one side is gone."""
        ready, _, _ = select.select([self._monitor, self._server], [], [], patience)
        self._busy = bool(ready)
        for sock in ready:
            stream = self._from_monitor if sock is self._monitor else self._from_server
            try:
                if stream.receive() == 0:
                    return False
            except OSError:
                return False
            while (header := stream.next()) is not None:
                fds, body = stream.fds, bytes(stream.body)
                if sock is self._monitor and header[3] & p.TYPE_MASK == p.TYPE_COMMAND:
                    self._remember(header[1], body, fds)
                self._send(self._server if sock is self._monitor else self._monitor, p.HEADER.pack(*header) + body, fds)
                close_fds(fds)
                self.messages += 1
        return True

    @staticmethod
    def _send(sock: socket.socket, data: bytes, fds: list[int]) -> None:
        sent = send_message(sock, [data], fds)
        while sent < len(data):
            sent += send_message(sock, [data[sent:]])

    def _remember(self, command: int, body: bytes, fds: list[int]) -> None:
        if command == p.VERSION:
            self._version = body
        elif command == p.DMA_MAP:
            request = p.DMA_MAP_BODY.decode(body)
            self._maps[request.iova, request.size] = body, [os.dup(fd) for fd in fds]
        elif command == p.DMA_UNMAP:
            gone = p.DMA_UNMAP_BODY.decode(body)
            for key in list(self._maps):
                if gone.flags & p.DMA_UNMAP_FLAG_ALL or key == (gone.iova, gone.size):
                    close_fds(self._maps.pop(key)[1])
        elif command == p.DEVICE_SET_IRQS:
            irqs = p.SET_IRQS_BODY.decode(body)
            if not irqs.count:  # the index is switched off
                for key in [key for key in self._irqs if key[0] == irqs.index]:
                    close_fds(self._irqs.pop(key)[1])
            elif irqs.flags & 4:  # eventfds
                key = irqs.index, irqs.flags, irqs.start
                close_fds(self._irqs.pop(key, (b"", []))[1])
                self._irqs[key] = body, [os.dup(fd) for fd in fds]

    # -- moving ---------------------------------------------------------------------------------------------------

    def move(self, start_other: Callable[[], Path]) -> bytes:
        """Take the device from its server to the one that `start_other` starts, while the machine is paused; the state
        that went there."""
        with self._lock:
            self._busy = True
            while self._busy:
                assert self._hand_on(QUIET)
            with VfioUserClient(self._server, 20) as old:
                state = migrating.save(old)
            client = VfioUserClient.connect(start_other(), 20)
            client.request(p.VERSION, self._version)
            for body, fds in self._maps.values():
                client.request(p.DMA_MAP, body, fds=fds)
            for body, fds in self._irqs.values():
                client.request(p.DEVICE_SET_IRQS, body, fds=fds)
            migrating.restore(client, state)
            self._server, self._from_server = client._sock, client._stream
        return state

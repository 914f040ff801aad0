"""The engine: the same socket and the same seat as the native one's, and the library behind it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from hba.loop import EventLoop
from hba.vfio_user.device import Device
from hba.vfio_user.libvfio_user.find import Found, find
from hba.vfio_user.libvfio_user.served import Served
from hba.vfio_user.libvfio_user.session import LibrarySession
from hba.vfio_user.server import DMA_TIMEOUT, Server, Session


class LibraryEngine(Server):
    """Raises `EngineMissing` when the library is not there, or none that can be used; `start` does, too. `library`: one
    that was found."""

    name = "libvfio-user"

    def __init__(
        self,
        loop: EventLoop,
        path: str | Path,
        device: Device,
        *,
        dma_timeout: int = DMA_TIMEOUT,
        library: Found | None = None,
    ) -> None:
        super().__init__(loop, path, device, dma_timeout=dma_timeout)
        self._library = library or find()
        self._served: Served | None = None  # from `start` to `close`

    def start(self) -> None:
        self._served = Served(self._library, self._device)
        try:
            super().start()
        except BaseException:
            self._served.destroy()
            raise

    def _open(self, sock: socket.socket, left: Callable[[], None]) -> Session:
        assert self._served is not None
        return LibrarySession(self._loop, sock, self._served, self._device, self.counters, left, self._dma_timeout)

    def snapshot(self) -> dict[str, object]:
        """As of all engines."""
        return {**super().snapshot(), "library": self._library.file}

    def close(self) -> None:
        super().close()
        if self._served is not None:
            self._served.destroy()
            self._served = None

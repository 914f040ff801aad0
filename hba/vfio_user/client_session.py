"""One client that has the socket, whichever engine serves it: what went wrong, and how it ends."""

from __future__ import annotations

import logging
import socket
from abc import abstractmethod
from collections.abc import Callable

from hba.loop import EventLoop
from hba.peer import has_hung_up
from hba.vfio_user.counters import Counters
from hba.vfio_user.device import Device
from hba.vfio_user.dma_messages import DmaMessages
from hba.vfio_user.protocol import Capabilities

log = logging.getLogger(__name__)


class ClientSession(DmaMessages):
    """`server.Session`, and the device's `Client` meanwhile. `left` is called once, when the socket and all descriptors
    are closed and the device knows. `dma_timeout` in ns."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        device: Device,
        counters: Counters,
        left: Callable[[], None],
        dma_timeout: int,
    ) -> None:
        super().__init__(counters)
        self._loop = loop
        self._sock = sock
        self._device = device
        self._left = left
        self._dma_timeout = dma_timeout
        self._torn_down = False
        self.capabilities: Capabilities | None = None  # what the client announced; None before the device knows of it

    @abstractmethod
    def _let_go(self) -> None:
        """Give up what is kept for the client, but for its socket."""
        ...

    def _note(self, why: str) -> None:
        self._counters.errors += 1
        self._counters.last_error = why
        log.info("%s", why)

    def fail(self, why: str | None) -> None:
        """Close the connection as soon as nobody is inside it any more. `why`: None when the client hung up."""
        if self._why is None:
            self._why = why or "the client closed the connection"
            if why is not None:
                self._note(why)
            self._loop.call_soon(self._tear_down)

    def _tear_down(self) -> None:
        if self._torn_down:
            return
        self._torn_down = True
        self._why = self._why or "the server closed the connection"
        self._loop.remove_reader(self._sock.fileno())
        self._let_go()
        self._sock.close()
        if self.capabilities is not None:
            try:
                self._device.disconnected()
            except Exception as error:
                log.error("disconnect failed", exc_info=error)
                self._note(f"internal error at disconnect: {error!r}")
        self._left()

    def close(self) -> None:
        """Hang up now. Not from inside the device."""
        self._tear_down()

    @property
    def gone(self) -> bool:
        """The client has hung up, whether that was noticed yet or not; what it sent before may be unread."""
        return self._why is not None or has_hung_up(self._sock)

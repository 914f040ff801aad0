"""The boundary between a port and its miniport, both ways. This is the plain one: it hands on and adds nothing.

Instruments are edges around this one (`hba.instruments`), put there when the port is made. The port calls the edge at
the same points with the same arguments whatever stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hba.dma import Segment
from hba.miniport.base import Miniport
from hba.miniport.config import PortConfigurationInformation
from hba.port.request import ISSUED, Request
from hba.srb import Srb


class MiniportEdge:
    """Calls the miniport."""

    def __init__(self, miniport: Miniport, stranger: Callable[[Any, str], None]) -> None:
        self.miniport = miniport
        self.stranger = stranger  # told of what the miniport passes as an SRB and is none it owns

    # -- life ---------------------------------------------------------------------------------------------------

    def attached(self) -> None:
        """The port is about to call hw_find_adapter."""

    def configured(self, info: PortConfigurationInformation) -> None:
        """The miniport has said what its adapter is."""

    def device_memory(self, first: int, length: int) -> None:
        """The miniport has got an uncached extension at this bus address."""

    # -- down ---------------------------------------------------------------------------------------------------

    def call(self, callback: int, routine: Callable[..., Any], *arguments: Any) -> Any:
        """Any callback but the three below."""
        return routine(*arguments)

    def interrupt(self, routine: Callable[[], bool]) -> bool:
        """hw_interrupt, or the one of message signalled interrupts."""
        return routine()

    # The first of these two that the model has is where the miniport gets the request: as `request.handed`, which an
    # instrument may put something of its own behind.

    def build_io(self, request: Request) -> bool:
        return self.miniport.hw_build_io(request.handed)

    def start_io(self, request: Request) -> object:
        return self.miniport.hw_start_io(request.handed)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The scatter/gather list the miniport gets (MB-11)."""
        return segments

    # -- up -----------------------------------------------------------------------------------------------------

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        """The miniport makes a notification, any but RequestComplete; it is acted on afterwards."""

    def take(self, srb: Any) -> Request | None:
        """RequestComplete: the live request behind what the miniport passed, with the SRB as the miniport left it."""
        request: Request | None = srb._port if isinstance(srb, Srb) else None
        if request is None or request.state != ISSUED:
            self.stranger(srb, "OW-02")
            return None
        return request

    def taken_back(self, request: Request) -> None:
        """The port ends a request the miniport did not complete."""

    def retired(self, requests: Sequence[Request]) -> None:
        """The port is through with them at this boundary: no DMA for them any more."""


class WrappedEdge(MiniportEdge):
    """An edge around another: hands everything on. What an instrument does not override it does not see."""

    def __init__(self, inner: MiniportEdge) -> None:
        super().__init__(inner.miniport, inner.stranger)
        self.inner = inner

    def attached(self) -> None:
        self.inner.attached()

    def configured(self, info: PortConfigurationInformation) -> None:
        self.inner.configured(info)

    def device_memory(self, first: int, length: int) -> None:
        self.inner.device_memory(first, length)

    def call(self, callback: int, routine: Callable[..., Any], *arguments: Any) -> Any:
        return self.inner.call(callback, routine, *arguments)

    def interrupt(self, routine: Callable[[], bool]) -> bool:
        return self.inner.interrupt(routine)

    def build_io(self, request: Request) -> bool:
        return self.inner.build_io(request)

    def start_io(self, request: Request) -> object:
        return self.inner.start_io(request)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        return self.inner.lend(request, segments)

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        self.inner.told(notification, arguments)

    def take(self, srb: Any) -> Request | None:
        return self.inner.take(srb)

    def taken_back(self, request: Request) -> None:
        self.inner.taken_back(request)

    def retired(self, requests: Sequence[Request]) -> None:
        self.inner.retired(requests)

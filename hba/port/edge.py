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
from hba.port.request import Request


class MiniportEdge:
    """Calls the miniport."""

    def __init__(self, miniport: Miniport) -> None:
        self.miniport = miniport

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

    def hand_over(self, request: Request) -> None:
        """The miniport is about to get the request; as `request.handed`, which may be put behind something here."""

    def build_io(self, request: Request) -> bool:
        return self.miniport.hw_build_io(request.handed)

    def start_io(self, request: Request) -> object:
        return self.miniport.hw_start_io(request.handed)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The scatter/gather list the miniport gets (MB-11)."""
        return segments

    # -- up -----------------------------------------------------------------------------------------------------

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        """The miniport makes a notification; it is acted on afterwards."""

    def judge(self, request: Request) -> None:
        """RequestComplete: the SRB as the miniport left it, before the port sets right what it must not pass on."""

    def moved(self, request: Request) -> int:
        """Bytes the chip moved for it, as far as anybody counted."""
        return 0

    def ended(self, request: Request) -> None:
        """The SRB is the port's again: completed, or taken back."""

    def retired(self, request: Request) -> None:
        """The port is through with it at this boundary: no DMA for it any more."""


class WrappedEdge(MiniportEdge):
    """An edge around another: hands everything on. What an instrument does not override it does not see."""

    def __init__(self, inner: MiniportEdge) -> None:
        super().__init__(inner.miniport)
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

    def hand_over(self, request: Request) -> None:
        self.inner.hand_over(request)

    def build_io(self, request: Request) -> bool:
        return self.inner.build_io(request)

    def start_io(self, request: Request) -> object:
        return self.inner.start_io(request)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        return self.inner.lend(request, segments)

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        self.inner.told(notification, arguments)

    def judge(self, request: Request) -> None:
        self.inner.judge(request)

    def moved(self, request: Request) -> int:
        return self.inner.moved(request)

    def ended(self, request: Request) -> None:
        self.inner.ended(request)

    def retired(self, request: Request) -> None:
        self.inner.retired(request)

"""Who watches a port: what an instrument is told at the boundaries of the port, and may put in the way there.

A port has a tuple of watchers, put together when it is made (`hba.instruments`), mostly empty. It tells all of them the
same things at the same points and never asks who they are: the port takes the same steps with and without them. What
the miniport is called with goes through `Miniport`s that stand in front of the real one, in the same manner.

What is told on every request gets the request and nothing else, so that no words are made for nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hba.dma import Segment
from hba.miniport.config import PortConfigurationInformation
from hba.native import mypyc_attr
from hba.port.request import Request


@mypyc_attr(allow_interpreted_subclasses=True)
class Watcher:
    """Watches, and does nothing. Override what is of interest."""

    # -- the adapter's life -------------------------------------------------------------------------------------

    def attached(self) -> None:
        """The port is about to call hw_find_adapter."""

    def configured(self, info: PortConfigurationInformation) -> None:
        """The miniport has said what its adapter is."""

    def device_memory(self, first: int, length: int) -> None:
        """The miniport has got an uncached extension at this bus address."""

    # -- requests, from above and back up -----------------------------------------------------------------------

    def submitted(self, requests: Sequence[Request], by: str) -> None:
        """The port has got requests; `by`: its own reason for making them, else empty."""

    def completed(self, requests: Sequence[Request]) -> None:
        """They go up now."""

    # -- between port and miniport ------------------------------------------------------------------------------

    def entered(self, callback: int) -> None:
        """A callback is about to be called: any but hw_build_io, hw_start_io and hw_interrupt."""

    def left(self, callback: int) -> None:
        """It has returned."""

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        """The scatter/gather list the miniport gets (MB-11): this one, or what stands for it."""
        return segments

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        """The miniport makes a notification, any but RequestComplete; it is acted on afterwards."""

    def returning(self, request: Request | None) -> None:
        """RequestComplete, for a request that may not be the miniport's to complete; None: for no request at all."""

    def judge(self, request: Request) -> None:
        """RequestComplete by its owner: the SRB as the miniport left it, before the port sets right what must not go
        up."""

    def taken_back(self, request: Request) -> None:
        """The port ends a request the miniport did not complete."""

    def retired(self, requests: Sequence[Request]) -> None:
        """The miniport has had these; the port is through with them at this boundary: no DMA for them any more."""

    def interrupted(self, during: int) -> None:
        """The chip raised its line while callback `during` ran."""

    # -- inside the port ----------------------------------------------------------------------------------------

    def note(self, request: Request | None, what: str, detail: object) -> None:
        """Something that does not happen on every request and is not seen at a boundary: a gate closes, a queue
        freezes."""

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> Exception | None:
        """A rule was broken. What is to be raised into the miniport for it (level strict), if anything."""
        return None

    def found(self, rule: str, message: str, request: Request | None) -> None:
        """Another watcher has made a finding of it."""

"""The verifier between Storport and its miniport: BuildIo's races, who completes what, lists that go (ST-04, ST-05,
RS-04, MB-11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.dma import Segment
from hba.instruments.verifier.edge import VerifierEdge
from hba.instruments.verifier.lists import ScatterGatherList
from hba.instruments.verifier.races import BuildIoWrites
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS
from hba.port.context import NO_CALLBACK
from hba.port.edge import MiniportEdge
from hba.port.request import ISSUED, Request
from hba.port.storport.driver import StorPort
from hba.port.storport.units import BUILT
from hba.srb import Srb


class StorPortVerifierEdge(VerifierEdge):
    def __init__(self, port: StorPort, inner: MiniportEdge) -> None:
        super().__init__(port, inner)
        self.storport = port
        self.writes = BuildIoWrites(port.miniport)

    def configured(self, info: PortConfigurationInformation) -> None:
        self.writes = BuildIoWrites(self.miniport)
        super().configured(info)

    def build_io(self, request: Request) -> bool:
        self.guard(request)
        locks, writes = self.storport.locks, self.writes
        taken = locks.taken
        due = writes.due(request.number)
        if due:
            writes.begin()
        built = self.inner.build_io(request)
        if due:
            found = writes.end(request.number)
            if found and taken == locks.taken:
                self._races(request, found)
        if built and request.state != ISSUED:
            # ST-05: whoever completes in BuildIo says FALSE.
            self.port.finding("ST-05", "hw_build_io returned TRUE for an SRB it had completed", request)
        return built

    def _races(self, request: Request, found: list[tuple[str, int]]) -> None:
        for name, first in found:
            self.port.finding(
                "ST-04",
                f"{name} is written without a lock by the BuildIo of several requests (#{first}, "
                f"#{request.number}), which may run at once",
                request,
            )

    def start_io(self, request: Request) -> object:
        return self.inner.start_io(request)  # it is under guard since BuildIo

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        if notification in (CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS):
            self.inner.told(notification, arguments)  # SCSI Port's; not ours (ST-02)
        else:
            super().told(notification, arguments)

    def take(self, srb: Any) -> Request | None:
        port = self.port
        if port.current is None and port.callback != NO_CALLBACK and isinstance(srb, Srb):
            request: Request | None = srb._port
            if request is not None and request.stage == BUILT and request.state == ISSUED:
                # RS-04: a request that was built but not started is not the miniport's to complete in a bus reset.
                port.offence("RS-04", "completed although hw_start_io was never called for it", request)
        return super().take(srb)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        return ScatterGatherList(request, self.inner.lend(request, segments), self.port)

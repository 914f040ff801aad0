"""The verifier between Storport and its miniport: BuildIo's races, who completes what, lists that go (ST-04, ST-05,
RS-04, MB-11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.dma import Segment
from hba.instruments.verifier.edge import VerifierEdge, completes
from hba.instruments.verifier.lists import ScatterGatherList
from hba.instruments.verifier.races import BuildIoWrites
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS
from hba.port.context import NO_CALLBACK
from hba.port.edge import MiniportEdge
from hba.port.request import ISSUED, Request
from hba.port.storport.driver import StorPort
from hba.port.storport.units import BUILT


class StorPortVerifierEdge(VerifierEdge):
    def __init__(self, port: StorPort, inner: MiniportEdge) -> None:
        super().__init__(port, inner)
        self.storport = port
        self.writes = BuildIoWrites(port.miniport)

    def configured(self, info: PortConfigurationInformation) -> None:
        self.writes = BuildIoWrites(self.miniport)
        super().configured(info)

    def build_io(self, request: Request) -> bool:
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

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        port = self.port
        if notification not in (CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS):  # SCSI Port's; not ours (ST-02)
            self.check_place(notification)
        request = completes(notification, arguments)
        self.remember(request)
        elsewhere = port.current is None and port.callback != NO_CALLBACK
        if request is not None and elsewhere and request.stage == BUILT and request.state == ISSUED:
            # RS-04: a request that was built but not started is not the miniport's to complete in a bus reset.
            port.offence("RS-04", "completed although hw_start_io was never called for it", request)
        self.inner.told(notification, arguments)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        return ScatterGatherList(request, self.inner.lend(request, segments), self.port)

"""The verifier between Storport and its miniport: BuildIo's races, who completes what, lists that go (ST-04, ST-05,
RS-04, MB-11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.dma import Segment
from hba.instruments.verifier.lists import ScatterGatherList
from hba.instruments.verifier.races import BuildIoWrites
from hba.instruments.verifier.watcher import VerifierWatcher
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.proxy import MiniportEdge, MiniportProxy
from hba.miniport.seen import SeenSrb
from hba.miniport.services import CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS
from hba.port.context import BUILD_IO, NO_CALLBACK, START_IO
from hba.port.request import ISSUED, Request
from hba.port.storport.driver import StorPort
from hba.port.storport.units import BUILT


class StorPortVerifierWatcher(VerifierWatcher):
    not_started = BUILT
    writes: BuildIoWrites  # as soon as the miniport has its device extension

    def configured(self, info: PortConfigurationInformation) -> None:
        super().configured(info)
        self.writes = BuildIoWrites(self.port.miniport)

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        if notification not in (CALL_DISABLE_INTERRUPTS, CALL_ENABLE_INTERRUPTS):  # SCSI Port's; not ours (ST-02)
            super().told(notification, arguments)

    def never_started(self, request: Request, callback: int) -> None:
        if callback not in (NO_CALLBACK, BUILD_IO, START_IO):
            # RS-04: a request that was built but not started is not the miniport's to complete in a bus reset.
            self.port.offence("RS-04", "completed although hw_start_io was never called for it", request)

    def lend(self, request: Request, segments: Sequence[Segment]) -> Sequence[Segment]:
        return ScatterGatherList(request, segments, self.port)


class StorPortVerifierProxy(MiniportProxy):
    """The miniport gets its SRBs under guard, in BuildIo."""

    def __init__(self, port: StorPort, inner: MiniportEdge, watcher: StorPortVerifierWatcher) -> None:
        super().__init__(inner)
        self.storport = port
        self.watcher = watcher

    def hw_build_io(self, srb: SeenSrb) -> object:
        locks, writes = self.storport.locks, self.watcher.writes
        request: Request = srb._port
        handed = self.watcher.guard(srb)
        taken = locks.taken
        due = writes.due(request.number)
        if due:
            writes.begin()
        built = self.inner.hw_build_io(handed)
        if due:
            found = writes.end(request.number)
            if found and taken == locks.taken:
                self._races(request, found)
        if built and request.state != ISSUED:
            # ST-05: whoever completes in BuildIo says FALSE.
            self.storport.finding("ST-05", "hw_build_io returned TRUE for an SRB it had completed", request)
        return built

    def _races(self, request: Request, found: list[tuple[str, int]]) -> None:
        for name, first in found:
            self.storport.finding(
                "ST-04",
                f"{name} is written without a lock by the BuildIo of several requests (#{first}, "
                f"#{request.number}), which may run at once",
                request,
            )

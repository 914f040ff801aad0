"""What the port tells about itself, for the trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hba.port.base import PortBase
from hba.port.context import CALLBACK_NAMES
from hba.port.observer import Observer, WrappedObserver
from hba.port.request import Request, describe
from hba.trace.recorder import Recorder


class TraceObserver(WrappedObserver):
    def __init__(self, port: PortBase, inner: Observer, trace: Recorder) -> None:
        super().__init__(inner)
        self._port = port
        self._add = trace.add

    def submitted(self, requests: Sequence[Request], by: str = "") -> None:
        for request in requests:
            what = describe(request.srb)
            self._add("submit", request.number, f"{by}: {what}" if by else what)
        self.inner.submitted(requests, by)

    def completed(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._add("complete", request.number, self._port.outcome(request))
        self.inner.completed(requests)

    def interrupted(self, during: int) -> None:
        self._add("interrupt", 0, CALLBACK_NAMES[during])
        self.inner.interrupted(during)

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        self._add(what, request.number if request is not None else 0, detail)
        self.inner.note(request, what, detail)

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> bool:
        raise_it = self.inner.finding(rule, message, request, where, severity, details)
        if self.inner.reports():
            self._add("finding", request.number if request is not None else 0, f"{rule} {message}")
        return raise_it

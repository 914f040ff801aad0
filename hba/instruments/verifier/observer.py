"""What the port tells about itself, to the verifier: findings become `hba.verifier.Finding`s, and each SRB gets a
history that is put into words only when a finding needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hba.port.base import PortBase
from hba.port.context import CALLBACK_NAMES, IRQL_NAMES
from hba.port.observer import Observer, WrappedObserver
from hba.port.request import Request, describe
from hba.verifier import RuleViolation, Verifier

LONGEST_HISTORY = 64  # events of one SRB


class VerifierObserver(WrappedObserver):
    def __init__(self, port: PortBase, inner: Observer, verifier: Verifier) -> None:
        super().__init__(inner)
        self._port = port
        self._verifier = verifier
        self._clock = port.clock

    def submitted(self, requests: Sequence[Request], by: str = "") -> None:
        now = self._clock.now()
        for request in requests:
            request.history = [(now, "submit", by or None)]
        self.inner.submitted(requests, by)

    def completed(self, requests: Sequence[Request]) -> None:
        now = self._clock.now()
        for request in requests:
            if request.history is not None:
                request.history.append((now, "complete", None))
        self.inner.completed(requests)

    def note(self, request: Request | None, what: str, detail: object = None) -> None:
        if request is not None:
            self._remember(request, what, detail)
        self.inner.note(request, what, detail)

    def _remember(self, request: Request, what: str, detail: object) -> None:
        history = request.history
        if history is not None and len(history) < LONGEST_HISTORY:
            history.append((self._clock.now(), what, detail))

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> bool:
        verifier, port = self._verifier, self._port
        found = verifier.report(
            rule,
            message,
            severity=severity,
            where=where,
            srb=f"#{request.number} {describe(request.srb)}" if request is not None else "",
            history=request.story() if request is not None else (),
            callback=CALLBACK_NAMES[port.callback],
            irql=IRQL_NAMES.get(port.irql, str(port.irql)),
            **details,
        )
        if found is None:
            return False
        self.inner.finding(rule, message, request, where, severity, details)
        return verifier.strict and found.severity == "violation"

    def violation(self) -> Exception:
        return RuleViolation(self._verifier.findings[-1])

    def reports(self) -> bool:
        return True

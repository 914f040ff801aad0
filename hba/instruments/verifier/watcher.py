"""The verifier at the port: findings become `hba.verifier.Finding`s, each SRB gets a history that is put into words
only when a finding needs it, and what the miniport gives back is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from hba.instruments.verifier import completion
from hba.instruments.verifier.extension import ExtensionPoison, WatchedExtension
from hba.instruments.verifier.guard import GuardedSrb, GuardPolicy
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.seen import SeenSrb
from hba.miniport.services import REQUEST_COMPLETE
from hba.miniport.windows import DmaWindows
from hba.port.base import AnyPort
from hba.port.context import CALLBACK_NAMES, IRQL_NAMES, LEGAL, MISPLACED_RULE, NO_CALLBACK
from hba.port.request import ISSUED, Request, describe
from hba.port.watcher import Watcher
from hba.srb import Srb
from hba.verifier import RuleViolation, Verifier

LONGEST_HISTORY: Final = 64  # events of one SRB
COMPLETED_FROM = [f"RequestComplete from {name}" for name in CALLBACK_NAMES]
COMPLETES_HERE = LEGAL[REQUEST_COMPLETE] | {NO_CALLBACK}


class VerifierWatcher(Watcher):
    """What both models have. One adapter's. `not_started`: the stage of a request that the miniport knows and has not
    been told to start."""

    not_started = -1  # in a model where there is none
    windows: DmaWindows  # from `attached` on
    poison: ExtensionPoison  # these two from `configured` on: before there is no request
    policy: GuardPolicy

    def __init__(self, port: AnyPort, verifier: Verifier) -> None:
        self.port = port
        self.verifier = verifier
        self.now = port.clock.now

    def _dma_finding(self, rule: str, message: str, srb: SeenSrb | None) -> None:
        self.port.offence(rule, message, srb._port if srb is not None else None)

    def _late(self, rule: str, message: str, request: Request) -> None:
        self.port.finding(rule, message, request)

    def _holder(self, address: int, length: int) -> Srb | None:
        """Whose SRB extension or sense buffer that is."""
        request = self.port.memory.holder(address, length)
        return request.srb if request is not None else None

    # -- the adapter's life -------------------------------------------------------------------------------------

    def attached(self) -> None:
        self.windows = self.port.chip.windows = DmaWindows(self._dma_finding, self._holder)

    def configured(self, info: PortConfigurationInformation) -> None:
        self.policy = GuardPolicy(
            self.port.offence_of, info.srb_extension_size != 0, info.maximum_number_of_logical_units > 8
        )
        self.poison = ExtensionPoison(self.port.offence_of, self._late, info.srb_extension_size)

    def device_memory(self, first: int, length: int) -> None:
        self.windows.add_fixed(first, length)

    # -- requests -----------------------------------------------------------------------------------------------

    def submitted(self, requests: Sequence[Request], by: str) -> None:
        now = self.now()
        for request in requests:
            request.history = [(now, "submit", by or None)]

    def completed(self, requests: Sequence[Request]) -> None:
        now = self.now()
        for request in requests:
            if request.history is not None:
                request.history.append((now, "complete", None))

    def guard(self, srb: SeenSrb) -> SeenSrb:
        """The miniport gets a request: under guard, and the chip may move its data."""
        request: Request = srb._port
        self.windows.open(request.srb)
        if request.extension is not None:
            request.srb.srb_extension = self.poison.lend(request.extension, request)
        if request.handed is request.srb:  # an extended SRB (XS-01) watches over itself
            guarded: Any = GuardedSrb(request, self.policy)
            request.handed = guarded
        return request.handed

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        callback = self.port.callback
        if callback not in LEGAL.get(notification, (callback,)) and callback <= 9:
            self._misplaced(notification, callback)

    def _misplaced(self, notification: int, callback: int) -> None:
        """The legality matrix: a notification from a callback that has no business with it is a warning."""
        if callback == NO_CALLBACK:
            return
        rule = MISPLACED_RULE[notification]
        # IN-04 names its only callbacks; the rest of the matrix is incomplete in the documents.
        self.port.offence(
            rule,
            f"notification {notification} from {CALLBACK_NAMES[callback]}",
            severity=None if rule == "IN-04" else "warning",
        )

    def returning(self, request: Request | None) -> None:
        callback = self.port.callback
        if callback not in COMPLETES_HERE and callback <= 9:
            self._misplaced(REQUEST_COMPLETE, callback)
        if request is not None:
            if (history := request.history) is not None and len(history) < LONGEST_HISTORY:
                history.append((self.now(), "notification", COMPLETED_FROM[callback]))
            if request.stage == self.not_started and request.state == ISSUED:
                self.never_started(request, callback)

    def never_started(self, request: Request, callback: int) -> None:
        """What was not handed over in whole comes back."""

    def judge(self, request: Request) -> None:
        request.moved = self.windows.transferred(request.srb)
        if not completion.ordinary(request):
            try:
                completion.judge(self.port, request)
            except RuleViolation:
                self.port.set_right(request)  # level strict: who catches it may complete the SRB once more
                raise
        self.taken_back(request)

    def taken_back(self, request: Request) -> None:
        """The SRB is the port's again: from now on every access of the miniport is looked at (OW-01)."""
        request.lent = None
        if request.extension is not None and isinstance(extension := request.srb.srb_extension, WatchedExtension):
            extension.ended()

    def retired(self, requests: Sequence[Request]) -> None:
        close, back = self.windows.close, self.poison.back
        for request in requests:
            close(request.srb)
            if request.extension is not None:
                back(request.extension, request)

    # -- inside the port ----------------------------------------------------------------------------------------

    def note(self, request: Request | None, what: str, detail: object) -> None:
        if request is not None:
            history = request.history
            if history is not None and len(history) < LONGEST_HISTORY:
                history.append((self.now(), what, detail))

    def finding(
        self,
        rule: str,
        message: str,
        request: Request | None,
        where: str,
        severity: str | None,
        details: Mapping[str, object],
    ) -> Exception | None:
        verifier, port = self.verifier, self.port
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
            return None
        for watcher in port.watchers:
            watcher.found(rule, message, request)
        return RuleViolation(found) if verifier.strict and found.severity == "violation" else None

"""The verifier between port and miniport: the miniport gets guards instead of SRBs, the chip gets DMA windows, and what
comes back is judged. The port sees none of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.instruments.verifier import completion
from hba.instruments.verifier.guard import GuardedSrb, GuardPolicy
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import REQUEST_COMPLETE
from hba.miniport.windows import DmaWindows
from hba.port.base import PortBase
from hba.port.context import CALLBACK_NAMES, LEGAL, MISPLACED_RULE, NO_CALLBACK
from hba.port.edge import MiniportEdge, WrappedEdge
from hba.port.request import Request
from hba.srb import Srb
from hba.verifier import RuleViolation

COMPLETED_FROM = [f"RequestComplete from {name}" for name in CALLBACK_NAMES]


class VerifierEdge(WrappedEdge):
    """What both models have. One adapter's."""

    def __init__(self, port: PortBase, inner: MiniportEdge) -> None:
        super().__init__(inner)
        self.port = port
        self.windows = DmaWindows(self._dma_finding)
        self.policy = GuardPolicy(port.offence_of, False, False)

    def _dma_finding(self, rule: str, message: str, srb: Srb | None) -> None:
        self.port.offence(rule, message, srb._port if srb is not None else None)

    # -- life ---------------------------------------------------------------------------------------------------

    def attached(self) -> None:
        self.windows = self.port.chip.windows = DmaWindows(self._dma_finding)
        self.inner.attached()

    def configured(self, info: PortConfigurationInformation) -> None:
        self.policy = GuardPolicy(
            self.port.offence_of, info.srb_extension_size != 0, info.maximum_number_of_logical_units > 8
        )
        self.inner.configured(info)

    def device_memory(self, first: int, length: int) -> None:
        self.windows.add_fixed(first, length)
        self.inner.device_memory(first, length)

    # -- down ---------------------------------------------------------------------------------------------------

    def start_io(self, request: Request) -> object:
        self.guard(request)
        return self.inner.start_io(request)

    def guard(self, request: Request) -> None:
        """The miniport gets the request: under guard, and the chip may move its data."""
        self.windows.open(request.srb)
        if request.handed is request.srb:  # an extended SRB (XS-01) watches over itself
            request.handed = GuardedSrb(request, self.policy)

    # -- up -----------------------------------------------------------------------------------------------------

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        self.check_place(notification)
        self.inner.told(notification, arguments)

    def check_place(self, notification: int) -> None:
        """The legality matrix: a notification from a callback that has no business with it is a warning."""
        port = self.port
        callback = port.callback
        legal = LEGAL.get(notification)
        if legal is not None and callback not in legal and callback != NO_CALLBACK and callback <= 9:
            rule = MISPLACED_RULE[notification]
            # IN-04 names its only callbacks; the rest of the matrix is incomplete in the documents.
            port.offence(
                rule,
                f"notification {notification} from {CALLBACK_NAMES[callback]}",
                severity=None if rule == "IN-04" else "warning",
            )

    def take(self, srb: Any) -> Request | None:
        port = self.port
        self.check_place(REQUEST_COMPLETE)
        request = self.inner.take(srb)
        if request is None:
            return None
        if request.history is not None:
            request.history.append((port.clock.now(), "notification", COMPLETED_FROM[port.callback]))
        request.moved = self.windows.transferred(request.srb)
        try:
            completion.completion(port, request)
        except RuleViolation:
            port.set_right(request)  # level strict: who catches it may complete the SRB once more
            raise
        self._unguard(request)
        return request

    def taken_back(self, request: Request) -> None:
        self._unguard(request)
        self.inner.taken_back(request)

    def _unguard(self, request: Request) -> None:
        """The SRB is the port's again: from now on every access of the miniport is looked at (OW-01)."""
        handed = request.handed
        if isinstance(handed, GuardedSrb):
            handed.ended()

    def retired(self, requests: Sequence[Request]) -> None:
        close = self.windows.close
        for request in requests:
            close(request.srb)
        self.inner.retired(requests)

"""The verifier between port and miniport: the miniport gets guards instead of SRBs, the chip gets DMA windows, and what
comes back is judged. The port sees none of it."""

from __future__ import annotations

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

    def hand_over(self, request: Request) -> None:
        self.windows.open(request.srb)
        if request.handed is request.srb:  # an extended SRB (XS-01) watches over itself
            request.handed = GuardedSrb(request, self.policy)
        self.inner.hand_over(request)

    # -- up -----------------------------------------------------------------------------------------------------

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        self.check_place(notification)
        self.remember(completes(notification, arguments))
        self.inner.told(notification, arguments)

    def remember(self, completed: Request | None) -> None:
        """For the history of an SRB."""
        if completed is not None and completed.history is not None:
            port = self.port
            completed.history.append((port.clock.now(), "notification", COMPLETED_FROM[port.callback]))

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

    def judge(self, request: Request) -> None:
        request.moved = self.windows.transferred(request.srb)
        completion.completion(self.port, request)
        self.inner.judge(request)

    def moved(self, request: Request) -> int:
        return self.windows.transferred(request.srb)

    def ended(self, request: Request) -> None:
        handed = request.handed
        if isinstance(handed, GuardedSrb):
            handed.ended()
        self.inner.ended(request)

    def retired(self, request: Request) -> None:
        self.windows.close(request.srb)
        self.inner.retired(request)


def completes(notification: int, arguments: tuple[Any, ...]) -> Request | None:
    """The request a notification completes, as far as that can be said without a judgement."""
    if notification == REQUEST_COMPLETE and arguments and isinstance(arguments[0], Srb):
        request: Request | None = arguments[0]._port
        return request
    return None

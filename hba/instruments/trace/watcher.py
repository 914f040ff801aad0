"""The trace at the port: every step of every request, each callback that is not about one, each notification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.miniport.services import NEXT_LU_REQUEST, NOTIFICATION_NAMES
from hba.port.base import AnyPort
from hba.port.context import CALLBACK_NAMES
from hba.port.request import Request, SrbState, in_words, state_of
from hba.port.watcher import Watcher
from hba.trace.recorder import Recorder
from hba.trace.words import Words


class TraceWatcher(Watcher):
    def __init__(self, port: AnyPort, trace: Recorder) -> None:
        self._trace = trace
        self._outcome = port.outcome

    def submitted(self, requests: Sequence[Request], by: str) -> None:
        def own(state: SrbState) -> str:
            return f"{by}: {in_words(state)}"

        trace, say = self._trace, own if by else in_words
        for request in requests:
            trace.add("submit", request.number, Words(say, state_of(request.srb)))

    def completed(self, requests: Sequence[Request]) -> None:
        trace, say = self._trace, self._outcome
        for request in requests:
            trace.add("complete", request.number, Words(say, state_of(request.srb)))

    def entered(self, callback: int) -> None:
        self._trace.add(f"{CALLBACK_NAMES[callback]}.enter", 0, None)

    def left(self, callback: int) -> None:
        self._trace.add(f"{CALLBACK_NAMES[callback]}.exit", 0, None)

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        name = NOTIFICATION_NAMES.get(notification, f"{notification:#x}")
        self._trace.add("notification", 0, [name, *arguments] if notification == NEXT_LU_REQUEST else name)

    def returning(self, request: Request | None) -> None:
        self._trace.add("notification", request.number if request is not None else 0, "RequestComplete")

    def interrupted(self, during: int) -> None:
        self._trace.add("interrupt", 0, CALLBACK_NAMES[during])

    def note(self, request: Request | None, what: str, detail: object) -> None:
        self._trace.add(what, request.number if request is not None else 0, detail)

    def found(self, rule: str, message: str, request: Request | None) -> None:
        self._trace.add("finding", request.number if request is not None else 0, f"{rule} {message}")

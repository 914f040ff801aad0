"""The trace at the port: every step of every request, each callback that is not about one, each notification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hba.miniport.services import NEXT_LU_REQUEST, NOTIFICATION_NAMES
from hba.port.base import AnyPort
from hba.port.context import CALLBACK_NAMES
from hba.port.request import Request, describe
from hba.port.watcher import Watcher
from hba.trace.recorder import Recorder


class TraceWatcher(Watcher):
    def __init__(self, port: AnyPort, trace: Recorder) -> None:
        self._port = port
        self._add = trace.add

    def submitted(self, requests: Sequence[Request], by: str) -> None:
        for request in requests:
            what = describe(request.srb)
            self._add("submit", request.number, f"{by}: {what}" if by else what)

    def completed(self, requests: Sequence[Request]) -> None:
        for request in requests:
            self._add("complete", request.number, self._port.outcome(request))

    def entered(self, callback: int) -> None:
        self._add(f"{CALLBACK_NAMES[callback]}.enter", 0, None)

    def left(self, callback: int) -> None:
        self._add(f"{CALLBACK_NAMES[callback]}.exit", 0, None)

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        name = NOTIFICATION_NAMES.get(notification, f"{notification:#x}")
        self._add("notification", 0, [name, *arguments] if notification == NEXT_LU_REQUEST else name)

    def returning(self, request: Request | None) -> None:
        self._add("notification", request.number if request is not None else 0, "RequestComplete")

    def interrupted(self, during: int) -> None:
        self._add("interrupt", 0, CALLBACK_NAMES[during])

    def note(self, request: Request | None, what: str, detail: object) -> None:
        self._add(what, request.number if request is not None else 0, detail)

    def found(self, rule: str, message: str, request: Request | None) -> None:
        self._add("finding", request.number if request is not None else 0, f"{rule} {message}")

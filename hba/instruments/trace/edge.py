"""The trace between port and miniport: each callback's entry and exit, each notification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.miniport.services import NEXT_LU_REQUEST, NOTIFICATION_NAMES
from hba.port.context import CALLBACK_NAMES
from hba.port.edge import MiniportEdge, WrappedEdge
from hba.port.request import Request
from hba.srb import Srb
from hba.trace.recorder import Recorder


class TraceEdge(WrappedEdge):
    """What both models have."""

    def __init__(self, inner: MiniportEdge, trace: Recorder) -> None:
        super().__init__(inner)
        self._add = trace.add

    def call(self, callback: int, routine: Callable[..., Any], *arguments: Any) -> Any:
        name = CALLBACK_NAMES[callback]
        self._add(f"{name}.enter", 0, None)
        try:
            return self.inner.call(callback, routine, *arguments)
        finally:
            self._add(f"{name}.exit", 0, None)

    def interrupt(self, routine: Callable[[], bool]) -> bool:
        self._add("isr.enter", 0, None)
        mine = False
        try:
            mine = self.inner.interrupt(routine)
        finally:
            self._add("isr.exit", 0, bool(mine))
        return mine

    def build_io(self, request: Request) -> bool:
        self._add("build_io.enter", request.number, None)
        wanted = False
        try:
            wanted = self.inner.build_io(request)
        finally:
            self._add("build_io.exit", request.number, bool(wanted))
        return wanted

    def start_io(self, request: Request) -> object:
        self._add("start_io.enter", request.number, None)
        started: object = False
        try:
            started = self.inner.start_io(request)
        finally:
            self._add("start_io.exit", request.number, bool(started))
        return started

    def told(self, notification: int, arguments: tuple[Any, ...]) -> None:
        name = NOTIFICATION_NAMES.get(notification, f"{notification:#x}")
        self._add("notification", 0, [name, *arguments] if notification == NEXT_LU_REQUEST else name)
        self.inner.told(notification, arguments)

    def take(self, srb: Any) -> Request | None:
        request: Request | None = srb._port if isinstance(srb, Srb) else None
        self._add("notification", request.number if request is not None else 0, "RequestComplete")
        return self.inner.take(srb)

"""The trace between port and miniport: entry and exit of what is called for every request and interrupt."""

from __future__ import annotations

from collections.abc import Callable

from hba.miniport.base import Miniport
from hba.miniport.proxy import MiniportProxy
from hba.port.request import Request
from hba.port.storport.driver import StorPort
from hba.srb import Srb
from hba.trace.recorder import Recorder


class TraceProxy(MiniportProxy):
    """What both models have."""

    def __init__(self, inner: Miniport, trace: Recorder) -> None:
        super().__init__(inner)
        self._add = trace.add

    def hw_start_io(self, srb: Srb) -> bool:
        return self._around("start_io", srb._port.number, lambda: self.inner.hw_start_io(srb))

    def hw_interrupt(self) -> bool:
        return self._around("isr", 0, self.inner.hw_interrupt)

    def hw_msi_interrupt(self, message_id: int) -> bool:
        return self._around("isr", 0, lambda: self.inner.hw_msi_interrupt(message_id))

    def _around(self, what: str, number: int, routine: Callable[[], bool]) -> bool:
        self._add(f"{what}.enter", number, None)
        returned = False
        try:
            returned = routine()
        finally:
            self._add(f"{what}.exit", number, bool(returned))
        return returned


class ScsiPortTraceProxy(TraceProxy):
    def hw_start_io(self, srb: Srb) -> bool:
        self._add("driver_start_io.enter", srb._port.number, None)  # SP-04: its turn has come
        return super().hw_start_io(srb)


class StorPortTraceProxy(TraceProxy):
    def __init__(self, port: StorPort, inner: Miniport, trace: Recorder) -> None:
        super().__init__(inner, trace)
        self._port = port

    def hw_build_io(self, srb: Srb) -> bool:
        request: Request = srb._port
        if request.srb.mdl is not None:
            kind = "read/write" if self._port.mapper.is_read_write(request) else "other"  # MB-08
            self._add("map", request.number, f"{kind}: {type(request.srb.data_buffer).__name__}")
        return self._around("build_io", request.number, lambda: self.inner.hw_build_io(srb))

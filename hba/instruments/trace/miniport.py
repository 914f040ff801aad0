"""The trace between port and miniport: entry and exit of what is called for every request and interrupt."""

from __future__ import annotations

from hba.miniport.proxy import MiniportEdge, MiniportProxy
from hba.miniport.seen import SeenSrb
from hba.native import mypyc_attr
from hba.port.request import Request
from hba.port.storport.driver import StorPort
from hba.trace.recorder import Recorder


@mypyc_attr(allow_interpreted_subclasses=True)
class TraceProxy(MiniportProxy):
    """What both models have."""

    def __init__(self, inner: MiniportEdge, trace: Recorder) -> None:
        super().__init__(inner)
        self.trace = trace

    def hw_start_io(self, srb: SeenSrb) -> object:
        request: Request = srb._port
        self.trace.add("start_io.enter", request.number, None)
        returned: object = False
        try:
            returned = self.inner.hw_start_io(srb)
        finally:
            self.trace.add("start_io.exit", request.number, bool(returned))
        return returned

    def hw_interrupt(self) -> object:
        self.trace.add("isr.enter", 0, None)
        returned: object = False
        try:
            returned = self.inner.hw_interrupt()
        finally:
            self.trace.add("isr.exit", 0, bool(returned))
        return returned

    def hw_msi_interrupt(self, message_id: int) -> object:
        self.trace.add("isr.enter", 0, {"message": message_id})
        returned: object = False
        try:
            returned = self.inner.hw_msi_interrupt(message_id)
        finally:
            self.trace.add("isr.exit", 0, bool(returned))
        return returned


class ScsiPortTraceProxy(TraceProxy):
    def hw_start_io(self, srb: SeenSrb) -> object:
        request: Request = srb._port
        self.trace.add("driver_start_io.enter", request.number, None)  # SP-04: its turn has come
        return super().hw_start_io(srb)


class StorPortTraceProxy(TraceProxy):
    def __init__(self, port: StorPort, inner: MiniportEdge, trace: Recorder) -> None:
        super().__init__(inner, trace)
        self.port = port

    def hw_build_io(self, srb: SeenSrb) -> object:
        request: Request = srb._port
        trace = self.trace
        if request.srb.mdl is not None:
            kind = "read/write" if self.port.mapper.is_read_write(request) else "other"  # MB-08
            trace.add("map", request.number, f"{kind}: {type(request.srb.data_buffer).__name__}")
        trace.add("build_io.enter", request.number, None)
        returned: object = False
        try:
            returned = self.inner.hw_build_io(srb)
        finally:
            trace.add("build_io.exit", request.number, bool(returned))
        return returned

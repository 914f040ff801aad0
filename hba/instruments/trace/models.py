"""The trace between port and miniport: what only one of the models has."""

from __future__ import annotations

from hba.instruments.trace.edge import TraceEdge
from hba.port.edge import MiniportEdge
from hba.port.request import Request
from hba.port.storport.driver import StorPort
from hba.trace.recorder import Recorder


class ScsiPortTraceEdge(TraceEdge):
    def start_io(self, request: Request) -> object:
        self._add("driver_start_io.enter", request.number, None)  # SP-04: its turn has come
        return super().start_io(request)


class StorPortTraceEdge(TraceEdge):
    def __init__(self, port: StorPort, inner: MiniportEdge, trace: Recorder) -> None:
        super().__init__(inner, trace)
        self._port = port

    def build_io(self, request: Request) -> bool:
        srb = request.srb
        if srb.mdl is not None:
            kind = "read/write" if self._port.mapper.is_read_write(request) else "other"  # MB-08
            self._add("map", request.number, f"{kind}: {type(srb.data_buffer).__name__}")
        return super().build_io(request)

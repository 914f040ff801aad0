"""What a port model costs by itself: 4 KiB reads through it with a miniport that completes at once.

The time of a whole command is measured elsewhere; this is the layer alone, submit to completion, on the CPU's clock.
"""

from __future__ import annotations

import time
from typing import Any

from hba.clock import MonotonicClock
from hba.dma import DmaBuffer, DmaSpace, Segment
from hba.loop import EventLoop
from hba.miniport.base import SP_RETURN_FOUND, Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import NEXT_LU_REQUEST, REQUEST_COMPLETE
from hba.port.make import make_port
from hba.scsi.bus import ScsiBus
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_QUEUE_ACTION_ENABLE, SRB_STATUS_SUCCESS, Srb
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

READ_10 = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 8, 0))
COMMANDS = 20_000


class InstantMiniport(Miniport):
    """Completes in hw_start_io without touching data: what is left is the port."""

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        config.tagged_queuing = True
        config.multiple_request_per_lu = True
        config.auto_request_sense = True
        config.maximum_transfer_length = 1 << 20
        config.number_of_physical_breaks = 256
        config.synchronization_model = 1
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        self._notification = self.port.notification
        self._pull = self.port.model == "scsiport"
        return True

    def hw_start_io(self, srb: Srb) -> bool:
        notification = self._notification
        if self._pull:
            notification(NEXT_LU_REQUEST, srb.path_id, srb.target_id, srb.lun)
        srb.srb_status = SRB_STATUS_SUCCESS
        notification(REQUEST_COMPLETE, srb)
        return True

    def hw_interrupt(self) -> bool:
        return False

    def hw_reset_bus(self, path_id: int) -> bool:
        self.port.complete_request(path_id, 0xFF, 0xFF, 0x0E)
        return True


class NoMemory(DmaSpace):
    """A guest without memory: the instant miniport moves nothing."""

    def buffer(self, segments: Any, write: bool) -> DmaBuffer:
        return DmaBuffer([], [], 0)


def port_cost(model: str, verifier: str = "off", traced: bool = False, commands: int = COMMANDS) -> float:
    """CPU microseconds per read through one port model. `verifier` is a verifier level."""
    loop = EventLoop(MonotonicClock())
    try:
        watch = Verifier(loop.clock, verifier) if verifier != "off" else None
        trace = Recorder(loop.clock) if traced else None
        port = make_port(model, loop, InstantMiniport(), Chip(ScsiBus(), NoMemory()), None, watch, trace)
        port.start()
        segments: list[Segment] = [(0x1000, 4096)]
        data = DmaBuffer(segments, [memoryview(bytearray(4096))], 4096)
        flags = SRB_FLAGS_DATA_IN | SRB_FLAGS_QUEUE_ACTION_ENABLE
        done: list[Srb] = []

        def completion(srb: Srb) -> None:
            done.append(srb)

        best = float("inf")
        for _ in range(5):
            done.clear()
            begin = time.process_time_ns()
            for block in range(commands // 5):
                srb = Srb(0, 0, 0, 0, completion)
                srb.srb_flags = flags
                srb.cdb = READ_10
                srb.cdb_length = 10
                srb.mdl = data
                srb.data_transfer_length = 4096
                srb.queue_sort_key = block
                port.submit(srb)
            taken = time.process_time_ns() - begin
            if len(done) != commands // 5:
                raise RuntimeError(f"{model}: {len(done)} of {commands // 5} commands completed")
            best = min(best, taken / (commands // 5) / 1000)
        port.stop()
        return best
    finally:
        loop.close()


def submit_cost(commands: int = COMMANDS) -> float:
    """CPU microseconds of making the SRB alone, to subtract from `port_cost`."""
    data = DmaBuffer([(0x1000, 4096)], [memoryview(bytearray(4096))], 4096)
    begin = time.process_time_ns()
    for block in range(commands):
        srb = Srb(0, 0, 0, 0, None)
        srb.srb_flags = SRB_FLAGS_DATA_IN
        srb.cdb = READ_10
        srb.cdb_length = 10
        srb.mdl = data
        srb.data_transfer_length = 4096
        srb.queue_sort_key = block
    return (time.process_time_ns() - begin) / commands / 1000


def report() -> dict[str, dict[str, float]]:
    """For both models: microseconds per command with the verifier off and on, and with the trace."""
    base = submit_cost()
    return {
        model: {
            "off": port_cost(model) - base,
            "report": port_cost(model, "report") - base,
            "trace": port_cost(model, traced=True) - base,
        }
        for model in ("scsiport", "storport")
    }


if __name__ == "__main__":
    for model, costs in report().items():
        print(model, ", ".join(f"{name} {cost:.2f} us" for name, cost in costs.items()))

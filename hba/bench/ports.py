"""What the port layer and the verifier cost: CPU time of whole commands through an adapter in this process.

A guest's driver without a guest (`InnerDriver`) puts requests where the adapter looks for them; adapter, port, the DMA
miniport and a disk on a file in the page cache do the rest. Only the wire is missing. The same commands go through

    without the port    requests go to the miniport as they come, nothing is queued, counted or checked
    off                 a port model as it is configured by default
    report              the port and the adapter with the verifier, level report
    trace               the port with its trace

in turns, in many short rounds. A ratio is the median over the rounds of that of two neighbours: what makes the machine
slower for a while makes both slower.
"""

from __future__ import annotations

import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, cast

from hba.adapters.make import make_adapter
from hba.adapters.types import AdapterType, Registry, Wiring
from hba.clock import MonotonicClock
from hba.dma import Segment
from hba.errors import HbaError
from hba.instruments.make import MODELS, make_port
from hba.loop import EventLoop
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.dma import DmaMiniport
from hba.miniport.services import REQUEST_COMPLETE
from hba.pci.memory import GuestMemory
from hba.port.driver import PortDriver
from hba.scsi.build import build_unit
from hba.scsi.bus import ScsiBus
from hba.scsi.config import LunConfig
from hba.srb import Srb
from hba.storage.config import FileStorage
from hba.storage.open import open_backend
from hba.storage.workers import WorkerPool
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

DISK = 32 << 20  # bytes
BLOCK = 512
LENGTH = 4096  # bytes of one read
DEPTHS = (1, 32)  # commands per kick
ROUNDS = 60
COMMANDS = 1024  # per round
KINDS = ("without", "off", "report", "trace")
PORT_SHARE = 1 / 3  # at most, with the verifier off
REPORT_RATIO = 2.0  # at most, report to off

RAM = 2 << 20
COMMAND_REGISTER, MEMORY_AND_BUS_MASTER = 0x04, 0x06
CONFIG_SPACE = 7  # region


class NoPort(PortDriver):
    """In the port's place: hands every request to the miniport at once and completes it as soon as that does."""

    model = "storport"

    def __init__(self, miniport: DmaMiniport, chip: Chip) -> None:
        self.miniport = miniport
        self.chip = chip
        self.ended: list[Srb] = []

    def start(self) -> None:
        self.miniport.port = cast(Any, self)
        self.chip.on_interrupt = self._interrupt
        self.miniport.hw_find_adapter(PortConfigurationInformation())
        self.miniport.hw_initialize()

    def submit(self, srb: Srb) -> None:
        miniport = self.miniport
        if miniport.hw_build_io(srb):
            miniport.hw_start_io(srb)
        self._complete()

    def notification(self, kind: int, srb: Srb) -> None:
        if kind == REQUEST_COMPLETE:
            self.ended.append(srb)

    def _interrupt(self) -> None:
        self.miniport.hw_interrupt()
        self._complete()

    def _complete(self) -> None:
        if self.ended:
            ended, self.ended = self.ended, []
            if self._one is not None:
                self._many(ended)
                return
            for srb in ended:  # the adapter takes them one by one
                if srb.completion is not None:
                    srb.completion(srb)

    def get_scatter_gather_list(self, srb: Srb) -> Sequence[Segment] | None:
        return None if srb.mdl is None else srb.mdl.segments

    def submit_all(self, srbs: Iterable[Srb]) -> None:
        miniport = self.miniport
        self.chip.plug()
        try:
            for srb in srbs:
                if miniport.hw_build_io(srb):
                    miniport.hw_start_io(srb)
        finally:
            self.chip.unplug()

    def reset_adapter(self) -> None:
        self.chip.reset_bus()

    def stop(self) -> None:
        self.chip.on_interrupt = None

    def snapshot(self) -> dict[str, object]:
        return {}


class Stack:
    """An adapter of a type with a disk on `disk`, and the guest's driver in front of it. `kind` is one of KINDS."""

    def __init__(self, adapter: AdapterType[Any], model: str, kind: str, disk: Path) -> None:
        loop = self.loop = EventLoop(MonotonicClock())
        self.verifier = Verifier(loop.clock, rules=Registry(adapter).rules) if kind == "report" else None
        self.workers = WorkerPool(loop)
        self.bus = ScsiBus()
        storage = FileStorage(path=str(disk), read_only=True)  # several stacks share it
        store = open_backend(storage, loop, self.workers, disk.parent)
        self.bus.attach(0, 0, build_unit(LunConfig(storage=storage), store, loop.clock))
        memory = GuestMemory()
        chip = Chip(self.bus, memory)
        miniport = DmaMiniport()
        miniport.options = {}
        miniport.chip = chip
        port: PortDriver
        if kind == "without":
            port = NoPort(miniport, chip)
        else:
            trace = Recorder(loop.clock) if kind == "trace" else None
            port = make_port(model, loop, miniport, chip, None, self.verifier, trace)
        self.adapter = make_adapter(adapter, Wiring(loop, port, self.bus, memory), adapter.options(), self.verifier)
        self.adapter.start()
        self.ram = self._map(memory)
        self.driver = adapter.inner_driver(self.adapter)
        self.driver.set_up(self.ram, _reads(), LENGTH)
        # The first command reports a unit attention; what is measured are reads that end well.
        self.run(self.driver.slots, 1)
        self.run(self.driver.slots, 1)
        self.driver.check()

    def _map(self, memory: GuestMemory) -> memoryview:
        fd = os.memfd_create("hba-bench")
        os.ftruncate(fd, RAM)
        memory.map(0, RAM, 3, fd, 0)  # closes fd
        self.adapter.function.region_write(CONFIG_SPACE, COMMAND_REGISTER, struct.pack("<H", MEMORY_AND_BUS_MASTER))
        view = memory.view(0, RAM, True)
        if view is None:
            raise HbaError("the benchmark's memory is not mapped")
        return view

    def run(self, commands: int, depth: int) -> float:
        """CPU microseconds per command, `depth` of them with every kick."""
        begin = time.process_time_ns()
        self.driver.run(commands, depth, self.loop.run_once)
        return (time.process_time_ns() - begin) / commands / 1000

    def close(self) -> None:
        self.driver.close()
        self.ram.release()
        self.adapter.stop()
        self.adapter.function.memory.unmap_all()
        self.bus.close()
        self.workers.shutdown()
        self.loop.close()


def _reads() -> Iterator[bytes]:
    """READ(10) of places by chance; the same ones every time."""
    places = random.Random(1)
    while True:
        block = places.randrange(DISK // LENGTH) * (LENGTH // BLOCK)
        yield struct.pack(">BBIBHB", 0x28, 0, block, 0, LENGTH // BLOCK, 0)


def measure(
    adapter: AdapterType[Any],
    models: Sequence[str] = MODELS,
    depths: Sequence[int] = DEPTHS,
    rounds: int = ROUNDS,
    commands: int = COMMANDS,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """For each model and depth: microseconds per command of each kind, and the ratios made of them.

    `port_share`: of the port layer in a command with the verifier off. `report_ratio`: verifier report to off.
    Raises `HbaError` when the commands do not do what they should.
    """
    with tempfile.TemporaryDirectory(prefix="hba-bench-") as folder:
        disk = Path(folder) / "disk.img"
        disk.write_bytes(os.urandom(DISK))
        return [_case(adapter, model, depth, disk, rounds, commands, progress) for model in models for depth in depths]


def _case(
    adapter: AdapterType[Any],
    model: str,
    depth: int,
    disk: Path,
    rounds: int,
    commands: int,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    stacks = {kind: Stack(adapter, model, kind, disk) for kind in KINDS}
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    try:
        for number in range(rounds):
            progress(f"{model}, {depth} commands per kick: round {number + 1} of {rounds}")
            for kind, stack in stacks.items():
                costs[kind].append(stack.run(commands, depth))
        watched = stacks["report"].verifier
        if watched is not None and watched.findings:
            raise HbaError(f"the benchmark's own commands break a rule: {watched.findings[0].message}")
    finally:
        for stack in stacks.values():
            stack.close()
    return {
        "model": model,
        "depth": depth,
        "cpu_us": {kind: round(median(cost), 3) for kind, cost in costs.items()},
        "port_share": round(1 - _ratio(costs["without"], costs["off"]), 4),
        "report_ratio": round(_ratio(costs["report"], costs["off"]), 4),
        "trace_ratio": round(_ratio(costs["trace"], costs["off"]), 4),
    }


def _ratio(costs: list[float], other: list[float]) -> float:
    return median(a / b for a, b in zip(costs, other, strict=True))

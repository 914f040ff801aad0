"""A miniport under either port model, with a bus whose answers the test chooses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.clock import VirtualClock
from hba.dma import DmaBuffer
from hba.instruments.make import make_port
from hba.loop import EventLoop
from hba.miniport.chip import Chip
from hba.miniport.load import load_miniport
from hba.port.scsiport.config import ScsiPortConfig
from hba.port.storport.config import StorPortConfig
from hba.scsi.bus import ScsiBus
from hba.scsi.task import DATA_IN, RESPONSE_ABORTED, RESPONSE_RESET, Task
from hba.srb import SRB_FLAGS_DATA_IN, SRB_FLAGS_DATA_OUT, SRB_FLAGS_QUEUE_ACTION_ENABLE, Srb
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

MODELS = ("scsiport", "storport")


class AnsweringBus(ScsiBus):
    """Every command ends as `answer` says; with `hold` it waits until the test lets it go."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = False
        self.held: list[Task] = []
        self.seen: list[tuple[int, int, Task]] = []
        self.answer: Callable[[Task], None] = self.move_everything

    @staticmethod
    def move_everything(task: Task) -> None:
        if task.data is not None:
            task.transferred = task.data.length
            if task.direction == DATA_IN:
                for view in task.data.views:
                    view[:] = bytes(len(view)).replace(b"\0", b"\x5a")

    def execute(self, target: int, lun: int, tasks: list[Task]) -> list[Task]:
        self.seen += [(target, lun, task) for task in tasks]
        if self.hold:
            self.held += tasks
            return []
        for task in tasks:
            self.answer(task)
        return tasks

    def release(self, task: Task, response: int = 0) -> None:
        self.held.remove(task)
        if response:
            task.response = response
        else:
            self.answer(task)
        assert task.done is not None
        task.done(task)

    def abort(self, task: Task) -> bool:
        if task not in self.held:
            return False
        self.release(task, RESPONSE_ABORTED)
        return True

    def reset_unit(self, target: int, lun: int) -> bool:
        mine = [task for at, unit, task in self.seen if (at, unit) == (target, lun) and task in self.held]
        for task in mine:
            self.release(task, RESPONSE_RESET)
        return target < 8

    def reset_target(self, target: int) -> bool:
        for task in [task for at, _, task in self.seen if at == target and task in self.held]:
            self.release(task, RESPONSE_RESET)
        return target < 8

    def reset_bus(self) -> None:
        for task in list(self.held):
            self.release(task, RESPONSE_RESET)


class Memory:
    """Guest memory for lists that are not the port's own: one buffer from bus address 0."""

    def __init__(self) -> None:
        self.bytes = bytearray(1 << 20)
        self.translated = 0

    def buffer(self, segments: Any, write: bool) -> DmaBuffer:
        self.translated += 1
        view = memoryview(self.bytes)
        views = [view[address : address + length] for address, length in segments]
        return DmaBuffer(segments, views, sum(length for _, length in segments))


class Rig:
    def __init__(
        self,
        model: str,
        name: str = "dma",
        level: str | None = "report",
        options: Any = None,
        trace: Recorder | None = None,
        **config: Any,
    ) -> None:
        self.clock = VirtualClock(1)
        self.loop = EventLoop(self.clock)
        self.bus = AnsweringBus()
        self.memory = Memory()
        self.chip = Chip(self.bus, self.memory)
        self.miniport = load_miniport(name, self.chip, options, model)
        self.verifier = Verifier(self.clock, level) if level is not None else None
        options = ScsiPortConfig(**config) if model == "scsiport" else StorPortConfig(**config)
        self.port = make_port(model, self.loop, self.miniport, self.chip, options, self.verifier, trace)
        self.done: list[Srb] = []
        self.port.start()

    def srb(
        self, cdb: bytes = b"\x28" + bytes(9), length: int = 4096, write: bool = False, function: int = 0, **fields: Any
    ) -> Srb:
        srb = Srb(function, 0, 0, 0, self.done.append)
        if not function:
            srb.cdb = cdb
            srb.cdb_length = len(cdb)
            srb.sense_info_buffer_length = 96
            srb.srb_flags = SRB_FLAGS_QUEUE_ACTION_ENABLE
            if length:
                base = 0x1000_0000 + 0x1_0000 * self.port.ledger.numbers
                srb.mdl = DmaBuffer.of(bytearray(length), base=base)
                srb.data_transfer_length = length
                srb.srb_flags |= SRB_FLAGS_DATA_OUT if write else SRB_FLAGS_DATA_IN
        for name, value in fields.items():
            setattr(srb, name, value)
        return srb

    def submit(self, *arguments: Any, **fields: Any) -> Srb:
        srb = self.srb(*arguments, **fields)
        self.port.submit(srb)
        return srb

    @property
    def found(self) -> set[str]:
        assert self.verifier is not None
        return set(self.verifier.counts)

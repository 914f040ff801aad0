"""A Storport with a miniport the test scripts, a bus the test completes, and virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hba.clock import VirtualClock
from hba.dma import DmaBuffer
from hba.instruments.make import make_port
from hba.loop import EventLoop
from hba.miniport.base import SP_RETURN_FOUND, Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import STOR_SYNCHRONIZE_FULL_DUPLEX, PortConfigurationInformation
from hba.miniport.services import REQUEST_COMPLETE, StorPortServices
from hba.port.storport.config import StorPortConfig
from hba.port.storport.driver import StorPort
from hba.scsi.bus import ScsiBus
from hba.scsi.task import RESPONSE_ABORTED, RESPONSE_RESET, Task
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

READ_10 = 0x28
WRITE_10 = 0x2A
INQUIRY = 0x12


class HeldBus(ScsiBus):
    """Commands end at once, or (hold) when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.hold = False
        self.tasks: list[Task] = []

    def execute(self, target: int, lun: int, tasks: list[Task]) -> list[Task]:
        if self.hold:
            self.tasks += tasks
            return []
        for task in tasks:
            task.transferred = task.data.length if task.data is not None else 0
        return tasks

    def finish(self, task: Task, response: int = 0) -> None:
        self.tasks.remove(task)
        task.response = response
        if not response and task.data is not None:
            task.transferred = task.data.length
        assert task.done is not None
        task.done(task)

    def abort(self, task: Task) -> bool:
        if task not in self.tasks:
            return False
        self.finish(task, RESPONSE_ABORTED)
        return True

    def reset_unit(self, target: int, lun: int) -> bool:
        self.reset_bus()
        return True

    def reset_target(self, target: int) -> bool:
        self.reset_bus()
        return True

    def reset_bus(self) -> None:
        for task in list(self.tasks):
            self.finish(task, RESPONSE_RESET)


class Scripted(Miniport):
    """Does what the test's hooks say; without hooks it keeps what it is given until `complete`."""

    port: StorPortServices

    def __init__(self, **overrides: Any) -> None:
        self.options = {}
        self.overrides = overrides
        self.calls: list[tuple[Any, ...]] = []
        self.started: list[Srb] = []
        self.find: Callable[[PortConfigurationInformation], None] | None = None
        self.initialize: Callable[[], bool] | None = None
        self.build: Callable[[Srb], bool] | None = None
        self.start: Callable[[Srb], bool] | None = None
        self.interrupt: Callable[[], bool] | None = None
        self.reset: Callable[[int], bool] | None = None
        self.timer: Callable[[], None] | None = None
        self.control: Callable[[int, Any], int] | None = None
        self.unit_control: Callable[[int, Any], int] | None = None

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        config.synchronization_model = STOR_SYNCHRONIZE_FULL_DUPLEX
        config.maximum_transfer_length = 1 << 20
        config.number_of_physical_breaks = 256
        config.map_buffers = 2
        config.srb_extension_size = 32
        config.bus_reset_hold_time = 1_000_000
        for name, value in self.overrides.items():
            setattr(config, name, value)
        if self.find is not None:
            self.find(config)
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        self.calls.append(("initialize",))
        return self.initialize is None or self.initialize()

    def hw_build_io(self, srb: Srb) -> bool:
        self.calls.append(("build", srb))
        return self.build is None or self.build(srb)

    def hw_start_io(self, srb: Srb) -> bool:
        self.calls.append(("start", srb))
        self.started.append(srb)
        return True if self.start is None else self.start(srb)

    def hw_interrupt(self) -> bool:
        self.calls.append(("interrupt",))
        return False if self.interrupt is None else self.interrupt()

    def hw_timer(self) -> None:
        self.calls.append(("timer",))
        if self.timer is not None:
            self.timer()

    def hw_reset_bus(self, path_id: int) -> bool:
        self.calls.append(("reset_bus", path_id))
        if self.reset is not None:
            return self.reset(path_id)
        for srb in list(self.started):
            self.complete(srb, SRB_STATUS_BUS_RESET)
        return True

    def hw_adapter_control(self, control_type: int, parameters: Any) -> int:
        self.calls.append(("control", control_type))
        return 1 if self.control is None else self.control(control_type, parameters)

    def hw_unit_control(self, control_type: int, parameters: Any) -> int:
        self.calls.append(("unit_control", control_type))
        return 1 if self.unit_control is None else self.unit_control(control_type, parameters)

    def complete(self, srb: Srb, status: int = SRB_STATUS_SUCCESS, scsi_status: int = 0) -> None:
        if srb in self.started:
            self.started.remove(srb)
        if scsi_status:
            srb.scsi_status = scsi_status
        srb.srb_status = status
        self.port.notification(REQUEST_COMPLETE, srb)

    def names(self) -> list[str]:
        """The callbacks so far, without those of the start."""
        return [call[0] for call in self.calls if call[0] not in ("initialize", "control", "unit_control")]


class Rig:
    """Everything around one StorPort. `done` holds what went up, in order."""

    def __init__(
        self,
        miniport: Miniport | None = None,
        level: str | None = "report",
        trace: bool = False,
        start: bool = True,
        **options: Any,
    ) -> None:
        self.clock = VirtualClock(1)
        self.loop = EventLoop(self.clock)
        self.bus = HeldBus()
        self.chip = Chip(self.bus, None)  # type: ignore[arg-type]  # only lists of the port's own are mapped
        self.verifier = Verifier(self.clock, level) if level is not None else None
        self.recorder = Recorder(self.clock) if trace else None
        self.miniport = miniport if miniport is not None else Scripted()
        self.miniport.chip = self.chip
        config = StorPortConfig(**options)
        port = make_port("storport", self.loop, self.miniport, self.chip, config, self.verifier, self.recorder)
        assert isinstance(port, StorPort)
        self.port = port
        self.done: list[Srb] = []
        if start:
            self.port.start()

    @property
    def scripted(self) -> Scripted:
        assert isinstance(self.miniport, Scripted)
        return self.miniport

    def srb(
        self,
        opcode: int = READ_10,
        length: int = 4096,
        function: int = SRB_FUNCTION_EXECUTE_SCSI,
        target: int = 0,
        lun: int = 0,
        flags: int = 0,
    ) -> Srb:
        srb = Srb(function, 0, target, lun, self.done.append)
        if function == SRB_FUNCTION_EXECUTE_SCSI:
            srb.cdb = bytes((opcode,)) + bytes(15)
            srb.cdb_length = 10
            srb.sense_info_buffer_length = 96
        if length and function in (SRB_FUNCTION_EXECUTE_SCSI, 0x02, 0x17):
            srb.mdl = DmaBuffer.of(bytearray(length), base=0x100000 + 0x10000 * self.port.ledger.numbers)
            srb.data_transfer_length = length
            flags |= SRB_FLAGS_DATA_OUT if opcode == WRITE_10 else SRB_FLAGS_DATA_IN
        srb.srb_flags = flags | SRB_FLAGS_QUEUE_ACTION_ENABLE
        return srb

    def submit(self, *arguments: Any, **named: Any) -> Srb:
        srb = self.srb(*arguments, **named)
        self.port.submit(srb)
        return srb

    def inquire(self, target: int = 0, lun: int = 0) -> None:
        """The first INQUIRY of a unit, complete and forgotten."""
        start, self.scripted.start = self.scripted.start, None
        srb = self.submit(INQUIRY, 36, target=target, lun=lun)
        self.finish_all()
        assert srb in self.done
        self.scripted.start = start
        self.done.clear()
        self.scripted.calls.clear()

    def finish_all(self, status: int = SRB_STATUS_SUCCESS) -> None:
        if self.scripted.started:
            mine = list(self.scripted.started)

            def complete_all() -> None:
                for srb in mine:
                    self.scripted.complete(srb, status)

            self.in_interrupt(complete_all)
        self.turn()

    def started(self, srb: Srb) -> bool:
        """Whether the miniport has `srb` (as submitted) and was told to start it."""
        return any(one is srb or getattr(one, "_port", None) is srb._port for one in self.scripted.started)

    def complete(self, srb: Srb, status: int = SRB_STATUS_SUCCESS, scsi_status: int = 0) -> None:
        """The miniport completes `srb` (as submitted) from an interrupt."""
        mine = [one for one in self.scripted.started if one is srb or getattr(one, "_port", None) is srb._port]
        assert mine, "the miniport does not have it"
        self.in_interrupt(lambda: self.scripted.complete(mine[0], status, scsi_status))

    def in_interrupt(self, action: Callable[[], object]) -> None:
        """Run `action` inside hw_interrupt."""

        def isr() -> bool:
            self.chip.acknowledge()
            action()
            return True

        old, self.scripted.interrupt = self.scripted.interrupt, isr
        self.chip.raise_interrupt()
        self.scripted.interrupt = old

    def turn(self) -> None:
        self.loop.run_once(0)

    def advance(self, nanoseconds: int) -> None:
        self.clock.advance(nanoseconds)
        self.turn()

    @property
    def found(self) -> set[str]:
        """IDs of the rules reported so far."""
        assert self.verifier is not None
        return set(self.verifier.counts)

    def messages(self, rule: str) -> list[str]:
        assert self.verifier is not None
        return [finding.message for finding in self.verifier.findings if finding.rule == rule]

    def unit(self, target: int = 0, lun: int = 0) -> Any:
        return self.port.units[target << 8 | lun]

    def close(self) -> None:
        self.port.stop()
        self.loop.close()

"""A port with a scripted miniport on virtual time: what the tests of the port models work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hba.clock import S, VirtualClock
from hba.dma import DmaBuffer, Segment
from hba.instruments.make import make_port
from hba.loop import EventLoop
from hba.miniport.base import SP_RETURN_FOUND, Miniport
from hba.miniport.chip import Chip
from hba.miniport.config import PortConfigurationInformation
from hba.miniport.services import NEXT_LU_REQUEST, NEXT_REQUEST, REQUEST_COMPLETE
from hba.scsi.bus import ScsiBus
from hba.srb import (
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DATA_OUT,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_MASK,
    SRB_STATUS_SUCCESS,
    Srb,
)
from hba.trace.recorder import Recorder
from hba.verifier import Verifier

READ = bytes((0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0))
WRITE = bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1, 0))
TEST_UNIT_READY = bytes(6)

TAGGED = {"tagged_queuing": True, "multiple_request_per_lu": True, "auto_request_sense": True}


class NoGuest:
    """A guest without memory: the fake moves no data through the chip."""

    def buffer(self, segments: Sequence[Segment], write: bool) -> DmaBuffer:
        raise AssertionError("the fake miniport does no DMA")


class FakeMiniport(Miniport):
    """Keeps what it gets in `held` until the test, playing the hardware, has it finish them.

    next: which notification each start-I/O makes: "next", "lu" or "" (none).
    instantly: status to complete with inside hw_start_io; None: keep it.
    info: members to set in PORT_CONFIGURATION_INFORMATION.
    """

    def __init__(self, next: str = "lu", instantly: int | None = None, **info: Any) -> None:
        self.next = next
        self.instantly = instantly
        self.info = info
        self.held: list[Srb] = []
        self.started: list[Srb] = []
        self.log: list[str] = []
        self.work: list[Callable[[], None]] = []
        self.returns: Any = True
        self.on_start: Callable[[Srb], None] | None = None
        self.on_find: Callable[[PortConfigurationInformation], None] | None = None
        self.on_initialize: Callable[[], None] | None = None
        self.reset_completes = True
        self.reset_next = True
        self.reset_returns = True
        self.claims_all = False  # also what is not its own
        self.claims = True
        self.dismisses = True
        self.in_start_io = False

    # -- callbacks --------------------------------------------------------------------------------------------

    def hw_find_adapter(self, config: PortConfigurationInformation) -> int:
        self.log.append("find")
        for name, value in self.info.items():
            setattr(config, name, value)
        if self.on_find is not None:
            self.on_find(config)
        return SP_RETURN_FOUND

    def hw_initialize(self) -> bool:
        self.log.append("initialize")
        self.held.clear()
        if self.on_initialize is not None:
            self.on_initialize()
        return True

    def hw_start_io(self, srb: Srb) -> bool:
        self.log.append("start")
        self.in_start_io = True
        try:
            self.started.append(srb)
            self.held.append(srb)
            if self.next:
                self.notify_next(srb)
            if self.on_start is not None:
                self.on_start(srb)
            if self.instantly is not None and srb in self.held:
                self.finish(srb, self.instantly)
        finally:
            self.in_start_io = False
        return self.returns  # type: ignore[no-any-return]

    def hw_interrupt(self) -> bool:
        assert not self.in_start_io
        self.log.append("isr")
        if not self.chip.asserted:
            return self.claims_all
        if self.dismisses:
            self.chip.acknowledge()
        work, self.work = self.work, []
        for piece in work:
            piece()
        return self.claims

    def hw_reset_bus(self, path_id: int) -> bool:
        self.log.append("reset_bus")
        if self.reset_completes:
            for srb in list(self.held):
                self.finish(srb, SRB_STATUS_BUS_RESET)
        if self.reset_next:
            self.port.notification(NEXT_REQUEST)
        return self.reset_returns

    # -- what the script does ---------------------------------------------------------------------------------

    def notify_next(self, srb: Srb) -> None:
        if self.next == "lu":
            self.port.notification(NEXT_LU_REQUEST, srb.path_id, srb.target_id, srb.lun)
        else:
            self.port.notification(NEXT_REQUEST)

    def finish(self, srb: Srb, status: int = SRB_STATUS_SUCCESS, **members: Any) -> None:
        """RequestComplete, members set before."""
        if srb in self.held:
            self.held.remove(srb)
        srb.srb_status = status
        for name, value in members.items():
            setattr(srb, name, value)
        self.port.notification(REQUEST_COMPLETE, srb)


class Rig:
    """One port on virtual time. `done` lists completed SRBs in order."""

    def __init__(
        self,
        miniport: FakeMiniport,
        config: Any = None,
        model: str = "scsiport",
        verifier: str = "report",
        traced: bool = True,
        overrides: dict[str, str] | None = None,
        start: bool = True,
    ) -> None:
        self.clock = VirtualClock()
        self.loop = EventLoop(self.clock)
        self.miniport = miniport
        self.chip = Chip(ScsiBus(), NoGuest())
        self.verifier = Verifier(self.clock, verifier, overrides)
        self.trace = Recorder(self.clock)
        self.port: Any = make_port(
            model, self.loop, miniport, self.chip, config, self.verifier, self.trace if traced else None
        )
        self.done: list[Srb] = []
        if start:
            self.port.start()

    def close(self) -> None:
        self.loop.close()

    # -- from above -------------------------------------------------------------------------------------------

    def srb(self, function: int = 0, target: int = 0, lun: int = 0, **members: Any) -> Srb:
        srb = Srb(function, 0, target, lun, self.done.append)
        for name, value in members.items():
            setattr(srb, name, value)
        return srb

    def submit(self, function: int = 0, target: int = 0, lun: int = 0, **members: Any) -> Srb:
        srb = self.srb(function, target, lun, **members)
        self.port.submit(srb)
        return srb

    def command(self, lun: int = 0, key: int = 0, cdb: bytes = READ, size: int = 512, **members: Any) -> Srb:
        """Submit a tagged READ (or another CDB) with a data buffer of `size` bytes."""
        srb = self.prepared(lun, key, cdb, size, **members)
        self.port.submit(srb)
        return srb

    def prepared(self, lun: int = 0, key: int = 0, cdb: bytes = READ, size: int = 512, **members: Any) -> Srb:
        """What `command` submits."""
        flags = members.pop("srb_flags", SRB_FLAGS_QUEUE_ACTION_ENABLE)
        out = cdb[0] in (0x0A, 0x2A, 0x8A, 0xAA)
        members.setdefault("sense_info_buffer_length", 18)
        if size:
            flags |= SRB_FLAGS_DATA_OUT if out else SRB_FLAGS_DATA_IN
            members.setdefault("mdl", DmaBuffer.of(bytearray(size)))
        return self.srb(
            lun=lun,
            cdb=cdb,
            cdb_length=len(cdb),
            queue_sort_key=key,
            srb_flags=flags,
            data_transfer_length=size,
            **members,
        )

    # -- the hardware -----------------------------------------------------------------------------------------

    def hardware(self, work: Callable[[], None]) -> None:
        """Interrupt, and have the interrupt routine do `work`."""
        self.miniport.work.append(work)
        self.chip.raise_interrupt()

    def finish(self, srb: Srb | None = None, status: int = SRB_STATUS_SUCCESS, **members: Any) -> None:
        """The hardware finishes a request (the oldest without `srb`)."""
        held = self.held(srb)
        self.hardware(lambda: self.miniport.finish(held, status, **members))

    def held(self, srb: Srb | None = None) -> Srb:
        """What the miniport got for `srb`, which it has now."""
        if srb is None:
            return self.miniport.held[0]
        for held in self.miniport.held:
            if held is srb or getattr(getattr(held, "_port", None), "srb", None) is srb:
                return held
        raise AssertionError(f"the miniport does not have {srb!r}")

    def next(self) -> None:
        self.hardware(lambda: self.miniport.port.notification(NEXT_REQUEST))

    def seconds(self, seconds: float) -> None:
        """Time passes, one second at a time; the loop turns in between."""
        whole = int(seconds)
        for _ in range(whole):
            self.clock.advance(S)
            self.loop.run_once(0)
        self.clock.advance(int((seconds - whole) * S))
        self.loop.run_once(0)

    # -- what happened ----------------------------------------------------------------------------------------

    @property
    def rules(self) -> list[str]:
        """IDs of all findings, in order."""
        return [finding.rule for finding in self.verifier.findings]

    def sort_keys(self) -> list[int]:
        """Sort keys in the order of start-I/O."""
        return [self.real(srb).queue_sort_key for srb in self.miniport.started]

    def statuses(self) -> list[int]:
        return [srb.srb_status & SRB_STATUS_MASK for srb in self.done]

    def kinds(self, *kinds: str) -> list[str]:
        """Kinds of the trace's events, only those asked for."""
        return [event.kind for event in self.trace.events if event.kind in kinds]

    @staticmethod
    def real(srb: Srb) -> Srb:
        request = getattr(srb, "_port", None)
        return request.srb if request is not None else srb

    def started(self, srb: Srb) -> bool:
        return any(self.real(started) is srb for started in self.miniport.started)

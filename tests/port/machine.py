"""A hypothesis state machine for both port models: random requests, completions, resets, faults and time.

The invariants (checked after every step, and at the end): nothing is lost, nothing is completed twice, nothing is
started that is not the miniport's to have, depth is never exceeded, per unit nothing overtakes where order is promised,
and an honest miniport causes no violation.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from hba.dma import DmaBuffer
from hba.srb import (
    SCSISTAT_BUSY,
    SCSISTAT_CHECK_CONDITION,
    SCSISTAT_QUEUE_FULL,
    SRB_FLAGS_BYPASS_FROZEN_QUEUE,
    SRB_FLAGS_DATA_IN,
    SRB_FLAGS_DISABLE_DISCONNECT,
    SRB_FLAGS_NO_QUEUE_FREEZE,
    SRB_FLAGS_QUEUE_ACTION_ENABLE,
    SRB_FUNCTION_ABORT_COMMAND,
    SRB_FUNCTION_EXECUTE_SCSI,
    SRB_FUNCTION_RESET_BUS,
    SRB_FUNCTION_RESET_DEVICE,
    SRB_FUNCTION_RESET_LOGICAL_UNIT,
    SRB_STATUS_ABORTED,
    SRB_STATUS_AUTOSENSE_VALID,
    SRB_STATUS_BUS_RESET,
    SRB_STATUS_BUSY,
    SRB_STATUS_ERROR,
    SRB_STATUS_SUCCESS,
    Srb,
)
from tests.port.fakes import FakeMiniport, Rig

LUNS = st.integers(0, 2)
OUTCOMES = st.sampled_from(
    [
        (SRB_STATUS_SUCCESS, 0),
        (SRB_STATUS_SUCCESS, 0),
        (SRB_STATUS_SUCCESS, 0),
        (SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID, SCSISTAT_CHECK_CONDITION),
        (SRB_STATUS_BUSY, 0),
        (SRB_STATUS_ERROR, SCSISTAT_BUSY),
        (SRB_STATUS_ERROR, SCSISTAT_QUEUE_FULL),
    ]
)
FLAGS = st.sampled_from(
    [
        SRB_FLAGS_QUEUE_ACTION_ENABLE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_BYPASS_FROZEN_QUEUE,
        SRB_FLAGS_QUEUE_ACTION_ENABLE | SRB_FLAGS_NO_QUEUE_FREEZE,
        SRB_FLAGS_DISABLE_DISCONNECT,
        0,
    ]
)


# What a reset ends: commands, and the aborts of them.
_RESETTABLE = (SRB_FUNCTION_EXECUTE_SCSI, SRB_FUNCTION_ABORT_COMMAND)


class PortMachine(RuleBasedStateMachine):
    """Subclasses say which port: `make_rig`, `depth`, and `owed_next` for a model that needs NextRequest."""

    verifier: ClassVar[str] = "report"
    max_depth: ClassVar[int] = 256  # requests of one unit at the miniport
    max_outstanding: ClassVar[int] = 1000
    autosense: ClassVar[bool] = True  # the miniport brings sense data with a CHECK CONDITION

    def make_rig(self) -> Rig:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.rig = self.make_rig()
        self.mine: list[Srb] = []
        self.completions: Counter[int] = Counter()
        self.crashed = False

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        try:
            self.drain()
            for srb in self.mine:
                assert self.completions[id(srb)] == 1, f"{srb!r} was completed {self.completions[id(srb)]} times"
            if not self.crashed:
                bad = [f for f in self.rig.verifier.findings if f.severity == "violation"]
                assert not bad, bad
        finally:
            self.rig.close()

    def drain(self) -> None:
        """The hardware finishes all it has and time passes, until nothing is outstanding."""
        for _ in range(400):
            while self.rig.miniport.held:
                self.rig.finish(self.rig.miniport.held[0])
            if sum(self.completions.values()) == len(self.mine):
                return
            self.rig.seconds(1)
        raise AssertionError(f"stuck: {self.rig.port.snapshot()}")

    def submit(self, srb: Srb) -> None:
        self.mine.append(srb)
        srb.completion = self.completed
        self.rig.port.submit(srb)

    def completed(self, srb: Srb) -> None:
        assert not self.rig.miniport.in_start_io, "a completion went up from inside hw_start_io"
        self.completions[id(srb)] += 1
        assert self.completions[id(srb)] == 1, f"{srb!r} was completed twice"

    # -- what happens -----------------------------------------------------------------------------------------

    @rule(lun=LUNS, key=st.integers(0, 30), flags=FLAGS, timeout=st.integers(1, 6))
    def command(self, lun: int, key: int, flags: int, timeout: int) -> None:
        self.submit(self.read(lun, key, flags, timeout))

    def read(self, lun: int, key: int, flags: int, timeout: int) -> Srb:
        srb = Srb(SRB_FUNCTION_EXECUTE_SCSI, 0, 0, lun)
        srb.cdb = bytes((0x28, 0, 0, 0, 0, key, 0, 0, 1, 0))
        srb.cdb_length = 10
        srb.queue_sort_key = key
        srb.srb_flags = flags
        srb.time_out_value = timeout
        srb.sense_info_buffer_length = 18
        return srb

    @rule(
        commands=st.lists(st.tuples(LUNS, st.integers(0, 30), FLAGS, st.integers(1, 6)), min_size=2, max_size=8),
        with_data=st.booleans(),
    )
    def batch(self, commands: list[tuple[int, int, int, int]], with_data: bool) -> None:
        """Several at once, as an adapter hands them down."""
        srbs = [self.read(*command) for command in commands]
        for srb in srbs:
            if with_data:
                srb.srb_flags |= SRB_FLAGS_DATA_IN
                srb.mdl = DmaBuffer.of(bytearray(512))
                srb.data_transfer_length = 512
            self.mine.append(srb)
            srb.completion = self.completed
        self.rig.port.submit_all(srbs)

    @rule(data=st.data(), outcome=OUTCOMES)
    def finish(self, data: st.DataObject, outcome: tuple[int, int]) -> None:
        held = self.rig.miniport.held
        if not held:
            return
        srb = held[data.draw(st.integers(0, len(held) - 1))]
        status, scsi_status = outcome
        if not self.autosense:
            status &= ~SRB_STATUS_AUTOSENSE_VALID
        if srb.function != SRB_FUNCTION_EXECUTE_SCSI:
            status, scsi_status = SRB_STATUS_SUCCESS, 0
            if srb.function == SRB_FUNCTION_ABORT_COMMAND and srb.next_srb in held:
                victim = srb.next_srb
                self.rig.hardware(lambda: self.rig.miniport.finish(victim, SRB_STATUS_ABORTED))
            elif srb.function != SRB_FUNCTION_ABORT_COMMAND:
                self.finish_scope(srb)
        self.rig.finish(srb, status, **({"scsi_status": scsi_status} if scsi_status else {}))

    def finish_scope(self, reset: Srb) -> None:
        """A reset: the miniport completes what it has in its scope first."""
        lun = reset.lun if reset.function == SRB_FUNCTION_RESET_LOGICAL_UNIT else None
        for srb in list(self.rig.miniport.held):
            if srb is not reset and srb.function in _RESETTABLE and lun in (None, srb.lun):
                self.rig.hardware(lambda srb=srb: self.rig.miniport.finish(srb, SRB_STATUS_BUS_RESET))  # type: ignore[misc]

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if not self.mine:
            return
        victim = self.mine[data.draw(st.integers(0, len(self.mine) - 1))]
        srb = Srb(SRB_FUNCTION_ABORT_COMMAND, 0, victim.target_id, victim.lun)
        srb.next_srb = victim
        self.submit(srb)

    @rule(
        lun=LUNS,
        function=st.sampled_from([SRB_FUNCTION_RESET_BUS, SRB_FUNCTION_RESET_DEVICE, SRB_FUNCTION_RESET_LOGICAL_UNIT]),
    )
    def reset(self, lun: int, function: int) -> None:
        self.submit(Srb(function, 0, 0, lun))

    @rule()
    def adapter_reset(self) -> None:
        self.rig.port.reset_adapter()
        assert sum(self.completions.values()) == len(self.mine)
        assert self.rig.port.outstanding == 0

    @rule(seconds=st.sampled_from([0.01, 0.3, 1, 3]))
    def time_passes(self, seconds: float) -> None:
        self.rig.seconds(seconds)

    @rule()
    def start_io_crashes(self) -> None:
        """The next start-I/O raises before it has done anything."""
        miniport = self.rig.miniport
        self.crashed = True

        def crash(srb: Any) -> None:
            miniport.on_start = None
            miniport.held.remove(srb)
            raise RuntimeError("fault injected")

        miniport.on_start = crash

    # -- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def depth_is_kept(self) -> None:
        if not hasattr(self, "rig"):
            return
        held = [srb for srb in self.rig.miniport.held if srb.function == SRB_FUNCTION_EXECUTE_SCSI]
        assert len(held) <= self.max_outstanding
        if self.rig.port.model == "scsiport":  # where these go past the queue, whatever is outstanding
            held = [srb for srb in held if not self.rig.real(srb).srb_flags & SRB_FLAGS_BYPASS_FROZEN_QUEUE]
        for lun, count in Counter(srb.lun for srb in held).items():
            assert count <= self.max_depth, f"{count} requests at unit {lun}"

    @invariant()
    def nothing_is_lost(self) -> None:
        """Every request is either up, or with the miniport, or in a queue of the port."""
        if not hasattr(self, "rig"):
            return
        port = self.rig.port
        assert port.outstanding == sum(len(unit.active) for unit in port.units.values())
        assert not port.ledger.finished
        assert port.callback == 0 and not port.running

    @invariant()
    def nothing_is_held_twice(self) -> None:
        if not hasattr(self, "rig"):
            return
        held = [id(self.rig.real(srb)) for srb in self.rig.miniport.held]
        assert len(held) == len(set(held))


def honest(**info: Any) -> FakeMiniport:
    """A fake that asks for the next request as the rules want it: per unit only if the request was tagged (SP-12)."""
    miniport = FakeMiniport("", **info)

    def next_for(srb: Srb) -> None:
        miniport.next = "lu" if srb.queue_tag != 0xFF and srb.function == SRB_FUNCTION_EXECUTE_SCSI else "next"
        miniport.notify_next(srb)
        miniport.next = ""

    original = miniport.hw_start_io

    def hw_start_io(srb: Srb) -> bool:
        if miniport.on_start is None:
            next_for(srb)
        return original(srb)

    miniport.hw_start_io = hw_start_io  # type: ignore[method-assign]
    return miniport
